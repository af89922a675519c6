package collector

import (
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
)

// A share comes with the time that it covers: none after one observation, a minute at most.
func TestSharesSayOfWhatTime(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	w, held := &lockWatch{}, dbfile.Locks{Write: dbfile.Holder{Held: true, PID: 7}}
	for _, tt := range []struct{ after, want time.Duration }{
		{0, 0}, {10 * time.Second, 10 * time.Second}, {30 * time.Second, 40 * time.Second}, {time.Hour, time.Minute},
	} {
		now = now.Add(tt.after)
		locks, _ := w.observe(now, &held, 1)
		if locks.Watched != tt.want || locks.WriteRatio != 1 {
			t.Errorf("%s later: a share of %.1f over %s, want 1 over %s", tt.after, locks.WriteRatio, locks.Watched, tt.want)
		}
	}
}

// A lack of file descriptors is not reported as a fault of the disk.
func TestDiagnoseDescriptors(t *testing.T) {
	t.Parallel()
	state, text := diagnose("/srv/a.db", dbfile.ErrDescriptors)
	if state != StateUnreadable || text != "/srv/a.db is not watched: no file descriptors are left for another database. "+
		"Those that are watched go on. Raise LimitNOFILE= of the unit, or ulimit -n, and restart sqlwatch." {
		t.Errorf("%s: %s", state, text)
	}
}
