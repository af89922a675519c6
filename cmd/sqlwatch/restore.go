package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/dustin/go-humanize"
	"github.com/mattn/go-isatty"
	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/internal/target"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// restoreCommand holds the flags of restore.
type restoreCommand struct {
	env *environment

	source, replica, output, timestamp, txid, check *string
	dryRun, force, ifNotExists, exact, asJSON       *bool
	ifReplicaExists                                 *bool
}

func registerRestore(app *kingpin.Application, env *environment) {
	cmd := app.Command("restore", "Make a database file from a replica: the newest state, or the one of a moment. "+
		"Nothing is there until all of it is checked.")
	c := &restoreCommand{
		env:    env,
		source: cmd.Arg("DB/URL", "Configured database, or URL of a replica.").Required().String(),
		output: cmd.Flag("output", "File to make.").Short('o').PlaceHolder("FILE").String(),
		timestamp: cmd.Flag("timestamp", "State at this moment, such as 2024-03-01T12:00:00Z, or so long ago, such as "+
			"10m: the newest batch at or before it.").PlaceHolder("T").String(),
		txid: cmd.Flag("txid", "State after this TXID: a number, or 16 hex digits as in the names of LTX "+
			"files.").PlaceHolder("N").String(),
		check: cmd.Flag("check", "How SQLite checks the result: none, quick or full. Checksums are always "+
			"compared.").Default("quick").Enum("none", "quick", "full"),
		dryRun: cmd.Flag("dry-run", "Say what would be restored from which objects.").Bool(),
		force: cmd.Flag("force", "Replace an existing database, unless anybody uses it. It and its side files "+
			"are set aside under another name.").Bool(),
		ifNotExists: cmd.Flag("if-not-exists", "Do nothing if the file exists: for the start of a service.").Bool(),
		ifReplicaExists: cmd.Flag("if-replica-exists",
			"Do nothing, successfully, where nothing was replicated yet: for the first start of a service.").Bool(),
		exact: cmd.Flag("exact", "Fail where the state at --timestamp is not known for sure, instead of a warning that "+
			"names the restore points before and after it.").Bool(),
		replica: cmd.Flag("replica", "Which of the database's replicas, such as s3.main. Default: the one that reaches "+
			"farthest.").PlaceHolder("NAME").String(),
		asJSON: cmd.Flag("json", "Print JSON.").Bool(),
	}
	cmd.Action(func(*kingpin.ParseContext) error { return c.run() })
}

func (c *restoreCommand) run() error {
	target, err := parseTarget(*c.txid, *c.timestamp)
	if err != nil {
		return err
	}
	if *c.output == "" && !*c.dryRun {
		return errors.New("restore: say where to with -o FILE")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	store, from, err := openStore(ctx, c.env, *c.source, *c.replica)
	if err != nil {
		return err
	}
	progress, done := progressTo(c.env.Stderr, "restoring")
	result, err := restore.Run(ctx, store, restore.Options{
		Output: *c.output, Target: target, Force: *c.force, IfNotExists: *c.ifNotExists, DryRun: *c.dryRun, Note: true,
		Check: restore.Check(*c.check), Progress: progress, Exact: *c.exact, SyncEvery: from.SyncEvery,
	})
	done()
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return fmt.Errorf("%s: restore: interrupted: nothing was left behind, and what was at the output's place still is",
			from.Place())
	}
	if *c.ifReplicaExists && nothingYet(from, err) {
		_, err := fmt.Fprintf(c.env.Stdout, "%s: nothing was replicated yet: nothing to do\n", from.Place())
		return err
	}
	if err != nil {
		return fmt.Errorf("%s: %w", from.Place(), err)
	}
	for _, w := range result.Warnings {
		fmt.Fprintf(c.env.Stderr, "sqlwatch: %s\n", w)
	}
	if *c.asJSON {
		return writeJSON(c.env.Stdout, newRestoreReport(result))
	}
	return printRestore(c.env.Stdout, result)
}

// nothingYet reports whether a replica is empty, or its directory was not made yet. A
// bucket is there before anything is replicated to it.
func nothingYet(from config.ReplicaTarget, err error) bool {
	return errors.Is(err, catalog.ErrEmpty) || from.Type == "file" && errors.Is(err, store.ErrMisplaced)
}

