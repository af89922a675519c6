package demo

import (
	"os"
	"path/filepath"
	"testing"
)

// The demo's follow-up commands can be pasted, however it was started.
func TestCommandFor(t *testing.T) {
	dir := t.TempDir()
	program := func(path ...string) string {
		t.Helper()
		name := filepath.Join(append([]string{dir}, path...)...)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o700); err != nil {
			t.Fatal(err)
		}
		return name
	}
	installed, other := program("bin", "sqlwatch"), program("build", "sqlwatch")
	byGo := program("go-build123", "b001", "exe", "sqlwatch")
	odd := program("it's a place", "sqlwatch")
	program("source", "cmd", "sqlwatch", "main.go")
	for name, test := range map[string]struct{ program, in, path, want string }{
		"in PATH":                   {installed, dir, filepath.Dir(installed), "sqlwatch"},
		"another is in PATH":        {other, dir, filepath.Dir(installed), other},
		"not in PATH":               {other, dir, "", other},
		"go run in the source tree": {byGo, filepath.Join(dir, "source"), "", "go run ./cmd/sqlwatch"},
		"go run somewhere else":     {byGo, dir, "", byGo},
		"go run beside an installed": {byGo, filepath.Join(dir, "source"), filepath.Dir(installed),
			"go run ./cmd/sqlwatch"},
		"a path that the shell changes": {odd, dir, "", `'` + dir + `/it'\''s a place/sqlwatch'`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("PATH", test.path)
			t.Chdir(test.in)
			if got := commandFor(test.program); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}
