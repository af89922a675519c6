package main

import (
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/consult"
	"github.com/sqlwatch/sqlwatch/internal/doctor"
)

// doctorCommand holds the flags of doctor.
type doctorCommand struct {
	env *environment

	names                        *[]string
	replica, settings            *string
	processes                    *int
	fix, asJSON, withoutReplicas *bool
}

func registerDoctor(app *kingpin.Application, env *environment) {
	cmd := app.Command("doctor", "Find what is wrong or risky about databases, where they are stored, the processes "+
		"using them and their replicas, with the cure for each. Exit code 2: something was found.")
	names := make([]string, 0, len(doctor.Settings("")))
	for _, s := range doctor.Settings("") {
		names = append(names, s.Name)
	}
	c := &doctorCommand{
		env:   env,
		names: cmd.Arg("db", "Configured names or files. Default: all configured databases.").Strings(),
		replica: cmd.Flag("replica", "Replica of files given as arguments, as run takes it.").PlaceHolder(
			"URL").String(),
		withoutReplicas: cmd.Flag("no-replicas", "Make no round trips to replicas.").Bool(),
		processes: cmd.Flag("processes",
			"Processes that should have each database open; more are a finding.").PlaceHolder("N").Int(),
		fix: cmd.Flag("fix", "Turn WAL mode on where it is off. Nothing else is ever changed.").Bool(),
		settings: cmd.Flag("settings", "Recommended settings to print: all, none, or one of "+strings.Join(names, ", ")+
			".").Default("all").Enum(append([]string{"all", "none"}, names...)...),
		asJSON: cmd.Flag("json", "Print JSON.").Bool(),
	}
	cmd.Action(func(*kingpin.ParseContext) error { return c.run() })
}

func (c *doctorCommand) run() error {
	ctx, stop := interruptible()
	defer stop()
	asked := consult.Consultation{Resolver: c.env.resolver(), Progress: c.env.Stderr}
	report, targets, err := asked.Hold(ctx, consult.Request{
		Names: *c.names, Replica: *c.replica, Processes: *c.processes, Fix: *c.fix, WithoutReplicas: *c.withoutReplicas,
	})
	if err != nil {
		return err
	}
	report.Settings = c.recommended(targets)
	err = c.env.print(*c.asJSON, report, report.Write)
	if err == nil && report.Faults > 0 {
		return &exitError{code: exitFindings}
	}
	return err
}

// recommended returns the requested settings, for the database's path if there is only one.
func (c *doctorCommand) recommended(targets []config.DatabaseTarget) []doctor.Setting {
	path := "/path/to/app.db"
	if len(targets) == 1 {
		path = targets[0].Path
	}
	return slices.DeleteFunc(doctor.Settings(path), func(s doctor.Setting) bool {
		return *c.settings == "none" || *c.settings != "all" && s.Name != *c.settings
	})
}
