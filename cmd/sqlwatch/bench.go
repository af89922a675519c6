package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/dustin/go-humanize"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
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

// benchReport is what bench found out.
type benchReport struct {
	Database    string     `json:"database"`
	Copied      int64      `json:"copied_bytes"`
	Scratch     string     `json:"scratch_filesystem"`
	Synchronous string     `json:"synchronous"`
	Duration    float64    `json:"seconds_each"`
	Rows        []benchRow `json:"rows"`

	volatile bool
}

// benchRow is one number of readers beside one writer.
type benchRow struct {
	Readers   int       `json:"readers"`
	Rollback  benchCell `json:"rollback"`
	WAL       benchCell `json:"wal"`
	ReadRatio float64   `json:"read_ratio"` // WAL over rollback; 0 where the rollback journal let nothing through
	WriteRate float64   `json:"write_ratio"`
}

// benchCell is one run.
type benchCell struct {
	Reads        float64 `json:"reads_per_second"`
	Writes       float64 `json:"writes_per_second"`
	Busy         uint64  `json:"busy"`
	LongestRead  float64 `json:"longest_read_seconds"`
	LongestWrite float64 `json:"longest_write_seconds"`
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
		scratch: cmd.Flag("scratch", "Directory with room for a copy, on the kind of disk that is meant. Default: "+
			"$TMPDIR.").PlaceHolder("DIR").String(),
		asJSON: cmd.Flag("json", "Print JSON.").Bool(),
	}
	cmd.Action(func(*kingpin.ParseContext) error { return c.run() })
}

func (c *benchCommand) run() (err error) {
	if *c.duration < 10*time.Millisecond {
		return fmt.Errorf("--duration %s is too short to measure anything", *c.duration)
	}
	for _, n := range *c.readers {
		if n < 1 || n > 1000 {
			return fmt.Errorf("--readers %d: from 1 to 1000", n)
		}
	}
	path, err := pathOf(c.env, *c.name)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	source, size, err := benchSource(path)
	if err != nil {
		return err
	}
	report := benchReport{Database: path, Copied: size, Synchronous: *c.synchronous, Duration: c.duration.Seconds()}
	dir, err := c.room(&report)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	scratch := filepath.Join(dir, "scratch.db")
	if err := c.copy(ctx, source, scratch, size); err != nil {
		return err
	}
	if err := c.measure(ctx, scratch, &report); err != nil {
		return err
	}
	if *c.asJSON {
		return writeJSON(c.env.Stdout, report)
	}
	return report.write(c.env.Stdout)
}

func (c *benchCommand) copy(ctx context.Context, source sqlite.Source, scratch string, size int64) error {
	show, done := progressTo(c.env.Stderr, "copying")
	defer done()
	var progress func(pages, total int64)
	if show != nil {
		progress = func(pages, total int64) {
			if total > 0 {
				show(size/total*pages, size)
			}
		}
	}
	return sqlite.CopyScratch(ctx, source, scratch, progress)
}

// benchSource looks at the database as bytes, and lets go of it before SQL does.
func benchSource(path string) (source sqlite.Source, size int64, err error) {
	files, err := dbfile.Open(path)
	if err != nil {
		return source, 0, err
	}
	defer func() { err = errors.Join(err, files.Close()) }()
	header, err := files.Header()
	if err != nil {
		return source, 0, err
	}
	stat, err := files.Stat()
	if err != nil {
		return source, 0, err
	}
	locks, err := files.Locks()
	if err != nil {
		return source, 0, err
	}
	return sqlite.Source{Path: path, WAL: header.WAL(), Attached: locks.DMS.Held}, stat.DatabaseSize + stat.WALSize, nil
}

