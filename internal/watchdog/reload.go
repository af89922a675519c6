package watchdog

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/watchdog/succession"
	"github.com/sqlwatch/sqlwatch/policy"
)

// rememberLeft is how long the state of a database is kept that the configuration no longer
// names. A mistake in the configuration must not cost the database's cooldowns, nor what its
// windows have learned.
const rememberLeft = 30 * 24 * time.Hour

// removeGrace is how long the last syncs of removed databases may take, turnGrace how long
// a turn of theirs that is under way may.
const removeGrace, turnGrace = 30 * time.Second, 5 * time.Second

type reload struct {
	targets  []Target
	policies *policy.Set
	done     chan error
}

// Reload replaces the targets and the policies between two turns. A database
// whose target has not changed keeps its state and is not reopened. It returns ErrEnded if Run ends first.
func (w *Watchdog) Reload(ctx context.Context, targets []Target, policies *policy.Set) error {
	r := reload{targets: targets, policies: policies, done: make(chan error, 1)}
	select {
	case w.reloads <- r:
		return <-r.done
	case <-w.ended:
		return ErrEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// swap closes the databases that were removed, keeps the unchanged ones, and starts the new
// ones with the policy state that was saved for their names. If ctx ends meanwhile, the databases
// remain as they are, for Run to close and to save.
func (w *Watchdog) swap(ctx context.Context, targets []Target, policies *policy.Set,
	saved map[string]savedDatabase) error {
	if old := w.policies.Swap(policies); old != policies {
		w.options.Metrics.forgetPolicies(old, policies)
	}
	before := make(map[string]*database)
	for _, d := range *w.databases.Load() {
		before[d.target.Name] = d
	}
	at := w.options.Clock()
	for name, one := range saved {
		if one.Left.IsZero() {
			one.Left = at
		}
		w.left[name] = one
	}
	var now []*database
	heirs := make(map[*database]*database) // old database to the one that replaces it
	for _, target := range targets {
		old := before[target.Name]
		switch {
		case old == nil:
			now = append(now, newDatabase(&w.shared, target, w.left[target.Name]))
		case old.target.Identity == target.Identity:
			now = append(now, old)
			delete(before, target.Name)
		default:
			heir := newDatabase(&w.shared, target, savedDatabase{})
			now, heirs[old] = append(now, heir), heir
		}
	}
	gone := slices.Collect(maps.Values(before))
	// Close first: a new database may lead to the same file, which can be open only once.
	if err := w.closeGone(ctx, gone); err != nil {
		return err
	}
	for _, d := range gone {
		w.options.Metrics.forget(d.target.Name)
		w.options.Health.Forget(d.target.Name)
		w.inherit(d, heirs[d], at)
		w.kept.Leave(d.target.Path, d.place)
	}
	maps.DeleteFunc(w.left, func(_ string, s savedDatabase) bool { return at.Sub(s.Left) > rememberLeft })
	slices.SortFunc(now, func(a, b *database) int { return strings.Compare(a.target.Name, b.target.Name) })
	w.databases.Store(&now)
	for _, d := range now {
		delete(w.left, d.target.Name)
		if d.timer.Load() == nil { // a new database
			w.kept.Follow(d.target.Path, d.place)
		}
		w.options.Metrics.zero(d.target.Name, d.target.Labels, policies)
		d.start(ctx)
	}
	w.dirty.Store(true)
	return nil
}

// closeGone closes what a reload takes away. It returns ErrEnded if ctx ends first: Run waits for the last syncs.
func (w *Watchdog) closeGone(ctx context.Context, gone []*database) error {
	if len(gone) == 0 {
		return nil
	}
	closed := make(chan struct{})
	w.leaving.Go(func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeGrace)
		defer cancel()
		defer close(closed)
		leave := func(d *database) error { return d.leave(bounded, w.forget) }
		if err := succession.CloseAll(gone, ErrEnded, leave); err != nil {
			w.options.Logger.Error("a database that the new configuration removes or changes did not close cleanly", "err", err)
		}
	})
	select {
	case <-closed:
		return nil
	case <-ctx.Done():
		return ErrEnded
	}
}

// inherit hands the state of a database to the one that takes its place, or keeps it in case
// the database comes back.
func (w *Watchdog) inherit(old, heir *database, at time.Time) {
	status := old.display.status.Load()
	last := status.saved
	last.Policies = maps.Clone(last.Policies)
	for name, st := range last.Policies {
		last.Policies[name] = st.Interrupted() // an action that did not end in time is not watched any more
	}
	select {
	case old.baton <- struct{}{}:
		last.history = old.past.history
		old.release()
	default: // it did not close in time, and may still be at work
	}
	if heir == nil {
		for name := range last.Told {
			w.dropped(old.target.Name, name)
		}
		last.Left, last.Told = at, nil
		w.left[old.target.Name] = last
		return
	}
	heir.ledger.states, heir.ledger.told, heir.ledger.owed = last.Policies, last.Told, last.Owed
	if last.history != nil {
		heir.past.history = last.history
	}
	heir.ledger.actions = status.Actions
	heir.display.begin(last, Recent{Actions: status.Actions, Changes: status.Changes})
}

// forget drops what is shown of a database that is no longer watched, and was closed late: what it
// did last is counted.
func (w *Watchdog) forget(name string) {
	if _, err := w.find(name); err != nil {
		w.options.Metrics.forget(name)
		w.options.Health.Forget(name)
	}
}

// Targets returns the databases that are watched, sorted by name.
func (w *Watchdog) Targets() []Target {
	databases := *w.databases.Load()
	targets := make([]Target, len(databases))
	for i, d := range databases {
		targets[i] = d.target
	}
	return targets
}
