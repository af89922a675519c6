// Package recovery makes databases of the replicas that a command's arguments name: one,
// all of a configuration, or a stream. It asks the running daemon how far it has come, so
// that a listing which ends too early is no older state without a word.
package recovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/durable"
	"github.com/sqlwatch/sqlwatch/internal/lookup"
	"github.com/sqlwatch/sqlwatch/internal/target"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Recovery is what a command asks for.
type Recovery struct {
	Resolver        *target.Resolver
	Replica         string // which one of a database's; "": the one that reaches farthest
	IfReplicaExists bool   // where nothing was replicated yet there is nothing to do
	Options         restore.Options
}

// Outcome is what came of one database.
type Outcome struct {
	restore.Result
	Database string // its name; "" where a URL was given
	Place    string // the replica's address
	Daemon   ltx.TXID
	Nothing  bool // nothing was replicated yet, and that is well
	Err      error
}

// One restores what arg means: to its own place, where the options name no other.
func (r Recovery) One(ctx context.Context, arg string) (Outcome, error) {
	source, err := r.Resolver.Source(ctx, arg, r.Replica)
	if err != nil {
		return Outcome{}, err
	}
	o := r.Options
	if o.Output == "" && !o.DryRun {
		o.Output = source.Database.Path
	}
	return r.from(ctx, source, o)
}

// All restores every configured database that has a replica, to its own place, or where
// dir is not "" to a file in there that is called after it. One that fails keeps no other.
// Those without a replica are named; that there is no other is an error.
func (r Recovery) All(ctx context.Context, dir string, each func(Outcome)) error {
	sources, leftOut := r.Resolver.Every()
	if leftOut != nil {
		leftOut = fmt.Errorf("restore all: %w", leftOut)
	}
	configured := len(sources)
	sources = slices.DeleteFunc(sources, r.unreplicated)
	if configured > 0 && len(sources) == 0 {
		return errors.Join(leftOut, errors.New("restore all: no database has a replica: add replicate_to to their blocks"))
	}
	if dir != "" && !r.Options.DryRun && len(sources) > 0 {
		if err := durable.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("restore all: %w", err)
		}
	}
	failed := 0
	places := map[string]string{} // the databases' names by their outputs
	for _, s := range sources {
		o := r.Options
		if o.Output = s.Database.Path; dir != "" {
			o.Output = filepath.Join(dir, fileName(s.Database))
		}
		out := Outcome{Database: s.Database.Name}
		var err error
		if other := places[o.Output]; other != "" {
			err = fmt.Errorf("%s is the place of %s: restore it by its name, to another file with -o", o.Output, other)
		} else if s, err = r.Resolver.SourceOf(ctx, s, r.Replica); err == nil {
			out, err = r.from(ctx, s, o)
		}
		places[o.Output] = s.Database.Name
		if out.Database, out.Err = s.Database.Name, err; err != nil {
			failed++
		}
		each(out)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if failed > 0 {
		return errors.Join(leftOut, fmt.Errorf("restore all: %d of %d databases were not restored", failed, len(sources)))
	}
	return leftOut
}

// unreplicated reports whether a database has no replica, and names it then.
func (r Recovery) unreplicated(s target.Source) bool {
	if len(s.Database.Replicas) > 0 {
		return false
	}
	fmt.Fprintf(r.Resolver.Stderr, "sqlwatch: %s is left out: its block has no replicate_to\n", s.Database.Name)
	return true
}

// fileName is what a database's file is called among others.
func fileName(d config.DatabaseTarget) string {
	ext := filepath.Ext(d.Path)
	if ext == "" || filepath.Ext(d.Name) == ext {
		return d.Name
	}
	return d.Name + ext
}

// Stream restores what arg means into scratch, checks it, and only then writes it to w.
func (r Recovery) Stream(ctx context.Context, arg, scratch string, w io.Writer) (out Outcome, err error) {
	source, err := r.Resolver.Source(ctx, arg, r.Replica)
	if err != nil {
		return Outcome{}, err
	}
	dir, err := os.MkdirTemp(scratch, "sqlwatch-restore-")
	if err != nil {
		return Outcome{}, fmt.Errorf("restore: %w", err)
	}
	o := r.Options
	o.Output, o.Note, o.Leave = filepath.Join(dir, "restored.db"), false, restore.DrillLeaves
	o.Keep = false
	out, err = r.from(ctx, source, o)
	out.Output = ""
	var file *os.File
	if err == nil && !out.Nothing {
		file, err = os.Open(o.Output)
	}
	// From here on the file lives as long as its descriptor.
	if err = errors.Join(err, os.RemoveAll(dir)); err != nil || file == nil {
		return out, err
	}
	defer file.Close()
	if n, err := io.Copy(w, file); err != nil {
		return out, fmt.Errorf("restore: write the database: %d of %d bytes were written: %w", n, out.Size(), err)
	}
	return out, nil
}

// Drill restores what arg means into scratch, checks all of it and leaves nothing.
func (r Recovery) Drill(ctx context.Context, arg string, o restore.DrillOptions) (restore.DrillResult, string, error) {
	s, err := r.Resolver.Source(ctx, arg, r.Replica)
	if err != nil {
		return restore.DrillResult{}, "", err
	}
	o.SyncEvery = s.Replica.SyncEvery
	warning := ""
	if o.Target == (catalog.Target{}) {
		if o.Reach, _, warning = r.cursor(ctx, s); warning != "" {
			o.Reach = 0
		}
	}
	result, err := restore.Drill(ctx, s.Store, o)
	if warning != "" {
		result.Restore.Warnings = append(result.Restore.Warnings, warning)
	}
	if err = short(o.Reach, Explain(ctx, s.Replica, err)); err != nil {
		err = fmt.Errorf("%s: %w", s.Replica.Place(), err)
	}
	return result, s.Replica.Place(), err
}

