package main

import (
	"context"
	"io"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/views"
)

func registerWhy(app *kingpin.Application, env *environment) {
	cmd := app.Command("why", "Explain what the policies say about a database: the values behind it, the first guard "+
		"that refused, when it could act, and recent decisions. Exit code 2: something is wrong, or no daemon answers.")
	name := cmd.Arg("db", "A configured name or a file.").Required().String()
	only := cmd.Arg("policy", "Only this policy.").String()
	asJSON := cmd.Flag("json", "Print JSON.").Bool()
	cmd.Action(func(*kingpin.ParseContext) error {
		found, daemon, err := lookAt(context.Background(), env, []string{*name})
		if err != nil {
			return err
		}
		if err := views.Only(&found[0], *only); err != nil {
			return err
		}
		err = env.print(*asJSON, found[0], func(w io.Writer) error {
			views.Why(w, found[0], daemon, time.Now())
			return nil
		})
		if err == nil && (!daemon || views.Wrong(found[0], health.Warning)) {
			return &exitError{code: exitFindings}
		}
		return err
	})
}
