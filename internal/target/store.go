package target

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/daemon"
	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Store returns the store that a command's DB/URL argument means: a
// replica's URL, or the name or path of a configured database. Of several
// replicas it takes the one called replica, or the one that reaches farthest.
func (r *Resolver) Store(ctx context.Context, arg, replica string) (store.Store, config.ReplicaTarget, error) {
	targets, ours, err := r.Replicas(arg)
	if err != nil {
		return nil, config.ReplicaTarget{}, err
	}
	if replica != "" {
		for _, t := range targets {
			if t.Name == replica {
				targets = []config.ReplicaTarget{t}
			}
		}
		if targets[0].Name != replica {
			return nil, config.ReplicaTarget{}, fmt.Errorf("%s has no replica %s", arg, replica)
		}
	}
	if len(targets) > 1 {
		return Farthest(ctx, r.Stderr, targets, ours)
	}
	st, err := daemon.NewStore(ctx, targets[0])
	return st, targets[0], err
}

// Replicas returns the replicas that an argument means, at least one, and the
// lineage that the state directory knows them by, "" where it knows none.
func (r *Resolver) Replicas(arg string) (targets []config.ReplicaTarget, ours string, err error) {
	if strings.Contains(arg, "://") {
		t, err := config.ParseReplicaURL(arg)
		return []config.ReplicaTarget{t}, "", err
	}
	path, err := r.ConfigPath()
	if errors.Is(err, ErrNoConfig) {
		return nil, "", fmt.Errorf("%s is no replica URL (file:///dir, s3://bucket/prefix), and there is %w", arg, err)
	}
	if err != nil {
		return nil, "", err
	}
	cfg, err := r.Load(path, []string{arg})
	if err != nil {
		return nil, "", err
	}
	databases, leftOut := cfg.Expand()
	chosen, err := Choose(databases, []string{arg}, leftOut)
	if err != nil {
		return nil, "", fmt.Errorf("%w: give its replica's URL (a database found by glob is unknown while its file is gone)",
			err)
	}
	d := chosen[0]
	if len(d.Replicas) == 0 {
		return nil, "", fmt.Errorf("database %s has no replica: add replicate_to to its block", d.Name)
	}
	return d.Replicas, custody.LineageOf(StateOf(cfg, d.Name)), nil
}