// short says of a state that ends before the daemon's own cursor that it does.
func short(reach ltx.TXID, err error) error {
	var gap *catalog.GapError
	if reach == 0 || !errors.As(err, &gap) || gap.To != reach || gap.Reached >= reach {
		return err
	}
	return fmt.Errorf("the running daemon has stored everything up to txid %d there, and the store shows less: try "+
		"again, "+
		"or choose an older state with --txid or --timestamp: %w", reach, err)
}

func (r Recovery) from(ctx context.Context, s target.Source, o restore.Options) (Outcome, error) {
	out := Outcome{Database: s.Database.Name, Place: s.Replica.Place()}
	if _, err := lookup.New().Lstat(o.Output); errors.Is(err, lookup.ErrHung) {
		return out, fmt.Errorf("restore to %s: %w", o.Output, err)
	}
	o.SyncEvery = s.Replica.SyncEvery
	warning := ""
	if o.Target == (catalog.Target{}) {
		if out.Daemon, _, warning = r.cursor(ctx, s); warning == "" {
			o.Reach = out.Daemon
		}
	}
	result, err := restore.Run(ctx, s.Store, o)
	if last, still := r.stillLast(ctx, s, err); still {
		o.Target = catalog.Target{TXID: last}
		result, err = restore.Run(ctx, s.Store, o)
	}
	out.Result = result
	if warning != "" {
		out.Warnings = append(out.Warnings, warning)
	}
	if r.IfReplicaExists && NothingYet(s.Replica, err) {
		beside, err := unbegun(ctx, s.Replica)
		begun, kerr := known(ctx, s)
		if err = errors.Join(err, kerr); err != nil {
			return out, fmt.Errorf("%s: %w", out.Place, err)
		}
		out.Nothing = true
		for _, warning := range []string{beside, begun} {
			if warning != "" {
				out.Warnings = append(out.Warnings, fmt.Sprintf("%s: %s", out.Place, warning))
			}
		}
		return out, nil
	}
	if err = short(o.Reach, Explain(ctx, s.Replica, err)); err == nil {
		return out, nil
	}
	if out.Kept != "" {
		err = fmt.Errorf("%w; what was fetched stays in %s, and the same command continues from there", err, out.Kept)
	}
	return out, fmt.Errorf("%s: %w", out.Place, err)
}

// known is an error where a replica is empty that was not: the state directory knows its
// lineage, and the place does not. To begin with an empty database then would be a loss. It
// warns of a place that has a lineage and nothing of it.
func known(ctx context.Context, s target.Source) (warning string, err error) {
	line, err := lineage.Read(ctx, s.Store)
	switch {
	case err == nil && line.Found:
		return fmt.Sprintf("lineage %.8s of %s was begun there at %s, and nothing of it is there: it was not stored yet, or "+
			"was removed", line.ID, line.By, line.Made.UTC().Format(time.RFC3339)), nil
	case s.Lineage == "":
		return "", err
	}
	return "", errors.Join(fmt.Errorf("nothing is there, but this machine's state directory knows that the database was "+
		"replicated (lineage %.8s): the place is not mounted, was emptied, or is another one; if the database is to begin "+
		"empty, start the application without this restore", s.Lineage), err)
}

// stillLast returns the last TXID of a replica where err says that the moment asked for
// is behind it, and the running daemon that nothing was committed until then.
func (r Recovery) stillLast(ctx context.Context, s target.Source, err error) (ltx.TXID, bool) {
	var outside *catalog.RangeError
	if !errors.As(err, &outside) || !outside.Target.Timestamp.After(outside.Last.Timestamp) {
		return 0, false
	}
	last := outside.Last.TXID
	txid, caughtUp, warning := r.cursor(ctx, s)
	return last, warning == "" && last > 0 && txid == last && !outside.Target.Timestamp.After(caughtUp)
}

// cursor asks the running daemon how far it has come with a replica, 0 where none answers
// or knows of it, and until when nothing was committed that is not there. Where the replica
// is another lineage's by now its TXIDs say nothing: then there is a warning.
func (r Recovery) cursor(ctx context.Context, s target.Source) (txid ltx.TXID, caughtUp time.Time, warning string) {
	if s.Database.Name == "" {
		return 0, caughtUp, ""
	}
	asking, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	known, err := r.Resolver.Daemon.Databases(asking, s.Database.Name)
	if err != nil || len(known) != 1 || known[0].Path != s.Database.Path || known[0].Sample == nil {
		return 0, caughtUp, ""
	}
	for _, replica := range known[0].Sample.Replicas {
		if replica.Name == s.Replica.Name {
			txid, caughtUp = ltx.TXID(replica.TXID), replica.CaughtUp
		}
	}
	line, err := lineage.Read(ctx, s.Store)
	if txid > 0 && err == nil && s.Lineage != "" && line.ID != s.Lineage {
		return txid, caughtUp, fmt.Sprintf("the running daemon has stored up to txid %d of lineage %.8s there, and the "+
			"replica holds lineage %.8s of %s", txid, s.Lineage, line.ID, line.By)
	}
	return txid, caughtUp, ""
}

// NothingYet reports whether a replica is empty, or its directory was not made yet. A
// bucket is there before anything is replicated to it.
func NothingYet(from config.ReplicaTarget, err error) bool {
	return errors.Is(err, catalog.ErrEmpty) || from.Type == "file" && errors.Is(err, store.ErrMisplaced)
}
