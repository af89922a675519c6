package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/internal/views"
	"github.com/sqlwatch/sqlwatch/policy"
)

func registerWhy(app *kingpin.Application, env *environment) {
	cmd := app.Command("why", "Explain what the policies say about a database: the values behind it, the first guard "+
		"that refused, when it could act, what was decided lately.")
	name := cmd.Arg("db", "A configured name or a file.").Required().String()
	only := cmd.Arg("policy", "Only this policy.").String()
	asJSON := cmd.Flag("json", "Print JSON.").Bool()
	cmd.Action(func(*kingpin.ParseContext) error {
		found, daemon, err := lookAt(context.Background(), env, []string{*name})
		if err != nil {
			return err
		}
		if err := keepPolicy(&found[0], *only); err != nil {
			return err
		}
		if *asJSON {
			return writeJSON(env.Stdout, found[0])
		}
		explain(env.Stdout, found[0], daemon, time.Now())
		return nil
	})
}

// keepPolicy drops all policies but one from what will be shown.
func keepPolicy(v *databaseView, name string) error {
	if name == "" || v.Decision == nil {
		return nil
	}
	var known []string
	for _, p := range v.Decision.Policies {
		if p.Policy == name {
			v.Decision.Policies = []policyView{p}
			return nil
		}
		known = append(known, p.Policy)
	}
	return fmt.Errorf("no policy %q watches %s; those that do: %s", name, v.Name, strings.Join(known, ", "))
}

// explain writes the whole story of one database.
func explain(w io.Writer, v databaseView, daemon bool, now time.Time) {
	fmt.Fprintf(w, "%s (%s): %s\n", v.Name, v.Path, views.State(v))
	if !daemon {
		fmt.Fprintln(w, "  No daemon answers: this is one look at the file, so that whatever needs a past is unknown.")
	}
	for _, c := range v.Conditions {
		views.Condition(w, v.Name, c, now)
	}
	explainPin(w, v, now)
	if v.Decision == nil {
		return
	}
	for _, p := range v.Decision.Policies {
		explainPolicy(w, p, now)
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

func explainPin(w io.Writer, v databaseView, now time.Time) {
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

// explainTunes shows what the tune blocks suggest. Values are in base units.
func explainTunes(w io.Writer, tunes []tuneView) {
	if len(tunes) > 0 {
		fmt.Fprintln(w, "\nTuning:")
	}
	for _, t := range tunes {
		line := fmt.Sprintf("  %s %s: %.4g", t.Policy, t.Name, t.Value)
		if t.Suggested != t.Value {
			line += fmt.Sprintf(", suggested %.4g", t.Suggested)
		}
		fmt.Fprintf(w, "%s: %s\n", line, t.Reason)
	}
}

func explainPolicy(w io.Writer, p policyView, now time.Time) {
	fmt.Fprintf(w, "\npolicy %s: %s\n", p.Policy, p.Phase)
	if p.Reason != "" {
		fmt.Fprintf(w, "  %s\n", p.Reason)
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