// room makes the scratch directory, or refuses where a copy and what the runs
// add would fill the disk.
func (c *benchCommand) room(report *benchReport) (string, error) {
	parent := *c.scratch
	if parent == "" {
		parent = os.TempDir()
	}
	parent, err := filepath.Abs(parent)
	if err != nil {
		return "", err
	}
	m, err := dbfile.Filesystem(parent)
	if err != nil {
		return "", err
	}
	report.Scratch, report.volatile = m.Type, m.Volatile
	need := uint64(report.Copied) + uint64(report.Copied)/10 + 256<<20
	if m.Available < need {
		return "", fmt.Errorf("%s has %s free and the copy needs %s: nothing was copied; name another directory with "+
			"--scratch", parent, humanize.IBytes(m.Available), humanize.IBytes(need))
	}
	return os.MkdirTemp(parent, "sqlwatch-bench-")
}

func (c *benchCommand) measure(ctx context.Context, scratch string, report *benchReport) error {
	table, err := walbench.Prepare(ctx, scratch)
	if err != nil {
		return err
	}
	show := isTerminal(c.env.Stderr)
	for _, n := range *c.readers {
		row := benchRow{Readers: n}
		for j, cell := range []*benchCell{&row.Rollback, &row.WAL} {
			if show {
				fmt.Fprintf(c.env.Stderr, "\rmeasuring: %d readers, %s\x1b[K", n, []string{"rollback journal", "WAL"}[j])
			}
			result, err := walbench.Run(ctx, scratch, table, walbench.Workload{WAL: j == 1, Synchronous: *c.synchronous,
				Readers: n, Duration: *c.duration})
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return err
			}
			*cell = newBenchCell(result)
		}
		row.ReadRatio, row.WriteRate = ratio(row.WAL.Reads, row.Rollback.Reads), ratio(row.WAL.Writes, row.Rollback.Writes)
		report.Rows = append(report.Rows, row)
	}
	if show {
		fmt.Fprint(c.env.Stderr, "\r\x1b[K")
	}
	return nil
}

func newBenchCell(r walbench.Result) benchCell {
	seconds := r.Elapsed.Seconds()
	return benchCell{
		Reads: float64(r.Reads) / seconds, Writes: float64(r.Writes) / seconds, Busy: r.Busy,
		LongestRead: r.LongestRead.Seconds(), LongestWrite: r.LongestWrite.Seconds(),
	}
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func (r benchReport) write(w io.Writer) error {
	fmt.Fprintf(w, "%s: %s copied to %s; one writer and N readers, each a connection of one process, synchronous=%s, "+
		"%gs a run\n\n",
		r.Database, humanize.IBytes(uint64(r.Copied)), r.Scratch, strings.ToUpper(r.Synchronous), r.Duration)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\trollback journal\t\t\tWAL\t\t\tWAL / rollback\t\t")
	fmt.Fprintln(table, "readers\treads/s\twrites/s\tslowest\treads/s\twrites/s\tslowest\treads\twrites\t")
	busy := uint64(0)
	for _, row := range r.Rows {
		fmt.Fprintf(table, "%d\t%.0f\t%.0f\t%s\t%.0f\t%.0f\t%s\t%s\t%s\t\n", row.Readers,
			row.Rollback.Reads, row.Rollback.Writes, row.Rollback.slowest(), row.WAL.Reads, row.WAL.Writes, row.WAL.slowest(),
			times(row.ReadRatio), times(row.WriteRate))
		busy += row.Rollback.Busy + row.WAL.Busy
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w, "\nA read looks one random row up, a write commits one row of 200 bytes. Nobody pauses: with a "+
		"rollback journal that is the worst case for readers. The slowest includes waiting for locks, up to a busy timeout "+
		"of 5 s.")
	if busy > 0 {
		fmt.Fprintf(w, "%d transactions were given up with \"database is locked\" after 5 s.\n", busy)
	}
	if r.volatile {
		fmt.Fprintf(w, "The copy was in memory (%s): a disk's writes are slower; choose one with --scratch.\n", r.Scratch)
	}
	_, err := fmt.Fprintln(w, "The copy has been removed.")
	return err
}

func (c benchCell) slowest() string {
	return time.Duration(max(c.LongestRead, c.LongestWrite) * float64(time.Second)).Round(100 * time.Microsecond).String()
}

func times(ratio float64) string {
	if ratio == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2fx", ratio)
}
