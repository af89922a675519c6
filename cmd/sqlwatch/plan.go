package main

import (
	"context"
	"io"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/plan"
)

func registerPlan(app *kingpin.Application, env *environment) {
	cmd := app.Command("plan", "Show what each policy would do now and why. With --new, show what another configuration "+
		"would change. Exit code 2: something would be done, or would change.")
	next := cmd.Flag("new", "Another configuration to compare with.").PlaceHolder("PATH").String()
	asJSON := cmd.Flag("json", "Print JSON.").Bool()
	cmd.Action(func(*kingpin.ParseContext) error {
		ctx, stop := interruptible()
		defer stop()
		if *next != "" {
			return planNew(ctx, env, *next, *asJSON)
		}
		views, _, err := lookAt(ctx, env, nil)
		if err != nil {
			return err
		}
		plans := plan.Of(views)
		err = env.print(*asJSON, plans, func(w io.Writer) error { return plan.Write(w, plans) })
		for _, p := range plans {
			if err == nil && p.Would != "" {
				return &exitError{code: exitFindings}
			}
		}
		return err
	})
}

// planNew compares two configurations: their text, and what their policies decide about the
// databases that both have, from the same measurements, states and history.
func planNew(ctx context.Context, env *environment, next string, asJSON bool) error {
	before, after, err := twoConfigs(env, next)
	if err != nil {
		return err
	}
	changes, err := plan.Compare(ctx, newAdminClient(env), before, after)
	if err != nil {
		return err
	}
	err = env.print(asJSON, changes, changes.Write)
	if err == nil && len(changes.Configuration)+len(changes.Policies) > 0 {
		return &exitError{code: exitFindings}
	}
	return err
}

// twoConfigs reads the configuration and a second one, which is nil for "".
func twoConfigs(env *environment, next string) (before, after *config.Config, err error) {
	path, err := configPath(env)
	if err == nil {
		before, err = loadConfigFrom(env, path)
	}
	if err == nil && next != "" {
		after, err = loadConfigFrom(env, next)
	}
	return before, after, err
}
