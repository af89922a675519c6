package policy

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/sqlwatch/sqlwatch/policy/lang"
	"github.com/sqlwatch/sqlwatch/policy/lang/amounts"
)

// Tune adjusts one number so that a goal continues to be met. The policy's expressions read the
// number as tune.NAME; the one named "stall" is also the ladder's stall budget, in seconds.
type Tune struct {
	Name            string
	Start, Min, Max float64
	Mode            TuneMode
	Unit            lang.Unit
	Range           hcl.Range // of the block

	goal hclsyntax.Expression
}

// TuneMode says how the result of the tuning is used.
type TuneMode string

// The modes of a tune block.
const (
	TuneSuggest TuneMode = "suggest" // it shows one step from start
	TuneShadow  TuneMode = "shadow"  // the same, and it counts which runs that step would have prevented
	TuneApply   TuneMode = "apply"   // the value moves, step by step
	TuneFreeze  TuneMode = "freeze"  // it stays as it is, and nothing is learned
)

// TuneState is the remembered state of a tune block.
type TuneState struct {
	Value    float64   `json:"value"`              // in force, or suggested
	Previous float64   `json:"previous,omitempty"` // before the last step; 0: there was none
	Changed  time.Time `json:"changed,omitzero"`   // when it last changed: evidence from before says nothing about it
	Up       bool      `json:"up,omitempty"`       // the last step's direction
	Judged   time.Time `json:"judged,omitzero"`    // end of the last run that was used as evidence
	Runs     int       `json:"runs,omitempty"`     // of the policy since Changed
	Met      int       `json:"met,omitempty"`      // after how many of those the goal was met
	Missed   int       `json:"missed,omitempty"`
	Frozen   time.Time `json:"frozen,omitzero"` // it does not change before this time

	ShadowRuns     int `json:"shadow_runs,omitempty"`
	ShadowDiffered int `json:"shadow_differed,omitempty"` // runs that the suggested value would have prevented
}

// TuneDecision is what a tune block suggests, and the evidence for it.
type TuneDecision struct {
	Policy    string   `json:"policy"`
	Name      string   `json:"name"`
	Mode      TuneMode `json:"mode"`
	Value     float64  `json:"value"` // in force
	Suggested float64  `json:"suggested"`
	Goal      Truth    `json:"goal"`
	Reason    string   `json:"reason"`

	Literal   string  `json:"literal"` // Suggested in the syntax of a configuration: duration("150ms")
	Attribute string  `json:"attribute"`
	Start     float64 `json:"start"`
	Min       float64 `json:"min"`
	Max       float64 `json:"max"`
	Unit      string  `json:"unit"`
	TuneEvidence
}

// TuneEvidence is the evidence for and against a step.
type TuneEvidence struct {
	Since  time.Time `json:"since,omitzero"` // of the last step
	Runs   int       `json:"runs"`           // since then
	Met    int       `json:"met"`
	Missed int       `json:"missed"`
	Needs  int       `json:"needs"` // runs before it may change
	Frozen time.Time `json:"frozen_until,omitzero"`

	ShadowRuns     int `json:"shadow_runs"`
	ShadowDiffered int `json:"shadow_differed"`
}

// A value changes by one step at a time: down by a quarter if its goal is missed, up by a tenth
// if it has been met for six hours. Each step is judged by at least tuneRuns runs after it and
// by none from before it, so that one slow run of last week cannot push the value further. A
// step that makes things worse is undone, and so is a value at which the policy no longer acts;
// then the value stays there for a week.
const (
	tuneDown     = 0.75
	tuneUp       = 1.10
	tuneRuns     = 5
	tuneInterval = time.Hour
	tunePatience = 6 * time.Hour
	tuneStarved  = 24 * time.Hour // armed for this long without a run
	tuneFreeze   = 7 * 24 * time.Hour
)

// tune updates the policy's tune blocks, sets their values in the context and returns their decisions.
func (s *step) tune() []TuneDecision {
	if s.p.Ladder != nil {
		s.stallBudget = s.p.Ladder.StallBudget
	}
	if len(s.p.Tunes) == 0 {
		s.st.Tunes, s.values = nil, s.e.values
		return nil
	}
	values, states := map[string]float64{}, map[string]TuneState{}
	out := make([]TuneDecision, 0, len(s.p.Tunes))
	for _, t := range s.p.Tunes {
		st, reason, goal := s.learn(t)
		states[t.Name] = st
		d := t.decision(s.p, st)
		d.Goal, d.Reason = goal, reason
		values[t.Name] = d.Value
		if t.isBudget(s.p) {
			s.stallBudget = min(seconds(d.Value), s.p.Ladder.StallBudget)
		}
		out = append(out, d)
	}
	s.st.Tunes = states
	s.values = s.e.values.WithTunes(values)
	return out
}

