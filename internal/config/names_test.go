package config

import (
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/text/unicode/norm"
)

// TestNames_D23_spelled: HCL turns every name into Unicode's form NFC. A file, a glob's directory
// and a replica's directory are found even if the file system has them in another form. A name
// that does not exist stays as HCL has it, and of two names that look the same the one in NFC is
// taken.
func TestNames_D23_spelled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	nfd := norm.NFD.String("Größe é")
	nfc := norm.NFC.String(nfd)
	if nfd == nfc {
		t.Fatal("the two Unicode forms are the same: the test would prove nothing")
	}
	files(t, dir, nfd+"/"+nfd+".db", nfd+"/b.db", "both/"+nfd+".db", "both/"+nfc+".db")
	text := fmt.Sprintf(`
database "path" {
  path         = "%[1]s/%[2]s/%[2]s.db"
  replicate_to = [replica.file.r]
}
database "glob" { glob = "%[1]s/%[2]s/b*" }
database "both" { path = "%[1]s/both/%[2]s.db" }
database "gone" { path = "%[1]s/%[2]s/gone %[2]s.db" }
replica "file" "r" { dir = "%[1]s/%[2]s" }
`, dir, nfd)
	cfg, diags := load(t, map[string]string{"a": text})
	if diags.HasErrors() {
		t.Fatal(show(cfg, diags))
	}
	targets, err := cfg.Expand()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"path": filepath.Join(dir, nfd, nfd+".db"), "glob-b": filepath.Join(dir, nfd, "b.db"),
		"both": filepath.Join(dir, "both", nfc+".db"), "gone": filepath.Join(dir, nfd, "gone "+nfc+".db"),
	}
	for _, target := range targets {
		if target.Path != want[target.Name] {
			t.Errorf("%s: %q, want %q", target.Name, target.Path, want[target.Name])
		}
		delete(want, target.Name)
		for _, r := range target.Replicas {
			if filepath.Dir(r.File.Dir) != filepath.Join(dir, nfd) && r.File.Dir != filepath.Join(dir, nfd) {
				t.Errorf("replica in %q", r.File.Dir)
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("not found: %v", want)
	}
}
