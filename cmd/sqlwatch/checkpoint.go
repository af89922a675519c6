package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/admin"
	"github.com/sqlwatch/sqlwatch/internal/asuser"
	"github.com/sqlwatch/sqlwatch/internal/cli"
	"github.com/sqlwatch/sqlwatch/internal/daemon"
	"github.com/sqlwatch/sqlwatch/internal/lookup"
	"github.com/sqlwatch/sqlwatch/internal/views"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
)

func registerCheckpoint(app *kingpin.Application, env *environment) {
	cmd := app.Command("checkpoint", "Checkpoint a database now, by the same safe path as a policy: look for readers, "+
		"PASSIVE for the bulk, TRUNCATE for the tail. Exit code 2: it could not be completed.")
	name := cmd.Arg("db", "A configured name or a file.").Required().String()
	mode := cmd.Flag("mode", "passive blocks nobody; truncate also empties the WAL file.").Default("truncate").Enum(
		"passive", "truncate")
	asJSON := cmd.Flag("json", "Print JSON.").Bool()
	cmd.Action(func(*kingpin.ParseContext) error {
		ctx, stop := interruptible()
		defer stop()
		done := cli.Waiting(env.Stderr, "checkpoint of "+*name)
		client := newAdminClient(env)
		record, err := ofDatabase(*name, func(name string) (watchdog.ActionRecord, error) {
			return client.Checkpoint(ctx, name, *mode)
		})
		if errors.Is(err, admin.ErrNoDaemon) || errors.Is(err, watchdog.ErrUnknownDatabase) {
			record, err = checkpointOurselves(ctx, env, *name, *mode)
		}
		done()
		if err != nil {
			return err
		}
		return report(env, *asJSON, *name, record)
	})
}

// checkpointOurselves runs the loop's own checkpoint in this process, for a database that no daemon watches.
func checkpointOurselves(ctx context.Context, env *environment, name, mode string) (watchdog.ActionRecord, error) {
	targets, _, err := env.resolver().Targets([]string{name}, "")
	if err != nil {
		return watchdog.ActionRecord{}, err
	}
	t := targets[0]
	if _, err := lookup.New().Stat(t.Path); errors.Is(err, lookup.ErrHung) {
		return watchdog.ActionRecord{}, fmt.Errorf("checkpoint %s: %w", t.Name, err)
	}
	if len(t.Replicas) > 0 {
		return watchdog.ActionRecord{}, fmt.Errorf("%s has replicas: a checkpoint beside them would cost a full "+
			"comparison; start the daemon, then ask again", t.Name)
	}
	if os.Geteuid() == 0 {
		owner, known, err := asuser.OwnerOf([]string{t.Path})
		if err != nil {
			return watchdog.ActionRecord{}, err
		}
		if known && owner.UID != 0 {
			return watchdog.ActionRecord{}, asuser.Become(owner, os.Environ())
		}
	}
	return daemon.CheckpointOnce(ctx, t, mode)
}

// report prints how an action ended, and returns exit code 2 if it did not succeed.
func report(env *environment, asJSON bool, name string, r watchdog.ActionRecord) error {
	err := env.print(asJSON, r, func(w io.Writer) error { return views.Record(w, name, r) })
	if err == nil && !r.OK {
		return &exitError{code: exitFindings}
	}
	return err
}
