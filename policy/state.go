package policy

import (
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/sqlwatch/sqlwatch/policy/ladder"
	"github.com/sqlwatch/sqlwatch/policy/stalls"
)

// Phase is where a policy stands with a database.
type Phase string

// The phases of a policy; Evaluate's comment draws how they follow each other.
const (
	Inactive Phase = "inactive"
	Pending  Phase = "pending"
	Armed    Phase = "armed"
	Running  Phase = "running"
	Cooldown Phase = "cooldown"
	Backing  Phase = "backoff"
)

// Phases lists every phase, for metrics.
func Phases() []Phase { return []Phase{Inactive, Pending, Armed, Running, Cooldown, Backing} }

// StateVersion is the version of PolicyState's encoding.
const StateVersion = 1

// PolicyState is what must be remembered of a policy and a database between
// two evaluations and over a restart. The zero value is a policy never seen.
type PolicyState struct {
	Version      int                  `json:"version"`
	Phase        Phase                `json:"phase"`
	PendingSince time.Time            `json:"pending_since,omitzero"` // since when the condition has held
	Seen         time.Time            `json:"seen,omitzero"`          // when it was last seen to hold
	ArmedSince   time.Time            `json:"armed_since,omitzero"`   // since when it would have acted
	Engaged      bool                 `json:"engaged,omitempty"`      // it has acted and `until` is not reached
	ReadyAt      time.Time            `json:"ready_at,omitzero"`      // end of the rest after a run
	Rest         Phase                `json:"rest,omitempty"`         // what kind of rest: cooldown or backoff
	Attempt      int                  `json:"attempt,omitempty"`      // fruitless runs in a row
	Started      time.Time            `json:"started,omitzero"`       // of the last action
	Truncated    bool                 `json:"truncated,omitempty"`    // the last action's ladder had a TRUNCATE
	Truncation   time.Time            `json:"truncation,omitzero"`    // when the last ladder with a TRUNCATE began
	Ended        time.Time            `json:"ended,omitzero"`         // of the last action
	Stall        time.Duration        `json:"stall,omitempty"`        // how long its writers had to wait
	Stalls       stalls.Stalls        `json:"stalls,omitzero"`        // of the last truncations
	Outcome      string               `json:"outcome,omitempty"`      // of the last action, in a word
	Noticed      time.Time            `json:"noticed,omitzero"`       // when it last told somebody beside another action
	Tunes        map[string]TuneState `json:"tunes,omitempty"`
}

// equal reports whether two states are the same; it may miss that.
func (st *PolicyState) equal(o *PolicyState) bool {
	return st.Version == o.Version && st.Phase == o.Phase && st.PendingSince == o.PendingSince && st.Seen == o.Seen &&
		st.ArmedSince == o.ArmedSince && st.Engaged == o.Engaged && st.ReadyAt == o.ReadyAt && st.Rest == o.Rest &&
		st.Attempt == o.Attempt && st.Started == o.Started && st.Truncated == o.Truncated && st.Truncation == o.Truncation &&
		st.Ended == o.Ended && st.Stall == o.Stall && st.Stalls == o.Stalls && st.Outcome == o.Outcome &&
		st.Noticed == o.Noticed &&
		maps.Equal(st.Tunes, o.Tunes)
}

// interrupted is the outcome of an action that died with its process.
const interrupted = "interrupted"

// UnmarshalJSON decodes a state and refuses versions it does not know. An
// action that was running when the state was written died with its process:
// it comes back as one that failed then. How long it rests, clamp says.
func (st *PolicyState) UnmarshalJSON(data []byte) error {
	type plain PolicyState
	var p plain
	if err := json.Unmarshal(data, &p); err != nil {
		return fmt.Errorf("decode policy state: %w", err)
	}
	if p.Version != StateVersion {
		return fmt.Errorf("decode policy state: version %d is not %d: it was written by another release", p.Version,
			StateVersion)
	}
	if p.Phase == Running {
		p.Phase, p.Rest, p.Attempt, p.Outcome = Backing, Backing, p.Attempt+1, interrupted
		p.Ended, p.ReadyAt = p.Started, time.Time{}
	}
	*st = PolicyState(p)
	return nil
}

// DecodeStates decodes the states of a daemon that lives: what runs there continues
// running.
func DecodeStates(data []byte) (map[string]PolicyState, error) {
	type plain PolicyState
	var states map[string]plain
	if err := json.Unmarshal(data, &states); err != nil {
		return nil, fmt.Errorf("decode policy states: %w", err)
	}
	out := make(map[string]PolicyState, len(states))
	for name, st := range states {
		if st.Version != StateVersion {
			return nil, fmt.Errorf("decode policy state: version %d is not %d: the daemon is of another release", st.Version,
				StateVersion)
		}
		out[name] = PolicyState(st)
	}
	return out, nil
}

// interruptedPause is the least rest after an action that a crash cut short.
const interruptedPause = 30 * time.Second

// rest returns how long the policy rests at most, in the state it is in. An action
// that a crash cut short may have been done, and may be what caused the crash: it
// rests as after a success, and longer with each crash. A notice is sent again
// soon: twice is better than never.
func (p *Policy) rest(st *PolicyState) time.Duration {
	switch {
	case st.Rest == Cooldown:
		return p.Cooldown
	case st.Outcome != interrupted:
		return max(p.backoff().After(st.Attempt), MinCheckpointInterval)
	}
	pause := Backoff{Initial: interruptedPause, Max: time.Hour}.After(st.Attempt)
	if p.Kind == ActNotify {
		return pause
	}
	return max(pause, p.Cooldown)
}

// Finished returns the state after an action started at st.Started has ended:
// cooldown after a success, backoff after anything else.
func (s *Set) Finished(st PolicyState, p *Policy, now time.Time, r ActionResult) PolicyState {
	st.Version = StateVersion
	st.Ended = now
	st.Outcome = outcomeWord(p, r)
	st.Stall = r.WriterStall
	st.Stalls.Learn(r.Outcome, r.Reclaimed, r.WriterStall)
	switch {
	case shortened(r):
		st.Phase, st.Rest = Backing, Backing
		st.ReadyAt = now.Add(p.backoff().Initial)
	case drained(p, st, r):
		// The TRUNCATE was left out, PASSIVE has done its part: look again soon,
		// without growing pauses, since this is what keeps the WAL from growing.
		st.Phase, st.Rest = Backing, Backing
		st.ReadyAt = now.Add(p.backoff().Initial)
	case succeeded(p, r):
		st.Phase, st.Rest = Cooldown, Cooldown
		st.ReadyAt = now.Add(p.Cooldown)
		st.Engaged = p.until != nil
		if !st.Engaged {
			st.Attempt = 0
		}
		st.PendingSince, st.ArmedSince, st.Seen = time.Time{}, time.Time{}, time.Time{}
	case contended(r):
		// Another checkpointer was at work for a moment: no failed attempt.
		st.Phase, st.Rest = Backing, Backing
		st.ReadyAt = now.Add(MinCheckpointInterval)
	default:
		st.Phase, st.Rest = Backing, Backing
		st.Attempt++
		st.ReadyAt = now.Add(p.backoff().After(st.Attempt))
	}
	return st
}

// backoff returns the pauses after fruitless runs of the policy.
func (p *Policy) backoff() Backoff {
	if p.Ladder != nil {
		return p.Ladder.OnBusy
	}
	return ladder.DefaultBackoff
}
