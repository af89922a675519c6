package recovery

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/daemon"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Explain adds to the error of a place without a replica where there is one: above, as
// where a URL leads into a replica; below, as where it leads to what holds several; or
// beside, as where a directory's name is mistyped.
func Explain(ctx context.Context, t config.ReplicaTarget, err error) error {
	if !errors.Is(err, catalog.ErrEmpty) && !errors.Is(err, store.ErrMisplaced) {
		return err
	}
	if above, found := around(ctx, t); found {
		return fmt.Errorf("%w: there is a replica at %s", err, above.Place())
	}
	if below := children(ctx, t); len(below) > 0 {
		return fmt.Errorf("%w: there are replicas below it: %s", err, strings.Join(below, ", "))
	}
	if above, ok := parent(t); ok && errors.Is(err, store.ErrMisplaced) { // mistyped, perhaps
		if beside := children(ctx, above); len(beside) > 0 {
			return fmt.Errorf("%w: there are replicas beside it: %s", err, strings.Join(beside, ", "))
		}
	}
	return err
}

// around returns the replica in whose place another place is.
func around(ctx context.Context, t config.ReplicaTarget) (config.ReplicaTarget, bool) {
	for above, ok := parent(t); ok; above, ok = parent(above) {
		if holds(ctx, above) {
			return above, true
		}
	}
	return t, false
}

// inReplica is what the places in a replica are called first, below which there is no other.
var inReplica = regexp.MustCompile(`^/?(ltx|generations|sqlwatch|[0-9a-f]{4})(/|$)`)

// unbegun returns what speaks against a place without a replica being one where nothing
// was replicated yet: an error inside of a replica, and a warning above others.
func unbegun(ctx context.Context, t config.ReplicaTarget) (warning string, err error) {
	above, found := around(ctx, t)
	inside := strings.TrimPrefix(t.File.Dir+t.S3.Prefix, above.File.Dir+above.S3.Prefix)
	if found && inReplica.MatchString(inside) {
		return "", fmt.Errorf("nothing is there, and it is a part of the replica at %s", above.Place())
	}
	if below := children(ctx, t); len(below) > 0 {
		return "there are replicas below it: " + strings.Join(below, ", "), nil
	}
	return "", nil
}

// parent is the place that contains another. A bucket's root and a file system's end it.
func parent(t config.ReplicaTarget) (config.ReplicaTarget, bool) {
	switch {
	case t.Type == "file" && filepath.Dir(t.File.Dir) != t.File.Dir && filepath.Dir(t.File.Dir) != "/":
		t.File.Dir = filepath.Dir(t.File.Dir)
		return t, true
	case t.Type == "s3" && t.S3.Prefix != "":
		if t.S3.Prefix = path.Dir(t.S3.Prefix); t.S3.Prefix == "." {
			t.S3.Prefix = ""
		}
		return t, true
	}
	return t, false
}

// holds reports whether a replica is at a place. What cannot be looked at holds none.
func holds(ctx context.Context, t config.ReplicaTarget) bool {
	st, err := daemon.NewStore(ctx, t)
	if err != nil {
		return false
	}
	tip, err := catalog.FindTip(ctx, st)
	if err != nil || tip.TXID > 0 {
		return err == nil
	}
	taken, err := catalog.Taken(ctx, st, tip)
	return err == nil && taken
}

// children returns some of the replicas in the directories below a directory.
func children(ctx context.Context, t config.ReplicaTarget) (found []string) {
	const most, named = 100, 5
	entries, err := os.ReadDir(t.File.Dir)
	if t.Type != "file" || err != nil {
		return nil
	}
	for i, e := range entries {
		if i == most || len(found) == named {
			break
		}
		below := t
		below.File.Dir = filepath.Join(t.File.Dir, e.Name())
		if e.IsDir() && holds(ctx, below) {
			found = append(found, below.Place())
		}
	}
	return found
}
