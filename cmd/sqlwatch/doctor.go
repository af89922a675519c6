package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/daemon"
	"github.com/sqlwatch/sqlwatch/internal/doctor"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

// probeTime bounds the round trip to one replica, its retries included, and
// largeProbeTime that of an object of 8 MiB.
const (
	probeTime      = 30 * time.Second
	largeProbeTime = 3 * time.Minute
)

// doctorCommand holds the flags of doctor.
type doctorCommand struct {
	env *environment

	names                        *[]string
	replica, settings            *string
	processes                    *int
	fix, asJSON, withoutReplicas *bool
}

// doctorReport is what --json prints.
type doctorReport struct {
	Databases []doctoredDatabase `json:"databases"`
	Host      []doctor.Finding   `json:"host"`
	Settings  []doctor.Setting   `json:"settings,omitempty"`
	Faults    int                `json:"faults"` // findings that are more than notes
}

type doctoredDatabase struct {
	Name     string           `json:"name"`
	Path     string           `json:"path"`
	Fixed    string           `json:"fixed,omitempty"` // what --fix did
	FixErr   string           `json:"fix_error,omitempty"`
	Replicas []string         `json:"replicas"` // to which a round trip succeeded, and how long it took
	Findings []doctor.Finding `json:"findings"`
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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	targets, host, err := c.targets()
	if err != nil {
		return err
	}
	report := doctorReport{Databases: []doctoredDatabase{}, Host: doctor.DiagnoseHost(host)}
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
	if *c.asJSON {
		err = writeJSON(c.env.Stdout, report)
	} else {
		err = report.write(c.env.Stdout)
	}
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
	cfg, err := runConfig(&quiet, *c.names, *c.replica)
	if err != nil {
		return nil, doctor.Host{}, err
	}
	targets, err := cfg.Expand()
	var tips []string
	if err != nil {
		if len(targets) == 0 {
			return nil, doctor.Host{}, err
		}
		tips = append(tips, err.Error())
	}
	tips = append(tips, c.warnings(cfg)...)
	if len(*c.names) > 0 {
		if targets, err = choose(targets, *c.names); err != nil {
			return nil, doctor.Host{}, err
		}
	}
	return targets, doctor.GatherHost(cfg.Server.StateDir, tips), nil
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

// choose returns the targets that are named.
func choose(targets []config.DatabaseTarget, names []string) ([]config.DatabaseTarget, error) {
	var chosen []config.DatabaseTarget
	for _, name := range names {
		i := slices.IndexFunc(targets, func(t config.DatabaseTarget) bool {
			return t.Name == name ||
				absolute(t.Path) == absolute(name)
		})
		if i < 0 {
			return nil, fmt.Errorf("%q is neither a configured database nor a file", name)
		}
		chosen = append(chosen, targets[i])
	}
	return chosen, nil
}

// examine gathers one database's facts and its replicas', and mends what may be.
func (c *doctorCommand) examine(ctx context.Context, t config.DatabaseTarget) doctoredDatabase {
	d := doctoredDatabase{Name: t.Name, Path: t.Path, Replicas: []string{}}
	facts := doctor.Gather(ctx, t.Name, t.Path)
	if *c.fix && doctor.CanTurnWALOn(facts) {
		if err := sqlite.SetJournalModeWAL(ctx, t.Path); err != nil {
			d.FixErr = fixFailure(err)
		} else {
			d.Fixed = "turned WAL mode on; the file remembers it"
			engine, bug := facts.File.Engine, facts.File.WALResetBug // the application's; the last writer is now this program
			facts = doctor.Gather(ctx, t.Name, t.Path)
			facts.File.Engine, facts.File.WALResetBug = engine, bug
		}
	}
	facts.Expected = *c.processes
	if !*c.withoutReplicas {
		for _, r := range t.Replicas {
			facts.Replicas = append(facts.Replicas, roundTrip(ctx, r, t.Path))
		}
	}
	for _, r := range facts.Replicas {
		if r.WentWell() {
			d.Replicas = append(d.Replicas, fmt.Sprintf("%s: wrote, read, listed and deleted a probe at %s in %s", r.Name,
				r.Place, r.Duration.Round(time.Millisecond)))
		}
	}
	d.Findings = doctor.Diagnose(facts)
	if d.Findings == nil {
		d.Findings = []doctor.Finding{}
	}
	return d
}

func fixFailure(err error) string {
	if errors.Is(err, sqlite.ErrBusy) {
		return err.Error() + ": an application has it open: stop it and try again, or let the application execute PRAGMA " +
			"journal_mode=WAL; once while it is the only connection"
	}
	return err.Error()
}

// roundTrip probes one replica.
func roundTrip(ctx context.Context, t config.ReplicaTarget, database string) doctor.Replica {
	r := doctor.Replica{Kind: t.Type}
	if t.Type == "file" {
		r = doctor.FileReplica(t.File.Dir, database)
	}
	if r.Skipped == "" && !r.Dir.Forbidden && r.ListErr == nil {
		whole := ctx
		ctx, cancel := context.WithTimeout(ctx, probeTime)
		defer cancel()
		store, err := daemon.NewStore(ctx, t)
		if err != nil {
			r.ListErr = err
		} else {
			r = doctor.Probe(ctx, store, r)
			patient, cancel := context.WithTimeout(whole, largeProbeTime)
			defer cancel()
			r = doctor.ProbeLarge(patient, store, r)
		}
	}
	r.Name, r.Place = t.Name, t.Place()
	return r
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

func (r doctorReport) write(w io.Writer) error {
	var b strings.Builder
	for _, d := range r.Databases {
		fmt.Fprintf(&b, "%s  %s\n", d.Name, d.Path)
		if d.Fixed != "" {
			fmt.Fprintf(&b, "  fixed     %s\n", d.Fixed)
		}
		if d.FixErr != "" {
			fmt.Fprintf(&b, "  not fixed %s\n", d.FixErr)
		}
		for _, line := range d.Replicas {
			fmt.Fprintf(&b, "  replica   %s\n", line)
		}
		writeFindings(&b, d.Findings, d.Name)
		b.WriteString("\n")
	}
	if len(r.Host) > 0 {
		b.WriteString("this machine\n")
		writeFindings(&b, r.Host, "")
		b.WriteString("\n")
	}
	switch r.Faults {
	case 0:
		b.WriteString("Nothing is wrong.\n")
	case 1:
		b.WriteString("1 finding.\n")
	default:
		fmt.Fprintf(&b, "%d findings.\n", r.Faults)
	}
	if len(r.Settings) > 0 {
		b.WriteString("\nRecommended settings (--settings=none leaves them out)\n\n")
		b.WriteString(indent(doctor.SettingsHead(), "  "))
	}
	for _, s := range r.Settings {
		fmt.Fprintf(&b, "\n# %s: %s\n%s", s.For, s.File, s.Text)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeFindings(b *strings.Builder, findings []doctor.Finding, database string) {
	if len(findings) == 0 {
		b.WriteString("  nothing found\n")
	}
	for _, f := range findings {
		what := f.What
		if part := strings.TrimSpace(strings.TrimPrefix(f.Subject, database)); part != "" {
			what = part + ": " + what
		}
		fmt.Fprintf(b, "  %-9s %s: %s\n            why:  %s\n            cure: %s\n", f.Severity, f.ID, what, f.Why, f.Cure)
	}
}

func indent(text, by string) string {
	return by + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n"+by) + "\n"
}
