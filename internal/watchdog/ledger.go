package watchdog

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/policy"
)

// ledger is what the policies have done to one database and are about to do. The database's
// baton guards it; a map or slice that was handed out is never changed.
type ledger struct {
	states  map[string]policy.PolicyState // by policy
	told    map[string]time.Time          // policies that sent a notice whose end has not been sent yet, and when
	ending  map[string]bool               // of told: the end is being sent
	owed    map[string]policy.Action      // by policy: actions whose result has not been sent yet
	paying  map[string]bool               // of owed: being sent
	running map[policy.Lane]string        // the actions under way

	checkpointed bool           // since the last turn's sample
	actions      []ActionRecord // newest first, at most KeptActions
}

// due returns the actions of a decision that may begin now, at most one per lane. The policies
// of the others keep their previous state, so that the same action becomes due again.
func (l *ledger) due(decision *policy.Decision, closing bool) (actions []*policy.Action) {
	for _, a := range decision.Actions {
		if lane := a.Kind.Lane(); closing || lane != policy.LaneNone && l.running[lane] != "" {
			decision.Next = maps.Clone(decision.Next)
			decision.Next[a.Policy] = l.states[a.Policy]
			continue
		}
		actions = append(actions, a)
	}
	return actions
}

// remember stores the policies' new states and reports whether an action of some policy is
// under way, and whether a tuned value has changed.
func (l *ledger) remember(next map[string]policy.PolicyState) (atWork, moved bool) {
	for name, state := range next {
		atWork = atWork || state.Phase != policy.Inactive
		for tune, st := range state.Tunes {
			before, known := l.states[name].Tunes[tune]
			moved = moved || known && !st.Changed.Equal(before.Changed)
		}
	}
	l.states = next
	return atWork, moved
}

// begin notes that an action has begun.
func (l *ledger) begin(a policy.Action) {
	if lane := a.Kind.Lane(); lane != policy.LaneNone {
		l.running[lane] = a.Policy + ": " + string(a.Kind)
	}
}

// finish stores the policy's state after its action. If the action only came at the wrong moment,
// no notification is sent, and the minimum time between notifications is not used up.
func (l *ledger) finish(set *policy.Set, a policy.Action, now time.Time, result policy.ActionResult, again bool) {
	if p := set.Named(a.Policy); p != nil {
		l.states = maps.Clone(l.states)
		st := set.Finished(l.states[p.Name], p, now, result)
		if again && len(a.Notify) > 0 {
			st.Noticed = time.Time{}
		}
		l.states[p.Name] = st
	} else {
		l.interrupt(set) // a reload removed the policy meanwhile; it may come back
	}
	l.checkpointed = l.checkpointed || a.Kind == policy.ActCheckpoint
	if a.Policy != Operator {
		delete(l.running, a.Kind.Lane())
	}
}

// cutShort records the end of the checkpoint that a panic interrupted, and reports whether
// there was one. Actions beside the turns end on their own.
func (l *ledger) cutShort(set *policy.Set, now time.Time) bool {
	if l.running[policy.LaneCheckpoint] == "" {
		return false
	}
	delete(l.running, policy.LaneCheckpoint)
	states := maps.Clone(l.states)
	for _, p := range set.Policies {
		if st := states[p.Name]; p.Kind == policy.ActCheckpoint && st.Phase == policy.Running {
			states[p.Name] = set.Finished(st, p, now, policy.ActionResult{Outcome: sqlite.OutcomeFailed, Err: errFault})
		}
	}
	l.states = states
	l.interrupt(set)
	return true
}

// interrupt notes for the policies that a reload removed that no action of theirs is under way.
func (l *ledger) interrupt(set *policy.Set) {
	states := maps.Clone(l.states)
	for name, st := range states {
		if set.Named(name) == nil {
			states[name] = st.Interrupted()
		}
	}
	l.states = states
}

// errFault is the error of an action that a panic interrupted.
var errFault = errors.New("fault of sqlwatch")

// keep adds an action's record in front of the earlier ones.
func (l *ledger) keep(r ActionRecord) {
	l.actions = append([]ActionRecord{r}, l.actions[:min(len(l.actions), KeptActions-1)]...)
}

// atWork returns a description of the actions that are under way.
func (l *ledger) atWork() string {
	return strings.Join(slices.Sorted(maps.Values(l.running)), ", ")
}

// rests reports whether no policy is waiting for anything.
func (l *ledger) rests() bool {
	for _, state := range l.states {
		if state.Phase != policy.Inactive && state.Phase != policy.Cooldown {
			return false
		}
	}
	return len(l.running) == 0
}
