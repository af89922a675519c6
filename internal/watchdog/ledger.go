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

// ledger is what the policies have done to one database and are about to do. The
// database's baton guards it; a map or slice that was handed out is never changed.
type ledger struct {
	states  map[string]policy.PolicyState // by policy
	told    map[string]time.Time          // notices whose end is still to be told, by policy
	ending  map[string]bool               // of told, whose end is being told
	owed    map[string]policy.Action      // what is to be told of the last actions' ends, by policy
	paying  map[string]bool               // of owed, what is being sent
	running map[policy.Lane]string        // the actions at work

	checkpointed bool           // since the last turn's sample
	actions      []ActionRecord // newest first, at most KeptActions
}

// due returns the actions of a decision that may begin: one a lane at a time. The
// states of the others' policies are left as they were, so that the same action is
// due again.
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

// remember takes over the policies' new states and reports whether some policy is
// at work, and whether a tuned value has moved.
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

// begin notes that an action is at work.
func (l *ledger) begin(a policy.Action) {
	if lane := a.Kind.Lane(); lane != policy.LaneNone {
		l.running[lane] = a.Policy + ": " + string(a.Kind)
	}
}

// finish gives a policy the state that follows the end of its action. Of one that only
// met a wrong moment nobody is told: the floor of notices is for the next.
func (l *ledger) finish(set *policy.Set, a policy.Action, now time.Time, result policy.ActionResult, again bool) {
	if p := policyNamed(set, a.Policy); p != nil {
		l.states = maps.Clone(l.states)
		st := set.Finished(l.states[p.Name], p, now, result)
		if again && len(a.Notify) > 0 {
			st.Noticed = time.Time{}
		}
		l.states[p.Name] = st
	}
	l.checkpointed = l.checkpointed || a.Kind == policy.ActCheckpoint
	if a.Policy != Operator {
		delete(l.running, a.Kind.Lane())
	}
}

// cutShort books the checkpoint that a panic cut short, and reports whether there
// was one: nobody else will. What runs beside the turns ends on its own.
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
	return true
}

// errFault ends an action that a panic cut short.
var errFault = errors.New("fault of sqlwatch")

// keep puts an action's record before the earlier ones.
func (l *ledger) keep(r ActionRecord) {
	l.actions = append([]ActionRecord{r}, l.actions[:min(len(l.actions), KeptActions-1)]...)
}

// atWork says which actions are under way.
func (l *ledger) atWork() string {
	return strings.Join(slices.Sorted(maps.Values(l.running)), ", ")
}

// rests reports whether no policy waits for anything.
func (l *ledger) rests() bool {
	for _, state := range l.states {
		if state.Phase != policy.Inactive && state.Phase != policy.Cooldown {
			return false
		}
	}
	return len(l.running) == 0
}

// policyNamed returns the policy of that name, nil where a reload removed it.
func policyNamed(set *policy.Set, name string) *policy.Policy {
	if i := slices.IndexFunc(set.Policies, func(p *policy.Policy) bool { return p.Name == name }); i >= 0 {
		return set.Policies[i]
	}
	return nil
}