// learn updates a tune block with what has happened since the last call.
func (s *step) learn(t *Tune) (st TuneState, reason string, goal Truth) {
	now := s.e.in.Now
	st, seen := s.st.Tunes[t.Name]
	if !seen || st.Value < t.Min || st.Value > t.Max || t.Mode == TuneSuggest && !t.oneStep(st.Value) {
		st = TuneState{Value: t.Start, Changed: now, Judged: s.st.Ended}
	}
	for _, at := range []*time.Time{&st.Changed, &st.Judged} {
		if at.After(now) {
			*at = now
		}
	}
	if st.Frozen.After(now.Add(tuneFreeze)) {
		st.Frozen = now.Add(tuneFreeze)
	}
	goal, why := s.e.values.Since(st.Changed).Truth(t.goal)
	if s.ran(&st) {
		st.Judged = s.st.Ended
		st.Runs++
		switch goal {
		case True:
			st.Met++
		case False:
			st.Missed++
		}
		reason = t.move(&st, goal, now)
	} else if t.Mode == TuneApply && st.Value < t.Start && st.Runs == 0 && s.starved(st, now) {
		reason = t.back(&st, t.Start, now, fmt.Sprintf("the policy has not come to act in %s since the last step",
			amounts.HumanSeconds(tuneStarved.Seconds())))
	}
	return st, orElse(reason, t.standing(st, goal, why, now)), goal
}

// ran reports whether a run has ended that was not used as evidence yet.
func (s *step) ran(st *TuneState) bool {
	switch {
	case s.st.Phase == Running || s.st.Ended.IsZero() || !s.st.Ended.After(st.Judged):
		return false
	case s.st.Outcome == interrupted:
		return false
	}
	return s.p.Ladder == nil || !s.p.Ladder.Truncates() || s.st.Truncated
}

// starved reports whether the policy has wanted to act for a long time since the last step, and has not.
func (s *step) starved(st TuneState, now time.Time) bool {
	return !s.st.ArmedSince.IsZero() && now.Sub(later(s.st.ArmedSince, st.Changed)) > tuneStarved
}

// isBudget reports whether the value is the ladder's stall budget.
func (t *Tune) isBudget(p *Policy) bool { return t.Name == "stall" && p.Ladder != nil }

// oneStep reports whether a value is start, or one step away from it.
func (t *Tune) oneStep(v float64) bool {
	return v == t.Start || v == t.down(t.Start) || v == t.up(t.Start)
}

func (t *Tune) down(v float64) float64 { return max(t.Min, rounded(v*tuneDown)) }
func (t *Tune) up(v float64) float64   { return min(t.Max, rounded(v*tuneUp)) }

// rounded keeps three digits, so that the value shown, exported and in force is the same.
func rounded(v float64) float64 {
	v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'g', 3, 64), 64)
	return v
}

// move decides after a run whether to take a step.
func (t *Tune) move(st *TuneState, goal Truth, now time.Time) string {
	from := st.Value
	if t.Mode != TuneApply {
		from = t.Start // the evidence is about this value
	}
	settled := now.Sub(st.Changed)
	switch {
	case t.Mode == TuneFreeze || now.Before(st.Frozen) || st.Met+st.Missed < tuneRuns || settled < tuneInterval:
		return ""
	case goal == False && st.Up && st.Previous > 0 && t.Mode == TuneApply:
		return t.back(st, st.Previous, now, "the step up made it miss its goal")
	case goal == False && from > t.Min:
		return t.to(st, t.down(from), now, "the goal was missed")
	case goal == False && st.Value < t.Start && t.Mode == TuneApply:
		return t.back(st, t.Start, now, "the goal was missed at the minimum too: it cannot be had this way")
	case goal == True && from < t.Max && settled >= tunePatience:
		return t.to(st, t.up(from), now, "the goal was met")
	case goal == True && t.Mode != TuneApply && st.Value < t.Start:
		return t.to(st, t.Start, now, "the goal is met as it is")
	}
	return ""
}

// to takes a step; the collection of evidence starts again.
func (t *Tune) to(st *TuneState, v float64, now time.Time, why string) string {
	reason := fmt.Sprintf("%s in %d runs of %d: %s → %s", why, max(st.Met, st.Missed), st.Runs, t.literal(st.Value),
		t.literal(v))
	if v == st.Value {
		st.Runs, st.Met, st.Missed = 0, 0, 0
		return why + ": the value stays"
	}
	*st = TuneState{Value: v, Previous: st.Value, Changed: now, Up: v > st.Value, Judged: st.Judged,
		ShadowRuns: st.ShadowRuns, ShadowDiffered: st.ShadowDiffered}
	return reason
}

// back undoes the last step and freezes the value.
func (t *Tune) back(st *TuneState, v float64, now time.Time, why string) string {
	*st = TuneState{Value: v, Changed: now, Judged: st.Judged, Frozen: now.Add(tuneFreeze)}
	return fmt.Sprintf("%s: back to %s, where it stays until %s", why, t.literal(v), st.Frozen.Format(time.DateOnly))
}

