package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
)

// plan plans with both histories that one place may hold: LTX files, and generations that
// Litestream 0.3 wrote before an upgrade or after a downgrade. Of two states it chooses the
// newer one that is not after the moment asked for.
func (r *restorer) plan(
	ctx context.Context, target catalog.Target, excluded map[string]bool,
) (*catalog.Plan, *catalog.GenerationPlan, error) {
	plan, err := catalog.PlanWithout(ctx, r.store, target, excluded)
	if target.TXID != 0 && !errors.Is(err, catalog.ErrEmpty) {
		return plan, nil, err
	}
	old, oldErr := catalog.PlanGenerations(ctx, r.store, target)
	var outside, oldOutside *catalog.RangeError
	errors.As(err, &outside)
	errors.As(oldErr, &oldOutside)
	switch {
	case errors.Is(oldErr, catalog.ErrEmpty):
		return plan, nil, err
	case errors.Is(err, catalog.ErrEmpty):
		if oldErr != nil {
			old = nil
		}
		return nil, old, oldErr
	case oldErr != nil && oldOutside == nil:
		if err == nil && r.newer(ctx, plan.Time()) {
			err = oldErr // the generation that cannot be planned may hold the newer state
		}
		return plan, nil, err
	case outside != nil && oldOutside != nil:
		if old != nil && outside.First.Timestamp.After(target.Timestamp) { // the moment is between the two histories
			old.Next = outside.First.Timestamp
			break
		}
		return nil, nil, fmt.Errorf("%w; and of Litestream 0.3's generations there %s to %s", err,
			oldOutside.First, oldOutside.Last)
	case oldErr != nil:
		return plan, nil, err
	case outside != nil:
	case err != nil || !old.Time().After(plan.Time()):
		return plan, nil, err
	}
	r.result.Warnings = append(r.result.Warnings, fmt.Sprintf(
		"this place holds two histories: the state of %s is of Litestream 0.3's generation %s; the other one's states are "+
			"chosen by --txid",
		old.Time().Format(time.RFC3339Nano), old.Generation))
	return nil, old, nil
}

// newer reports whether Litestream 0.3 may have stored anything after t.
func (r *restorer) newer(ctx context.Context, t time.Time) bool {
	for obj, err := range r.store.List(ctx, "generations/", "") {
		if err != nil || obj.Modified.After(t) {
			return true
		}
	}
	return false
}

// judgeV3 is judge for a state of Litestream 0.3, whose objects do not state the time from which
// they hold commits.
func (r *restorer) judgeV3(p *catalog.GenerationPlan) error {
	asked := r.o.Target.Timestamp
	if asked.IsZero() || asked.Sub(p.Time()) <= 3*cmp.Or(r.o.SyncEvery, time.Second) {
		return nil
	}
	d := &catalog.Doubt{Asked: asked.UTC(), Before: catalog.RestorePoint{Timestamp: p.Time()},
		After: catalog.RestorePoint{Timestamp: p.Next.UTC()}}
	if r.o.Exact {
		return d
	}
	r.result.Doubt = d
	r.result.Warnings = append(r.result.Warnings, d.Error())
	return nil
}
