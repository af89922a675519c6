package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/daemon"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// openStore returns the store that a command's DB/URL argument means: a
// replica's URL, or the name or path of a configured database. Of several
// replicas it takes the one called replica, or the one that reaches farthest.
func openStore(ctx context.Context, env *environment, arg, replica string) (store.Store, config.ReplicaTarget, error) {
	targets, err := configuredReplicas(env, arg)
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
		return farthest(ctx, env, targets)
	}
	st, err := daemon.NewStore(ctx, targets[0], nil)
	return st, targets[0], err
}

// farthest returns the replica that holds the newest state. One that cannot be
// reached is told and left out.
func farthest(ctx context.Context, env *environment, targets []config.ReplicaTarget) (st store.Store, target config.ReplicaTarget, err error) {
	var errs []error
	best := int64(-1)
	for _, t := range targets {
		s, err := daemon.NewStore(ctx, t, nil)
		if err == nil {
			var txid = int64(0)
			if highest, herr := catalog.HighestTXID(ctx, s); herr != nil {
				err = herr
			} else if txid = int64(highest); txid > best {
				best, st, target = txid, s, t
			}
		}
		if err != nil {
			fmt.Fprintf(env.Stderr, "sqlwatch: replica %s is left out: %v\n", t.Name, err)
			errs = append(errs, fmt.Errorf("replica %s: %w", t.Name, err))
		}
	}
	if st == nil {
		return nil, target, errors.Join(errs...)
	}
	fmt.Fprintf(env.Stderr, "sqlwatch: using replica %s, %s, which reaches farthest\n", target.Name, target.Place())
	return st, target, nil
}

// configuredReplicas returns the replicas that an argument means, at least one.
func configuredReplicas(env *environment, arg string) ([]config.ReplicaTarget, error) {
	if strings.Contains(arg, "://") {
		t, err := config.ParseReplicaURL(arg)
		return []config.ReplicaTarget{t}, err
	}
	cfg, err := loadConfig(env)
	if errors.Is(err, errNoConfig) {
		return nil, fmt.Errorf("%s is no replica URL (file:///dir, s3://bucket/prefix), and there is %w", arg, err)
	}
	if err != nil {
		return nil, err
	}
	databases, err := cfg.Expand()
	if err != nil {
		return nil, err
	}
	path, err := filepath.Abs(arg)
	if err != nil {
		return nil, err
	}
	for _, d := range databases {
		if d.Name != arg && d.Path != path {
			continue
		}
		if len(d.Replicas) == 0 {
			return nil, fmt.Errorf("database %s has no replica: add replicate_to to its block", d.Name)
		}
		return d.Replicas, nil
	}
	return nil, fmt.Errorf("no database is called %s or lies there: give its replica's URL (a database found by glob is unknown while its file is gone)", arg)
}
