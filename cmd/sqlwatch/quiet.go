package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/admin"
	"github.com/sqlwatch/sqlwatch/internal/tuning"
	"github.com/sqlwatch/sqlwatch/internal/views"
)

func registerQuiet(app *kingpin.Application, env *environment) {
	cmd := app.Command("quiet", "Draw the week as learned windows know it, hour by hour, and say why now is quiet or not.")
	name := cmd.Arg("db", "A configured name or a file.").Required().String()
	asJSON := cmd.Flag("json", "Print JSON.").Bool()
	cmd.Action(func(*kingpin.ParseContext) error {
		ctx, stop := interruptible()
		defer stop()
		client := newAdminClient(env)
		windows, err := ofDatabase(*name, func(name string) ([]admin.Quiet, error) { return client.Quiet(ctx, name) })
		if err != nil {
			return needsDaemon(err)
		}
		return env.print(*asJSON, windows, func(w io.Writer) error { return views.Quiet(w, *name, windows, time.Now()) })
	})
}

// needsDaemon explains what to do if no daemon answers a command that needs one.
func needsDaemon(err error) error {
	if errors.Is(err, admin.ErrNoDaemon) {
		return fmt.Errorf("%w: what was learned is known to the daemon alone; start it with `sqlwatch run`", err)
	}
	return err
}

func registerTune(app *kingpin.Application, env *environment) {
	cmd := app.Command("tune", "What tune blocks have learned.")
	list := cmd.Command("show", "Show the values, and the evidence for them.")
	name := list.Arg("db", "A configured name or a file. Default: all databases.").String()
	asJSON := list.Flag("json", "Print JSON.").Bool()
	list.Action(func(*kingpin.ParseContext) error {
		found, err := tuned(env, *name)
		if err != nil {
			return err
		}
		return env.print(*asJSON, admin.Tunes(found), func(w io.Writer) error { return views.Tunes(w, found, time.Now()) })
	})
	export := cmd.Command("export", "Print the configuration with what was learned written into it; comments stay. "+
		"Exit code 2: something differs.")
	of := export.Arg("db", "Of this database. Default: all, which must agree.").String()
	write := export.Flag("write", "Write the files instead of printing them.").Bool()
	registerRetune(cmd, env, "revert", "Undo the last step of a value; it stays there for a week.")
	registerRetune(cmd, env, "freeze", "Keep a value where it is for a week.")
	export.Action(func(*kingpin.ParseContext) error { return exportTuned(env, *of, *write) })
}

// registerRetune adds the operator's commands for a tuned value.
func registerRetune(tune *kingpin.CmdClause, env *environment, do, help string) {
	cmd := tune.Command(do, help)
	db := cmd.Arg("db", "A configured name or a file.").Required().String()
	policy := cmd.Arg("policy", "The policy.").Required().String()
	name := cmd.Arg("name", "The tune block.").Required().String()
	cmd.Action(func(*kingpin.ParseContext) error {
		ctx, stop := interruptible()
		defer stop()
		client := newAdminClient(env)
		said, err := ofDatabase(*db, func(db string) (string, error) {
			return client.Retune(ctx, do, db, *policy, *name)
		})
		if err == nil {
			_, err = fmt.Fprintln(env.Stdout, said)
		}
		return needsDaemon(err)
	})
}

func tuned(env *environment, name string) ([]databaseView, error) {
	ctx, stop := interruptible()
	defer stop()
	found, err := databases(ctx, env, name)
	return found, needsDaemon(err)
}

func exportTuned(env *environment, db string, write bool) error {
	found, err := tuned(env, db)
	if err != nil {
		return err
	}
	values, err := tuning.Values(found)
	if err != nil {
		return err
	}
	cfg, _, err := twoConfigs(env, "")
	if err != nil {
		return err
	}
	changed, err := tuning.Export(cfg.Files, values)
	if err != nil {
		return err
	}
	if err := tuning.Write(env.Stdout, changed, write); err != nil {
		return err
	}
	if len(changed) > 0 && !write {
		return &exitError{code: exitFindings}
	}
	return nil
}
