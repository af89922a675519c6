package main

import (
	"fmt"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/cli"
	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/internal/walbench"
)

// benchCommand holds the flags of bench.
type benchCommand struct {
	env *environment

	name, scratch, synchronous *string
	readers                    *[]int
	duration                   *time.Duration
	asJSON                     *bool
}

func registerBench(app *kingpin.Application, env *environment) {
	cmd := app.Command("bench", "Measure readers beside a writer on a scratch copy of a database, in WAL mode and with "+
		"a rollback journal. The database itself is only read.")
	c := &benchCommand{
		env:  env,
		name: cmd.Arg("db", "A configured name or a file.").Required().String(),
		readers: cmd.Flag("readers", "Number of readers; repeat for several. Default: 1, 2, 4, 8.").Default("1", "2", "4",
			"8").Ints(),
		duration: cmd.Flag("duration", "Length of each run; there are two for each number of readers.").Default(
			"2s").Duration(),
		synchronous: cmd.Flag("synchronous", "PRAGMA synchronous of both: the same durability makes the comparison "+
			"fair.").Default("full").Enum("full", "normal", "off"),
		scratch: cmd.Flag("scratch", "Directory with space for a copy, on the kind of disk to be measured. Default: "+
			"$TMPDIR.").PlaceHolder("DIR").String(),
		asJSON: cmd.Flag("json", "Print JSON.").Bool(),
	}
	cmd.Action(func(*kingpin.ParseContext) error { return c.run() })
}

func (c *benchCommand) run() error {
	ctx, stop := interruptible()
	defer stop()
	path, err := c.env.resolver().Path(ctx, *c.name)
	if err != nil {
		return err
	}
	copied, done := cli.Progress(c.env.Stderr, "copying", "looking at the database")
	plan := walbench.Plan{Database: path, Scratch: *c.scratch, Synchronous: *c.synchronous, Readers: *c.readers,
		Duration: *c.duration, Copied: copied}
	if isTerminal(c.env.Stderr) {
		plan.Measuring = func(readers int, wal bool) {
			mode := map[bool]string{false: "a rollback journal", true: "WAL"}[wal]
			fmt.Fprintf(show.Unwrap(c.env.Stderr), "\rmeasuring: %d readers, %s\x1b[K", readers, mode)
		}
	}
	report, err := walbench.Measure(ctx, plan)
	done()
	if err != nil {
		return err
	}
	return c.env.print(*c.asJSON, report, report.Write)
}
