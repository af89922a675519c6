package target

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/daemon"
	"github.com/sqlwatch/sqlwatch/internal/lookup"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Source is a replica to read from.
type Source struct {
	Store    store.Store
	Replica  config.ReplicaTarget
	Database config.DatabaseTarget // the zero value where a URL was given
	Lineage  string                // by which the state directory knows the database; "": it does not
}

// Store is Source, for those who need no more than the store.
func (r *Resolver) Store(ctx context.Context, arg, replica string) (store.Store, config.ReplicaTarget, error) {
	s, err := r.Source(ctx, arg, replica)
	return s.Store, s.Replica, err
}

// Source returns what a command's DB/URL argument means: a replica's URL, or the name or
// path of a configured database, whether its file is there or not. Of several replicas it
// takes the one called replica, or the one that reaches farthest.
func (r *Resolver) Source(ctx context.Context, arg, replica string) (Source, error) {
	if strings.Contains(arg, "://") {
		t, err := config.ParseReplicaURL(arg)
		if err != nil {
			return Source{}, err
		}
		return r.SourceOf(ctx, Source{Database: config.DatabaseTarget{Replicas: []config.ReplicaTarget{t}}}, replica)
	}
	path, err := r.ConfigPath()
	if errors.Is(err, ErrNoConfig) {
		return r.watchedSource(ctx, arg, replica, fmt.Errorf("%s is no replica URL (file:///dir, s3://bucket/prefix), and "+
			"there is %w", arg, err))
	}
	if err != nil {
		return Source{}, err
	}
	cfg, err := r.Load(path, []string{arg})
	if err != nil {
		return Source{}, err
	}
	known := daemon.Watched(cfg.Server.StateDir)
	if abs, err := filepath.Abs(arg); err == nil {
		known = append(known, config.Known{Path: abs})
	}
	databases, leftOut := expand(cfg, known)
	chosen, err := Choose(databases, []string{arg}, leftOut)
	if err != nil {
		return r.watchedSource(ctx, arg, replica, fmt.Errorf("%w: give its path or its replica's URL (the name of a "+
			"database found by a glob is known on the machine that has watched it)", err))
	}
	return r.SourceOf(ctx, Source{Database: chosen[0], Lineage: custody.LineageOf(StateOf(cfg, chosen[0].Name))}, replica)
}

// watchedSource asks the daemon for the replicas of a database that no configuration at hand
// names, as where it was started with files for arguments. Its credentials are the asker's
// own. Where no daemon knows better, it fails as the asker would have without it.
func (r *Resolver) watchedSource(ctx context.Context, arg, replica string, otherwise error) (Source, error) {
	places, err := r.Daemon.Replicas(ctx, arg)
	if errors.Is(err, watchdog.ErrUnknownDatabase) {
		places, err = r.Daemon.Replicas(ctx, Absolute(arg))
	}
	if err != nil {
		return Source{}, fmt.Errorf("%w; %w", otherwise, err)
	}
	d := config.DatabaseTarget{Name: places.Database, Path: places.Path}
	for _, at := range places.Replicas {
		t, err := config.ParseReplicaURL(at.URL)
		if err != nil {
			return Source{}, err
		}
		t.Name = at.Name
		d.Replicas = append(d.Replicas, t)
	}
	return r.SourceOf(ctx, Source{Database: d}, replica)
}

// SourceOf chooses one of the replicas of s.Database.
func (r *Resolver) SourceOf(ctx context.Context, s Source, replica string) (Source, error) {
	targets := s.Database.Replicas
	if replica != "" {
		targets = slices.DeleteFunc(slices.Clone(targets), func(t config.ReplicaTarget) bool { return t.Name != replica })
	}
	var err error
	switch {
	case len(s.Database.Replicas) == 0:
		return s, fmt.Errorf("database %s has no replica: add replicate_to to its block", s.Database.Name)
	case len(targets) == 0:
		return s, fmt.Errorf("database %s has no replica %s", s.Database.Name, replica)
	case len(targets) > 1:
		s.Store, s.Replica, err = Farthest(ctx, r.Stderr, targets, s.Lineage)
	default:
		s.Replica = targets[0]
		if err = answers(lookup.New(), targets[0]); err == nil {
			s.Store, err = daemon.NewStore(ctx, targets[0])
		}
	}
	return s, err
}

// answers is an error where a directory replica's disk does not answer: to look into it would
// take for ever.
func answers(disks *lookup.Disks, t config.ReplicaTarget) error {
	if t.Type != "file" {
		return nil
	}
	if _, err := disks.Stat(t.File.Dir); errors.Is(err, lookup.ErrHung) {
		return err
	}
	return nil
}

// Every returns all configured databases, those that globs have found before included,
// as sources whose replica is not chosen yet. An error may come beside those that are good.
func (r *Resolver) Every() ([]Source, error) {
	path, err := r.ConfigPath()
	if err != nil {
		return nil, err
	}
	cfg, err := r.Load(path, EveryDatabase)
	if err != nil {
		return nil, err
	}
	databases, err := expand(cfg, daemon.Watched(cfg.Server.StateDir))
	var all []Source
	for _, d := range databases {
		all = append(all, Source{Database: d, Lineage: custody.LineageOf(StateOf(cfg, d.Name))})
	}
	return all, err
}

// expand returns all configured databases, those that are known to a glob among them.
func expand(cfg *config.Config, known []config.Known) ([]config.DatabaseTarget, error) {
	targets, leftOut := cfg.ExpandAround(known, lookup.New())
	var errs []error
	for _, l := range leftOut {
		errs = append(errs, fmt.Errorf("%s: %s", l.Place, l.Why))
	}
	return targets, errors.Join(errs...)
}