// Retune undoes the last step of a tuned value, or keeps the value as it is, at an operator's
// request. Either way the value stays as it is for a week.
func (p *Policy) Retune(st PolicyState, name string, revert bool, now time.Time) (PolicyState, string, error) {
	i := slices.IndexFunc(p.Tunes, func(t *Tune) bool { return t.Name == name })
	if i < 0 {
		return st, "", fmt.Errorf("policy %s has no tune block %q", p.Name, name)
	}
	t := p.Tunes[i]
	value, ok := st.Tunes[name]
	if !ok {
		value = TuneState{Value: t.Start, Judged: st.Ended}
	}
	to := value.Value
	if revert {
		to = t.Start
		if value.Previous > 0 && t.Mode == TuneApply {
			to = value.Previous
		}
	}
	reason := t.back(&value, to, now, "asked for by an operator")
	if !revert {
		reason = fmt.Sprintf("asked for by an operator: it stays at %s until %s", t.literal(to),
			value.Frozen.Format(time.DateOnly))
	}
	st.Tunes = maps.Collect(maps.All(st.Tunes)) // a copy, even of nil
	st.Tunes[name] = value
	return st, reason, nil
}

// standing describes the state of the block between two steps.
func (t *Tune) standing(st TuneState, goal Truth, why string, now time.Time) string {
	known := st.Met + st.Missed
	switch {
	case t.Mode == TuneFreeze:
		return "mode is freeze: it stays where it is"
	case now.Before(st.Frozen):
		return "frozen until " + st.Frozen.Format(time.DateOnly) + ": its last step was taken back, or an operator " +
			"wanted it so"
	case known < tuneRuns:
		reason := fmt.Sprintf("%d of the %d runs are there that a step needs, %d met the goal", known, tuneRuns, st.Met)
		if goal == Unknown && st.Runs > known {
			reason += "; " + orElse(why, "the goal is unknown")
		}
		return reason
	case goal == True:
		return fmt.Sprintf("the goal is met (%d runs of %d)", st.Met, known)
	case goal == False && st.Value <= t.Min:
		return "the goal is missed and the value is at its minimum"
	case goal == False:
		return fmt.Sprintf("the goal is missed (%d runs of %d)", st.Missed, known)
	}
	return orElse(why, "the goal is unknown: the value stays")
}

// decision returns the decision of a block.
func (t *Tune) decision(p *Policy, st TuneState) TuneDecision {
	d := TuneDecision{Policy: p.Name, Name: t.Name, Mode: t.Mode, Value: t.Start, Suggested: st.Value,
		Literal: t.literal(st.Value), Attribute: "start", Start: t.Start, Min: t.Min, Max: t.Max, Unit: t.Unit.String(),
		TuneEvidence: TuneEvidence{Since: st.Changed, Runs: st.Runs, Met: st.Met, Missed: st.Missed, Needs: tuneRuns,
			Frozen:     st.Frozen,
			ShadowRuns: st.ShadowRuns, ShadowDiffered: st.ShadowDiffered}}
	if t.Mode == TuneApply || t.Mode == TuneFreeze {
		d.Value = st.Value
	}
	if t.isBudget(p) {
		d.Attribute = "stall_budget"
	}
	return d
}

// literal returns a value in the syntax of a configuration.
func (t *Tune) literal(v float64) string {
	number := strconv.FormatFloat(v, 'f', -1, 64)
	switch t.Unit {
	case lang.Seconds:
		return fmt.Sprintf("duration(%q)", time.Duration(math.Round(v*1e9)).String())
	case lang.Bytes:
		for _, u := range []struct {
			name string
			size float64
		}{{"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}} {
			if v >= u.size {
				return fmt.Sprintf("bytes(%q)", strconv.FormatFloat(v/u.size, 'f', -1, 64)+u.name)
			}
		}
		return fmt.Sprintf("bytes(%q)", number+"B")
	}
	return number
}

// shadow counts, when the policy begins to act, what its suggested values would have done to this run.
func (s *step) shadow() {
	for _, t := range s.p.Tunes {
		st, ok := s.st.Tunes[t.Name]
		if t.Mode != TuneShadow || !ok {
			continue
		}
		st.ShadowRuns++
		values := map[string]float64{}
		for name, other := range s.st.Tunes {
			values[name] = other.Value
		}
		when, _ := s.e.values.WithTunes(values).Truth(s.p.when)
		late := t.isBudget(s.p) && s.p.Ladder.Truncates() && s.st.Stalls[0] > seconds(st.Value)
		if !s.st.Engaged && when == False || late {
			st.ShadowDiffered++
		}
		s.st.Tunes[t.Name] = st
	}
}

// AmountOf formats a tuned value for people.
func (d *TuneDecision) AmountOf(v float64) string {
	switch d.Unit {
	case lang.Seconds.String():
		return amounts.HumanSeconds(v)
	case lang.Bytes.String():
		return amounts.HumanBytes(v)
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}
