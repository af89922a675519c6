// Package views writes what sqlwatch knows as a person reads it in a terminal: a table of
// the databases, what is wrong with them, what was done. It decides nothing.
package views

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/admin"
	"github.com/sqlwatch/sqlwatch/internal/figures"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/internal/web"
	"github.com/sqlwatch/sqlwatch/policy"
	"github.com/sqlwatch/sqlwatch/replicator/requests"
)

// Header names the columns of Row.
var Header = []string{"DATABASE", "STATE", "SIZE", "WAL", "CHECKPOINT LAG", "READERS", "REPLICAS", "POLICIES"}

// Row returns one database as the cells of a table.
func Row(v admin.Database, now time.Time) []string {
	return []string{v.Name, State(v), sizeOf(v), walOf(v), lagOf(v), readersOf(v, now), replicasOf(v), policiesOf(v)}
}

// Status writes one line a database, and below what is wrong with some.
func Status(w io.Writer, views []admin.Database, now time.Time) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, strings.Join(Header, "\t"))
	for _, v := range views {
		fmt.Fprintln(table, strings.Join(Row(v, now), "\t"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, v := range views {
		for _, c := range v.Conditions {
			Condition(w, v.Name, c, now)
		}
	}
	return writeCosts(w, views)
}

// Itself writes what is wrong with the daemon itself, the first thing to know.
func Itself(w io.Writer, h web.Health) {
	for _, c := range h.Conditions {
		Condition(w, "sqlwatch", c, time.Now())
	}
	for _, l := range h.LeftOut[:min(len(h.LeftOut), 20)] {
		fmt.Fprintf(w, "    not watched: %s: %s\n", show.Text(l.Place), show.Text(l.Why))
	}
	if len(h.Conditions) > 0 {
		fmt.Fprintln(w)
	}
}

// Condition writes one condition: what, why, what to do.
func Condition(w io.Writer, name string, c health.Condition, now time.Time) {
	since := ""
	if age := now.Sub(c.Since); !c.Since.IsZero() && age >= time.Second {
		since = ", for " + show.Span(age)
	}
	fmt.Fprintf(w, "\n%s: %s (%s%s): %s\n    %s\n    → %s\n", show.Text(name), strings.ToUpper(string(c.Severity)), c.ID,
		since, c.What, c.Why, c.Cure)
}

// writeCosts says what the sums are that stand beside replicas.
func writeCosts(w io.Writer, views []admin.Database) error {
	var sum float64
	priced := 0
	for _, v := range views {
		if v.Sample == nil {
			continue
		}
		for _, r := range v.Sample.Replicas {
			if r.MonthlyUSD != nil {
				sum += *r.MonthlyUSD
				priced++
			}
		}
	}
	if priced == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "\nReplicas cost about %.2f $ a month at the rate of requests since the start: list prices "+
		"of %s (docs/storage.md), free allowances not deducted, reading from outside of the provider not included.\n", sum,
		requests.PricesAsOf)
	return err
}

// State is a database's own word for how it is.
func State(v admin.Database) string {
	if v.Sample == nil {
		return "unknown"
	}
	return v.Sample.State.String()
}

func sizeOf(v admin.Database) string {
	if v.Sample == nil || v.Sample.Database.SizeBytes == 0 {
		return "-"
	}
	return show.Bytes(v.Sample.Database.SizeBytes)
}

func walOf(v admin.Database) string {
	if v.Sample == nil || !v.Sample.WAL.Known {
		return "-"
	}
	return show.Bytes(v.Sample.WAL.SizeBytes)
}

func lagOf(v admin.Database) string {
	if v.Sample == nil || !v.Sample.WAL.Known || v.Sample.WAL.Exclusive {
		return "-"
	}
	return fmt.Sprintf("%d frames", v.Sample.WAL.LagFrames())
}

func readersOf(v admin.Database, now time.Time) string {
	if v.Sample == nil || !v.Sample.WAL.Known {
		return "-"
	}
	count, pins := figures.Readers(v.Sample)
	if pins != "" {
		count += ", " + pins + " pins"
		if since := now.Sub(v.Sample.Readers.PinnedSince).Round(time.Second); since > 0 { // else it was just found
			count += " for " + show.Span(since)
		}
	}
	return count
}

func replicasOf(v admin.Database) string {
	if v.Sample == nil || len(v.Sample.Replicas) == 0 {
		return "-"
	}
	var all []string
	for _, r := range v.Sample.Replicas {
		state, _ := figures.Freshness(v.Sample, &r)
		if !r.Healthy {
			state += " and failing"
		}
		if cost := figures.Cost(&r); cost != "" {
			state += " (" + cost + ")"
		}
		all = append(all, r.Name+" "+state)
	}
	return strings.Join(all, ", ")
}

func policiesOf(v admin.Database) string {
	if v.Decision == nil || len(v.Decision.Policies) == 0 {
		return "-"
	}
	var all []string
	for _, p := range v.Decision.Policies {
		word := p.Policy + " " + string(p.Phase)
		if p.Refused != "" {
			word += " (" + string(p.Refused) + ")"
		}
		all = append(all, word)
	}
	return strings.Join(all, ", ")
}

// Record writes how an action ended.
func Record(w io.Writer, name string, r watchdog.ActionRecord) error {
	line := fmt.Sprintf("%s: %s %s in %s", name, r.Action, r.Outcome, show.Span(r.Duration))
	if r.Action == string(policy.ActCheckpoint) {
		line += fmt.Sprintf(", writers stalled for %s, %s reclaimed", show.Span(r.WriterStall), show.Bytes(r.Reclaimed))
	}
	if r.Err != "" {
		line += ": " + r.Err
	}
	if r.Advice != "" {
		line += "\n  " + r.Advice
	}
	_, err := fmt.Fprintln(w, line)
	return err
}

// Wrong reports whether somebody must look at a database for something of a severity, or
// worse. That it is not up is a warning at least.
func Wrong(v admin.Database, least health.Severity) bool {
	away := State(v) != "up" && State(v) != "empty"
	return away && least == health.Warning || health.AtLeast(v.Conditions, least)
}

// Holding writes what a daemon knows of who is in whose way: the last refusal, and what is
// wrong with the database.
func Holding(w io.Writer, known []admin.Database, now time.Time) error {
	for _, v := range known {
		if r := v.LastBusy; r != nil {
			if _, err := fmt.Fprintf(w, "Last refused a lock: pid %d (%s), %s.\n", r.PID, show.Text(r.Command),
				show.Ago(now, r.At)); err != nil {
				return err
			}
		}
		for _, c := range v.Conditions {
			Condition(w, v.Name, c, now)
		}
	}
	return nil
}
