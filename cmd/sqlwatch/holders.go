package main

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/blockers"
	"github.com/sqlwatch/sqlwatch/internal/cli"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/views"
)

func registerBlockers(app *kingpin.Application, env *environment) {
	cmd := app.Command("blockers", "Show who holds which lock and which frame of a database: pid, command, age. "+
		"Exit code 2: the daemon finds something wrong with it.")
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
		known := knownOf(ctx, env, *name)
		err = env.print(*asJSON, found, func(w io.Writer) error {
			if err := blockers.Write(w, path, found); err != nil {
				return err
			}
			return views.Holding(w, known, time.Now())
		})
		if err == nil && slices.ContainsFunc(known, func(v databaseView) bool { return health.Wrong(v.Conditions) }) {
			return &exitError{code: exitFindings}
		}
		return err
	})
}

// knownOf returns what a daemon knows of a database. The lock holders can be found without it, so
// it is no error if no daemon runs.
func knownOf(ctx context.Context, env *environment, name string) []databaseView {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	known, _ := databases(ctx, env, name)
	return known
}

func registerWriters(app *kingpin.Application, env *environment) {
	cmd := app.Command("writers", "Watch for a while who writes to a database, how much, and for how long each holds the "+
		"write lock.")
	name := cmd.Arg("db", "A configured name or a file.").Required().String()
	length := cmd.Flag("for", "How long to watch.").Default("3s").Duration()
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
