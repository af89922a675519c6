package policy

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/policy/lang"
	"github.com/sqlwatch/sqlwatch/policy/lang/amounts"
)

// Evaluate decides what may be done to one database now. It is pure: it does not change the
// states it is given, but returns the new ones in Decision.Next. When the Action that it
// returned has ended, the caller must call Finished.
//
// The life of one policy on one database:
//
//	                when is false (or until is true)
//	    ┌────────────────────────────────────────────────────────┐
//	    ▼            │                  │                        │
//	inactive ──────► pending ─────────► armed ─────────► running │
//	    ▲   when is  ▲        held      ▲ │  every guard    │    │
//	    │   true     │        for `for` │ │  lets it pass   │ Finished
//	    │            │                  │ └─ first guard    ├──► cooldown (it succeeded)
//	    │            │                  │    that refuses   │       │
//	    │            │                  │    is reported    └──► backoff  (it did not)
//	    └────────────┴──────────────────┴────────────────────────────┘
//	             when the rest is over: the phase depends on the condition
//
// Guards are checked in the order of Guards(). While its condition is unknown, a policy is not
// armed, but keeps the time for which the condition has held; a condition that goes unobserved for
// longer than both `for` and five minutes starts over. A policy with `until` that has acted
// is engaged: it runs its ladder again, at the pace of its backoff and without regard to `when`
// and `for`, until `until` is true.
func (s *Set) Evaluate(in Input, states map[string]PolicyState) Decision {
	e := s.newEvaluation(in)
	defer s.release(e)
	d := Decision{DB: in.Sample.DB, At: in.Now, Windows: s.truths(e.windows)}
	steps := e.steps[:0]
	for _, p := range s.Policies {
		if p.AppliesTo(in.Sample.DB, in.Labels) {
			n := len(steps)
			steps = slices.Grow(steps, 1)[:n+1]
			steps[n] = step{e: e, p: p, st: states[p.Name], refusals: steps[n].refusals[:0]}
		}
	}
	e.steps = steps
	floor := floors{}
	for i := range steps {
		steps[i].st.Version = StateVersion
		steps[i].clamp(in.Now)
		if limit := steps[i].p.walLimit; limit > 0 && (d.WALLimit == 0 || limit < d.WALLimit) {
			d.WALLimit = limit
		}
		floor.add(&steps[i])
	}
	for i := range steps {
		st := &steps[i]
		d.Tunes = append(d.Tunes, st.tune()...)
		st.advance()
		switch {
		case st.st.Phase == Armed:
			st.guard(floor)
		case !st.armsAt.IsZero():
			// A guard that would refuse after that does not explain why the policy does not act now.
			st.guard(floor)
			st.earliest = st.foresee()
			st.refusals, st.leftOut = st.refusals[:0], ""
		}
	}
	d.Actions = choose(steps)
	d.Action = mainOf(d.Actions)
	d.Policies = make([]PolicyDecision, len(steps))
	refusals := make([]Refusal, 0, e.refusals())
	for i := range steps {
		from := len(refusals)
		refusals = append(refusals, steps[i].refusals...)
		d.Policies[i] = steps[i].decision()
		if d.Policies[i].Guards = refusals[from:len(refusals):len(refusals)]; from == len(refusals) {
			d.Policies[i].Guards = nil
		}
	}
	d.Next = next(steps, states, in.Now)
	return d
}

// blank is the state of a policy about which there is nothing to remember.
var blank = PolicyState{Version: StateVersion, Phase: Inactive}

// next returns the new states, without blank ones. If nothing has changed, as at most ticks, it
// returns the old map itself.
func next(steps []step, states map[string]PolicyState, now time.Time) map[string]PolicyState {
	changed, gone := false, len(states)
	for i := range steps {
		old, known := states[steps[i].p.Name]
		if !known {
			old = blank
		}
		changed = changed || !steps[i].st.equal(&old)
		if known {
			gone--
		}
	}
	if !changed {
		return states
	}
	out := make(map[string]PolicyState, len(states))
	for i := range steps {
		if st := &steps[i].st; !st.equal(&blank) {
			out[steps[i].p.Name] = *st
		}
	}
	if gone == 0 {
		return out
	}
	for name, st := range states {
		// Keep the state of a policy that was removed from the configuration for a while: if it
		// comes back, its cooldown must not be lost.
		here := slices.ContainsFunc(steps, func(s step) bool { return s.p.Name == name })
		if !here && now.Sub(later(st.Ended, st.Seen)) < rememberGone {
			out[name] = st
		}
	}
	return out
}

