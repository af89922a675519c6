package inventory

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/config"
)

// Report is which replicas there are, and what is left of databases that are not
// configured any more.
type Report struct {
	Replicas []Replica `json:"replicas"`
	States   []State   `json:"left_over_states"`
}

// Wrong reports whether somebody must look at it.
func (r Report) Wrong() bool {
	return len(r.States) > 0 || slices.ContainsFunc(r.Replicas, Replica.Wrong)
}

// Write writes the report as a table, and below it what is wrong.
func (r Report) Write(w io.Writer, now time.Time) error { return write(w, r.Replicas, r.States, now) }

// Source answers what is configured and watched.
type Source interface {
	Targets(names []string, replicaURL string) ([]config.DatabaseTarget, *config.Config, error)
	Watched(ctx context.Context) []string // by a running daemon; none where there is none
}

// Gather looks at the replicas of the named databases, of all configured ones and what is
// left of others for no name, or at all replicas below a URL.
func Gather(ctx context.Context, source Source, open Opener, names []string) (Report, error) {
	report := Report{Replicas: []Replica{}, States: []State{}}
	if len(names) == 1 && strings.Contains(names[0], "://") {
		at, err := config.ParseReplicaURL(names[0])
		if err != nil {
			return report, err
		}
		below, err := Below(ctx, open, at)
		for _, t := range below {
			found := Look(ctx, open, t)
			found.Name = ""
			report.Replicas = append(report.Replicas, found)
		}
		return report, err
	}
	targets, cfg, err := source.Targets(names, "")
	if err != nil && len(targets) == 0 {
		return report, err
	}
	for _, t := range targets {
		for _, r := range t.Replicas {
			found := Look(ctx, open, r)
			found.DB = t.Name
			report.Replicas = append(report.Replicas, found)
		}
	}
	if len(names) > 0 {
		return report, nil
	}
	states, err := LeftOver(ctx, source, cfg.Server.StateDir, targets)
	report.States = append(report.States, states...)
	return report, err
}

// LeftOver returns the states of databases that are neither configured nor watched: those
// of a glob stay watched while their file is gone.
func LeftOver(ctx context.Context, source Source, stateDir string, targets []config.DatabaseTarget) ([]State, error) {
	known := source.Watched(ctx)
	for _, t := range targets {
		known = append(known, t.Name)
	}
	return Orphans(stateDir, known)
}

// Of returns what is kept of one database that nobody watches. The state directory is the
// configuration's, or else stateDir.
func Of(source Source, stateDir, name string) (State, bool) {
	if _, cfg, err := source.Targets(nil, ""); err == nil {
		stateDir = cfg.Server.StateDir
	}
	states, _ := Orphans(stateDir, nil) // what cannot be read is not told
	if i := slices.IndexFunc(states, func(s State) bool { return s.Name == name }); i >= 0 {
		return states[i], true
	}
	return State{}, false
}
