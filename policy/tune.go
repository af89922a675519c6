package policy

import (
	"fmt"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/sqlwatch/sqlwatch/policy/lang"
)

// Tune adjusts one number so that a goal stays met. The number is seen by the
// policy's expressions as tune.NAME; the one named "stall" is also the
// ladder's stall budget, in seconds.
type Tune struct {
	Name            string
	Start, Min, Max float64
	Auto            bool // apply the suggestion; otherwise it is only shown
	Unit            lang.Unit

	goal hclsyntax.Expression
}

// TuneState is what a tune block remembers.
type TuneState struct {
	Value   float64   `json:"value"`             // suggested
	Changed time.Time `json:"changed,omitzero"`  // when it last moved
	Up      bool      `json:"up,omitempty"`      // the last move's direction
	MetFrom time.Time `json:"met_from,omitzero"` // since when the goal has been met
}

// TuneDecision is what a tune block suggests.
type TuneDecision struct {
	Policy    string  `json:"policy"`
	Name      string  `json:"name"`
	Value     float64 `json:"value"` // in force
	Suggested float64 `json:"suggested"`
	Goal      Truth   `json:"goal"`
	Reason    string  `json:"reason"`
}

// A missed goal lowers the value by a quarter, at most once an hour; only a
// goal met for six hours raises it again, by a tenth. Down fast, up slowly:
// two values cannot chase each other.
const (
	tuneDown     = 0.75
	tuneUp       = 1.10
	tuneInterval = time.Hour
	tunePatience = 6 * time.Hour
)

// tune moves the policy's tune blocks, sets their values into the context and
// reports them.
func (s *step) tune() []TuneDecision {
	now := s.e.in.Now
	if s.p.Ladder != nil {
		s.stallBudget = s.p.Ladder.StallBudget
	}
	if len(s.p.Tunes) == 0 {
		s.st.Tunes, s.values = nil, s.e.values
		return nil
	}
	values := map[string]float64{}
	states := map[string]TuneState{}
	var out []TuneDecision
	for _, t := range s.p.Tunes {
		st, seen := s.st.Tunes[t.Name]
		if !seen || st.Value < t.Min || st.Value > t.Max {
			st = TuneState{Value: t.Start}
		}
		if st.Changed.After(now) {
			st.Changed = now
		}
		goal, why := s.e.values.Truth(t.goal)
		reason := t.move(&st, goal, now)
		if goal == Unknown {
			reason = orElse(why, "the goal is unknown: the value stays")
		}
		states[t.Name] = st
		d := TuneDecision{Policy: s.p.Name, Name: t.Name, Value: t.Start, Suggested: st.Value, Goal: goal, Reason: reason}
		if t.Auto {
			d.Value = st.Value
		}
		values[t.Name] = d.Value
		if t.Name == "stall" && s.p.Ladder != nil {
			s.stallBudget = min(seconds(d.Value), s.p.Ladder.StallBudget)
		}
		out = append(out, d)
	}
	s.st.Tunes = states
	s.values = s.e.values.WithTunes(values)
	return out
}

// move applies one evaluation of the goal to the state.
func (t *Tune) move(st *TuneState, goal Truth, now time.Time) string {
	if goal != True {
		st.MetFrom = time.Time{}
	} else if st.MetFrom.IsZero() || st.MetFrom.After(now) {
		st.MetFrom = now
	}
	settled := st.Changed.IsZero() || now.Sub(st.Changed) >= tuneInterval
	switch {
	case goal == False && !settled:
		return "the goal is missed; the last change is given an hour to show"
	case goal == False && st.Value > t.Min:
		st.Value, st.Changed, st.Up = max(t.Min, st.Value*tuneDown), now, false
		return fmt.Sprintf("the goal is missed: down to %.4g", st.Value)
	case goal == False:
		return "the goal is missed and the value is at its minimum: the goal cannot be had this way"
	case goal == True && st.Value < t.Max && settled && now.Sub(st.MetFrom) >= tunePatience:
		st.Value, st.Changed, st.Up, st.MetFrom = min(t.Max, st.Value*tuneUp), now, true, now
		return fmt.Sprintf("the goal has been met for %s: up to %.4g", tunePatience, st.Value)
	}
	return "the goal is met"
}
