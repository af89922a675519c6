package daemon

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
)

// tellEvery is how often systemd is notified; WatchdogSec of the unit is a multiple.
const tellEvery = 10 * time.Second

// tell notifies systemd until ctx ends: a status line for systemctl, and that the daemon is
// alive. It is alive if every database and the daemon itself could be asked, which requires
// that no lock is stuck. A disk that does not answer, even under the only database, is a
// condition and no reason for a restart: the new process would hang in the same read, and
// nobody would be left to report it.
func (d *Daemon) tell(ctx context.Context) error {
	if d.o.NotifySocket == "" {
		return nil
	}
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	for {
		status := d.watchdog.Status()
		d.announce("STATUS=" + statusLine(status, d.itself.now().Conditions) + "\nWATCHDOG=1")
		select {
		case <-tick.C:
		case <-ctx.Done():
			d.announce("STOPPING=1")
			return nil
		}
	}
}

// statusLine describes in one line how all databases are, and names the worst.
func statusLine(status *watchdog.Status, itself []health.Condition) string {
	well, worst := 0, ""
	level := health.Severity("")
	note := func(name string, all []health.Condition) {
		if len(all) > 0 && health.Wrong(all) && (worst == "" || level != health.Critical &&
			all[0].Severity == health.Critical) {
			worst, level = name+": "+strings.ReplaceAll(all[0].ID, "_", " "), all[0].Severity
		}
	}
	note("sqlwatch", itself)
	for _, s := range status.Databases {
		if !health.Wrong(s.Conditions) {
			well++
		}
		note(s.Name, s.Conditions)
	}
	line := fmt.Sprintf("%d of %d databases are well", well, len(status.Databases))
	if worst != "" {
		line += "; " + worst
	}
	return show.Text(line)
}
