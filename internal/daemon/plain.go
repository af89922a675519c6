package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/dirwatch"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/internal/watchdog/plain"
)

// plainParts returns the parts of a database without replicas: a sampler, and a connection
// that is open only during a checkpoint.
func plainParts(t config.DatabaseTarget, names *dirwatch.Watcher, locks lockCounts, log *slog.Logger) watchdog.Parts {
	measured := &plainDatabase{}
	measured.Checkpointer = plain.New(t.Path, measured.files.Load, log)
	measured.Names = names.Watch
	reader := collector.NewSampler(t.Name, t.Path, collector.SamplerOptions{
		BeforeClose: func() {
			measured.files.Store(nil)
			measured.Release()
		},
		OnFiles: locks.watch(t.Name, log),
		Refused: locks.refused(t.Name),
	})
	measured.Sampler = reader
	return watchdog.Parts{
		Sampler:      measured,
		Checkpointer: measured,
		LastBusy:     locks.last(t.Name),
		Close: func(context.Context) error {
			measured.Release()
			return errors.Join(reader.Close(), locks.forget(t.Name))
		},
	}
}

// plainDatabase is a sampler that shares its files with the checkpointer.
type plainDatabase struct {
	*collector.Sampler
	*plain.Checkpointer
	files atomic.Pointer[dbfile.Files]
}

// Sample implements watchdog.Sampler.
func (p *plainDatabase) Sample(ctx context.Context) collector.Sample {
	sample := p.Sampler.Sample(ctx)
	p.files.Store(p.Sampler.Files())
	p.Look()
	return sample
}

// Checkpoint implements watchdog.Checkpointer.
func (p *plainDatabase) Checkpoint(ctx context.Context, mode sqlite.Mode, b sqlite.Budget) (sqlite.Result, error) {
	result, err := p.Checkpointer.Checkpoint(ctx, mode, b)
	if plain.Passing(err) { // the application is gone, or is coming back, perhaps with another file
		err = fmt.Errorf("%w: %w", watchdog.ErrAway, err)
	}
	return result, err
}

// PlainParts returns the parts of a database without replicas outside of a daemon, for a command
// that does one thing with it.
func PlainParts(t config.DatabaseTarget) watchdog.Parts {
	return plainParts(t, &dirwatch.Watcher{}, lockCounts{self: &collector.Busy{}}, nil)
}
