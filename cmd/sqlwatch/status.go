package main

import (
	"fmt"
	"io"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/internal/views"
)

func registerStatus(app *kingpin.Application, env *environment) {
	cmd := app.Command("status", "Show every database once: from the running daemon, or by looking at the files. Exit "+
		"code 2: something is wrong, or no daemon answers.")
	names := cmd.Arg("db", "Only these: configured names or files.").Strings()
	asJSON := cmd.Flag("json", "Print JSON.").Bool()
	from := cmd.Flag("severity", "Exit with code 2 from this severity on: warning, or critical as a container's health "+
		"check wants it.").Default("warning").Enum("warning", "critical")
	cmd.Action(func(*kingpin.ParseContext) error {
		ctx, stop := interruptible()
		defer stop()
		found, _, err := lookAt(ctx, env, *names)
		if err != nil {
			return err
		}
		itself := newAdminClient(env).Health(ctx)
		if *asJSON {
			views.Itself(env.Stderr, itself)
		}
		err = env.print(*asJSON, found, func(w io.Writer) error {
			views.Itself(w, itself)
			return views.Status(w, found, time.Now())
		})
		if err != nil {
			return err
		}
		least := health.Severity(*from)
		wrong := health.AtLeast(itself.Conditions, least)
		for _, v := range found {
			wrong = wrong || views.Wrong(v, least)
		}
		if wrong {
			return &exitError{code: exitFindings}
		}
		return nil
	})
}

func registerTop(app *kingpin.Application, env *environment) {
	cmd := app.Command("top", "Show every database, again and again, until interrupted.")
	names := cmd.Arg("db", "Only these: configured names or files.").Strings()
	every := cmd.Flag("every", "How often to look.").Default("1s").Duration()
	rounds := cmd.Flag("rounds", "End after so many looks; 0 is never.").Int()
	cmd.Action(func(*kingpin.ParseContext) error {
		ctx, stop := interruptible()
		defer stop()
		tick := time.NewTicker(max(*every, 100*time.Millisecond))
		defer tick.Stop()
		for round := 1; ; round++ {
			found, daemon, err := lookAt(ctx, env, *names)
			if err != nil {
				return err
			}
			from := "by looking at the files"
			if daemon {
				from = "from the daemon"
			}
			// Home, and clear what the last round left behind.
			fmt.Fprint(show.Unwrap(env.Stdout), "\x1b[H\x1b[2J")
			fmt.Fprintf(env.Stdout, "sqlwatch  %s  %s\n\n", show.Clock(time.Now()), from)
			views.Itself(env.Stdout, newAdminClient(env).Health(ctx))
			if err := views.Status(env.Stdout, found, time.Now()); err != nil {
				return err
			}
			if round == *rounds {
				return nil
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil
			}
		}
	})
}
