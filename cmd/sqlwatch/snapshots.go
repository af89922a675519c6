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
	Timestamp *time.Time `json:"timestamp,omitempty"` // of the newest batch inside, where known
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
		files := 0
		counted := func(ctx context.Context, st store.Store, print func(listedFile) error) error {
			return list(ctx, st, func(f listedFile) error {
				files, f.Replica = files+1, from.Name
				return print(f)
			})
		}
		if *asJSON {
			err = printJSONListing(ctx, env.Stdout, st, counted)
		} else {
			err = printListing(ctx, env.Stdout, st, counted)
		}
		if err == nil && files == 0 {
			err = nothingListed(ctx, st)
		}
		err = recovery.Explain(ctx, from, err)
		if err != nil {
			return fmt.Errorf("%s: %w", from.Place(), err)
		}
		return nil
	})
}

// lister calls print with each file.
type lister func(ctx context.Context, st store.Store, print func(listedFile) error) error

func printJSONListing(ctx context.Context, w io.Writer, st store.Store, list lister) error {
	files := []listedFile{}
	err := list(ctx, st, func(f listedFile) error {
		files = append(files, f)
		return nil
	})
	if err != nil {
		return err
	}
	return writeJSON(w, files)
}

func printListing(ctx context.Context, w io.Writer, st store.Store, list lister) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	header := "replica\tlevel\tmin_txid\tmax_txid\tsize\tstored\ttimestamp\n"
	err := list(ctx, st, func(f listedFile) error {
		when := "-"
		if f.Timestamp != nil {
			when = f.Timestamp.UTC().Format(time.RFC3339Nano)
		}
		_, err := fmt.Fprintf(table, "%s%s\t%d\t%d\t%d\t%d\t%s\t%s\n", header,
			f.Replica, f.Level, f.MinTXID, f.MaxTXID, f.Size, f.Stored.UTC().Format(time.RFC3339), when)
		header = ""
		return err
	})
	if ferr := table.Flush(); err == nil {
		err = ferr
	}
	return err
}

// nothingListed says why there was nothing to list: a finding.
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

func listSnapshots(ctx context.Context, st store.Store, print func(listedFile) error) error {
	files, times, err := catalog.Snapshots(ctx, st)
	if err != nil {
		return err
	}
	for i, f := range files {
		line := listed(f)
		line.Timestamp = &times[i]
		if err := print(line); err != nil {
			return err
		}
	}
	return nil
}

func listAll(ctx context.Context, st store.Store, print func(listedFile) error) error {
	for f, err := range catalog.Files(ctx, st) {
		if err != nil {
			return err
		}
		line := listed(f)
		if t, known := f.Time(); known {
			if shown := moment.Of(f.Object.Metadata).Time; !shown.IsZero() {
				t = shown
			}
			line.Timestamp = &t
		}
		if err := print(line); err != nil {
			return err
		}
	}
	return nil
}