// truths returns which windows are open. Decisions with the same result share the map; nobody may change it.
func (s *Set) truths(states []lang.WindowState) map[string]Truth {
	if last := s.shown.Load(); last != nil {
		same := true
		for i, w := range s.windows.Order {
			same = same && (*last)[w.Name] == states[i].Open
		}
		if same {
			return *last
		}
	}
	m := make(map[string]Truth, len(s.windows.Order))
	for i, w := range s.windows.Order {
		m[w.Name] = states[i].Open
	}
	s.shown.Store(&m)
	return m
}

// rememberGone is how long the state of a policy is kept after the policy was removed from
// the configuration.
const rememberGone = 30 * 24 * time.Hour

// evaluation is the working memory of one call of Evaluate. It is reused, because a thousand
// databases are evaluated at each tick.
type evaluation struct {
	set     *Set
	in      Input
	sample  *collector.Sample  // Input's, or an empty one if that is too old
	fresh   bool               // it is not too old
	values  *lang.Evaluation   // without tunes
	windows []lang.WindowState // in the order of the set's
	steps   []step
}

// refusals counts the refusals of all steps.
func (e *evaluation) refusals() (n int) {
	for i := range e.steps {
		n += len(e.steps[i].refusals)
	}
	return n
}

// release returns an evaluation's memory to the pool. No result refers to it.
func (s *Set) release(e *evaluation) {
	e.in, e.sample = Input{}, nil
	s.spare.Put(e)
}

func (s *Set) newEvaluation(in Input) *evaluation {
	e, _ := s.spare.Get().(*evaluation)
	if e == nil {
		e = &evaluation{values: &lang.Evaluation{}}
	}
	e.set, e.in, e.sample, e.fresh = s, in, in.Sample, true
	replicas := in.Replicas
	if off := in.Now.Sub(in.Sample.At); off > MaxSampleAge || off < -MaxSampleAge {
		// Only a fresh sample may lead to an action. Name and path remain valid; the measured
		// values count as unknown.
		e.sample = &collector.Sample{At: in.Now, DB: in.Sample.DB, Path: in.Sample.Path}
		e.fresh = false
		if len(in.Sample.Replicas) > 0 {
			replicas = []string{"?"} // a replica that does not report: the worst of them is unknown
		}
	}
	s.program.Begin(e.values, lang.Moment{Now: in.Now, Sample: e.sample, History: in.History, Labels: in.Labels,
		Replicas: replicas})
	e.windows = s.windows.States(e.windows[:0], e.values, in.Now)
	e.values.SetWindows(e.windows)
	return e
}

// step is the evaluation of one policy.
type step struct {
	e      *evaluation
	p      *Policy
	st     PolicyState
	values *lang.Evaluation // with this policy's tune values
	when   Truth            // whether it wants to act
	why    string           // why when is unknown

	stallBudget time.Duration
	refusals    []Refusal
	leftOut     string    // why the ladder runs without its TRUNCATE; "": it has it
	armsAt      time.Time // when its condition will have held for `for`; zero: it already has, or it does not hold
	earliest    time.Time
	reason      string
}

// clamp corrects times that are in the future because the clock was set back: no wait may be
// longer than if it began now.
func (s *step) clamp(now time.Time) {
	st := &s.st
	for _, t := range []*time.Time{&st.PendingSince, &st.Seen, &st.ArmedSince, &st.Started, &st.Ended, &st.Truncation,
		&st.Noticed} {
		if t.After(now) {
			*t = now
		}
	}
	rest := s.p.rest(st)
	if st.Outcome == interrupted && st.Rest == Backing && st.ReadyAt.IsZero() {
		st.ReadyAt = st.Started.Add(rest)
	}
	if limit := now.Add(rest); st.ReadyAt.After(limit) {
		st.ReadyAt = limit
	}
	if st.Phase == Running && now.Sub(st.Started) > MaxRunning {
		st.Phase, st.Rest, st.Attempt, st.Outcome = Backing, Backing, st.Attempt+1, "lost"
		st.ReadyAt = now.Add(s.p.backoff().After(st.Attempt))
	}
}

// evidenceGap returns how long a condition may go unobserved and still count as having held throughout.
func (p *Policy) evidenceGap() time.Duration { return max(p.For, 5*time.Minute) }

// see notes that the condition holds now. Time in which it was not observed does not count,
// and after too much of it the condition's time starts over.
func (s *step) see(now time.Time) {
	st := &s.st
	gap := now.Sub(st.Seen)
	switch {
	case st.PendingSince.IsZero() || gap > s.p.evidenceGap():
		st.PendingSince, st.ArmedSince = now, time.Time{}
	case gap > s.e.maxGap():
		st.PendingSince = st.PendingSince.Add(gap)
	case !st.ArmedSince.IsZero() && gap < s.e.maxGap()/2:
		return // once it is armed, a resolution of half a minute is enough
	}
	st.Seen = now
}