// restoreReport is a restore's result in JSON: TXIDs are numbers there, as in metrics.
type restoreReport struct {
	restore.Result
	TXID     uint64  `json:"txid"`
	Size     int64   `json:"size"`
	Checksum string  `json:"checksum,omitempty"`
	Plan     float64 `json:"plan_seconds"`
	Apply    float64 `json:"apply_seconds"`
	Finish   float64 `json:"finish_seconds"`
}

func newRestoreReport(r restore.Result) restoreReport {
	report := restoreReport{
		Result: r, TXID: uint64(r.TXID), Size: r.Size(),
		Plan: r.PlanTime.Seconds(), Apply: r.ApplyTime.Seconds(), Finish: r.FinishTime.Seconds(),
	}
	if r.Checksum != 0 {
		report.Checksum = r.Checksum.String()
	}
	return report
}

func printRestore(w io.Writer, r restore.Result) error {
	var out strings.Builder
	switch {
	case r.Skipped:
		fmt.Fprintf(&out, "%s exists: nothing to do\n", r.Output)
	case r.DryRun:
		fmt.Fprintf(&out, "would restore %s from %d objects, %s:\n", restoredState(r), len(r.Objects),
			humanize.IBytes(uint64(r.ObjectBytes)))
		for _, key := range r.Objects {
			fmt.Fprintf(&out, "  %s\n", key)
		}
	default:
		fmt.Fprintf(&out, "restored %s to %s: %s\n", restoredState(r), r.Output, humanize.IBytes(uint64(r.Size())))
		fmt.Fprintf(&out, "  from %d objects, %s, in %s; %s\n", len(r.Objects), humanize.IBytes(uint64(r.ObjectBytes)),
			(r.PlanTime + r.ApplyTime + r.FinishTime).Round(time.Millisecond), proofOf(r))
		for _, name := range r.Aside {
			fmt.Fprintf(&out, "  what was there is now %s\n", name)
		}
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// restoredState names a state. Replicas of Litestream 0.3 have no TXIDs.
func restoredState(r restore.Result) string {
	when := r.Timestamp.UTC().Format(time.RFC3339Nano)
	if r.TXID == 0 {
		return "the state of " + when
	}
	return fmt.Sprintf("txid %d of %s", r.TXID, when)
}

// proofOf says why the result is to be believed.
func proofOf(r restore.Result) string {
	proof := "every object's checksum is right"
	if r.Compared {
		proof = "the database's checksum is the replicated one's"
	}
	switch r.Check {
	case restore.CheckQuick:
		proof += ", quick_check ok"
	case restore.CheckFull:
		proof += ", integrity_check ok"
	}
	return proof
}

// parseTarget reads --txid and --timestamp.
func parseTarget(txid, timestamp string) (t catalog.Target, err error) {
	if txid != "" && timestamp != "" {
		return t, errors.New("give --txid or --timestamp, not both")
	}
	if txid != "" {
		base := 10
		if len(txid) == 16 {
			base = 16
		}
		n, err := strconv.ParseUint(txid, base, 64)
		if err != nil || n == 0 {
			return t, fmt.Errorf("--txid %q is neither a number above 0 nor 16 hex digits", txid)
		}
		t.TXID = ltx.TXID(n)
	}
	if timestamp != "" {
		if t.Timestamp, err = target.ParseMoment(timestamp, time.Now()); err != nil {
			return t, fmt.Errorf("--timestamp %w", err)
		}
	}
	return t, nil
}

// progressTo returns a function that shows progress where w is a terminal, and
// one that ends the line.
func progressTo(w io.Writer, what string) (progress func(done, total int64), end func()) {
	w = show.Unwrap(w)
	f, ok := w.(*os.File)
	if !ok || !isatty.IsTerminal(f.Fd()) {
		return nil, func() {}
	}
	var last time.Time
	progress = func(done, total int64) {
		rest := fmt.Sprintf("%d %%", done*100/max(1, total))
		switch now := time.Now(); {
		case total > 0 && done >= total:
			rest = "finishing" // checks and the disk: that may take as long again
		case now.Sub(last) < 100*time.Millisecond:
			return
		default:
			last = now
		}
		fmt.Fprintf(w, "\r%s: %s of %s, %s\x1b[K", what, humanize.IBytes(uint64(done)), humanize.IBytes(uint64(total)), rest)
	}
	return progress, func() { fmt.Fprint(w, "\r\x1b[K") }
}
