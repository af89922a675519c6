package watchdog

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/sqlwatch/sqlwatch/policy"
)

// Notice is a message of a policy to people.
type Notice struct {
	Action   policy.Action // whom to notify, and the message
	Resolved bool          // the condition that an earlier notice reported no longer holds
}

// owe notes the notice that an action of another kind carries, with its outcome. It is saved
// before it is sent, and sent again if a crash comes between. If an action only came at the
// wrong moment, it is repeated soon, and the notice is sent then.
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

// paid removes a notice that was sent, unless a newer one is owed by now.
func (l *ledger) paid(told policy.Action) {
	if l.owed[told.Policy].Message == told.Message {
		l.owed = maps.Clone(l.owed)
		delete(l.owed, told.Policy)
	}
}

// pay sends the notices that actions carry, each after its action has ended. A notice that
// cannot be sent is logged and dropped, unless the shutdown prevented it.
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
		d.doBeside(ctx, func() error { return notify(ctx, Notice{Action: action}) }, func(err error) {
			delete(d.ledger.paying, name)
			if err != nil && ctx.Err() != nil {
				return // it is sent after the restart
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

// resolve sends the end of each notice whose condition no longer holds. If it cannot be sent
// because of the shutdown, it is sent after the restart; otherwise it is dropped. policies are those that decided.
func (d *database) resolve(ctx context.Context, policies *policy.Set, decision *policy.Decision) {
	notify := d.parts.Actions.Notify
	if len(d.ledger.told) == 0 || d.closing || notify == nil {
		return
	}
	for name := range d.ledger.told {
		if p := policies.Named(name); p == nil || !p.AppliesTo(d.target.Name, d.target.Labels) {
			d.dropped(d.target.Name, name)
			d.ledger.untell(name)
		}
	}
	for name, since := range d.ledger.over(decision) {
		p := policies.Named(name)
		a := policy.Action{Policy: name, DB: d.target.Name, Kind: policy.ActNotify, Notify: p.Notify, Severity: p.Severity,
			Message: fmt.Sprintf("%s: %s holds no longer, %s after it was told", d.target.Name, name,
				decision.At.Sub(since).Round(time.Second))}
		d.doBeside(ctx, func() error { return notify(ctx, Notice{Action: a, Resolved: true}) }, func(err error) {
			delete(d.ledger.ending, name)
			if err != nil && ctx.Err() != nil {
				return // it is sent after the restart
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

// tell notes that a notice was delivered, so that its end will be sent too.
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

// untell removes a notice whose end was sent.
func (l *ledger) untell(policy string) {
	l.told = maps.Clone(l.told)
	delete(l.told, policy)
}

// dropped notes that no end will follow what a policy has told.
func (c *shared) dropped(db, policy string) {
	if c.options.Dropped != nil {
		c.options.Dropped(db, policy)
	}
}

// over returns the notices whose policy does not hold any more, and since when it
// was told, as the caller's to tell.
func (l *ledger) over(decision *policy.Decision) map[string]time.Time {
	over := map[string]time.Time{}
	for _, p := range decision.Policies {
		if since, told := l.told[p.Policy]; told && p.When == policy.False && !l.ending[p.Policy] {
			over[p.Policy] = since
			l.ending[p.Policy] = true
		}
	}
	return over
}
