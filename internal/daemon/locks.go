package daemon

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/collector/busy"
	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
)

// lockCounts has the counters of refused locks: those of our own operations and, if the kernel
// allows it, those of all processes.
type lockCounts struct {
	self   *collector.Busy
	kernel *busy.Collector // nil: not available
	steps  *busy.Processes // within single processes, for the databases of --collector.busy.steps
}

// openLockCounts makes the kernel count. If the kernel does not allow it, or if it is not wanted,
// one log line says so and everything else works without.
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

// pace limits what the kernel's counting costs, until ctx ends.
func (c lockCounts) pace(ctx context.Context, log *slog.Logger) {
	if c.kernel == nil {
		return
	}
	if err := c.kernel.Run(ctx); err != nil {
		err = errors.Join(err, c.kernel.Close()) // so that the scrape reports it
		log.Warn("SQLITE_BUSY in other processes is no longer counted; restart sqlwatch to count it again", "err", err)
	}
}

func (c lockCounts) close() error {
	if c.kernel == nil {
		return nil
	}
	return c.kernel.Close()
}

// watch returns a function that tells the kernel at which inodes to count.
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

// refused returns how many locks of a database were refused to any process. No refusal is
// counted by two sources.
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

// last returns the process that was last refused a lock of the database.
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
