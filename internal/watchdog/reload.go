package watchdog

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/sqlwatch/sqlwatch/policy"
)

// removeGrace is how long the last syncs of removed databases may take.
const removeGrace = 30 * time.Second

type reload struct {
	targets  []Target
	policies *policy.Set
	done     chan struct{}
}

// Reload replaces the targets and the policies between two turns. A database
// whose target has not changed keeps its state and is not reopened.
func (w *Watchdog) Reload(ctx context.Context, targets []Target, policies *policy.Set) error {
	r := reload{targets: targets, policies: policies, done: make(chan struct{})}
	select {
	case w.reloads <- r:
		<-r.done
		return nil
	case <-w.ended:
		return ErrEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// swap closes what is gone, keeps what is unchanged, and starts what is new with
// the policy state that was saved for its name.
func (w *Watchdog) swap(ctx context.Context, targets []Target, policies *policy.Set, saved map[string]savedDatabase) {
	if old := w.policies.Swap(policies); old != policies {
		w.options.Metrics.forgetPolicies(old, policies)
	}
	before := make(map[string]*database)
	for _, d := range *w.databases.Load() {
		before[d.target.Name] = d
	}
	var now, gone []*database
	for _, target := range targets {
		old := before[target.Name]
		switch {
		case old == nil:
			now = append(now, newDatabase(w, target, saved[target.Name]))
		case old.target.Identity == target.Identity:
			now = append(now, old)
			delete(before, target.Name)
		default:
			now = append(now, newDatabase(w, target, old.status.Load().saved))
		}
	}
	for name, d := range before {
		gone = append(gone, d)
		w.options.Metrics.forget(name)
	}
	// Close first: what is new may lead to a file that can be open only once.
	bounded, cancel := context.WithTimeout(ctx, removeGrace)
	defer cancel()
	if err := closeAll(bounded, gone); err != nil {
		w.options.Logger.Error("a database that the new configuration removes or changes did not close cleanly", "err", err)
	}
	slices.SortFunc(now, func(a, b *database) int { return strings.Compare(a.target.Name, b.target.Name) })
	w.databases.Store(&now)
	for _, d := range now {
		w.options.Metrics.zero(d.target.Name, policies)
		d.start(ctx)
	}
	w.dirty.Store(true)
}

// Targets returns what is looked after, sorted by name.
func (w *Watchdog) Targets() []Target {
	databases := *w.databases.Load()
	targets := make([]Target, len(databases))
	for i, d := range databases {
		targets[i] = d.target
	}
	return targets
}
