package watchdog

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/sqlwatch/sqlwatch/policy"
)

// Notice is what a policy has to say to people.
type Notice struct {
	Action   policy.Action // whom to tell, and what
	Resolved bool          // what was told before does not hold any more
}

// teller returns what sends the notices that an action of another kind carries,
// after its end and with its outcome.
func (d *database) teller(action policy.Action) func(context.Context, policy.ActionResult) {
	notify, log := d.parts.Actions.Notify, d.voice.log
	if action.Kind == policy.ActNotify || len(action.Notify) == 0 || notify == nil {
		return func(context.Context, policy.ActionResult) {}
	}
	return func(ctx context.Context, r policy.ActionResult) {
		if err := guarded(func() error { return notify(ctx, Notice{Action: action.Told(r)}) }); err != nil {
			log.Error("a notice about an action could not be sent", "policy", action.Policy, "err", err)
		}
	}
}

// resolve tells the end of what notices said that does not hold any more. An end
// that nobody could be told is told once more after a restart, and else given up.
func (d *database) resolve(ctx context.Context, decision *policy.Decision) {
	notify := d.parts.Actions.Notify
	if len(d.ledger.told) == 0 || d.closing || notify == nil {
		return
	}
	for name, since := range d.ledger.over(d.policies.Load(), decision) {
		p := policyNamed(d.policies.Load(), name)
		a := policy.Action{Policy: name, DB: d.target.Name, Kind: policy.ActNotify, Notify: p.Notify, Severity: p.Severity,
			Message: fmt.Sprintf("%s: %s holds no longer, %s after it was told", d.target.Name, name,
				decision.At.Sub(since).Round(time.Second))}
		d.beside.Go(func() {
			err := guarded(func() error { return notify(ctx, Notice{Action: a, Resolved: true}) })
			if d.acquire(context.WithoutCancel(ctx)) != nil {
				return
			}
			defer d.release()
			delete(d.ledger.ending, name)
			if err != nil && ctx.Err() != nil {
				return // after the restart
			}
			if err != nil {
				d.voice.log.Error("the end of a condition could not be told", "policy", name, "err", err)
			}
			d.ledger.untell(name)
			d.refresh()
			d.keeper.save(d.saved())
		})
	}
}

// tell notes that a notice was delivered: its end is to be told too.
func (l *ledger) tell(policy string, at time.Time) {
	told := maps.Clone(l.told)
	if told == nil {
		told = map[string]time.Time{}
	}
	if _, known := told[policy]; !known {
		told[policy] = at
	}
	l.told = told
}

// untell forgets a notice whose end was told.
func (l *ledger) untell(policy string) {
	l.told = maps.Clone(l.told)
	delete(l.told, policy)
}

// over returns the notices whose policy does not hold any more, and since when it
// was told, as the caller's to tell.
func (l *ledger) over(set *policy.Set, decision *policy.Decision) map[string]time.Time {
	over := map[string]time.Time{}
	for _, p := range decision.Policies {
		if since, told := l.told[p.Policy]; told && p.When == policy.False && !l.ending[p.Policy] {
			over[p.Policy] = since
			l.ending[p.Policy] = true
		}
	}
	for name := range l.told {
		if policyNamed(set, name) == nil {
			l.untell(name)
		}
	}
	return over
}
