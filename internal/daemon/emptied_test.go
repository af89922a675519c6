package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/sqlwatch/sqlwatch/internal/config"
)

// An empty file is refused as the new configuration of a daemon that watches databases, unless it
// says allow_empty. At the start an empty file is accepted.
func TestEmptiedConfiguration_F14(t *testing.T) {
	t.Parallel()
	load := func(text string) *config.Config {
		path := filepath.Join(t.TempDir(), "a.hcl")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, diags := config.Load(path, func(string) (string, bool) { return "", false })
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		return cfg
	}
	one := load("database \"a\" {\n path = \"/a.db\"\n}\n")
	empty := load("")
	meant := load("server {\n allow_empty = true\n}\n")
	for _, test := range []struct {
		before, after *config.Config
		refused       bool
	}{{one, empty, true}, {one, meant, false}, {empty, empty, false}, {one, one, false}, {empty, one, false}} {
		if err := emptied(test.before, test.after); errors.Is(err, errEmptied) != test.refused {
			t.Errorf("%d databases, then %d: %v", len(test.before.Databases), len(test.after.Databases), err)
		}
	}
	if got := config.Changes(one, meant); len(got) != 2 || got[0] != "- database a" || got[1] != "+ server" {
		t.Errorf("changes %q", got)
	}
}
