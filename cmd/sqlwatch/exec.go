package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/daemon"
	"github.com/sqlwatch/sqlwatch/internal/recovery"
	"github.com/sqlwatch/sqlwatch/internal/supervise"
	"github.com/sqlwatch/sqlwatch/internal/target"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
)

// underInit is set for the program that process 1 started.
const underInit = "SQLWATCH_UNDER_INIT=1"

// runBeside runs a command beside the daemon: databases that are absent and have a
// replica are restored first, the command starts when the daemon is ready, and the
// daemon ends, with its last sync, when the command has. The command's exit code is
// ours. A daemon that fails later leaves the command alone.
func runBeside(ctx context.Context, env *environment, o daemon.Options, line string) error {
	args, err := supervise.Fields(line)
	if err != nil {
		return fmt.Errorf("--exec: %w", err)
	}
	if os.Getpid() == 1 {
		code, err := supervise.Init(underInit)
		if err != nil {
			return err
		}
		return exitCode(code)
	}
	if err := restoreAbsent(ctx, env, o.Config); err != nil {
		return fmt.Errorf("before %s was started: %w", args[0], err)
	}
	ready := make(chan struct{})
	o.Ready = func([]string) { close(ready) }
	d, err := daemon.New(o)
	if err != nil {
		return err
	}
	// The signals are the command's: the daemon ends after it, so that the last sync
	// has its last commit.
	daemonCtx, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	ended := make(chan error, 1)
	go func() { ended <- d.Run(daemonCtx) }()
	select {
	case <-ready:
	case err := <-ended:
		return err
	}
	result := supervise.Run(context.WithoutCancel(ctx), args)
	end()
	if err := <-ended; err != nil {
		o.Logger.Error("sqlwatch did not end well; what the command wrote last may not be in every replica", "err", err)
	}
	var exit *supervise.ExitError
	if errors.As(result, &exit) {
		return exitCode(exit.Code)
	}
	return result
}

// exitCode ends this program as another one ended, without a word of its own.
func exitCode(code int) error {
	if code == 0 {
		return nil
	}
	return &exitError{code: code}
}

// restoreAbsent restores each database that is not there from the replica that
// reaches farthest. One without any replica, or whose replicas are empty, begins anew.
func restoreAbsent(ctx context.Context, env *environment, cfg *config.Config) error {
	targets, err := cfg.Expand()
	if err != nil {
		return err
	}
	for _, t := range targets {
		if _, err := os.Stat(t.Path); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if len(t.Replicas) == 0 {
			continue
		}
		st, from, err := target.Farthest(ctx, env.Stderr, t.Replicas,
			custody.LineageOf(target.StateOf(cfg, t.Name)))
		if err != nil {
			return err
		}
		txid, err := catalog.HighestTXID(ctx, st)
		if err != nil && !recovery.NothingYet(from, err) {
			return err
		}
		if txid == 0 {
			fmt.Fprintf(env.Stderr, "sqlwatch: %s is not there and %s is empty: it begins anew\n", t.Path, from.Name)
			continue
		}
		result, err := restore.Run(ctx, st, restore.Options{Note: true, Output: t.Path, IfNotExists: true,
			SyncEvery: from.SyncEvery})
		if err != nil {
			return fmt.Errorf("restore %s from %s: %w", t.Path, from.Name, err)
		}
		if err := recovery.Print(env.Stderr, result); err != nil {
			return err
		}
	}
	return nil
}
