package main

import (
	"context"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/cli"
	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/daemon"
	"github.com/sqlwatch/sqlwatch/internal/doctor"
	"github.com/sqlwatch/sqlwatch/internal/inventory"
	"github.com/sqlwatch/sqlwatch/replicator/store"
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
	cmd := app.Command("doctor", "Find what is wrong or risky with databases, their place, the processes on them and "+
		"their replicas, with the exact cure of each. Exit code 2: something was found.")
	names := make([]string, 0, len(doctor.Settings("")))
	for _, s := range doctor.Settings("") {
		names = append(names, s.Name)
	}
	c := &doctorCommand{
		env:   env,
		names: cmd.Arg("db", "Configured names or files; all configured databases for none.").Strings(),
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
	targets, host, err := c.targets()
	if err != nil {
		return err
	}
	report := doctor.Report{Databases: []doctor.Examined{}, Host: doctor.DiagnoseHost(host)}
	report.Faults = doctor.Faults(report.Host)
	for _, t := range targets {
		d := c.examine(ctx, t)
		if err := ctx.Err(); err != nil {
			return err
		}
		report.Databases = append(report.Databases, d)
		report.Faults += doctor.Faults(d.Findings)
		if d.FixErr != "" {
			report.Faults++
		}
	}
	report.Settings = c.recommended(targets)
	err = c.env.print(*c.asJSON, report, report.Write)
	if err == nil && report.Faults > 0 {
		return &exitError{code: exitFindings}
	}
	return err
}

// targets returns what to examine. The configuration's warnings are findings
// here, so they are not printed as it is loaded.
func (c *doctorCommand) targets() ([]config.DatabaseTarget, doctor.Host, error) {
	quiet := *c.env
	quiet.Stderr = io.Discard
	targets, cfg, err := quiet.resolver().Targets(*c.names, *c.replica)
	if err != nil && len(targets) == 0 {
		return nil, doctor.Host{}, err
	}
	tips := c.warnings(cfg)
	if err != nil {
		tips = append([]string{err.Error()}, tips...)
	}
	host := doctor.GatherHost(cfg.Server.StateDir, tips)
	if len(*c.names) == 0 {
		states, _ := inventory.LeftOver(context.Background(), c.env.resolver(), cfg.Server.StateDir, targets)
		for _, s := range states { // a directory that may not be read has its own finding
			host.LeftOver = append(host.LeftOver, s.String())
		}
	}
	return targets, host, nil
}

// warnings returns the configuration's own, where it came from files.
func (c *doctorCommand) warnings(cfg *config.Config) []string {
	path, err := configPath(c.env)
	if err != nil || len(cfg.Files) == 0 {
		return nil
	}
	var tips []string
	_, diags := config.Load(path, c.env.Getenv)
	for _, d := range diags {
		tips = append(tips, d.Detail)
	}
	return tips
}

// examine has one database examined, with its replicas.
func (c *doctorCommand) examine(ctx context.Context, t config.DatabaseTarget) doctor.Examined {
	defer cli.Waiting(c.env.Stderr, "examining "+t.Name)()
	patient := doctor.Patient{Name: t.Name, Path: t.Path, Expected: *c.processes, Fix: *c.fix}
	for _, r := range t.Replicas {
		if *c.withoutReplicas {
			break
		}
		patient.Replicas = append(patient.Replicas, doctor.ReplicaPlace{
			Name: r.Name, Kind: r.Type, Place: r.Place(), Dir: r.File.Dir,
			Open: func(ctx context.Context) (store.Store, error) { return daemon.NewStore(ctx, r) },
		})
	}
	return doctor.Examine(ctx, patient)
}

// recommended returns the settings asked for, for the path of an only database.
func (c *doctorCommand) recommended(targets []config.DatabaseTarget) []doctor.Setting {
	path := "/path/to/app.db"
	if len(targets) == 1 {
		path = targets[0].Path
	}
	return slices.DeleteFunc(doctor.Settings(path), func(s doctor.Setting) bool {
		return *c.settings == "none" || *c.settings != "all" && s.Name != *c.settings
	})
}
