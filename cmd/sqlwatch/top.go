package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/cli"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/internal/top"
	"github.com/sqlwatch/sqlwatch/internal/views"
)

func registerTop(app *kingpin.Application, env *environment) {
	cmd := app.Command("top", "Show every database live, trouble first: sort, filter, details, checkpoint, pause. If "+
		"the output is not a terminal, print tables repeatedly. With --once or --rounds, exit code 2: something is wrong.")
	names := cmd.Arg("db", "Only these: configured names or files.").Strings()
	every := cmd.Flag("every", "Refresh interval.").Default("1s").Duration()
	rounds := cmd.Flag("rounds", "Print plain tables, and exit after this many; 0 never exits.").Int()
	once := cmd.Flag("once", "Print one plain table: --rounds 1.").Bool()
	cmd.Action(func(*kingpin.ParseContext) error {
		ctx, stop := interruptible()
		defer stop()
		if *once {
			*rounds = 1
		}
		look := func(ctx context.Context) top.Look { return lookForTop(ctx, env, *names) }
		if terminal := cli.Terminal(env.Stdout); *rounds == 0 && terminal != nil && cli.Terminal(os.Stdin) != nil {
			stderr := env.Stderr
			defer func() { env.Stderr = stderr }()
			env.Stderr = io.Discard // top owns the screen
			return top.Run(ctx, os.Stdin, terminal, *every, actForTop(env, look))
		}
		return plainTop(ctx, env, look, *every, *rounds)
	})
}

func lookForTop(ctx context.Context, env *environment, names []string) top.Look {
	found, daemon, err := lookAt(ctx, env, names)
	from := "by looking at the files"
	if daemon {
		from = "from the daemon"
	}
	return top.Look{At: time.Now(), From: from, Itself: newAdminClient(env).Health(ctx), Databases: found, Err: err}
}

func plainTop(ctx context.Context, env *environment, look func(context.Context) top.Look, every time.Duration,
	rounds int) error {
	tick := time.NewTicker(max(every, 100*time.Millisecond))
	defer tick.Stop()
	for round := 1; ; round++ {
		l := look(ctx)
		if l.Err != nil {
			return l.Err
		}
		fmt.Fprintf(env.Stdout, "sqlwatch  %s  %s\n\n", show.Clock(l.At), l.From)
		views.Itself(env.Stdout, l.Itself)
		if err := views.Status(env.Stdout, l.Databases, l.At); err != nil {
			return err
		}
		if round == rounds {
			return findings(l.Itself, l.Databases, health.Warning)
		}
		select {
		case <-tick.C:
			fmt.Fprintln(env.Stdout)
		case <-ctx.Done():
			return nil
		}
	}
}

// actForTop are the actions that top offers. The daemon carries them out; top itself changes nothing.
func actForTop(env *environment, look func(context.Context) top.Look) top.Hands {
	return top.Hands{
		Look: look,
		Checkpoint: func(ctx context.Context, db string) string {
			record, err := newAdminClient(env).Checkpoint(ctx, db, "truncate")
			var text bytes.Buffer
			if err = errors.Join(err, views.Record(&text, db, record)); err != nil {
				return err.Error()
			}
			return strings.TrimSpace(text.String())
		},
		Pause: func(ctx context.Context, db string, length time.Duration) string {
			if err := newAdminClient(env).Pause(ctx, db, length); err != nil {
				return err.Error()
			}
			return fmt.Sprintf("no policy acts on %s until %s; sqlwatch resume %s ends that", db,
				show.Time(time.Now().Add(length)), show.Quote(db))
		},
	}
}
