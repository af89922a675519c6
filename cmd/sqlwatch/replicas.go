package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/cli"
	"github.com/sqlwatch/sqlwatch/internal/daemon"
	"github.com/sqlwatch/sqlwatch/internal/inventory"
	"github.com/sqlwatch/sqlwatch/internal/recovery"
)

func registerReplicas(app *kingpin.Application, env *environment) {
	cmd := app.Command("replicas", "List replicas, what each holds and who writes to it: those of the configuration, and "+
		"what is left of databases that it no longer names; or all that lie below a URL. Exit code 2: one cannot be "+
		"reached, is empty, or something is left over.")
	names := cmd.Arg("DB/URL", "Configured names, or a URL (file:///dir, s3://bucket/prefix).").Strings()
	asJSON := cmd.Flag("json", "Print JSON.").Bool()
	cmd.Action(func(*kingpin.ParseContext) error {
		ctx, stop := interruptible()
		defer stop()
		done := cli.Waiting(env.Stderr, "asking replicas")
		report, err := inventory.Gather(ctx, env.resolver(), daemon.NewStore, *names)
		done()
		if err == nil && len(report.Replicas)+len(report.States) == 0 {
			err = &exitError{code: exitFindings, err: noReplica(ctx, env, *names)}
		}
		if err != nil {
			return err
		}
		err = env.print(*asJSON, report, func(w io.Writer) error {
			return report.Write(w, time.Now())
		})
		if err == nil && (report.Wrong()) {
			return &exitError{code: exitFindings}
		}
		return err
	})
}

// noReplica says what exists instead, for commands that look into a replica.
func noReplica(ctx context.Context, env *environment, names []string) error {
	if len(names) != 1 || !strings.Contains(names[0], "://") {
		return fmt.Errorf("there is no replica: %s", strings.Join(names, " "))
	}
	st, at, err := openStore(ctx, env, names[0], "")
	if err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", at.Place(), recovery.Explain(ctx, at, nothingListed(ctx, st)))
}
