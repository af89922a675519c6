package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/replicator"
	"github.com/sqlwatch/sqlwatch/replicator/capture"
	"github.com/sqlwatch/sqlwatch/replicator/requests"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3"
)

const (
	finalSync       = shutdownGrace - 5*time.Second // the rest is for closing everything
	replicatorPause = 10 * time.Second              // before a replication that failed as a whole begins again
)

// replicatedParts serve a database with replicas. Its files are opened by the
// reader, which the watchdog's turns own, and used by the replicator, which runs
// beside them: before the reader closes files, the replicator lets go of them.
func (d *daemon) replicatedParts(ctx context.Context, t config.DatabaseTarget) (watchdog.Parts, error) {
	log := d.log.With("db", t.Name)
	shared := &sharedDatabase{path: t.Path}
	replicas, err := d.replicasOf(ctx, t)
	if err != nil {
		return watchdog.Parts{}, err
	}
	r, err := replicator.New(replicator.Options{
		Name: t.Name,
		Files: func() *dbfile.Files {
			// Asked only while the capture is closed: the reader had better look.
			d.watchdog.Look(t.Name)
			return shared.files.Load()
		},
		StateDir:  filepath.Join(d.config.Server.StateDir, "databases", t.Name),
		Capture:   capture.Options{RestartAt: t.Restart.At, StallBudget: t.Restart.StallBudget},
		Replicas:  replicas,
		FinalSync: finalSync,
		Metrics:   d.replication,
		Logger:    d.log,
	})
	if err != nil {
		return watchdog.Parts{}, err
	}
	shared.Replicator = r
	shared.Reader = collector.NewReader(t.Name, t.Path, collector.ReaderOptions{
		BeforeClose: func() {
			shared.files.Store(nil)
			if err := r.Release(); err != nil {
				log.Warn("the connections to a replaced database did not close cleanly", "err", err)
			}
		},
		OnFiles: d.locks.watch(t.Name, d.log),
		Refused: d.locks.refused(t.Name),
	})
	// The replication outlives ctx: Close ends it, with the last sync. It begins
	// after the first sample, which opens the files.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	var replication sync.WaitGroup
	var failed error
	shared.begin = sync.OnceFunc(func() {
		replication.Go(func() { failed = d.replicate(running, r, log) })
	})
	return watchdog.Parts{
		Sampler:      shared,
		Checkpointer: shared,
		Actions:      watchdog.Actions{Snapshot: shared.SnapshotNow, Sync: shared.SyncNow, Verify: r.VerifyNow, Notify: d.notify, Replicas: r.Status},
		LastBusy:     d.locks.last(t.Name),
		Close: func(ctx context.Context) error {
			stop()
			defer r.Forget()
			ended := make(chan struct{})
			go func() { replication.Wait(); close(ended) }()
			select {
			case <-ended:
				return errors.Join(failed, r.Release(), shared.Reader.Close(), d.locks.forget(t.Name))
			case <-ctx.Done():
				return fmt.Errorf("the last sync of %s did not end: %w", t.Name, ctx.Err())
			}
		},
	}, nil
}

// sharedDatabase is a reader and a replicator of one database. What fails while
// the files are changing hands has failed with watchdog.ErrAway.
type sharedDatabase struct {
	*collector.Reader
	*replicator.Replicator
	path  string
	begin func() // starts the replication, once

	files   atomic.Pointer[dbfile.Files] // what the reader has open
	since   atomic.Pointer[time.Time]    // when it opened them
	sampled atomic.Bool                  // the reader has looked for them
}

// Close implements watchdog.Sampler. Parts.Close closes the reader, in its order.
func (s *sharedDatabase) Close() error { return s.Reader.Close() }

