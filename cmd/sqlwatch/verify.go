package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/cli"
	"github.com/sqlwatch/sqlwatch/internal/recovery"
	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

func registerVerify(app *kingpin.Application, env *environment) {
	cmd := app.Command("verify", "Restore drill: restore a replica into scratch, compare checksums, run "+
		"integrity_check, leave nothing. Exit 2 when the replica does not pass.")
	source := cmd.Arg("DB/URL", "Configured database, or URL of a replica.").Required().String()
	replica := cmd.Flag("replica", "Which of the database's replicas.").PlaceHolder("NAME").String()
	timestamp := cmd.Flag("timestamp", "Verify the state of this moment.").PlaceHolder("T").String()
	txid := cmd.Flag("txid", "Verify the state after this TXID.").PlaceHolder("N").String()
	scratch := cmd.Flag("scratch", "Directory with space for the database. Default: $TMPDIR.").PlaceHolder("DIR").String()
	asJSON := cmd.Flag("json", "Print JSON.").Bool()
	cmd.Action(func(parsed *kingpin.ParseContext) error {
		if err := cli.Given(parsed, "timestamp", "txid"); err != nil {
			return err
		}
		target, err := parseTarget(*txid, *timestamp)
		if err != nil {
			return err
		}
		ctx, stop := interruptible()
		defer stop()
		progress, done := cli.Progress(env.Stderr, "verifying", "looking at the replica")
		r := recovery.Recovery{Resolver: env.resolver(), Replica: *replica}
		result, place, err := r.Drill(ctx, *source, restore.DrillOptions{Scratch: *scratch, Target: target,
			Progress: progress})
		done()
		if err != nil && place == "" {
			return err
		}
		if err != nil {
			return verifyFailure(err)
		}
		for _, w := range result.Restore.Warnings {
			fmt.Fprintf(env.Stderr, "sqlwatch: %s\n", w)
		}
		report := recovery.NewReport(recovery.Outcome{Result: result.Restore, Place: place})
		return env.print(*asJSON, report, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "%s: %s restores: %s in %s; %s\n", place, recovery.State(result.Restore),
				show.Bytes(result.Restore.Size()), result.Time.Round(time.Millisecond), recovery.Proof(result.Restore))
			return err
		})
	})
}

// verifyFailure distinguishes a replica that is bad (exit code 2) from one that could not be
// examined (exit code 1).
func verifyFailure(err error) error {
	for _, cause := range []error{context.Canceled, store.ErrAuth, store.ErrMisplaced, store.ErrUnavailable,
		os.ErrPermission, syscall.ENOSPC} {
		if errors.Is(err, cause) {
			return err
		}
	}
	return &exitError{code: exitFindings, err: err}
}
