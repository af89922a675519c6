package decisions

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/watchdog"
)

// Decisions from before a restart are shown after it, newest first and not more than are shown; a
// line that a crash cut short is left out.
func TestRecently(t *testing.T) {
	t.Parallel()
	dir, at := t.TempDir(), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	l := New(dir, slog.New(slog.DiscardHandler))
	if r := l.Recently("app"); r.Actions != nil || r.Changes != nil {
		t.Errorf("of an empty log: %+v", r)
	}
	for i := range 100 {
		l.Note(watchdog.Entry{At: at, DB: "app", Action: &watchdog.ActionRecord{At: at, Policy: fmt.Sprint(i), OK: true}})
		l.Note(watchdog.Entry{At: at, DB: "other", Change: &watchdog.ChangeRecord{At: at, Policy: fmt.Sprint(i)},
			Inputs: map[string]string{"wal.bytes": "1 MB"}})
	}
	if r := l.Recently("app"); len(r.Actions) != watchdog.KeptActions || r.Actions[0].Policy != "99" {
		t.Errorf("of this life: %+v", r)
	}
	file, err := os.OpenFile(Path(dir), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString(`{"at":"2026-01-02T03:04:05Z","db":"app","action":{"poli`); err != nil {
		t.Fatal(err)
	}
	file.Close()
	again := New(dir, slog.New(slog.DiscardHandler))
	r, other := again.Recently("app"), again.Recently("other")
	if len(r.Actions) != watchdog.KeptActions || r.Actions[0].Policy != "99" || !r.Actions[0].OK || len(r.Changes) != 0 {
		t.Errorf("after the restart: %+v", r)
	}
	if len(other.Changes) != watchdog.KeptChanges || other.Changes[0].Policy != "99" {
		t.Errorf("of the other: %+v", other)
	}
}

// A full disk costs one line of the log, not the daemon.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	l := New("/proc/nowhere", slog.New(slog.NewTextHandler(&text, nil)))
	for range 100 {
		l.Note(watchdog.Entry{DB: "app"})
	}
	if n := strings.Count(text.String(), "could not be written"); n != 1 {
		t.Errorf("%d lines:\n%s", n, text.String())
	}
}
