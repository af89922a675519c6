// Package policytest runs policies on a simulated clock against a simulated database. With
// it `sqlwatch test` runs the test blocks of *_test.hcl files.
package policytest

import (
	"cmp"
	"fmt"
	"maps"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/policy"
	"github.com/sqlwatch/sqlwatch/policy/lang"
)

// Test is one test block: a database, what happens to it on a simulated clock,
// and what a policy is expected to do about it.
type Test struct {
	Name  string
	Range hcl.Range

	set     *policy.Set
	program *lang.Program // of the test's own expressions
	policy  *policy.Policy
	start   time.Time
	step    time.Duration
	db      simulated
	labels  map[string]string
	script  []*stretch
	timed   []*expectation // those with a time of their own, the earliest first
	rules   []*rule        // checked at every tick
}

// rule is an attribute `always` or `never`.
type rule struct {
	name  string
	expr  hclsyntax.Expression
	wrong policy.Truth
	place hcl.Range
}

// stretch is a during block: a length of time with a steady workload, and what is expected
// at its end.
type stretch struct {
	length     time.Duration
	write      int64 // bytes a second
	reader     bool  // one that begins with the stretch and stays to its end
	writeLock  bool  // the application holds it throughout
	unreadable bool
	diskFree   int64
	replicaLag time.Duration
	pending    int64 // bytes that each replica lacks
	unhealthy  bool  // the replicas do not work

	readerEvery, readerFor time.Duration // how often a reader begins, and how long it stays

	writeSpeed int64         // of the disk, in bytes a second
	sync       time.Duration // how long an fsync takes
	fails      []string      // kinds of action that fail
	takes      time.Duration // how long an action other than a checkpoint takes

	rules  []*rule // checked between its beginning and its end
	expect []*expectation
}

// expectation is an expect block: what must be true at a time. What it does not set is not
// checked.
type expectation struct {
	place     hcl.Range
	at        time.Time // zero: at the end of its stretch
	phase     string
	refusedBy string
	runs      int // since the previous expectation; -1: any number
	holds     hclsyntax.Expression
}

// TestResult is how a test went.
type TestResult struct {
	Name     string        `json:"name"`
	Place    Place         `json:"place"`
	Length   time.Duration `json:"length"` // of simulated time
	Runs     int           `json:"runs"`   // actions of the policy in all
	MaxWAL   int64         `json:"max_wal_bytes"`
	FreeWAL  int64         `json:"max_wal_bytes_unpinned"` // the same without pinned times, each plus 15 minutes
	Pinned   time.Duration `json:"pinned"`                 // how long readers held the WAL, less the first minute of each
	MaxStall time.Duration `json:"max_stall"`              // the longest writer stall of a checkpoint
	Stalls   time.Duration `json:"stalls"`                 // the writer stalls of all checkpoints together
	Failures []TestFailure `json:"failures"`
}

// Place is a position in a file.
type Place struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
}

// TestFailure is an expectation that was not met.
type TestFailure struct {
	Place      Place         `json:"place"`
	At         time.Time     `json:"at"`
	After      time.Duration `json:"after"`  // since the test's start
	Reason     string        `json:"reason"` // the policy's reason for its last decision
	Mismatches []Mismatch    `json:"mismatches"`
}

// Mismatch is one attribute of an expectation that was not met.
type Mismatch struct {
	Attribute string `json:"attribute"`
	Want      string `json:"want"`
	Got       string `json:"got"`
}

func placeOf(r hcl.Range) Place { return Place{r.Filename, r.Start.Line, r.Start.Column} }

// Run runs the test. It does not sleep, open files or change the test.
func (t *Test) Run() TestResult { return t.RunCovered(nil) }

// RunCovered runs the test and adds what it has seen of the policies to cover, which may be
// nil.
func (t *Test) RunCovered(cover *Coverage) TestResult {
	s := &simulation{test: t, db: t.db, now: t.start, states: map[string]policy.PolicyState{}, past: t.set.NewHistory(),
		own: t.program.Retain(&policy.History{}), timed: t.timed, cover: cover, broken: map[*rule]bool{},
		result: TestResult{Name: t.Name, Place: placeOf(t.Range), Failures: []TestFailure{}}}
	s.db.begin(t.start)
	for _, sp := range t.script {
		s.play(sp)
		for _, x := range sp.expect {
			s.check(x)
		}
	}
	s.result.Length = s.now.Sub(t.start)
	return s.result
}

