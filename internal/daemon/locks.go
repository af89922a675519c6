package daemon

import (
	"log/slog"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/collector/busy"
	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
)

// lockCounts is where refused locks are counted: those of our own operations,
// and where the kernel lets us, those of all processes.
type lockCounts struct {
	self   *collector.Busy
	kernel *busy.Collector // nil: not to be had
	steps  *busy.Processes // within single processes, of the databases of --collector.busy.steps
}

// openLockCounts asks the kernel to count. Where it does not, or is not to be
// asked, one line says so and the rest goes on without.
func openLockCounts(wanted bool, steps []string, log *slog.Logger) lockCounts {
	counts := lockCounts{self: &collector.Busy{}, steps: busy.NewProcesses(steps, log)}
	if !wanted {
		return counts
	}
	kernel, err := busy.Open(busy.Options{Holds: true})
	if err != nil {
		log.Info("SQLITE_BUSY in other processes is not counted; everything else works; --no-collector.busy silences this "+
			"line", "err", err)
		return counts
	}
	counts.kernel = kernel
	return counts
}

func (c lockCounts) close() error {
	if c.kernel == nil {
		return nil
	}
	return c.kernel.Close()
}

// watch returns what tells the kernel which inodes to count at.
func (c lockCounts) watch(db string, log *slog.Logger) func(dbfile.Stat) {
	return func(st dbfile.Stat) {
		if c.steps != nil {
			c.steps.Watch(db, st.Dev, st.DatabaseInode)
		}
		if c.kernel == nil {
			return
		}
		if err := c.kernel.Watch(db, st.Dev, st.DatabaseInode, st.ShmInode); err != nil && log != nil {
			log.Warn("SQLITE_BUSY of other processes is not counted for this database", "db", db, "err", err)
		}
	}
}

func (c lockCounts) forget(db string) error {
	if c.kernel == nil {
		return nil
	}
	return c.kernel.Forget(db)
}

// refused returns how many locks were refused at a database, to whomever. No
// refusal is counted by two of the sources.
func (c lockCounts) refused(db string) func() uint64 {
	sources := []collector.BusySource{c.self}
	if c.kernel != nil {
		sources = append(sources, c.kernel)
	}
	return func() (n uint64) {
		for _, source := range sources {
			if counts, err := source.Counts(db); err == nil {
				n += counts.Total()
			}
		}
		return n
	}
}

// last returns who was refused a lock of the database last.
func (c lockCounts) last(db string) func() *watchdog.Refusal {
	if c.kernel == nil {
		return nil
	}
	return func() *watchdog.Refusal {
		r, some := c.kernel.Last(db)
		if !some {
			return nil
		}
		return &watchdog.Refusal{At: time.Now().Add(-r.Age), PID: r.PID, Command: r.Command}
	}
}
