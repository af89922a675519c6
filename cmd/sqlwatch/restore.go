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
	"github.com/mattn/go-isatty"
	"github.com/superfly/ltx"
	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/cli"
	"github.com/sqlwatch/sqlwatch/internal/recovery"
	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/internal/target"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
)

// restoreCommand holds the flags of restore.
type restoreCommand struct {
	env *environment

	source, replica, output, timestamp, txid, check *string
	owner, mode, scratch                            *string
	dryRun, force, ifNotExists, exact, asJSON       *bool
	ifReplicaExists, all                            *bool
}

func registerRestore(app *kingpin.Application, env *environment) {
	cmd := app.Command("restore", "Restore a database file from a replica: the newest state, or that of a moment. The "+
		"file appears only when everything has been checked.")
	c := &restoreCommand{
		env: env,
		source: cmd.Arg("DB/URL", "Configured database, by name or path, whether its file is there or not; or URL of a "+
			"replica.").String(),
		all: cmd.Flag("all", "Restore every configured database to its place, or into the directory -o. Combine with "+
			"--if-not-exists or --force.").Bool(),
		output: cmd.Flag("output", "File to make. Default: where the database was. With --all a directory; - is standard "+
			"output, which gets the first byte when all is checked.").Short('o').PlaceHolder("FILE").String(),
		timestamp: cmd.Flag("timestamp", "State at this moment, such as 2024-03-01T12:00:00Z, or so long ago, such as "+
			"10m: the newest batch at or before it.").PlaceHolder("T").String(),
		txid: cmd.Flag("txid", "State after this TXID: a number, or 16 hex digits as in the names of LTX "+
			"files.").PlaceHolder("N").String(),
		check: cmd.Flag("check", "How SQLite checks the result: none, quick or full. Checksums are always "+
			"compared.").Default("quick").Enum("none", "quick", "full"),
		dryRun: cmd.Flag("dry-run", "Show what would be restored, and from which objects.").Bool(),
		force: cmd.Flag("force", "Replace an existing database, unless somebody uses it. It and its side files are set "+
			"aside under another name; the newest of these copies and those of the last day are kept.").Bool(),
		ifNotExists: cmd.Flag("if-not-exists", "Do nothing if the file exists: for the start of a service.").Bool(),
		ifReplicaExists: cmd.Flag("if-replica-exists",
			"Succeed without doing anything if nothing has been replicated yet: for the first start of a service.").Bool(),
		exact: cmd.Flag("exact", "Fail if the state at --timestamp is not certain, instead of warning with the restore "+
			"points before and after it.").Bool(),
		replica: cmd.Flag("replica", "Which of the database's replicas, such as s3.main. Default: the one that reaches "+
			"farthest.").PlaceHolder("NAME").String(),
		owner: cmd.Flag("owner", "Owner of the file: a user, or user:group, by name or number. Default: that of the file "+
			"it replaces, else (as root) that of the directory.").PlaceHolder("USER[:GROUP]").String(),
		mode: cmd.Flag("mode", "Mode of the file, such as 0640. Default: that of the one it replaces, else "+
			"0600.").PlaceHolder("MODE").String(),
		scratch: cmd.Flag("scratch", "Directory with space for the database, for -o -. Default: "+
			"$TMPDIR.").PlaceHolder("DIR").String(),
		asJSON: cmd.Flag("json", "Print JSON.").Bool(),
	}
	cmd.Action(c.run)
}

func (c *restoreCommand) run(parsed *kingpin.ParseContext) error {
	if err := cli.Given(parsed, "timestamp", "txid", "output"); err != nil {
		return err
	}
	target, err := parseTarget(*c.txid, *c.timestamp)
	if err != nil {
		return err
	}
	owner, err := recovery.ParseOwner(*c.owner, *c.mode)
	if err != nil {
		return err
	}
	if err := c.consistent(); err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	progress, done := cli.Progress(c.env.Stderr, "restoring", "looking at the replica")
	r := recovery.Recovery{
		Resolver: c.env.resolver(), Replica: *c.replica, IfReplicaExists: *c.ifReplicaExists,
		Options: restore.Options{
			Output: *c.output, Target: target, Force: *c.force, IfNotExists: *c.ifNotExists, DryRun: *c.dryRun, Note: true,
			Check: restore.Check(*c.check), Progress: progress, Exact: *c.exact, Owner: owner,
			Keep: true,
		},
	}
	switch {
	case *c.all:
		return c.runAll(ctx, r, done)
	case *c.output == "-":
		return c.stream(ctx, r, done)
	}
	out, err := r.One(ctx, *c.source)
	done()
	if err != nil {
		return interrupted(ctx, out, err)
	}
	return c.print(c.env.Stdout, out)
}