// maxGap is how far apart two samples may be for the time between them to count.
func (e *evaluation) maxGap() time.Duration {
	if e.in.Gap > 0 {
		return e.in.Gap
	}
	return time.Minute
}

// advance moves the policy through the phases up to armed.
func (s *step) advance() {
	st, now := &s.st, s.e.in.Now
	if st.Engaged {
		switch until, _ := s.values.Truth(s.p.until); {
		case s.p.until == nil || until == True:
			st.Engaged, st.Attempt = false, 0
		case st.Rest == Cooldown && st.Phase != Running:
			// The run succeeded but the goal is not reached: continue after the backoff's pause, not
			// after the cooldown.
			if until == False {
				st.Phase, st.Rest, st.Attempt = Backing, Backing, st.Attempt+1
				st.ReadyAt = st.Ended.Add(s.p.backoff().After(st.Attempt))
			}
		}
	}
	s.want()
	if st.Phase == Running {
		return
	}
	resting := now.Before(st.ReadyAt)
	if resting {
		st.Phase = st.Rest // unless it is armed as well, see below
	}
	switch s.when {
	case False:
		st.PendingSince, st.ArmedSince, st.Seen = time.Time{}, time.Time{}, time.Time{}
		if !resting {
			st.Phase, st.Attempt = Inactive, 0
		}
		s.reason = "the condition is false"
		return
	case Unknown:
		if !resting {
			st.Phase = Inactive
			if !st.PendingSince.IsZero() {
				st.Phase = Pending
			}
		}
		s.reason = "the condition is unknown: " + s.why
		return
	}
	s.see(now)
	if armsAt := st.PendingSince.Add(s.p.For); !st.Engaged && now.Before(armsAt) {
		if !resting {
			st.Phase = Pending
		}
		s.armsAt = armsAt
		s.reason = fmt.Sprintf("the condition holds; it must hold for %s, until %s", s.p.For, clock(now, armsAt))
		return
	}
	if st.ArmedSince.IsZero() {
		st.ArmedSince = now
	}
	st.Phase = Armed
}

// want determines whether the policy wants to act.
func (s *step) want() {
	if s.st.Engaged {
		until, why := s.values.Truth(s.p.until)
		s.when, s.why = until.Not(), why
	} else {
		s.when, s.why = s.values.Truth(s.p.when)
	}
	switch {
	case s.when != Unknown || s.why != "":
	case !s.e.fresh:
		s.why = fmt.Sprintf("the last sample is from %s, not from now", s.e.in.Sample.At.Format(time.DateTime))
	case s.e.in.Sample.Err != "":
		s.why = s.e.in.Sample.Err
	default:
		s.why = "something it reads has not been measured yet"
	}
}

// choose selects the policies that act now, among those that no guard refuses: every
// notice, and in each lane the one with the highest priority, or the first in file
// order. A running action makes the others of its lane wait. Notices come first, so
// that they do not wait for something that takes long.
func choose(steps []step) (actions []*Action) {
	for i := range steps {
		s := &steps[i]
		if s.st.Phase == Running {
			s.reason = "running since " + s.st.Started.Format(time.TimeOnly)
		}
		if s.p.Kind.Lane() == LaneNone && s.ready() {
			actions = append(actions, s.start())
		}
	}
	for _, lane := range []Lane{LaneCheckpoint, LaneReplica} {
		if a := chooseIn(lane, steps); a != nil {
			actions = append(actions, a)
		}
	}
	return actions
}

func chooseIn(lane Lane, steps []step) *Action {
	var winner, running *step
	for i := range steps {
		s := &steps[i]
		if s.p.Kind.Lane() != lane {
			continue
		}
		if s.st.Phase == Running {
			running = s
		}
		if s.ready() && (winner == nil || s.p.Priority > winner.p.Priority) {
			winner = s
		}
	}
	for i := range steps {
		s := &steps[i]
		switch {
		case s.p.Kind.Lane() != lane || !s.ready() || s == winner && running == nil:
		case running != nil:
			s.refuse(GuardTurn, fmt.Sprintf("policy %s is at work on this database", running.p.Name), time.Time{})
		default:
			s.refuse(GuardTurn, fmt.Sprintf("policy %s goes first: one %s action a database at a time", winner.p.Name, lane),
				time.Time{})
		}
	}
	if winner == nil || running != nil {
		return nil
	}
	return winner.start()
}

// mainOf returns the action that Decision.Action shows.
func mainOf(actions []*Action) *Action {
	for _, a := range actions {
		if a.Kind.Lane() != LaneNone {
			return a
		}
	}
	if len(actions) > 0 {
		return actions[0]
	}
	return nil
}

func (s *step) ready() bool { return s.st.Phase == Armed && len(s.refusals) == 0 }

