package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// probeTime bounds the round trip to one replica, retries included; largeProbeTime bounds that
// of an object of 8 MiB.
const (
	probeTime      = 30 * time.Second
	largeProbeTime = 3 * time.Minute
)

// Report is everything that was found, as --json prints it.
type Report struct {
	Databases  []Examined         `json:"databases"`
	Host       []Finding          `json:"host"`
	Conditions []health.Condition `json:"conditions"` // of a running daemon, as it reports them itself
	Settings   []Setting          `json:"settings,omitempty"`
	Faults     int                `json:"faults"` // findings and conditions that somebody must act on
}

// Examined is one database of a Report.
type Examined struct {
	Name       string             `json:"name"`
	Path       string             `json:"path"`
	Fixed      string             `json:"fixed,omitempty"` // what --fix did
	FixErr     string             `json:"fix_error,omitempty"`
	Replicas   []string           `json:"replicas"`   // those to which a round trip succeeded, and how long it took
	Conditions []health.Condition `json:"conditions"` // what a daemon that watches it reports
	Findings   []Finding          `json:"findings"`   // what was found now
}

// Patient is one database to examine.
type Patient struct {
	Name, Path string
	Replicas   []ReplicaPlace
	Expected   int  // processes that may be attached; 0: any number
	Fix        bool // turn WAL mode on where that can be done
}

// Examine gathers the facts about one database and its replicas, and repairs what it may.
func Examine(ctx context.Context, p Patient) Examined {
	d := Examined{Name: p.Name, Path: p.Path, Replicas: []string{}, Conditions: []health.Condition{}}
	facts, answered := gatherSoon(ctx, p.Name, p.Path)
	if !answered {
		return Silent(p.Name, p.Path)
	}
	if p.Fix && CanTurnWALOn(facts) {
		if err := sqlite.SetJournalModeWAL(ctx, p.Path); err != nil {
			d.FixErr = fixFailure(err)
		} else {
			d.Fixed = "turned WAL mode on; the file remembers it"
			engine, bug := facts.File.Engine, facts.File.WALResetBug // the application's; the last writer is now this program
			facts = Gather(ctx, p.Name, p.Path)
			facts.File.Engine, facts.File.WALResetBug = engine, bug
		}
	}
	facts.Expected = p.Expected
	for _, at := range p.Replicas {
		facts.Replicas = append(facts.Replicas, RoundTrip(ctx, at, p.Path))
	}
	for _, r := range facts.Replicas {
		if trip := r.Trip(); trip != "" {
			d.Replicas = append(d.Replicas, trip)
		}
	}
	d.Findings = Diagnose(facts)
	if d.Findings == nil {
		d.Findings = []Finding{}
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

// ReplicaPlace is a replica of a database, and how to reach it.
type ReplicaPlace struct {
	Name, Kind, Place string
	Dir               string // of a file replica
	Silent            bool   // its disk does not answer
	Open              func(context.Context) (store.Store, error)
}

// RoundTrip probes one replica.
func RoundTrip(ctx context.Context, at ReplicaPlace, database string) Replica {
	r := Replica{Kind: at.Kind}
	switch {
	case at.Silent:
		r.ListErr = fmt.Errorf("%w: %w", store.ErrUnavailable, errSilent)
	case at.Kind == "file":
		r = FileReplica(at.Dir, database)
	}
	if r.Skipped == "" && !r.Dir.Forbidden && r.ListErr == nil {
		whole := ctx
		ctx, cancel := context.WithTimeout(ctx, probeTime)
		defer cancel()
		store, err := at.Open(ctx)
		if err != nil {
			r.ListErr = err
		} else {
			r = Probe(ctx, store, r)
			patient, cancel := context.WithTimeout(whole, largeProbeTime)
			defer cancel()
			r = ProbeLarge(patient, store, r)
		}
	}
	r.Name, r.Place = at.Name, at.Place
	return r
}

// Trip describes a successful round trip to a replica; it is "" if it failed.
func (r Replica) Trip() string {
	if !r.WentWell() {
		return ""
	}
	return fmt.Sprintf("%s: wrote, read, listed and deleted a probe at %s in %s", r.Name, r.Place,
		r.Duration.Round(time.Millisecond))
}

// Write writes the report for a person.
func (r Report) Write(w io.Writer) error {
	var b strings.Builder
	for _, d := range r.Databases {
		fmt.Fprintf(&b, "%s  %s\n", show.Text(d.Name), show.Text(d.Path))
		if d.Fixed != "" {
			fmt.Fprintf(&b, "  fixed     %s\n", d.Fixed)
		}
		if d.FixErr != "" {
			fmt.Fprintf(&b, "  not fixed %s\n", d.FixErr)
		}
		for _, line := range d.Replicas {
			fmt.Fprintf(&b, "  replica   %s\n", line)
		}
		writeConditions(&b, d.Conditions)
		writeFindings(&b, d.Findings, d.Name)
		b.WriteString("\n")
	}
	if len(r.Host)+len(r.Conditions) > 0 {
		b.WriteString("this machine\n")
		writeConditions(&b, r.Conditions)
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
		b.WriteString(indent(SettingsHead(), "  "))
	}
	for _, s := range r.Settings {
		fmt.Fprintf(&b, "\n# %s: %s\n%s", s.For, s.File, s.Text)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeConditions writes what the daemon that watches reports, in the form of findings.
func writeConditions(b *strings.Builder, conditions []health.Condition) {
	for _, c := range conditions {
		fmt.Fprintf(b, "  %-9s %s, says the daemon: %s\n            why:  %s\n            cure: %s\n", c.Severity, c.ID,
			c.What, c.Why, c.Cure)
	}
}

func writeFindings(b *strings.Builder, findings []Finding, database string) {
	if len(findings) == 0 {
		b.WriteString("  nothing found\n")
	}
	for _, f := range findings {
		what := f.What
		if part := strings.TrimSpace(strings.TrimPrefix(f.Subject, database)); part != "" {
			what = part + ": " + what
		}
		fmt.Fprintf(b, "  %-9s %s: %s\n            why:  %s\n            cure: %s\n", f.Severity, f.ID, show.Text(what),
			show.Text(f.Why), show.Text(f.Cure))
	}
}

func indent(text, by string) string {
	return by + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n"+by) + "\n"
}
