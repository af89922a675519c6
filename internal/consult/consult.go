// Package consult has doctor look at what an operator named: it asks a running daemon
// what it knows, finds the databases and their replicas, and hands them over one by one.
package consult

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/admin"
	"github.com/sqlwatch/sqlwatch/internal/cli"
	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/daemon"
	"github.com/sqlwatch/sqlwatch/internal/doctor"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/inventory"
	"github.com/sqlwatch/sqlwatch/internal/lookup"
	"github.com/sqlwatch/sqlwatch/internal/target"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// askWithin bounds how long a daemon is asked; doctor looks for itself in any case.
const askWithin = 5 * time.Second

// Request is what an operator wants to have examined.
type Request struct {
	Names           []string // configured names or files; none: all that are configured
	Replica         string   // of files without a configuration
	Processes       int      // that may be attached; 0: any number
	Fix             bool
	WithoutReplicas bool
}

// Consultation is where things are found, and where progress is told.
type Consultation struct {
	Resolver *target.Resolver
	Progress io.Writer
}

// Hold examines everything that was asked for. The settings of the report are left to
// the caller.
func (c Consultation) Hold(ctx context.Context, r Request) (doctor.Report, []config.DatabaseTarget, error) {
	daemon := c.ask(ctx)
	targets, cfg, tips, err := c.targets(r, daemon)
	if err != nil {
		return doctor.Report{}, nil, err
	}
	hung := silent(looked(targets, cfg))
	host := c.host(r, cfg, targets, tips, hung)
	report := doctor.Report{Databases: []doctor.Examined{}, Host: unsaid(doctor.DiagnoseHost(host), daemon.itself),
		Conditions: daemon.itself}
	report.Faults = doctor.Faults(report.Host) + wrong(report.Conditions)
	examined := c.examineAll(ctx, r, targets, hung)
	if err := ctx.Err(); err != nil {
		return report, targets, err
	}
	for i, t := range targets {
		d := examined[i]
		d.Conditions = slices.DeleteFunc(daemon.of(t, hung), func(c health.Condition) bool { // it has not looked since
			return c.ID == "not_wal" && d.Fixed != ""
		})
		d.Findings = unsaid(d.Findings, d.Conditions)
		report.Databases = append(report.Databases, d)
		report.Faults += doctor.Faults(d.Findings) + wrong(d.Conditions)
		if d.FixErr != "" {
			report.Faults++
		}
	}
	return report, targets, nil
}

// answers is what a running daemon knows; of none it is empty.
type answers struct {
	itself    []health.Condition
	databases []admin.Database
}

// ask asks the daemon. That none answers is no finding: doctor is run before there is one,
// too, and status says it.
func (c Consultation) ask(ctx context.Context) answers {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	known, err := c.Resolver.Daemon.Databases(ctx, "")
	if err != nil {
		return answers{itself: []health.Condition{}}
	}
	return answers{itself: health.InDoctor(c.Resolver.Daemon.Health(ctx).Conditions), databases: known}
}

// of returns what the daemon says of a database; never nil.
func (a answers) of(t config.DatabaseTarget, hung paths) []health.Condition {
	path := t.Path
	if !hung[path] {
		path = target.Absolute(path)
	}
	for _, d := range a.databases {
		if d.Name == t.Name || d.Path == path {
			return health.InDoctor(d.Conditions)
		}
	}
	return []health.Condition{}
}

// named returns the databases that the daemon watches by these names or paths, or all of
// them for none. It knows no replicas.
func (a answers) named(names []string) (targets []config.DatabaseTarget, err error) {
	for _, d := range a.databases {
		targets = append(targets, config.DatabaseTarget{Name: d.Name, Path: d.Path})
	}
	if len(names) == 0 {
		return targets, nil
	}
	return target.Choose(targets, names, nil)
}

// unsaid leaves out what the daemon says in its own words: one fact is told once.
func unsaid(findings []doctor.Finding, said []health.Condition) []doctor.Finding {
	return slices.DeleteFunc(findings, func(f doctor.Finding) bool {
		return slices.ContainsFunc(said, func(c health.Condition) bool { return c.ID == strings.ReplaceAll(f.ID, "-", "_") })
	})
}

// wrong counts the conditions that somebody must act on.
func wrong(all []health.Condition) (n int) {
	for _, c := range all {
		if c.Severity != health.Info {
			n++
		}
	}
	return n
}

