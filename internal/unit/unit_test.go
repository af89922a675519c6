package unit

import (
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestEnvironment(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "environment")
	text := "# keys of the bucket\nB2_KEY_ID=0042\n; a comment too\n\nB2_APP_KEY=\"a b$c\"\nSINGLE='it\\s'\n" +
		"LONG=one\\\ntwo\nESCAPED=a\\\"b\nnonsense\nEMPTY=\n"
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Environment(name)
	want := map[string]string{"B2_KEY_ID": "0042", "B2_APP_KEY": "a b$c", "SINGLE": `it\s`, "LONG": "onetwo",
		"ESCAPED": `a"b`, "EMPTY": ""}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("read %q, %v; want %q", got, err, want)
	}
	if got, err := Environment(name + ".none"); err != nil || len(got) != 0 {
		t.Errorf("of no file: %v, %v", got, err)
	}
	if _, err := Environment(filepath.Dir(name)); err == nil {
		t.Error("a directory was read")
	}
	if got, want := EnvironmentFile(name), name; got != want {
		t.Errorf("beside a file: %s, want %s", got, want)
	}
	if got, want := EnvironmentFile(filepath.Dir(name)), name; got != want {
		t.Errorf("in a directory: %s, want %s", got, want)
	}
}

func TestSockets(t *testing.T) {
	t.Parallel()
	run, err := os.MkdirTemp("", "u") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	for _, dir := range []string{"sqlwatch", "sqlwatch-app", "sqlwatch-file", "other"} {
		if err := os.Mkdir(filepath.Join(run, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(run, dir, "admin.sock")
		if dir == "sqlwatch-file" {
			if err := os.WriteFile(name, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		l, err := net.Listen("unix", name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
	want := []string{filepath.Join(run, "sqlwatch/admin.sock"), filepath.Join(run, "sqlwatch-app/admin.sock")}
	if got := Sockets(run); !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}
