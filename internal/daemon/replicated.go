package daemon

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
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/fault"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/replicator"
	"github.com/sqlwatch/sqlwatch/replicator/capture"
	"github.com/sqlwatch/sqlwatch/replicator/requests"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3"
)

const (
	finalSync       = ShutdownGrace - 5*time.Second // the rest is for closing everything
	replicatorPause = 10 * time.Second              // before a replication that failed as a whole starts again
)

// replicatedParts returns the parts of a database with replicas. Its files are opened by the
// sampler, which the watchdog's turns own, and used by the replicator, which runs
// concurrently: the replicator releases files before the sampler closes them.
func (d *Daemon) replicatedParts(ctx context.Context, t config.DatabaseTarget) (watchdog.Parts, error) {
	log := d.log.With("db", t.Name)
	shared := &sharedDatabase{path: t.Path}
	replicas, err := d.replicasOf(ctx, t)
	if err != nil {
		return watchdog.Parts{}, err
	}
	stateDir := filepath.Join(d.o.Config.Server.StateDir, "databases", t.Name)
	d.beginning(t, stateDir)
	r, err := replicator.New(replicator.Options{
		Name: t.Name,
		Files: func() *dbfile.Files {
			// Called only while the capture is closed: have the sampler look.
			d.watchdog.Look(t.Name)
			return shared.files.Load()
		},
		Names:    d.names.Watch,
		StateDir: stateDir,
		Capture: capture.Options{RestartAt: t.Restart.At, StallBudget: t.Restart.StallBudget,
			Faulted: func(bug *fault.Error) { d.faulted(t.Name, bug) }},
		Replicas:  replicas,
		Queue:     d.stores.queue,
		FinalSync: finalSync,
		Outstay:   func() bool { return d.ending != nil && d.ending() },
		Metrics:   d.replication,
		Logger:    d.log,
	})
	if err != nil {
		return watchdog.Parts{}, err
	}
	shared.Replicator = r
	shared.Sampler = collector.NewSampler(t.Name, t.Path, collector.SamplerOptions{
		BeforeClose: func() {
			shared.files.Store(nil)
			if err := r.Release(); err != nil {
				log.Warn("the connections to a replaced database did not close cleanly", "err", err)
			}
		},
		OnFiles: d.locks.watch(t.Name, d.log),
		Refused: d.locks.refused(t.Name),
	})
	// The replication outlives ctx: Close ends it, with the last sync. It begins after the first
	// sample, which opens the files.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	var replication sync.WaitGroup
	var failed error
	shared.begin = sync.OnceFunc(func() {
		replication.Go(func() { failed = d.replicate(running, r, log) })
	})
	return watchdog.Parts{
		Sampler:      shared,
		Checkpointer: shared,
		Actions: watchdog.Actions{Snapshot: shared.SnapshotNow, Sync: shared.SyncNow, Verify: shared.VerifyNow,
			Notify: d.notify, Replicas: d.past.Of(t.Name, r.Status).Replicas, Capture: capturing(r)},
		LastBusy: d.locks.last(t.Name),
		Close: func(ctx context.Context) error {
			stop()
			defer r.Forget()
			ended := make(chan struct{})
			go func() { replication.Wait(); close(ended) }()
			select {
			case <-ended:
				return errors.Join(failed, r.Release(), shared.Sampler.Close(), d.locks.forget(t.Name))
			case <-ctx.Done():
				return fmt.Errorf("the last sync of %s did not end: %w", t.Name, ctx.Err())
			}
		},
	}, nil
}

// replicate runs one database's replication until ctx ends. If it fails as a whole, or panics,
// it starts again after a pause; other databases are not affected.
func (d *Daemon) replicate(ctx context.Context, r *replicator.Replicator, log *slog.Logger) error {
	for said := (time.Time{}); ; {
		err := d.replicateOnce(ctx, r)
		if ctx.Err() != nil {
			return err
		}
		if time.Since(said) >= time.Minute {
			said = time.Now()
			log.Error("replication of this database stopped; restarting it", "every", replicatorPause, "err", err)
		}
		select {
		case <-time.After(replicatorPause):
		case <-ctx.Done():
			return nil
		}
	}
}

func (d *Daemon) replicateOnce(ctx context.Context, r *replicator.Replicator) error {
	err := fault.Guard(func() error { return r.Run(ctx) })
	if fault.Of(err) != nil {
		if bug := fault.First(err); bug != nil {
			d.faulted(r.Name(), bug)
		}
		r.Stopped(err)
		err = errors.Join(err, r.Release())
	}
	return err
}

// faulted counts a panic in the replication of a database, and says where it was.
func (d *Daemon) faulted(db string, bug *fault.Error) {
	d.metrics.Panicked(db)
	d.log.Error("a panic in the replication of this database", "db", db, "panic", bug.Cause, "stack", bug.Stack)
}

// replicasOf opens the stores of a database's replicas. Opening sends no request.
func (d *Daemon) replicasOf(ctx context.Context, t config.DatabaseTarget) ([]replicator.ReplicaOptions, error) {
	var all []replicator.ReplicaOptions
	for _, target := range t.Replicas {
		counts := &requests.Counts{}
		st, err := d.stores.open(ctx, target, counts.Observe, d.log)
		if err != nil {
			return nil, fmt.Errorf("replica %s of %s: %w", target.Name, t.Name, err)
		}
		all = append(all, replicator.ReplicaOptions{
			Name: target.Name, Place: target.Place(), Store: st, Requests: counts, Prices: pricesOf(st),
			SyncEvery: target.SyncEvery, SnapshotEvery: target.SnapshotEvery, FullEvery: target.SnapshotFull,
			VerifyEvery: target.VerifyEvery,
			Retention:   replicator.RetentionOptions{Keep: target.RetentionKeep, Thin: target.RetentionThin},
			Adopt:       d.adopts(t.Name) || d.adopts(target.Name),
		})
	}
	return all, nil
}

// pricesOf returns the prices of the store's provider, or nil if they are unknown.
func pricesOf(st store.Store) *requests.Prices {
	if s, ok := store.As[*s3.Store](st); ok {
		if prices, known := requests.PricesOf(s.Provider()); known {
			return &prices
		}
	}
	return nil
}

// CheckAdopt rejects names for which --adopt would have no effect.
func CheckAdopt(cfg *config.Config, names []string) error {
	if len(names) == 0 {
		return nil
	}
	databases, err := cfg.Expand() // what could not be expanded is reported when the database is opened
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
			return errors.Join(fmt.Errorf("--adopt=%s: no replica of that name, and no database with replicas; %s", name, there),
				err)
		}
	}
	return nil
}

// adopts reports whether --adopt names a database or a replica.
func (d *Daemon) adopts(name string) bool {
	return slices.Contains(d.o.Adopt, name)
}
