package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sqlwatch/sqlwatch/internal/lookup"
)

// expandable returns a configuration of one glob over dir/*/*.db, with a file replica.
func expandable(t *testing.T, dir, name string) *Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.hcl")
	text := fmt.Sprintf(`
database "t" {
  glob         = "%s/*/*.db"
  name         = %q
  replicate_to = [replica.file.r]
}
replica "file" "r" { dir = "%s-replica/${db.name}" }
`, dir, name, dir)
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "$$", "$")), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, diags := Load(path, func(string) (string, bool) { return "", false })
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return cfg
}

func touch(t *testing.T, path string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A database that is watched keeps its name, its place and, if its file is gone, its row.
func TestExpandAround_V4_known(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := expandable(t, dir, "${path_element(db.path, -1)}")
	old := touch(t, filepath.Join(dir, "m", "app.db"))
	name := func() string {
		targets, _ := cfg.ExpandAround(nil, lookup.New())
		return targets[0].Name
	}()
	known := []Known{{Name: name, Path: old, Block: "t"}}

	t.Run("a_newcomer_does_not_take_the_name", func(t *testing.T) {
		newcomer := touch(t, filepath.Join(dir, "a", "app.db")) // sorts first
		targets, leftOut := cfg.ExpandAround(known, lookup.New())
		if len(targets) != 1 || targets[0].Path != old || len(leftOut) != 1 || leftOut[0].Place != newcomer {
			t.Errorf("watched %v, left out %v", targets, leftOut)
		}
	})
	t.Run("a_second_link_does_not_take_the_file", func(t *testing.T) {
		link := filepath.Join(dir, "b", "other.db")
		if err := os.MkdirAll(filepath.Dir(link), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(old, link); err != nil {
			t.Fatal(err)
		}
		targets, leftOut := cfg.ExpandAround(known, lookup.New())
		if len(targets) != 1 || targets[0].Path != old || len(leftOut) != 2 {
			t.Errorf("watched %v, left out %v", targets, leftOut)
		}
		if err := os.Remove(link); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("what_is_gone_stays", func(t *testing.T) {
		if err := os.Remove(old); err != nil {
			t.Fatal(err)
		}
		targets, _ := cfg.ExpandAround(known, lookup.New())
		if len(targets) != 1 || targets[0].Path != old || len(targets[0].Replicas) != 1 {
			t.Errorf("watched %v, want the one that is gone, with its replica", targets)
		}
	})
	t.Run("a_block_that_is_gone_takes_its_own_with_it", func(t *testing.T) {
		targets, _ := cfg.ExpandAround([]Known{{Name: "x", Path: old, Block: "another"}}, lookup.New())
		if len(targets) != 1 || targets[0].Path == old {
			t.Errorf("watched %v", targets)
		}
	})
}

// A directory full of files does not crowd out the others.
func TestShare_V5_quota(t *testing.T) {
	t.Parallel()
	var paths []string
	for i := range 20001 {
		paths = append(paths, fmt.Sprintf("/srv/greedy/%d.db", i))
	}
	for i := range 50 {
		paths = append(paths, fmt.Sprintf("/srv/tenant-%d/data.db", i))
	}
	kept, leftOut := share(paths, maxMatches)
	others := 0
	for _, path := range kept {
		if !strings.HasPrefix(path, "/srv/greedy/") {
			others++
		}
	}
	if len(kept) != maxMatches || others != 50 || len(leftOut) != 1 || leftOut[0].Place != "/srv/greedy" ||
		leftOut[0].Count != 51 {
		t.Errorf("%d kept, %d of others, left out %+v", len(kept), others, leftOut)
	}
	many := make([]string, 30)
	for i := range many {
		many[i] = fmt.Sprintf("/srv/%02d/a.db", i)
	}
	if kept, leftOut := share(many, 20); len(kept) != 20 || len(leftOut) != 10 {
		t.Errorf("%d of 30 directories kept, %d left out", len(kept), len(leftOut))
	}
}
