package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/blockers"
	"github.com/sqlwatch/sqlwatch/internal/cli"
	"github.com/sqlwatch/sqlwatch/internal/show"
)

func registerBlockers(app *kingpin.Application, env *environment) {
	cmd := app.Command("blockers", "Show who holds which lock and which frame of a database: pid, command, age.")
	name := cmd.Arg("db", "A configured name or a file.").Required().String()
	asJSON := cmd.Flag("json", "Print JSON.").Bool()
	cmd.Action(func(*kingpin.ParseContext) error {
		ctx, stop := interruptible()
		defer stop()
		path, err := env.resolver().Path(ctx, *name)
		if err != nil {
			return err
		}
		found, err := blockers.Of(path)
		if err != nil {
			return err
		}
		return env.print(*asJSON, found, func(w io.Writer) error {
			if err := blockers.Write(w, path, found); err != nil {
				return err
			}
			return writeLastRefusal(ctx, env, *name)
		})
	})
}

// writeLastRefusal says who was refused a lock last, where a daemon knows. Who
// holds the locks does not depend on it, so that no daemon is no error.
func writeLastRefusal(ctx context.Context, env *environment, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	known, err := newAdminClient(env).Databases(ctx, absolute(name))
	if err != nil || len(known) == 0 || known[0].LastBusy == nil {
		return nil
	}
	r := known[0].LastBusy
	_, err = fmt.Fprintf(env.Stdout, "Last refused a lock: pid %d (%s), %s.\n", r.PID, r.Command,
		show.Ago(time.Now(), r.At))
	return err
}

func registerWriters(app *kingpin.Application, env *environment) {
	cmd := app.Command("writers", "Watch for a while who writes to a database, how much, and for how long each holds the "+
		"write lock.")
	name := cmd.Arg("db", "A configured name or a file.").Required().String()
	length := cmd.Flag("for", "How long to look.").Default("3s").Duration()
	asJSON := cmd.Flag("json", "Print JSON.").Bool()
	cmd.Action(func(*kingpin.ParseContext) error {
		ctx, stop := interruptible()
		defer stop()
		path, err := env.resolver().Path(ctx, *name)
		if err != nil {
			return err
		}
		done := cli.Waiting(env.Stderr, "watching who writes to "+*name)
		found, err := blockers.Watch(ctx, path, *length)
		done()
		if err != nil {
			return err
		}
		return env.print(*asJSON, found, found.Write)
	})
}