// check compares an expectation with the present state.
func (s *simulation) check(x *expectation) {
	if wrong := s.compare(x, s.runs); len(wrong) > 0 {
		s.fail(x.place, wrong)
	}
	s.runs = 0
}

func (s *simulation) fail(place hcl.Range, wrong []Mismatch) {
	s.result.Failures = append(s.result.Failures, TestFailure{placeOf(place), s.now, s.now.Sub(s.test.start),
		s.reason(), wrong})
}

// reason returns the policy's reason for its last decision. The reason for an action that
// has just ended is computed only here: a test of a fortnight has ten thousand actions.
func (s *simulation) reason() string {
	if !s.acted {
		return s.last.Reason
	}
	in := s.decided.in
	in.SkipWords = false
	for _, a := range s.test.set.Evaluate(in, s.decided.states).Actions {
		if a.Policy == s.test.policy.Name {
			return "it has just acted: " + a.Why
		}
	}
	return s.last.Reason
}

// simulation is one run of a test.
type simulation struct {
	test    *Test
	db      simulated
	now     time.Time
	begun   bool
	states  map[string]policy.PolicyState
	past    *policy.History
	own     *policy.History // of the test's own expressions
	last    policy.PolicyDecision
	decided struct { // the input of the last decision
		in     policy.Input
		states map[string]policy.PolicyState
	}
	kept    time.Time       // when a reader that stays was last seen to hold the WAL
	acted   bool            // the policy acted at the last tick, and the action has ended
	stalls  []time.Duration // of checkpoints since the last tick
	running []running
	timed   []*expectation // still to come
	broken  map[*rule]bool // rules that were reported; each is reported once
	runs    int            // of the policy since the last expectation
	cover   *Coverage
	result  TestResult
}

// running is an action that takes time.
type running struct {
	action *policy.Action
	ends   time.Time
	result policy.ActionResult
}

// play simulates one stretch.
func (s *simulation) play(sp *stretch) {
	s.db.enter(sp, s.now)
	end := s.now.Add(sp.length)
	if !s.begun { // the first tick is at the start itself
		s.begun = true
		s.tick(0)
	}
	for s.now.Before(end) {
		step := min(s.test.step, end.Sub(s.now))
		if len(s.timed) > 0 && s.timed[0].at.After(s.now) {
			step = min(step, s.timed[0].at.Sub(s.now))
		}
		s.now = s.now.Add(step)
		s.tick(step)
		if s.now.Before(end) {
			s.obey(sp.rules)
		}
	}
}

// tick evaluates the policies once. A checkpoint is carried out at once, other actions begin.
func (s *simulation) tick(step time.Duration) {
	s.db.write(step, s.now)
	s.acted = false
	s.end()
	for _, stall := range s.stalls {
		s.past.ObserveStall(stall)
	}
	s.stalls = s.stalls[:0]
	sample := s.db.sample(s.now)
	s.past.Add(sample)
	if s.own.Reads() {
		s.own.Add(sample)
	}
	in := s.input(sample)
	s.decided.in, s.decided.states = in, s.states
	d := s.test.set.Evaluate(in, s.states)
	s.states = d.Next
	for _, pd := range d.Policies {
		if pd.Policy == s.test.policy.Name {
			s.last = pd
		}
	}
	s.cover.note(s.test.set, in, &d)
	for _, a := range d.Actions {
		if a.Policy == s.test.policy.Name {
			s.runs, s.result.Runs = s.runs+1, s.result.Runs+1
		}
		r := running{action: a, ends: s.now, result: s.db.act(a, s.now)}
		if a.Kind != policy.ActCheckpoint {
			r.ends = s.now.Add(s.db.during.takes)
		}
		s.running = append(s.running, r)
	}
	s.end()
	s.size(step)
	s.obey(s.test.rules)
	for len(s.timed) > 0 && !s.timed[0].at.After(s.now) {
		s.check(s.timed[0])
		s.timed = s.timed[1:]
	}
}

