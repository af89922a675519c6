package main

import (
	"context"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/internal/web"
	"github.com/sqlwatch/sqlwatch/replicator/requests"
)

func registerStatus(app *kingpin.Application, env *environment) {
	cmd := app.Command("status", "Show every database once: from the running daemon, or by looking at the files. Exit "+
		"code 2: something is wrong, or no daemon answers.")
	names := cmd.Arg("db", "Only these: configured names or files.").Strings()
	asJSON := cmd.Flag("json", "Print JSON.").Bool()
	cmd.Action(func(*kingpin.ParseContext) error {
		views, _, err := lookAt(context.Background(), env, *names)
		if err != nil {
			return err
		}
		itself := itselfOf(context.Background(), env)
		if *asJSON {
			writeItself(env.Stderr, itself)
			err = writeJSON(env.Stdout, views)
		} else {
			writeItself(env.Stdout, itself)
			err = writeStatus(env.Stdout, views, time.Now())
		}
		if err != nil {
			return err
		}
		wrong := health.Wrong(itself.Conditions)
		for _, v := range views {
			wrong = wrong || stateOf(v) != "up" && stateOf(v) != "empty" || health.Wrong(v.Conditions)
		}
		if wrong {
			return &exitError{code: exitFindings}
		}
		return nil
	})
}

func registerTop(app *kingpin.Application, env *environment) {
	cmd := app.Command("top", "Show every database, again and again, until interrupted.")
	names := cmd.Arg("db", "Only these: configured names or files.").Strings()
	every := cmd.Flag("every", "How often to look.").Default("1s").Duration()
	rounds := cmd.Flag("rounds", "End after so many looks; 0 is never.").Int()
	cmd.Action(func(*kingpin.ParseContext) error {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		tick := time.NewTicker(max(*every, 100*time.Millisecond))
		defer tick.Stop()
		for round := 1; ; round++ {
			views, daemon, err := lookAt(ctx, env, *names)
			if err != nil {
				return err
			}
			from := "by looking at the files"
			if daemon {
				from = "from the daemon"
			}
			// Home, and clear what the last round left behind.
			fmt.Fprintf(env.Stdout, "\x1b[H\x1b[2Jsqlwatch  %s  %s\n\n", show.Clock(time.Now()), from)
			writeItself(env.Stdout, itselfOf(ctx, env))
			if err := writeStatus(env.Stdout, views, time.Now()); err != nil {
				return err
			}
			if round == *rounds {
				return nil
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil
			}
		}
	})
}

// writeStatus writes one line a database, and below what is wrong with some.
func writeStatus(w io.Writer, views []databaseView, now time.Time) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "DATABASE\tSTATE\tSIZE\tWAL\tBACKLOG\tREADERS\tREPLICAS\tPOLICIES")
	for _, v := range views {
		fmt.Fprintln(table, strings.Join([]string{v.Name, stateOf(v), sizeOf(v), walOf(v), backlogOf(v), readersOf(v, now),
			replicasOf(v), policiesOf(v)}, "\t"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, v := range views {
		for _, c := range v.Conditions {
			writeCondition(w, v.Name, c, now)
		}
	}
	return writeCosts(w, views)
}

// itselfOf asks the daemon how it fares itself.
func itselfOf(ctx context.Context, env *environment) web.Health {
	var h web.Health
	if err := newAdminClient(env).call(ctx, "GET", "/api/v1/health", nil, &h); err != nil {
		return web.Health{Conditions: health.Unreachable(err.Error(), time.Now())}
	}
	return h
}

// writeItself writes what is wrong with the daemon itself, the first thing to know.
func writeItself(w io.Writer, h web.Health) {
	for _, c := range h.Conditions {
		writeCondition(w, "sqlwatch", c, time.Now())
	}
	for _, l := range h.LeftOut[:min(len(h.LeftOut), 20)] {
		fmt.Fprintf(w, "    not watched: %s: %s\n", show.Text(l.Place), show.Text(l.Why))
	}
	if len(h.Conditions) > 0 {
		fmt.Fprintln(w)
	}
}

// writeCondition writes one condition: what, why, what to do.
func writeCondition(w io.Writer, name string, c health.Condition, now time.Time) {
	since := ""
	if age := now.Sub(c.Since); !c.Since.IsZero() && age >= time.Second {
		since = ", for " + show.Span(age)
	}
	fmt.Fprintf(w, "\n%s: %s (%s%s): %s\n    %s\n    → %s\n", show.Text(name), strings.ToUpper(string(c.Severity)), c.ID,
		since, c.What, c.Why, c.Cure)
}

// writeCosts says what the sums are that stand beside replicas.
func writeCosts(w io.Writer, views []databaseView) error {
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

func stateOf(v databaseView) string {
	if v.Sample == nil {
		return "unknown"
	}
	return v.Sample.State.String()
}

func sizeOf(v databaseView) string {
	if v.Sample == nil || v.Sample.Database.SizeBytes == 0 {
		return "-"
	}
	return size(v.Sample.Database.SizeBytes)
}

func walOf(v databaseView) string {
	if v.Sample == nil || !v.Sample.WAL.Known {
		return "-"
	}
	return size(v.Sample.WAL.SizeBytes)
}

func backlogOf(v databaseView) string {
	if v.Sample == nil || !v.Sample.WAL.Known || v.Sample.WAL.Exclusive {
		return "-"
	}
	return fmt.Sprintf("%d frames", v.Sample.WAL.BacklogFrames())
}

func readersOf(v databaseView, now time.Time) string {
	if v.Sample == nil || !v.Sample.WAL.Known {
		return "-"
	}
	r := v.Sample.Readers
	if r.PinnedSince.IsZero() || r.OldestPID == 0 {
		return fmt.Sprint(r.Active)
	}
	return fmt.Sprintf("%d, pid %d %s pins for %s", r.Active, r.OldestPID, r.OldestCommand,
		now.Sub(r.PinnedSince).Round(time.Second))
}

func replicasOf(v databaseView) string {
	if v.Sample == nil || len(v.Sample.Replicas) == 0 {
		return "-"
	}
	var all []string
	for _, r := range v.Sample.Replicas {
		state := fmt.Sprintf("%.1fs behind", r.LagSeconds)
		if r.CaughtUp.IsZero() {
			state = "not complete yet" // how far behind is not known, and that is not 0
		}
		if !r.Healthy {
			state += ", in trouble"
		}
		if r.MonthlyUSD != nil {
			state += fmt.Sprintf(" (%.2f $ a month)", *r.MonthlyUSD)
		}
		all = append(all, r.Name+" "+state)
	}
	return strings.Join(all, ", ")
}

func policiesOf(v databaseView) string {
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

func size(bytes int64) string { return show.Bytes(bytes) }
