package walbench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/filesystem"
	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

// Plan is what to measure.
type Plan struct {
	Database    string // its file
	Scratch     string // a directory with room for a copy; "": $TMPDIR
	Synchronous string
	Readers     []int
	Duration    time.Duration               // of each run
	Copied      func(done, total int64)     // told of the copy's progress; may be nil
	Measuring   func(readers int, wal bool) // told before each run; may be nil
}

// Report is what was found out.
type Report struct {
	Database    string  `json:"database"`
	Copied      int64   `json:"copied_bytes"`
	Scratch     string  `json:"scratch_filesystem"`
	Synchronous string  `json:"synchronous"`
	Duration    float64 `json:"seconds_each"`
	Rows        []Row   `json:"rows"`

	volatile bool
}

// Row is one number of readers beside one writer.
type Row struct {
	Readers   int     `json:"readers"`
	Rollback  Cell    `json:"rollback"`
	WAL       Cell    `json:"wal"`
	ReadRatio float64 `json:"read_ratio"` // WAL over rollback; 0 where the rollback journal let nothing through
	WriteRate float64 `json:"write_ratio"`
}

// Cell is one run.
type Cell struct {
	Reads        float64 `json:"reads_per_second"`
	Writes       float64 `json:"writes_per_second"`
	Busy         uint64  `json:"busy"`
	LongestRead  float64 `json:"longest_read_seconds"`
	LongestWrite float64 `json:"longest_write_seconds"`
}

// Measure copies a database and runs every number of readers on the copy, which is removed.
func Measure(ctx context.Context, p Plan) (report Report, err error) {
	if p.Duration < 10*time.Millisecond {
		return report, fmt.Errorf("--duration %s is too short to measure anything", p.Duration)
	}
	for _, n := range p.Readers {
		if n < 1 || n > 1000 {
			return report, fmt.Errorf("--readers %d: from 1 to 1000", n)
		}
	}
	source, size, err := sourceOf(p.Database)
	if err != nil {
		return report, err
	}
	report = Report{Database: p.Database, Copied: size, Synchronous: p.Synchronous, Duration: p.Duration.Seconds()}
	dir, err := p.room(&report)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	scratch := filepath.Join(dir, "scratch.db")
	if err := sqlite.CopyScratch(ctx, source, scratch, func(pages, total int64) {
		if total > 0 && p.Copied != nil {
			p.Copied(size/total*pages, size)
		}
	}); err != nil {
		return report, err
	}
	return report, p.measure(ctx, scratch, &report)
}

// sourceOf looks at the database as bytes, and lets go of it before SQL does.
func sourceOf(path string) (source sqlite.Source, size int64, err error) {
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
func (p Plan) room(report *Report) (string, error) {
	parent := p.Scratch
	if parent == "" {
		parent = os.TempDir()
	}
	parent, err := filepath.Abs(parent)
	if err != nil {
		return "", err
	}
	m, err := filesystem.Of(parent)
	if err != nil {
		return "", err
	}
	report.Scratch, report.volatile = m.Type, m.Volatile
	need := uint64(report.Copied) + uint64(report.Copied)/10 + 256<<20
	if m.Available < need {
		return "", fmt.Errorf("%s has %s free and the copy needs %s: nothing was copied; name another directory with "+
			"--scratch", parent, show.Bytes(int64(m.Available)), show.Bytes(int64(need)))
	}
	return os.MkdirTemp(parent, "sqlwatch-bench-")
}

func (p Plan) measure(ctx context.Context, scratch string, report *Report) error {
	table, err := Prepare(ctx, scratch)
	if err != nil {
		return err
	}
	for _, n := range p.Readers {
		row := Row{Readers: n}
		for j, cell := range []*Cell{&row.Rollback, &row.WAL} {
			if p.Measuring != nil {
				p.Measuring(n, j == 1)
			}
			result, err := Run(ctx, scratch, table, Workload{WAL: j == 1, Synchronous: p.Synchronous,
				Readers: n, Duration: p.Duration})
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return err
			}
			*cell = newCell(result)
		}
		row.ReadRatio, row.WriteRate = ratio(row.WAL.Reads, row.Rollback.Reads), ratio(row.WAL.Writes, row.Rollback.Writes)
		report.Rows = append(report.Rows, row)
	}
	return nil
}

func newCell(r Result) Cell {
	seconds := r.Elapsed.Seconds()
	return Cell{
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

// Write writes the report as a table.
func (r Report) Write(w io.Writer) error {
	fmt.Fprintf(w, "%s: %s copied to %s; one writer and N readers, each a connection of one process, synchronous=%s, "+
		"%gs a run\n\n",
		r.Database, show.Bytes(r.Copied), r.Scratch, strings.ToUpper(r.Synchronous), r.Duration)
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

func (c Cell) slowest() string {
	return time.Duration(max(c.LongestRead, c.LongestWrite) * float64(time.Second)).Round(100 * time.Microsecond).String()
}

func times(ratio float64) string {
	if ratio == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2fx", ratio)
}
