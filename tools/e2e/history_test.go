package e2e

import (
	"os/exec"
	"strings"
	"testing"
)

// The history checker finds nothing wrong: with a fixed seed and a new one, over a slow uplink
// with one snapshot after another, and with kills at chosen system calls. It kills and stops
// sqlwatch and takes its state directory away, while the application truncates, vacuums and
// replaces its file.
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

// The demo, a newcomer's first command, runs from the writer to the restore.
func TestDemo(t *testing.T) {
	t.Parallel()
	text := output(t, binary, "demo", "--duration", "40s")
	for _, want := range []string{"truncat", "restore"} {
		if !strings.Contains(strings.ToLower(text), want) {
			t.Errorf("the demo did not say %q:\n%s", want, text)
		}
	}
}