// A reader that stays holds the WAL, which no policy can then empty. Once it has gone, the
// policies have some time to make the WAL smaller before its size counts.
const (
	stays   = time.Minute
	settled = 15 * time.Minute
)

// size records how large the WAL is, and whether a policy could have made it smaller.
func (s *simulation) size(step time.Duration) {
	r := &s.result
	r.MaxWAL = max(r.MaxWAL, s.db.wal.SizeBytes)
	if s.db.reading && !s.db.pinned.IsZero() && s.now.Sub(s.db.pinned) > stays {
		r.Pinned += step
		s.kept = s.now
	}
	if s.kept.IsZero() || s.now.Sub(s.kept) > settled {
		r.FreeWAL = max(r.FreeWAL, s.db.wal.SizeBytes)
	}
}

// end finishes the actions that are over.
func (s *simulation) end() {
	still := s.running[:0]
	for _, r := range s.running {
		if r.ends.After(s.now) {
			still = append(still, r)
			continue
		}
		for _, p := range s.test.set.Policies {
			if p.Name == r.action.Policy {
				s.states = maps.Clone(s.states)
				s.states[p.Name] = s.test.set.Finished(s.states[p.Name], p, s.now, r.result)
			}
		}
		if r.action.Kind == policy.ActCheckpoint {
			s.stalls = append(s.stalls, r.result.WriterStall)
			s.own.ObserveStall(r.result.WriterStall)
			s.result.MaxStall = max(s.result.MaxStall, r.result.WriterStall)
			s.result.Stalls += r.result.WriterStall
		}
		if r.action.Policy == s.test.policy.Name {
			s.last.Phase, s.last.Reason, s.acted = s.states[r.action.Policy].Phase, "it has just acted", true
		}
	}
	s.running = still
}

// obey checks what must always and never hold.
func (s *simulation) obey(rules []*rule) {
	for _, r := range rules {
		if s.broken[r] {
			continue
		}
		e := s.evaluation()
		if truth, why := e.Truth(r.expr); truth == r.wrong {
			s.broken[r] = true
			s.fail(r.place, []Mismatch{{r.name, r.wrong.Not().String(), truth.String() + ": " +
				cmp.Or(why, e.Tree(r.expr).Summary())}})
		}
	}
}

// evaluation returns the present state for the test's own expressions.
func (s *simulation) evaluation() *lang.Evaluation {
	in := s.input(s.db.sample(s.now))
	e := s.test.program.At(lang.Moment{Now: s.now, Sample: in.Sample, History: s.own, Labels: in.Labels,
		Replicas: in.Replicas})
	if len(s.test.set.Windows) == 0 {
		return e
	}
	return e.WithWindows(s.test.set.WindowStates(in))
}

func (s *simulation) input(sample *collector.Sample) policy.Input {
	return policy.Input{Now: s.now, Sample: sample, History: s.past, Labels: s.test.labels, Replicas: s.db.replicaNames(),
		SkipTree: true, SkipWords: true, Gap: 2 * s.test.step}
}

// compare returns what differs from the expectation now.
func (s *simulation) compare(x *expectation, runs int) (wrong []Mismatch) {
	differ := func(attribute, want, got string) {
		if want != "" && want != got {
			wrong = append(wrong, Mismatch{attribute, want, got})
		}
	}
	differ("phase", x.phase, string(s.last.Phase))
	refused := string(s.last.Refused)
	if s.last.Refused == policy.GuardNone {
		refused = nobody
	}
	differ("refused_by", x.refusedBy, refused)
	if x.runs >= 0 {
		differ("runs", fmt.Sprint(x.runs), fmt.Sprint(runs))
	}
	if x.holds == nil {
		return wrong
	}
	e := s.evaluation()
	if truth, why := e.Truth(x.holds); truth != policy.True {
		wrong = append(wrong, Mismatch{"holds", "true", truth.String() + ": " + cmp.Or(why, e.Tree(x.holds).Summary())})
	}
	return wrong
}
