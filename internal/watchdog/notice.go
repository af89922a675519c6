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

// owe notes the notice that an action of another kind carries, with its outcome: it is
// on the disk before it is sent, and sent again where a crash came between. An action
// that only met a wrong moment is done again soon, and told then.
func (l *ledger) owe(action policy.Action, r policy.ActionResult) {
	if action.Kind == policy.ActNotify || len(action.Notify) == 0 {
		return
	}
	told := action.Told(r)
	told.Checkpoint = nil
	l.owed = maps.Clone(l.owed)
	if l.owed == nil {
		l.owed = map[string]policy.Action{}
	}
	l.owed[action.Policy] = told
}

// paid forgets a notice that was sent, unless another is owed in the meantime.
func (l *ledger) paid(told policy.Action) {
	if l.owed[told.Policy].Message == told.Message {
		l.owed = maps.Clone(l.owed)
		delete(l.owed, told.Policy)
	}
}

// pay sends the notices that actions carry, each after its action's end. What cannot be
// sent is logged and given up, unless it is the shutdown that prevents it.
func (d *database) pay(ctx context.Context) {
	if d.closing || d.parts == nil || d.parts.Actions.Notify == nil {
		return
	}
	notify := d.parts.Actions.Notify
	for name, action := range d.ledger.owed {
		if d.ledger.paying[name] {
			continue
		}
		d.ledger.paying[name] = true
		d.beside.Go(func() {
			err := guarded(func() error { return notify(ctx, Notice{Action: action}) })
			if d.acquire(context.WithoutCancel(ctx)) != nil {
				return
			}
			defer d.release()
			delete(d.ledger.paying, name)
			if err != nil && ctx.Err() != nil {
				return // after the restart
			}
			if err != nil {
				d.voice.Log.Error("a notice about an action could not be sent", "policy", name, "err", err)
			}
			d.ledger.paid(action)
			d.refresh()
			d.keeper.save(d.saved())
		})
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
				d.voice.Log.Error("the end of a condition could not be told", "policy", name, "err", err)
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
