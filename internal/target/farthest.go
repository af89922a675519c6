package target

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/daemon"
	"github.com/sqlwatch/sqlwatch/internal/lookup"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// candidate is one of several replicas of a database.
type candidate struct {
	target config.ReplicaTarget
	store  store.Store
	line   lineage.Stored
	tip    catalog.Tip
	taken  bool // something of a replica's is there
}

// Farthest returns the replica that holds the newest state of the database's own
// lineage, which is called ours where the state directory knows it, and can be restored.
// What cannot be reached, or has a gap, is told and left out; so is it told when the
// replicas hold different histories. An empty one stands in for none that is not known to
// be empty as well.
func Farthest(
	ctx context.Context, stderr io.Writer, targets []config.ReplicaTarget, ours string,
) (store.Store, config.ReplicaTarget, error) {
	var all []candidate
	var errs []error
	leftOut := func(t config.ReplicaTarget, err error) {
		fmt.Fprintf(stderr, "sqlwatch: replica %s is left out: %v\n", t.Name, err)
		errs = append(errs, fmt.Errorf("replica %s: %w", t.Name, err))
	}
	disks := lookup.New()
	for _, t := range targets {
		c, err := candidateOf(ctx, disks, t)
		if err != nil {
			leftOut(t, err)
			continue
		}
		all = append(all, c)
	}
	best := rank(all, ours)
	if told := disagreement(best); told != "" {
		fmt.Fprintf(stderr, "sqlwatch: %s\n", told)
	}
	full := slices.DeleteFunc(slices.Clone(best), func(c candidate) bool { return !c.taken })
	for _, c := range best {
		if !c.taken && len(full) > 0 {
			fmt.Fprintf(stderr, "sqlwatch: replica %s, %s, is empty: nothing was stored there yet, it was emptied, or its "+
				"file system is not mounted; it may have held newer states than the others\n", c.target.Name, c.target.Place())
		}
	}
	switch {
	case len(full) == 0 && len(errs) > 0:
		return nil, config.ReplicaTarget{}, errors.Join(errs...)
	case len(full) == 0:
		full = best[:1]
	}
	for _, c := range full[:len(full)-1] {
		if c.tip.TXID > 0 {
			if _, err := catalog.MakePlan(ctx, c.store, catalog.Target{}); err != nil {
				leftOut(c.target, err)
				full = full[1:]
				continue
			}
		}
		break
	}
	fmt.Fprintf(stderr, "sqlwatch: using replica %s, %s, which reaches farthest\n",
		full[0].target.Name, full[0].target.Place())
	return full[0].store, full[0].target, nil
}

func candidateOf(ctx context.Context, disks *lookup.Disks, t config.ReplicaTarget) (c candidate, err error) {
	c.target = t
	if err = answers(disks, t); err != nil {
		return c, err
	}
	if c.store, err = daemon.NewStore(ctx, t); err != nil {
		return c, err
	}
	if c.line, err = lineage.Read(ctx, c.store); err != nil {
		return c, err
	}
	c.tip, err = catalog.FindTip(ctx, c.store)
	if t.Type == "file" && errors.Is(err, store.ErrMisplaced) {
		return c, nil // its first write makes the directory: until then the replica is empty
	}
	if err == nil {
		c.taken, err = catalog.Taken(ctx, c.store, c.tip)
	}
	return c, err
}

// rank orders replicas by which is to be restored from: those of our own lineage
// first, then those of the lineage that holds the newest state, then as they were given.
// TXIDs compare within one lineage only.
func rank(all []candidate, ours string) []candidate {
	newest, first := map[string]time.Time{}, map[string]int{} // by lineage
	for i, c := range all {
		if _, known := first[c.line.ID]; !known {
			first[c.line.ID] = i
		}
		if c.tip.At.After(newest[c.line.ID]) {
			newest[c.line.ID] = c.tip.At
		}
	}
	out := slices.Clone(all)
	slices.SortStableFunc(out, func(a, b candidate) int {
		switch ida, idb := a.line.ID, b.line.ID; {
		case ida == idb:
			return cmp.Compare(b.tip.TXID, a.tip.TXID)
		case ours != "" && ida == ours:
			return -1
		case ours != "" && idb == ours:
			return 1
		default:
			return cmp.Or(newest[idb].Compare(newest[ida]), cmp.Compare(first[ida], first[idb]))
		}
	})
	return out
}

// disagreement says which histories replicas hold, when there is more than one; the
// first is the one that is used.
func disagreement(ranked []candidate) string {
	var told []string
	var ids []string
	for _, c := range ranked {
		if c.tip.TXID == 0 || c.line.Found && slices.Contains(ids, c.line.ID) {
			continue
		}
		ids = append(ids, c.line.ID)
		told = append(told, fmt.Sprintf("%s holds lineage %.8s of %s up to %s", c.target.Name,
			cmp.Or(c.line.ID, "(none)"), cmp.Or(c.line.By, "an earlier version"), c.tip.At.UTC().Format(time.RFC3339)))
	}
	if len(ids) < 2 {
		return ""
	}
	return "the replicas disagree, they hold different histories: " +
		strings.Join(told, "; ") + "; choose with --replica"
}
