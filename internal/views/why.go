package views

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/admin"
	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/policy"
)

// Only drops all policies but one from what will be shown.
func Only(v *admin.Database, name string) error {
	if name == "" || v.Decision == nil {
		return nil
	}
	var known []string
	for _, p := range v.Decision.Policies {
		if p.Policy == name {
			v.Decision.Policies = []admin.Policy{p}
			return nil
		}
		known = append(known, p.Policy)
	}
	return fmt.Errorf("no policy %q watches %s; those that do: %s", name, v.Name, strings.Join(known, ", "))
}

// Why writes the whole story of one database.
func Why(w io.Writer, v admin.Database, daemon bool, now time.Time) {
	fmt.Fprintf(w, "%s (%s): %s\n", show.Text(v.Name), show.Text(v.Path), State(v))
	if !daemon {
		fmt.Fprintln(w, "  No daemon answers: this is one look at the file, so that whatever needs a past is unknown.")
	}
	for _, c := range v.Conditions {
		Condition(w, v.Name, c, now)
	}
	explainPin(w, v, now)
	if v.Decision == nil {
		return
	}
	for _, p := range v.Decision.Policies {
		explainPolicy(w, p, lastOf(v.Actions, p.Policy), now)
	}
	explainTunes(w, v.Decision.Tunes)
	if len(v.Actions) > 0 {
		fmt.Fprintln(w, "\nLast actions:")
	}
	for _, a := range v.Actions {
		fmt.Fprintf(w, "  %s  %s by %s: %s", a.At.Local().Format("2006-01-02 15:04:05 MST"), a.Action, a.Policy, a.Outcome)
		if a.Err != "" {
			fmt.Fprintf(w, ": %s", a.Err)
		}
		fmt.Fprintf(w, " (took %s, writers stalled for %s, %s reclaimed)\n", a.Duration.Round(100*time.Microsecond),
			a.WriterStall.Round(100*time.Microsecond), show.Bytes(a.Reclaimed))
	}
	if len(v.Changes) > 0 {
		fmt.Fprintln(w, "\nLast decisions:")
	}
	for _, c := range v.Changes {
		fmt.Fprintf(w, "  %s  %s: %s", c.At.Local().Format("2006-01-02 15:04:05 MST"), c.Policy, c.Phase)
		if c.Refused != "" {
			fmt.Fprintf(w, ", refused by %s", c.Refused)
		}
		fmt.Fprintf(w, ": %s\n", c.Reason)
	}
}

func explainPin(w io.Writer, v admin.Database, now time.Time) {
	if v.Sample == nil || v.Sample.Readers.PinnedSince.IsZero() {
		return
	}
	r := v.Sample.Readers
	fmt.Fprintf(w, "  The WAL is pinned at frame %d of %d for %s", r.OldestFrame, v.Sample.WAL.Frames,
		now.Sub(r.PinnedSince).Round(time.Second))
	if r.OldestPID > 0 {
		fmt.Fprintf(w, " by pid %d (%s)", r.OldestPID, r.OldestCommand)
	}
	fmt.Fprintf(w, ".\n  See `sqlwatch blockers %s`.\n", v.Name)
}

// explainTunes shows what the tune blocks suggest.
func explainTunes(w io.Writer, tunes []admin.Tune) {
	if len(tunes) > 0 {
		fmt.Fprintln(w, "\nTuning:")
	}
	for _, t := range tunes {
		line := fmt.Sprintf("  %s %s: %s", t.Policy, t.Name, t.AmountOf(t.Value))
		if t.Suggested != t.Value {
			line += ", suggested " + t.AmountOf(t.Suggested)
		}
		fmt.Fprintf(w, "%s: %s\n", line, t.Reason)
	}
}

func explainPolicy(w io.Writer, p admin.Policy, last *watchdog.ActionRecord, now time.Time) {
	fmt.Fprintf(w, "\npolicy %s: %s\n", p.Policy, p.Phase)
	if p.Reason != "" {
		fmt.Fprintf(w, "  %s\n", p.Reason)
	}
	if last != nil {
		fmt.Fprintf(w, "  last time: %s %s, %s ago\n", last.Action, last.Outcome, show.Span(now.Sub(last.At)))
	}
	if p.Refused != policy.GuardNone {
		fmt.Fprintf(w, "  first guard that refuses: %s\n", p.Refused)
	}
	if p.Hindered != "" && p.Hindered != p.Reason {
		fmt.Fprintf(w, "  hindered: %s\n", p.Hindered)
	}
	for _, g := range p.Guards {
		fmt.Fprintf(w, "    %s: %s\n", g.Guard, g.Reason)
	}
	if !p.Earliest.IsZero() {
		fmt.Fprintf(w, "  could act at the earliest: %s (%s)\n", p.Earliest.Local().Format("2006-01-02 15:04:05 MST"),
			fromNow(p.Earliest, now))
	}
	if p.Tree == nil {
		return
	}
	for _, child := range p.Tree.Children {
		for line := range strings.Lines(child.String()) {
			fmt.Fprintf(w, "  %s", line)
		}
	}
}

func fromNow(t, now time.Time) string {
	if wait := t.Sub(now).Round(time.Second); wait > 0 {
		return "in " + wait.String()
	}
	return "now"
}

// lastOf returns the newest action of a policy, nil where none is known.
func lastOf(actions []watchdog.ActionRecord, policy string) *watchdog.ActionRecord {
	for i := range actions {
		if actions[i].Policy == policy {
			return &actions[i]
		}
	}
	return nil
}
