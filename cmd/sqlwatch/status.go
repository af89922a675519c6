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
	"github.com/dustin/go-humanize"

	"github.com/sqlwatch/sqlwatch/replicator/requests"
)

func registerStatus(app *kingpin.Application, env *environment) {
	cmd := app.Command("status", "Show every database once: from the running daemon, or by looking at the files. Exit code 2: some database is not up.")
	names := cmd.Arg("db", "Only these: configured names or files.").Strings()
	asJSON := cmd.Flag("json", "Print JSON.").Bool()
	cmd.Action(func(*kingpin.ParseContext) error {
		views, _, err := lookAt(context.Background(), env, *names)
		if err != nil {
			return err
		}
		if *asJSON {
			err = writeJSON(env.Stdout, views)
		} else {
			err = writeStatus(env.Stdout, views, time.Now())
		}
		if err != nil {
			return err
		}
		for _, v := range views {
			if stateOf(v) != "up" {
				return &exitError{code: exitFindings}
			}
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
			fmt.Fprintf(env.Stdout, "\x1b[H\x1b[2Jsqlwatch  %s  %s\n\n", time.Now().Format(time.TimeOnly), from)
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
		fmt.Fprintln(table, strings.Join([]string{v.Name, stateOf(v), sizeOf(v), walOf(v), backlogOf(v), readersOf(v, now), replicasOf(v), policiesOf(v)}, "\t"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, v := range views {
		if problem := problemOf(v); problem != "" {
			fmt.Fprintf(w, "\n%s: %s\n", v.Name, problem)
		}
	}
	return writeCosts(w, views)
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
	_, err := fmt.Fprintf(w, "\nReplicas cost about %.2f $ a month at the rate of requests since the start: list prices of %s (docs/storage.md), free allowances not deducted, reading from outside of the provider not included.\n", sum, requests.PricesAsOf)
	return err
}

func stateOf(v databaseView) string {
	if v.Sample == nil {
		return "unknown"
	}
	return v.Sample.State.String()
}

func problemOf(v databaseView) string {
	if v.Err != "" || v.Sample == nil {
		return v.Err
	}
	return v.Sample.Err
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
	return fmt.Sprintf("%d, pid %d %s pins for %s", r.Active, r.OldestPID, r.OldestCommand, now.Sub(r.PinnedSince).Round(time.Second))
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

func size(bytes int64) string { return humanize.IBytes(uint64(max(bytes, 0))) }
