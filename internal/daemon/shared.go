package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/replicator"
)

// sharedDatabase is the sampler and the replicator of one database. An error that occurs while
// the files are being replaced is a watchdog.ErrAway.
type sharedDatabase struct {
	*collector.Sampler
	*replicator.Replicator
	path  string
	begin func() // starts the replication, once

	files   atomic.Pointer[dbfile.Files] // those that the sampler has open
	since   atomic.Pointer[time.Time]    // when it opened them
	sampled atomic.Bool                  // the sampler has looked for the files
}

// Close implements watchdog.Sampler. Parts.Close closes the sampler when its turn comes.
func (s *sharedDatabase) Close() error { return s.Sampler.Close() }

// Sample implements watchdog.Sampler.
func (s *sharedDatabase) Sample(ctx context.Context) collector.Sample {
	sample := s.Sampler.Sample(ctx)
	files := s.Sampler.Files()
	if before := s.files.Swap(files); files != nil && before != files {
		now := time.Now()
		s.since.Store(&now)
		s.Wake()
	}
	s.sampled.Store(true)
	s.begin()
	return sample
}

// Checkpoint implements watchdog.Checkpointer.
func (s *sharedDatabase) Checkpoint(ctx context.Context, mode sqlite.Mode, b sqlite.Budget) (sqlite.Result, error) {
	result, err := s.Replicator.Checkpoint(ctx, mode, b)
	return result, s.explain(err)
}

// SyncNow calls the replicator's SyncNow once it can, with typed errors.
func (s *sharedDatabase) SyncNow(ctx context.Context) error {
	return s.onceOpen(ctx, s.Replicator.SyncNow)
}

// SnapshotNow calls the replicator's SnapshotNow once it can, with typed errors.
func (s *sharedDatabase) SnapshotNow(ctx context.Context) error {
	return s.onceOpen(ctx, s.Replicator.SnapshotNow)
}

// VerifyNow calls the replicator's VerifyNow once it can, with typed errors.
func (s *sharedDatabase) VerifyNow(ctx context.Context) error {
	return s.onceOpen(ctx, s.Replicator.VerifyNow)
}

// onceOpen calls do, and repeats it while capture has not begun, so that a request made as soon
// as the daemon is ready does not fail because of what is still missing. If there are no files,
// it does not wait.
func (s *sharedDatabase) onceOpen(ctx context.Context, do func(context.Context) error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := do(ctx)
		if !errors.Is(err, replicator.ErrNotOpen) || s.sampled.Load() && s.files.Load() == nil {
			return s.explain(err)
		}
		select {
		case <-ctx.Done():
			return s.explain(errors.Join(err, ctx.Err()))
		case <-tick.C:
		}
	}
}

// settling is how long capture may need to begin after its files were opened.
const settling = 3 * time.Second

// explain marks errors that occur while the files are being replaced.
func (s *sharedDatabase) explain(err error) error {
	if err == nil || !s.changing() {
		return err
	}
	return fmt.Errorf("%w: %w", watchdog.ErrAway, err)
}

func (s *sharedDatabase) changing() bool {
	files := s.files.Load()
	if files == nil || time.Since(*s.since.Load()) < settling {
		return true
	}
	held, heldErr := files.Stat()
	var now unix.Stat_t
	return heldErr != nil || unix.Stat(s.path, &now) != nil || now.Ino != held.DatabaseInode || uint64(now.Dev) != held.Dev
}
