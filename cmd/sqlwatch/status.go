package main

import (
	"io"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/admin"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/views"
	"github.com/sqlwatch/sqlwatch/internal/web"
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
		return findings(itself, found, health.Severity(*from))
	})
}

// findings returns exit code 2 if a condition is at least as severe as least.
func findings(itself web.Health, found []admin.Database, least health.Severity) error {
	wrong := health.AtLeast(itself.Conditions, least)
	for _, v := range found {
		wrong = wrong || views.Wrong(v, least)
	}
	if wrong {
		return &exitError{code: exitFindings}
	}
	return nil
}