// Sample implements watchdog.Sampler.
func (s *sharedDatabase) Sample(ctx context.Context) collector.Sample {
	sample := s.Reader.Sample(ctx)
	files := s.Reader.Files()
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

// SyncNow is the replicator's, once it can, with typed errors.
func (s *sharedDatabase) SyncNow(ctx context.Context) error {
	return s.onceOpen(ctx, s.Replicator.SyncNow)
}

// SnapshotNow is the replicator's, once it can, with typed errors.
func (s *sharedDatabase) SnapshotNow(ctx context.Context) error {
	return s.onceOpen(ctx, s.Replicator.SnapshotNow)
}

// onceOpen does it, and again while capture has not begun: who asks as soon as the
// daemon is ready need not know what is still missing. Where there are no files,
// nothing is waited for.
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

// settling is how long after its files were opened a capture may need to begin.
const settling = 3 * time.Second

// explain tells an error of files that are changing hands from any other.
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
	return heldErr != nil || unix.Stat(s.path, &now) != nil || now.Ino != held.DatabaseInode || now.Dev != held.Dev
}

// replicate runs one database's replication until ctx ends. What fails as a whole,
// or panics, begins again after a pause; the other databases go on meanwhile.
func (d *daemon) replicate(ctx context.Context, r *replicator.Replicator, log *slog.Logger) error {
	for said := (time.Time{}); ; {
		err := d.replicateOnce(ctx, r)
		if ctx.Err() != nil {
			return err
		}
		if time.Since(said) >= time.Minute {
			said = time.Now()
			log.Error("replication of this database stopped; it is begun again and again", "every", replicatorPause, "err", err)
		}
		select {
		case <-time.After(replicatorPause):
		case <-ctx.Done():
			return nil
		}
	}
}

func (d *daemon) replicateOnce(ctx context.Context, r *replicator.Replicator) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			d.metrics.Panicked(r.Name())
			err = errors.Join(fmt.Errorf("fault of sqlwatch: %v", cause), r.Release())
		}
	}()
	return r.Run(ctx)
}

// replicasOf opens the stores of a database's replicas. Opening sends no request.
func (d *daemon) replicasOf(ctx context.Context, t config.DatabaseTarget) ([]replicator.ReplicaOptions, error) {
	var all []replicator.ReplicaOptions
	for _, target := range t.Replicas {
		counts := &requests.Counts{}
		st, err := sharingStore(ctx, target, &d.stores, counts.Observe)
		if err != nil {
			return nil, fmt.Errorf("replica %s of %s: %w", target.Name, t.Name, err)
		}
		all = append(all, replicator.ReplicaOptions{
			Name: target.Name, Store: st, Requests: counts, Prices: pricesOf(st),
			SyncEvery: target.SyncEvery, SnapshotEvery: target.SnapshotEvery, VerifyEvery: target.VerifyEvery,
			Retention: replicator.RetentionOptions{Keep: target.RetentionKeep, Thin: target.RetentionThin},
			Adopt:     d.adopts(t.Name) || d.adopts(target.Name),
		})
	}
	return all, nil
}

// pricesOf returns what the store's provider asks for, nil where that is unknown.
func pricesOf(st store.Store) *requests.Prices {
	if s, ok := st.(*s3.Store); ok {
		if prices, known := requests.PricesOf(s.Provider()); known {
			return &prices
		}
	}
	return nil
}

// checkAdopt refuses names that --adopt would wait for in vain.
func checkAdopt(cfg *config.Config, names []string) error {
	if len(names) == 0 {
		return nil
	}
	databases, err := cfg.Expand() // what could not be expanded is reported when it is opened
	known := map[string]bool{}
	for _, t := range databases {
		for _, r := range t.Replicas {
			known[t.Name], known[r.Name] = true, true
		}
	}
	for _, name := range names {
		if !known[name] {
			there := "there are: " + strings.Join(slices.Sorted(maps.Keys(known)), ", ")
			if len(known) == 0 {
				there = "no database has one"
			}
			return &exitError{code: exitFindings, err: errors.Join(fmt.Errorf("--adopt=%s: no replica of that name, and no database with replicas; %s", name, there), err)}
		}
	}
	return nil
}

// adopts says whether --adopt names a database or a replica.
func (d *daemon) adopts(name string) bool {
	return d.flags.adopt != nil && slices.Contains(*d.flags.adopt, name)
}
