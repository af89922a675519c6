package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The only database's disk does not answer: that is a condition, and systemd, who would
// begin the daemon anew to hang at the same read, hears that it is alive.
func TestHungDiskIsNoReasonToBeginAnew(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a disk that hangs")
	}
	t.Parallel()
	dir := t.TempDir()
	socket := filepath.Join(dir, "notify")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { systemd.Close() })
	must(t, os.Mkdir(filepath.Join(dir, "disk"), 0o700))
	db := makeWAL(t, filepath.Join(dir, "disk", "app.db"))
	f := &fleet{t: t, dir: dir}
	f.daemon = startDaemonAs(t, []string{"env", "NOTIFY_SOCKET=" + socket, binary},
		fmt.Sprintf("database \"app\" {\n  path = %q\n}\n", db))
	hang(t, filepath.Dir(db))
	eventually(t, patience, "that it is known", func() error {
		_, err := f.severity("app", "hung")
		return err
	})
	must(t, contains(f.url+"/-/healthy", "app has not answered for a minute"))
	known := time.Now()
	for heard := ""; !strings.Contains(heard, "app: hung\nWATCHDOG=1"); {
		must(t, systemd.SetReadDeadline(known.Add(patience)))
		message := make([]byte, 4096)
		n, err := systemd.Read(message)
		if err != nil {
			t.Fatalf("systemd heard %q last: %v", heard, err)
		}
		heard = string(message[:n])
	}
}
