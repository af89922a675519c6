package daemon

import (
	"context"
	"errors"
	"log/slog"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
)

// plainParts serve a database without replicas: a reader, and a connection that
// is open only while there is something to checkpoint.
func plainParts(t config.DatabaseTarget, locks lockCounts, log *slog.Logger) watchdog.Parts {
	plain := watchdog.NewPlain(t.Path)
	reader := collector.NewReader(t.Name, t.Path, collector.ReaderOptions{
		BeforeClose: func() {
			if err := plain.Release(); err != nil && log != nil {
				log.Warn("the connection to a replaced database did not close cleanly", "db", t.Name, "err", err)
			}
		},
		OnFiles: locks.watch(t.Name, log),
		Refused: locks.refused(t.Name),
	})
	return watchdog.Parts{
		Sampler:      reader,
		Checkpointer: plain,
		LastBusy:     locks.last(t.Name),
		Close: func(context.Context) error {
			return errors.Join(plain.Release(), reader.Close(), locks.forget(t.Name))
		},
	}
}

// PlainParts serve a database without replicas outside of a daemon, for a command
// that does one thing to it.
func PlainParts(t config.DatabaseTarget) watchdog.Parts {
	return plainParts(t, lockCounts{self: &collector.Busy{}}, nil)
}
