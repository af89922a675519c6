package policy

import (
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/sqlwatch/sqlwatch/policy/ladder"
	"github.com/sqlwatch/sqlwatch/policy/stalls"
)

// Phase is a policy's phase on one database.
type Phase string

// The phases of a policy; the comment of Evaluate has a diagram.
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

// PolicyState is what must be remembered about a policy on a database between two evaluations
// and across a restart. The zero value is the state of a policy never evaluated.
type PolicyState struct {
	Version      int                  `json:"version"`
	Phase        Phase                `json:"phase"`
	PendingSince time.Time            `json:"pending_since,omitzero"` // since when the condition has held
	Seen         time.Time            `json:"seen,omitzero"`          // when it was last seen to hold
	ArmedSince   time.Time            `json:"armed_since,omitzero"`   // since when it would have acted
	Engaged      bool                 `json:"engaged,omitempty"`      // it has acted, but `until` is not true yet
	ReadyAt      time.Time            `json:"ready_at,omitzero"`      // end of the rest after a run
	Rest         Phase                `json:"rest,omitempty"`         // what kind of rest: cooldown or backoff
	Attempt      int                  `json:"attempt,omitempty"`      // fruitless runs in a row
	Started      time.Time            `json:"started,omitzero"`       // of the last action
	Truncated    bool                 `json:"truncated,omitempty"`    // the last action's ladder had a TRUNCATE
	Truncation   time.Time            `json:"truncation,omitzero"`    // when the last ladder with a TRUNCATE began
	Ended        time.Time            `json:"ended,omitzero"`         // of the last action
	Stall        time.Duration        `json:"stall,omitempty"`        // how long writers had to wait for it
	Stalls       stalls.Stalls        `json:"stalls,omitzero"`        // of the last truncations
	Outcome      string               `json:"outcome,omitempty"`      // of the last action, in a word
	Noticed      time.Time            `json:"noticed,omitzero"`       // when it last notified beside another action
	Tunes        map[string]TuneState `json:"tunes,omitempty"`
}

// equal reports whether two states are equal; it may report false for equal ones.
func (st *PolicyState) equal(o *PolicyState) bool {
	return st.Version == o.Version && st.Phase == o.Phase && st.PendingSince == o.PendingSince && st.Seen == o.Seen &&
		st.ArmedSince == o.ArmedSince && st.Engaged == o.Engaged && st.ReadyAt == o.ReadyAt && st.Rest == o.Rest &&
		st.Attempt == o.Attempt && st.Started == o.Started && st.Truncated == o.Truncated && st.Truncation == o.Truncation &&
		st.Ended == o.Ended && st.Stall == o.Stall && st.Stalls == o.Stalls && st.Outcome == o.Outcome &&
		st.Noticed == o.Noticed &&
		maps.Equal(st.Tunes, o.Tunes)
}

// interrupted is the outcome of an action that died with its process, or that a reload took out of sight.
const interrupted = "interrupted"

// UnmarshalJSON decodes a state and rejects unknown versions. An action that was running when
// the state was written died with its process, so it is decoded as one that failed then. clamp
// limits how long the policy rests after that.
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
	*st = PolicyState(p).Interrupted()
	return nil
}

// Interrupted returns the state of a policy whose action, if one is running, is not watched to its end.
func (st PolicyState) Interrupted() PolicyState {
	if st.Phase == Running {
		st.Phase, st.Rest, st.Attempt, st.Outcome = Backing, Backing, st.Attempt+1, interrupted
		st.Ended, st.ReadyAt = st.Started, time.Time{}
	}
	return st
}

// DecodeStates decodes the states of a running daemon: actions that are running there are still running.
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

// interruptedPause is the shortest rest after an action that a crash interrupted.
const interruptedPause = 30 * time.Second

// rest returns how long the policy rests at most in its present state. An action that was
// interrupted may have been completed, and may even be the cause of the crash, so the policy
// rests as after a success, and longer with each crash. A notice is repeated soon: better sent
// twice than never.
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

// Finished returns the state after the action that started at st.Started has ended: cooldown
// after a success, otherwise backoff.
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
		// PASSIVE has done its part without the TRUNCATE. Try again soon and without growing
		// pauses, because this is what keeps the WAL from growing.
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
		// Another checkpointer was at work for a moment: this is not a failed attempt.
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
