package main

import (
	"context"
	"fmt"
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
		if *next != "" {
			return planNew(context.Background(), env, *next, *asJSON)
		}
		views, _, err := lookAt(context.Background(), env, nil)
		if err != nil {
			return err
		}
		plans := plan.Of(views)
		if *asJSON {
			err = writeJSON(env.Stdout, plans)
		} else {
			err = writePlans(env.Stdout, plans)
		}
		for _, p := range plans {
			if err == nil && p.Would != "" {
				return &exitError{code: exitFindings}
			}
		}
		return err
	})
}

// planNew compares two configurations: their text, and what their policies say of the
// databases that both have, on the same measurements, states and past.
func planNew(ctx context.Context, env *environment, next string, asJSON bool) error {
	before, after, err := twoConfigs(env, next)
	if err != nil {
		return err
	}
	changes, err := plan.Compare(ctx, newAdminClient(env), before, after)
	if err != nil {
		return err
	}
	if asJSON {
		err = writeJSON(env.Stdout, changes)
	} else {
		err = writeChanged(env.Stdout, changes)
	}
	if err == nil && len(changes.Configuration)+len(changes.Policies) > 0 {
		return &exitError{code: exitFindings}
	}
	return err
}

// twoConfigs reads the configuration and another, which is nil for "".
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

func writeChanged(w io.Writer, changes plan.Changes) error {
	for _, change := range changes.Configuration {
		if _, err := fmt.Fprintln(w, change); err != nil {
			return err
		}
	}
	if len(changes.Configuration) > 0 && len(changes.Policies) == 0 {
		_, err := fmt.Fprintln(w, "What the policies do now stays the same.")
		return err
	}
	if !changes.Daemon && len(changes.Policies) > 0 {
		_, err := fmt.Fprintln(w, "No daemon answers: what follows is one look at the files, without a past.")
		if err != nil {
			return err
		}
	}
	return writePlans(w, changes.Policies)
}

func writePlans(w io.Writer, plans []plan.Policy) error {
	if len(plans) == 0 {
		_, err := fmt.Fprintln(w, "Nothing to do, nothing to change.")
		return err
	}
	for _, p := range plans {
		would := "nothing now"
		if p.Would != "" {
			would = "would " + p.Would + " now"
		}
		line := fmt.Sprintf("%s  %s: %s (%s): %s", p.DB, p.Policy, would, p.Phase, p.Reason)
		if p.Change != "" {
			line += " [" + p.Change + "]"
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}