// consistent rejects flags that contradict each other.
func (c *restoreCommand) consistent() error {
	stream := *c.output == "-"
	switch {
	case *c.all && *c.source != "":
		return errors.New("restore: --all restores every configured database: leave the argument out")
	case !*c.all && *c.source == "":
		return errors.New("restore: say what: a configured database or a replica's URL, or --all")
	case *c.all && (stream || *c.txid != "" || *c.replica != ""):
		return errors.New("restore: --all goes with no single stream, TXID or replica: each database has its own")
	case *c.exact && *c.txid == "" && *c.timestamp == "":
		return errors.New("restore: --exact is of a moment: say which with --timestamp")
	case !*c.all && strings.HasSuffix(*c.output, "/"):
		return fmt.Errorf("restore: -o %s is a directory: name the file in it", *c.output)
	case *c.output == "/dev/stdout":
		return errors.New("restore: for standard output say -o -")
	case *c.output == "" && !*c.dryRun && strings.Contains(*c.source, "://"):
		return errors.New("restore: say where to with -o FILE")
	case stream && (*c.force || *c.ifNotExists || *c.owner != "" || *c.mode != ""):
		return errors.New("restore: standard output has no file to replace, or to give an owner and a mode")
	case stream && !*c.dryRun && onTerminal(c.env.Stdout):
		return errors.New("restore: standard output is a terminal: send it to a file or a program")
	case stream && !*c.dryRun && closed(c.env.Stdout):
		return errors.New("restore: standard output is closed: send it to a file or a program")
	}
	return nil
}

// stream writes the database to standard output, and all messages to standard error.
func (c *restoreCommand) stream(ctx context.Context, r recovery.Recovery, done func()) error {
	// Without this, SIGPIPE would kill the process when the reader of its output exits.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)
	out, err := r.Stream(ctx, *c.source, *c.scratch, show.Unwrap(c.env.Stdout))
	done()
	if err != nil {
		return interrupted(ctx, out, err)
	}
	out.Output = "standard output"
	return c.print(c.env.Stderr, out)
}

// runAll restores every configured database.
func (c *restoreCommand) runAll(ctx context.Context, r recovery.Recovery, done func()) error {
	dir := *c.output
	r.Options.Output = ""
	reports := []recovery.Report{}
	err := r.All(ctx, dir, func(out recovery.Outcome) {
		done()
		switch {
		case out.Err != nil:
			fmt.Fprintf(c.env.Stderr, "sqlwatch: %s: %v\n", out.Database, interrupted(ctx, out, out.Err))
		case !*c.asJSON:
			c.warn(out, out.Database+": ")
			fmt.Fprintf(c.env.Stdout, "%s: ", out.Database)
			if err := out.Write(c.env.Stdout); err != nil {
				fmt.Fprintf(c.env.Stderr, "sqlwatch: %v\n", err)
			}
		default:
			c.warn(out, out.Database+": ")
		}
		reports = append(reports, recovery.NewReport(out))
	})
	if *c.asJSON {
		err = errors.Join(err, show.JSON(c.env.Stdout, reports))
	}
	return err
}

// warn prints the warnings about one database, with its name if there are several.
func (c *restoreCommand) warn(out recovery.Outcome, name string) {
	for _, w := range out.Warnings {
		fmt.Fprintf(c.env.Stderr, "sqlwatch: %s%s\n", name, w)
	}
}

// print prints the result for one database.
func (c *restoreCommand) print(w io.Writer, out recovery.Outcome) error {
	c.warn(out, "")
	return printTo(w, *c.asJSON, recovery.NewReport(out), out.Write)
}

// interrupted adds what is left behind to the error of an interrupted restore.
func interrupted(ctx context.Context, out recovery.Outcome, err error) error {
	if !errors.Is(err, context.Canceled) || ctx.Err() == nil {
		return err
	}
	left := "nothing was left behind"
	if out.Kept != "" {
		left = "what was fetched stays in " + out.Kept + ", and the same command continues from there"
	}
	return fmt.Errorf("%s: restore: interrupted: %s; what was at the output's place still is", out.Place, left)
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

func onTerminal(w io.Writer) bool {
	f, ok := show.Unwrap(w).(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// closed reports whether a standard stream was closed when the process began. The Go runtime has then opened
// /dev/null in its place, for reading and writing, and every write to it succeeds.
func closed(w io.Writer) bool {
	f, ok := show.Unwrap(w).(*os.File)
	if !ok {
		return false
	}
	is, err := f.Stat()
	null, nerr := os.Stat(os.DevNull)
	mode, ferr := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	return errors.Join(err, nerr, ferr) == nil && os.SameFile(is, null) && mode&unix.O_ACCMODE == unix.O_RDWR
}
