package e2e

import (
	"os/exec"
	"strings"
	"testing"
)

// The history checker, with a fixed seed and a new one: kill -9, stops, lost state
// directories, while the application truncates, vacuums and replaces its file. The second part
// runs over a slow line, with one snapshot after the other.
func TestHistory(t *testing.T) {
	history, err := buildProgram(t.TempDir(), "history", "../history", ".", "-tags", "libsqlite3,sqlite_serialize")
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"-seed", "1", "-duration", "60s"},
		{"-duration", "60s"},
		{"-duration", "45s", "-uplink", "1MB"},
		{"-duration", "45s", "-kill-at", "pwrite64,fsync,renameat2,linkat,unlinkat,fdatasync,rename"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			t.Parallel()
			args = append(args, "-sqlwatch", binary)
			text, err := exec.Command(history, args...).CombinedOutput()
			if err != nil {
				t.Errorf("history %v: %v", args, err)
			}
			t.Logf("%s", tail(text, 4000))
		})
	}
}

// A newcomer's first command, from writer to restore.
func TestDemo(t *testing.T) {
	t.Parallel()
	text := output(t, binary, "demo", "--duration", "40s")
	for _, want := range []string{"truncat", "restore"} {
		if !strings.Contains(strings.ToLower(text), want) {
			t.Errorf("the demo did not say %q:\n%s", want, text)
		}
	}
}