// start begins the policy's action.
func (s *step) start() *Action {
	st, now := &s.st, s.e.in.Now
	s.shadow()
	st.Phase, st.Started = Running, now
	st.Truncated = s.p.Ladder != nil && s.p.Ladder.Truncates() && s.leftOut == ""
	if st.Truncated {
		st.Truncation = now
	}
	s.earliest, s.reason = now, "acts now"
	a := &Action{Policy: s.p.Name, DB: s.e.in.Sample.DB, Kind: s.p.Kind, Notify: s.p.Notify, Severity: s.p.Severity}
	if !s.e.in.SkipWords {
		a.Why = s.because()
		s.reason += ": " + a.Why
	}
	if s.p.Ladder != nil {
		l := s.p.Ladder
		if s.leftOut != "" {
			l, a.LeftOut = l.Gentle(), s.leftOut
		}
		budgeted := *l
		budgeted.StallBudget = s.stallBudget
		a.Checkpoint = &budgeted
	}
	if a.Kind != ActNotify && len(a.Notify) > 0 {
		// If it accompanies another action, the minimum interval of notifications applies too.
		if !st.Noticed.IsZero() && now.Before(st.Noticed.Add(MinNotifyInterval)) {
			a.Notify = nil
		} else {
			st.Noticed = now
		}
	}
	switch {
	case s.e.in.SkipWords:
	case s.p.message != nil:
		a.Message = s.values.Text(s.p.message)
	default:
		a.Message = fmt.Sprintf("%s: policy %s: %s", a.DB, a.Policy, a.Why)
	}
	return a
}

// because returns one sentence that says why the policy acts.
func (s *step) because() string {
	x := s.p.when
	what := "the condition holds"
	if s.st.Engaged {
		x, what = s.p.until, "it has not reached its goal"
	}
	return what + ": " + s.values.Tree(x).Summary()
}

// decision returns the result of the step.
func (s *step) decision() PolicyDecision {
	d := PolicyDecision{Policy: s.p.Name, Phase: s.st.Phase, When: s.when, Reason: s.reason, Guards: s.refusals,
		Severity: s.p.Severity}
	if s.st.Phase == Armed || len(s.refusals) > 0 {
		d.Refused, d.Reason = s.refusals[0].Guard, s.refusals[0].Reason
		s.earliest = s.foresee()
		// While it rests, the phase is the rest, although the policy would like to act.
		switch d.Refused {
		case GuardCooldown:
			s.st.Phase = Cooldown
		case GuardBackoff:
			s.st.Phase = Backing
		}
		d.Phase = s.st.Phase
	}
	d.Earliest, d.Hindered = s.earliest, s.hindrance()
	if !s.e.in.SkipTree {
		d.Tree = s.explain()
	}
	return d
}

// stuckAfter is how long a policy may be armed and refused before it is reported as hindered.
const stuckAfter = 24 * time.Hour

// hindrance returns why waiting will not let the policy reach its goal.
func (s *step) hindrance() string {
	switch {
	case s.leftOut != "":
		return s.leftOut
	case s.st.Phase != Armed || len(s.refusals) == 0 || s.st.ArmedSince.IsZero():
		return ""
	}
	first := s.refusals[0]
	switch first.Guard {
	case GuardStall:
		return first.Reason
	case GuardMode, GuardPause:
		return ""
	case GuardWindow:
		if !first.until.IsZero() {
			return ""
		}
	}
	if waited := s.e.in.Now.Sub(s.st.ArmedSince); waited > stuckAfter+s.p.MaxDefer {
		return fmt.Sprintf("it has waited to act for %s; refused by %s: %s", amounts.HumanSeconds(waited.Seconds()),
			first.Guard, first.Reason)
	}
	return ""
}

func (s *step) refuse(g Guard, reason string, until time.Time) {
	s.refusals = append(s.refusals, Refusal{g, reason, until})
}

// explain returns the trees of all expressions of the policy under one node.
func (s *step) explain() *Node {
	top := &Node{Label: "policy", Expr: s.p.Name, Value: string(s.st.Phase), Known: s.when != Unknown}
	for _, x := range []struct {
		label string
		expr  hclsyntax.Expression
	}{{"when", s.p.when}, {"until", s.p.until}, {"unless", s.p.unless}, {"window", s.p.window}} {
		if x.expr == nil {
			continue
		}
		n := s.values.Tree(x.expr)
		n.Label = x.label
		top.Children = append(top.Children, n)
	}
	return top
}

// seconds converts an expression's seconds to a duration, capped.
func seconds(f float64) time.Duration {
	if math.Abs(f) > math.MaxInt64/2e9 {
		return math.MaxInt64 / 2
	}
	return time.Duration(f * float64(time.Second))
}
