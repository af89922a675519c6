// Package inventory says which replicas there are: of the configured databases, below a
// URL, and of databases that the configuration no longer names. Nobody else would tell of
// the last: what is stored and paid for outlives a name.
package inventory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Opener opens the store of a replica.
type Opener func(context.Context, config.ReplicaTarget) (store.Store, error)

// Replica is one place and what it holds.
type Replica struct {
	DB      string     `json:"db,omitempty"` // of the configuration
	Name    string     `json:"replica,omitempty"`
	Place   string     `json:"place"`
	Lineage string     `json:"lineage,omitempty"`
	MadeBy  string     `json:"made_by,omitempty"` // host and database
	TXID    uint64     `json:"txid"`              // 0: empty
	At      *time.Time `json:"time,omitempty"`    // of that TXID
	Writer  string     `json:"writer,omitempty"`  // who holds the lease
	Expires *time.Time `json:"writer_until,omitempty"`
	Note    string     `json:"note,omitempty"`
	Err     string     `json:"error,omitempty"`
}

// Wrong reports whether somebody must look at the replica.
func (r Replica) Wrong() bool { return r.Err != "" || r.Note != "" }

// Look asks one replica what it holds.
func Look(ctx context.Context, open Opener, t config.ReplicaTarget) Replica {
	r := Replica{Name: t.Name, Place: t.Place()}
	if err := r.look(ctx, open, t); err != nil {
		r.Err = err.Error()
	}
	return r
}

func (r *Replica) look(ctx context.Context, open Opener, t config.ReplicaTarget) error {
	st, err := open(ctx, t)
	if err != nil {
		return err
	}
	tip, err := catalog.FindTip(ctx, st)
	if errors.Is(err, store.ErrMisplaced) && t.Type == "file" {
		r.Note = "nothing was replicated yet: the directory does not exist"
		return nil
	}
	if err != nil {
		return err
	}
	if r.TXID = uint64(tip.TXID); r.TXID > 0 {
		r.At = &tip.At
	} else if taken, err := catalog.Taken(ctx, st, tip); err != nil {
		return err
	} else if taken {
		r.Note = "of Litestream 0.3"
	} else {
		r.Note = "empty"
	}
	line, err := lineage.Read(ctx, st)
	if err != nil {
		return err
	}
	r.Lineage, r.MadeBy = line.ID, line.By
	note, _, found, err := lease.Read(ctx, st)
	if found && err == nil && !note.Released {
		r.Writer, r.Expires = note.Owner, &note.Expires
	}
	return err
}

// Below returns the places below a URL that hold a replica, the place itself included.
func Below(ctx context.Context, open Opener, t config.ReplicaTarget) ([]config.ReplicaTarget, error) {
	if t.Type == "file" {
		return belowDirectory(t)
	}
	st, err := open(ctx, t)
	if err != nil {
		return nil, err
	}
	var found []config.ReplicaTarget
	for after := ""; ; {
		place, more := "", false
		for object, err := range st.List(ctx, "", after) {
			if err != nil {
				return nil, fmt.Errorf("list %s: %w", t.Place(), err)
			}
			if place, more = placeOf(object.Key); more {
				break
			}
		}
		if !more {
			return found, nil
		}
		one := t
		one.S3.Prefix = strings.Trim(t.S3.Prefix+"/"+place, "/")
		found = append(found, one)
		if place == "" {
			return found, nil // replicas do not lie within each other
		}
		after = place + "0" // behind everything below place+"/"
	}
}

// placeOf returns the place of the replica that an object belongs to.
func placeOf(key string) (place string, ok bool) {
	parts := strings.Split(key, "/")
	for i := range parts {
		rest := strings.Join(parts[i:], "/")
		if _, _, _, err := store.ParseLTXKey(rest); err == nil || rest == lineage.Key || rest == lease.Key ||
			len(parts) > i+3 && parts[i] == "generations" {
			return strings.Join(parts[:i], "/"), true
		}
	}
	return "", false
}

// belowDirectory follows a link at the directory itself, and one to a replica's directory; no others,
// because they may lead in circles.
func belowDirectory(t config.ReplicaTarget) (found []config.ReplicaTarget, err error) {
	if _, err := os.Stat(t.File.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	err = filepath.WalkDir(t.File.Dir+"/", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		link := e.Type()&fs.ModeSymlink != 0
		if !e.IsDir() && !link {
			return nil
		}
		for _, inside := range []string{"ltx", "generations", lineage.Key} {
			if _, err := os.Stat(filepath.Join(path, inside)); err == nil {
				one := t
				one.File.Dir = filepath.Clean(path)
				found = append(found, one)
				if link {
					return nil // SkipDir would skip what lies beside it
				}
				return filepath.SkipDir
			}
		}
		return nil
	})
	return found, err
}

func write(w io.Writer, replicas []Replica, states []State, now time.Time) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(replicas) > 0 {
		fmt.Fprintln(table, "DATABASE\tREPLICA\tPLACE\tTXID\tNEWEST\tWRITER")
	}
	for _, r := range replicas {
		newest, writer := "-", "-"
		if r.At != nil {
			newest = fmt.Sprintf("%s (%s)", show.Time(*r.At), show.Ago(now, *r.At))
		}
		if r.Writer != "" {
			writer = r.Writer
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\t%s\n", orDash(r.DB, r.MadeBy), orDash(r.Name), r.Place, r.TXID,
			newest, writer)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, r := range replicas {
		if r.Wrong() {
			fmt.Fprintf(w, "\n%s: %s\n", r.Place, r.Note+r.Err)
		}
	}
	for _, s := range states {
		fmt.Fprintf(w, "\n%s\n", s)
	}
	return nil
}

func orDash(texts ...string) string {
	if i := slices.IndexFunc(texts, func(s string) bool { return s != "" }); i >= 0 {
		return texts[i]
	}
	return "-"
}
