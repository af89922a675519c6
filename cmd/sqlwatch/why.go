package main

import (
	"context"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/views"
)

func registerWhy(app *kingpin.Application, env *environment) {
	cmd := app.Command("why", "Explain what the policies say about a database: the values behind it, the first guard "+
		"that refused, when it could act, what was decided lately.")
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
		if *asJSON {
			return writeJSON(env.Stdout, found[0])
		}
		views.Why(env.Stdout, found[0], daemon, time.Now())
		return nil
	})
}
