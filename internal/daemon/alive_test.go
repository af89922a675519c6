package daemon

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
)

// The daemon notifies systemd that it is ready, of its status, that it is alive and that it
// stops.
func TestSystemdIsTold(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	app := filepath.Join(t.TempDir(), "app.db")
	d := serving(t, `database "app" { path = "`+app+`" }`, func(o *Options) { o.NotifySocket = socket })
	heard := ""
	hear := func(want string) {
		t.Helper()
		for !strings.Contains(heard, want) {
			text := make([]byte, 4096)
			if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			n, err := conn.Read(text)
			if err != nil {
				t.Fatalf("%q was not told, only %q: %v", want, heard, err)
			}
			heard += string(text[:n]) + "\n"
		}
	}
	for _, want := range []string{"READY=1", "STATUS=", "WATCHDOG=1"} {
		hear(want)
	}
	hear("STATUS=0 of 1 databases are well; app: missing")
	d.stop()
	hear("STOPPING=1")
}

func TestStatusLine(t *testing.T) {
	t.Parallel()
	warn := []health.Condition{{ID: "wal_oversized", Severity: health.Warning}}
	bad := []health.Condition{{ID: "spool_full", Severity: health.Critical}}
	status := &watchdog.Status{Databases: []*watchdog.DatabaseStatus{{Name: "a", Conditions: warn},
		{Name: "b\n", Conditions: bad}, {Name: "c"}}}
	if got, want := statusLine(status, nil), `1 of 3 databases are well; b\x0a: spool full`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := statusLine(&watchdog.Status{}, warn); got != "0 of 0 databases are well; sqlwatch: wal oversized" {
		t.Error(got)
	}
}
