package daemon

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/internal/watchdog/plain"
)

// plainParts serve a database without replicas: a reader, and a connection that
// is open only while there is something to checkpoint.
func plainParts(t config.DatabaseTarget, locks lockCounts, log *slog.Logger) watchdog.Parts {
	measured := &plainDatabase{}
	plain := plain.New(t.Path, measured.files.Load)
	reader := collector.NewReader(t.Name, t.Path, collector.ReaderOptions{
		BeforeClose: func() {
			measured.files.Store(nil)
			plain.Release()
		},
		OnFiles: locks.watch(t.Name, log),
		Refused: locks.refused(t.Name),
	})
	measured.Reader = reader
	return watchdog.Parts{
		Sampler:      measured,
		Checkpointer: plain,
		LastBusy:     locks.last(t.Name),
		Close: func(context.Context) error {
			plain.Release()
			return errors.Join(reader.Close(), locks.forget(t.Name))
		},
	}
}

// plainDatabase is a reader whose files are known to whoever checkpoints.
type plainDatabase struct {
	*collector.Reader
	files atomic.Pointer[dbfile.Files]
}

// Sample implements watchdog.Sampler.
func (p *plainDatabase) Sample(ctx context.Context) collector.Sample {
	sample := p.Reader.Sample(ctx)
	p.files.Store(p.Reader.Files())
	return sample
}

// PlainParts serve a database without replicas outside of a daemon, for a command
// that does one thing to it.
func PlainParts(t config.DatabaseTarget) watchdog.Parts {
	return plainParts(t, lockCounts{self: &collector.Busy{}}, nil)
}
