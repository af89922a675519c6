package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/recovery"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/moment"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// listedFile is one line of snapshots or wal.
type listedFile struct {
	Replica   string     `json:"replica"`
	Level     int        `json:"level"`
	MinTXID   uint64     `json:"min_txid"`
	MaxTXID   uint64     `json:"max_txid"`
	Size      int64      `json:"size_bytes"`
	Timestamp *time.Time `json:"timestamp,omitempty"` // of the newest batch inside, if known
	Stored    time.Time  `json:"stored"`              // by the store's clock
	Key       string     `json:"key"`
}

func registerSnapshots(app *kingpin.Application, env *environment) {
	registerListing(app, env, "snapshots", "List the snapshots of a replica.", listSnapshots)
	registerListing(app, env, "wal", "List every LTX file of a replica: what was captured from the WAL, compacted, and "+
		"snapshots.", listAll)
}

// registerListing registers a command that prints files of one replica.
func registerListing(app *kingpin.Application, env *environment, name, help string, list lister) {
	cmd := app.Command(name, help)
	source := cmd.Arg("DB/URL", "Configured database, or URL of a replica.").Required().String()
	replica := cmd.Flag("replica", "Which of the database's replicas.").PlaceHolder("NAME").String()
	asJSON := cmd.Flag("json", "Print JSON.").Bool()
	cmd.Action(func(*kingpin.ParseContext) error {
		ctx, stop := interruptible()
		defer stop()
		st, from, err := openStore(ctx, env, *source, *replica)
		if err != nil {
			return err
		}
		files, err := list(ctx, st)
		for i := range files {
			files[i].Replica = from.Name
		}
		if err == nil {
			err = env.print(*asJSON, files, func(w io.Writer) error { return writeFiles(w, files) })
		}
		if err == nil && len(files) == 0 {
			err = nothingListed(ctx, st)
		}
		err = recovery.Explain(ctx, from, err)
		if err != nil {
			return fmt.Errorf("%s: %w", from.Place(), err)
		}
		return nil
	})
}

// lister returns files of a replica, never nil.
type lister func(context.Context, store.Store) ([]listedFile, error)

func writeFiles(w io.Writer, files []listedFile) error {
	if len(files) == 0 {
		return nil
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "replica\tlevel\tmin_txid\tmax_txid\tsize\tstored\ttimestamp")
	for _, f := range files {
		when := "-"
		if f.Timestamp != nil {
			when = f.Timestamp.UTC().Format(time.RFC3339Nano)
		}
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%s\t%s\n",
			f.Replica, f.Level, f.MinTXID, f.MaxTXID, f.Size, f.Stored.UTC().Format(time.RFC3339), when)
	}
	return table.Flush()
}

// nothingListed returns a finding that says why there is nothing to list.
func nothingListed(ctx context.Context, st store.Store) error {
	tip, err := catalog.FindTip(ctx, st)
	if err != nil {
		return err
	}
	taken, err := catalog.Taken(ctx, st, tip)
	switch {
	case err != nil:
		return err
	case tip.TXID > 0:
		err = errors.New("it holds no snapshot: nothing can be restored from what is there")
	case taken:
		err = errors.New("it holds generations of Litestream 0.3 only: sqlwatch restore --timestamp restores them, and a " +
			"list of them is not made")
	default:
		err = catalog.ErrEmpty
	}
	return &exitError{code: exitFindings, err: err}
}

func listed(f store.LTXFile) listedFile {
	return listedFile{Level: f.Level, MinTXID: uint64(f.MinTXID), MaxTXID: uint64(f.MaxTXID), Size: f.Object.Size,
		Stored: f.Object.Modified, Key: f.Object.Key}
}

func listSnapshots(ctx context.Context, st store.Store) ([]listedFile, error) {
	files, times, err := catalog.Snapshots(ctx, st)
	lines := make([]listedFile, len(files))
	for i, f := range files {
		lines[i] = listed(f)
		lines[i].Timestamp = &times[i]
	}
	return lines, err
}

func listAll(ctx context.Context, st store.Store) ([]listedFile, error) {
	lines := []listedFile{}
	for f, err := range catalog.Files(ctx, st) {
		if err != nil {
			return lines, err
		}
		line := listed(f)
		if t, known := f.Time(); known {
			if shown := moment.Of(f.Object.Metadata).Time; !shown.IsZero() {
				t = shown
			}
			line.Timestamp = &t
		}
		lines = append(lines, line)
	}
	return lines, nil
}
