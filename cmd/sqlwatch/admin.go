package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/admin"
	"github.com/sqlwatch/sqlwatch/internal/cli"
	"github.com/sqlwatch/sqlwatch/internal/inventory"
	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
)

// registerAdmin registers the commands that only a running daemon can carry out.
func registerAdmin(app *kingpin.Application, env *environment) {
	registerAction(app, env, "snapshot", "Write a snapshot of a database to its replicas now.")
	sync := registerAction(app, env, "sync",
		"Send what was captured to the replicas now; returns when it is durable on every one.")
	sync.Flag("wait", "Accepted for clarity: sync always waits.").Bool()

	reload := app.Command("reload", "Have the daemon reload its configuration. On errors the previous one stays in force.")
	reload.Action(func(*kingpin.ParseContext) error {
		if err := askAdmin(env, "/v1/reload", nil, 0, &struct{}{}); err != nil {
			return err
		}
		_, err := fmt.Fprintln(env.Stdout, "The configuration was reloaded.")
		return err
	})

	forget := app.Command("forget", "Forget a database that a glob once found and whose file is gone. Its replica is "+
		"kept.")
	forgotten := forget.Arg("db", "Its name.").Required().String()
	forget.Action(func(*kingpin.ParseContext) error {
		err := askAdmin(env, "/v1/forget", url.Values{"db": {*forgotten}}, 0, &struct{}{})
		left, known := inventory.Of(env.resolver(), admin.Places(env.Getenv).StateDir, *forgotten)
		if errors.Is(err, watchdog.ErrUnknownDatabase) && known {
			_, err = fmt.Fprintf(env.Stdout, "Nobody watches it.\n%s\n", left)
			return err
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(env.Stdout, "%s is forgotten; its replica is kept.\n", *forgotten)
		if err == nil && known {
			_, err = fmt.Fprintln(env.Stdout, left)
		}
		return err
	})

	resume := app.Command("resume", "End a pause: policies act again.")
	resumed := resume.Arg("db", "A configured name or a file. Default: all databases.").String()
	resume.Action(func(*kingpin.ParseContext) error { return pauseFor(env, *resumed, 0) })

	pause := app.Command("pause", "Keep policies from acting for a while; measuring continues.")
	name := pause.Arg("db", "A configured name or a file. Default: all databases.").String()
	length := pause.Flag("for", "For how long; 0 ends a pause.").Default("1h").Duration()
	pause.Action(func(*kingpin.ParseContext) error { return pauseFor(env, *name, *length) })
}

func pauseFor(env *environment, name string, length time.Duration) error {
	query := url.Values{"db": {name}, "for": {length.String()}}
	if err := askAdmin(env, "/v1/pause", query, 0, &struct{}{}); err != nil {
		return err
	}
	text := "Policies act again.\n"
	if length > 0 {
		text = fmt.Sprintf("No policy acts until %s.\n", show.Time(time.Now().Add(length)))
	}
	_, err := io.WriteString(env.Stdout, text)
	return err
}

func registerAction(app *kingpin.Application, env *environment, kind, help string) *kingpin.CmdClause {
	cmd := app.Command(kind, help+" Exit code 2: it did not succeed.")
	name := cmd.Arg("db", "A configured name or a file.").Required().String()
	asJSON := cmd.Flag("json", "Print JSON.").Bool()
	limit := cmd.Flag("timeout", "Give up after this time; 0 waits for as long as it takes.").Default("0").Duration()
	cmd.Action(func(*kingpin.ParseContext) error {
		var record watchdog.ActionRecord
		err := askAdmin(env, "/v1/"+kind, url.Values{"db": {*name}}, *limit, &record)
		if errors.Is(err, context.DeadlineExceeded) {
			return &exitError{code: exitFindings, err: fmt.Errorf("%s of %s was not done within %s; what was captured is "+
				"kept, and the daemon keeps trying: see `sqlwatch status`", kind, *name, *limit)}
		}
		if err != nil {
			return err
		}
		return report(env, *asJSON, *name, record)
	})
	return cmd
}

// askAdmin sends a POST request to the daemon. SIGINT and SIGTERM cancel it, and so
// does limit, if it is not 0.
func askAdmin(env *environment, path string, query url.Values, limit time.Duration, out any) error {
	ctx, stop := interruptible()
	defer stop()
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	done := cli.Waiting(env.Stderr, strings.TrimPrefix(path, "/v1/")+" "+query.Get("db"))
	client := newAdminClient(env)
	_, err := ofDatabase(query.Get("db"), func(name string) (struct{}, error) {
		if name != "" {
			query.Set("db", name)
		}
		return struct{}{}, client.Call(ctx, "POST", path, query, out)
	})
	done()
	if errors.Is(err, admin.ErrNoDaemon) {
		return fmt.Errorf("%w: start it with `sqlwatch run`, or name its socket with --admin", err)
	}
	return err
}
