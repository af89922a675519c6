package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/notify"
	"github.com/sqlwatch/sqlwatch/internal/show"
)

func registerNotify(app *kingpin.Application, env *environment) {
	cmd := app.Command("notify", "About the notifiers of the configuration.")
	test := cmd.Command("test", "Send one message of no consequence, and tell how that went. Exit code 2: it was not "+
		"taken.")
	name := test.Arg("notifier", "Its type and name, as slack.ops.").Required().String()
	limit := test.Flag("timeout", "Give up after this time.").Default("30s").Duration()
	test.Action(func(*kingpin.ParseContext) error {
		cfg, _, err := twoConfigs(env, "")
		if err != nil {
			return err
		}
		chosen, err := notify.Choose(slices.Sorted(maps.Keys(cfg.Notifiers)), *name)
		if err != nil {
			return err
		}
		ctx, stop := interruptible()
		defer stop()
		ctx, cancel := context.WithTimeout(ctx, *limit)
		defer cancel()
		began := time.Now()
		if err := notify.Test(ctx, cfg.Notifiers[chosen].Target); err != nil {
			return &exitError{code: exitFindings, err: fmt.Errorf("%s did not take the message: %w", chosen, err)}
		}
		_, err = fmt.Fprintf(env.Stdout, "%s took the message in %s.\n", show.Text(chosen),
			time.Since(began).Round(time.Millisecond))
		return err
	})
}