// targets returns what to examine, and of which configuration; nil: of none that can be read.
// Its warnings are findings here, so they are not printed as it is loaded. Where it cannot be
// read, the daemon's databases are examined without their replicas.
func (c Consultation) targets(r Request, daemon answers) (targets []config.DatabaseTarget, cfg *config.Config,
	tips []string, err error) {
	quiet := *c.Resolver
	quiet.Stderr = io.Discard
	targets, cfg, err = expanded(&quiet, r)
	var bad *target.ConfigError
	if errors.As(err, &bad) || errors.Is(err, fs.ErrPermission) || errors.Is(err, target.ErrNoConfig) ||
		errors.Is(err, lookup.ErrHung) {
		if known, nameErr := daemon.named(r.Names); nameErr == nil && len(known) > 0 {
			if errors.Is(err, target.ErrNoConfig) { // the daemon was started with files for arguments
				return known, nil, nil, nil
			}
			return known, nil, []string{fmt.Sprintf("the daemon was asked which databases there "+
				"are, and no replica is tried: what it has of its configuration cannot be found out here: %v", err)}, nil
		}
	}
	if errors.Is(err, lookup.ErrHung) {
		for name := range silent(r.Names) {
			targets = append(targets, config.DatabaseTarget{Name: name, Path: name})
		}
		if len(targets) > 0 {
			return targets, nil, nil, nil
		}
	}
	if err != nil && len(targets) == 0 {
		return nil, nil, nil, err
	}
	tips = c.warnings(cfg)
	if err != nil {
		tips = append([]string{err.Error()}, tips...)
	}
	return targets, cfg, tips, nil
}

// looked returns every path that is about to be looked at.
func looked(targets []config.DatabaseTarget, cfg *config.Config) (all []string) {
	if cfg != nil {
		all = append(all, cfg.Server.StateDir)
	}
	for _, t := range targets {
		all = append(all, t.Path)
		for _, r := range t.Replicas {
			all = append(all, r.File.Dir)
		}
	}
	return all
}

// host gathers what is not a database's.
func (c Consultation) host(r Request, cfg *config.Config, targets []config.DatabaseTarget, tips []string,
	hung paths) doctor.Host {
	if cfg == nil {
		return doctor.Host{ConfigurationTip: tips}
	}
	dir := cfg.Server.StateDir
	if hung[dir] {
		return doctor.SilentHost(dir, tips)
	}
	host := doctor.GatherHost(dir, tips)
	if len(r.Names) == 0 {
		states, _ := inventory.LeftOver(context.Background(), c.Resolver, dir, targets)
		for _, s := range states { // a directory that may not be read has its own finding
			host.LeftOver = append(host.LeftOver, s.String())
		}
	}
	return host
}

// expanded returns what the configuration stands for, for which every file is looked at. It fails
// with lookup.ErrHung where one of these looks does not return.
func expanded(resolver *target.Resolver, r Request) ([]config.DatabaseTarget, *config.Config, error) {
	var targets []config.DatabaseTarget
	var cfg *config.Config
	var err error
	if soon(func() { targets, cfg, err = resolver.Targets(r.Names, r.Replica) }) {
		return targets, cfg, err
	}
	return nil, nil, fmt.Errorf("look at the databases' files: %w", lookup.ErrHung)
}

// warnings returns the configuration's own, where it came from files.
func (c Consultation) warnings(cfg *config.Config) []string {
	path, err := c.Resolver.ConfigPath()
	if err != nil || len(cfg.Files) == 0 {
		return nil
	}
	var tips []string
	_, diags := config.Load(path, c.Resolver.Getenv)
	for _, d := range diags {
		tips = append(tips, d.Detail)
	}
	return tips
}

// atOnce is how many databases are examined beside each other: most of the time of each is
// a look at whether its locks change.
const atOnce = 8

// examineAll has the databases examined, in their order.
func (c Consultation) examineAll(ctx context.Context, r Request, targets []config.DatabaseTarget,
	hung paths) []doctor.Examined {
	what := fmt.Sprintf("examining %d databases", len(targets))
	if len(targets) == 1 {
		what = "examining " + targets[0].Name
	}
	defer cli.Waiting(c.Progress, what)()
	examined := make([]doctor.Examined, len(targets))
	var all sync.WaitGroup
	n := atOnce
	if r.Fix {
		n = 1 // two names of one file: a lock taken through one is not released when the other is closed
	}
	slots := make(chan struct{}, n)
	for i, t := range targets {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		all.Go(func() {
			defer func() { <-slots }()
			examined[i] = c.examine(ctx, r, t, hung)
		})
	}
	all.Wait()
	return examined
}

// examine has one database examined, with its replicas.
func (c Consultation) examine(ctx context.Context, r Request, t config.DatabaseTarget, hung paths) doctor.Examined {
	if hung[t.Path] {
		return doctor.Silent(t.Name, t.Path)
	}
	patient := doctor.Patient{Name: t.Name, Path: t.Path, Expected: r.Processes, Fix: r.Fix}
	for _, at := range t.Replicas {
		if r.WithoutReplicas {
			break
		}
		patient.Replicas = append(patient.Replicas, doctor.ReplicaPlace{
			Name: at.Name, Kind: at.Type, Place: at.Place(), Dir: at.File.Dir, Silent: hung[at.File.Dir],
			Open: func(ctx context.Context) (store.Store, error) { return daemon.NewStore(ctx, at) },
		})
	}
	return doctor.Examine(ctx, patient)
}
