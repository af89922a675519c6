// Package policytest plays policies on a simulated clock against a simulated
// database: what `sqlwatch test` does with the test blocks of *_test.hcl.
package policytest

import (
	"cmp"
	"fmt"
	"math"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
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
}

// stretch is a length of time with a steady workload, and what is expected at
// its end.
type stretch struct {
	length     time.Duration
	write      int64 // bytes a second
	reader     bool  // one that began with the span keeps the WAL from being emptied
	writeLock  bool  // the application holds it throughout
	unreadable bool
	diskFree   int64
	replicaLag time.Duration
	expect     []*expectation
}

// expectation is what must be true at a moment. What it leaves out may be anything.
type expectation struct {
	at        hcl.Range
	phase     string
	refusedBy string
	runs      int // since the expectation before; -1: any number
	holds     hclsyntax.Expression
}

// TestResult is how a test went.
type TestResult struct {
	Name     string        `json:"name"`
	Place    Place         `json:"place"`
	Length   time.Duration `json:"length"` // of simulated time
	Runs     int           `json:"runs"`   // actions of the policy in all
	Failures []TestFailure `json:"failures"`
}

// Place is where something stands in a file.
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
	Reason     string        `json:"reason"` // what the policy says of itself
	Mismatches []Mismatch    `json:"mismatches"`
}

// Mismatch is one attribute of an expectation that was not met.
type Mismatch struct {
	Attribute string `json:"attribute"`
	Want      string `json:"want"`
	Got       string `json:"got"`
}

func placeOf(r hcl.Range) Place { return Place{r.Filename, r.Start.Line, r.Start.Column} }

// Run plays the test. Nothing is slept, opened or changed.
func (t *Test) Run() TestResult {
	s := &simulation{test: t, db: t.db, now: t.start, states: map[string]policy.PolicyState{}, past: t.set.NewHistory(),
		own: t.program.Retain(&policy.History{})}
	s.db.begin(t.start)
	result := TestResult{Name: t.Name, Place: placeOf(t.Range), Failures: []TestFailure{}}
	runs := 0
	for _, sp := range t.script {
		n := s.play(sp)
		runs, result.Runs = runs+n, result.Runs+n
		for _, x := range sp.expect {
			if wrong := s.compare(x, runs); len(wrong) > 0 {
				result.Failures = append(result.Failures, TestFailure{placeOf(x.at), s.now, s.now.Sub(t.start), s.last.Reason,
					wrong})
			}
			runs = 0
		}
	}
	result.Length = s.now.Sub(t.start)
	return result
}

// simulation is one run of a test.
type simulation struct {
	test   *Test
	db     simulated
	now    time.Time
	begun  bool
	states map[string]policy.PolicyState
	past   *policy.History
	own    *policy.History // of the test's own expressions
	last   policy.PolicyDecision
}

// play lives through a span and returns how often the policy acted.
func (s *simulation) play(sp *stretch) (runs int) {
	s.db.enter(sp)
	end := s.now.Add(sp.length)
	if !s.begun { // the first look is at the start itself
		s.begun = true
		runs += s.tick(0)
	}
	for s.now.Before(end) {
		step := min(s.test.step, end.Sub(s.now))
		s.now = s.now.Add(step)
		runs += s.tick(step)
	}
	return runs
}

// tick is one evaluation, after which an action is carried out at once.
func (s *simulation) tick(step time.Duration) (runs int) {
	s.db.write(step, s.now)
	sample := s.db.sample(s.now)
	s.past.Add(sample)
	s.own.Add(sample)
	d := s.test.set.Evaluate(s.input(sample), s.states)
	s.states = d.Next
	for _, pd := range d.Policies {
		if pd.Policy == s.test.policy.Name {
			s.last = pd
		}
	}
	if d.Action == nil {
		return 0
	}
	result := s.db.act(d.Action, s.now)
	for _, p := range s.test.set.Policies {
		if p.Name == d.Action.Policy {
			s.states[p.Name] = s.test.set.Finished(s.states[p.Name], p, s.now, result)
		}
	}
	if d.Action.Kind == policy.ActCheckpoint {
		s.past.ObserveStall(result.WriterStall)
		s.own.ObserveStall(result.WriterStall)
	}
	if d.Action.Policy != s.test.policy.Name {
		return 0
	}
	s.last.Phase, s.last.Reason = s.states[d.Action.Policy].Phase, "it has just acted: "+d.Action.Why
	return 1
}

func (s *simulation) input(sample *collector.Sample) policy.Input {
	return policy.Input{Now: s.now, Sample: sample, History: s.past, Labels: s.test.labels, Replicas: s.db.replicaNames(),
		SkipTree: true, Gap: 2 * s.test.step}
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
	in := s.input(s.db.sample(s.now))
	e := s.test.program.At(lang.Moment{Now: s.now, Sample: in.Sample, History: s.own, Labels: in.Labels,
		Replicas: in.Replicas})
	e = e.WithWindows(s.test.set.WindowStates(in))
	if truth, why := e.Truth(x.holds); truth != policy.True {
		wrong = append(wrong, Mismatch{"holds", "true", truth.String() + ": " + cmp.Or(why, e.Tree(x.holds).Summary())})
	}
	return wrong
}

// What a TRUNCATE of the simulated database costs its writers, in nanoseconds a
// byte: freeing the file's blocks, and copying what no PASSIVE has copied.
const (
	freeCost = 0.5
	copyCost = 3.0
)

// The simulated database has pages of 4 KiB; a frame is a page and its header.
const (
	simulatedPage  = 4096
	simulatedFrame = simulatedPage + 24
)

// simulated is a model of a database in WAL mode whose application never
// checkpoints by itself. Writes append frames; once all are in the database and
// nobody reads them, the next write begins the WAL anew within its file. A
// TRUNCATE empties the file, unless a reader or the write lock is in its way.
type simulated struct {
	name      string
	bytes     int64
	disk      int64
	firstWAL  int64 // size of the WAL at the start
	wal       collector.WAL
	unwritten float64 // bytes of a frame not yet complete
	replicas  []collector.Replica
	during    *stretch
	readFrom  uint32    // the reader's mark
	pinned    time.Time // since when there are frames behind it; zero: none
}

func (db *simulated) begin(now time.Time) {
	db.wal = collector.WAL{Known: true, PageSize: simulatedPage, Restarted: now}
	db.append(uint32(db.firstWAL/simulatedFrame), now)
	db.wal.SizeBytes = db.firstWAL
	db.replicas = append([]collector.Replica(nil), db.replicas...)
}

func (db *simulated) enter(sp *stretch) {
	db.during, db.readFrom, db.pinned = sp, db.wal.Frames, time.Time{}
}

// reads reports whether a reader holds a read mark.
func (db *simulated) reads() bool { return db.during != nil && db.during.reader }

func (db *simulated) write(step time.Duration, now time.Time) {
	db.unwritten += float64(db.during.write) * step.Seconds()
	frames := uint32(db.unwritten / simulatedFrame)
	db.unwritten -= float64(frames) * simulatedFrame
	db.append(frames, now)
}

func (db *simulated) append(frames uint32, now time.Time) {
	w := &db.wal
	frames = min(frames, math.MaxUint32-w.Frames)
	if frames == 0 {
		return
	}
	if w.Frames > 0 && w.BacklogFrames() == 0 && !db.reads() {
		w.Frames, w.CheckpointedFrames, w.Restarted = 0, 0, now
		w.ResetsTotal++
	}
	if w.BacklogFrames() == 0 {
		w.OldestBacklog = now
	}
	if db.reads() && db.pinned.IsZero() {
		db.pinned = now
	}
	w.Frames += frames
	w.FramesWrittenTotal += uint64(frames)
	w.CommitsTotal++
	w.LastWrite = now
	w.SizeBytes = max(w.SizeBytes, int64(w.Frames)*simulatedFrame)
}

// sample is what the collector would measure now.
func (db *simulated) sample(now time.Time) *collector.Sample {
	s := &collector.Sample{At: now, DB: db.name, Path: "/" + db.name + ".db", State: collector.StateUp}
	s.Disk = collector.Disk{Known: true, SizeBytes: uint64(db.disk), FreeBytes: uint64(db.during.diskFree)}
	for _, r := range db.replicas {
		r.Healthy, r.LagSeconds, r.CaughtUp = true, db.during.replicaLag.Seconds(), now.Add(-db.during.replicaLag)
		s.Replicas = append(s.Replicas, r)
	}
	if db.during.unreadable {
		s.State, s.Err = collector.StateUnreadable, "the test makes it unreadable"
		return s
	}
	s.Database = collector.Database{SizeBytes: db.bytes, PageSize: simulatedPage, Pages: uint32(db.bytes / simulatedPage),
		JournalMode: "wal", EngineVersion: "3.51.3"}
	s.WAL = db.wal
	s.Locks.WriteHeld = db.during.writeLock
	if db.reads() {
		s.Readers = collector.Readers{Active: 1, OldestFrame: db.readFrom, OldestPID: 1, OldestCommand: "reader",
			PinnedSince: db.pinned}
	}
	return s
}

func (db *simulated) replicaNames() (names []string) {
	for _, r := range db.replicas {
		names = append(names, r.Name)
	}
	return names
}

// act carries an action out and says how it ended.
func (db *simulated) act(a *policy.Action, now time.Time) (r policy.ActionResult) {
	switch a.Kind {
	case policy.ActCheckpoint:
		before := db.wal.SizeBytes
		for _, s := range a.Checkpoint.Steps {
			r.Outcome = db.checkpoint(s.Mode, now, &r.WriterStall)
		}
		r.Reclaimed = before - db.wal.SizeBytes
	case policy.ActVerify:
		for i := range db.replicas {
			db.replicas[i].LastVerified = now
		}
	}
	return r
}

// checkpoint is one step of a ladder. Repeating it would change nothing: while
// it runs the simulated application stands still.
func (db *simulated) checkpoint(mode sqlite.Mode, now time.Time, stall *time.Duration) sqlite.Outcome {
	w := &db.wal
	if mode == sqlite.Truncate && db.during.writeLock {
		return sqlite.OutcomeWriterBusy
	}
	if db.reads() && db.readFrom < w.Frames {
		w.CheckpointedFrames = max(w.CheckpointedFrames, db.readFrom)
		return sqlite.OutcomePinned
	}
	backlog := float64(w.BacklogFrames()) * simulatedPage
	w.CheckpointedFrames, w.OldestBacklog, w.LastCompleteCheckpoint = w.Frames, time.Time{}, now
	if mode == sqlite.Passive {
		return sqlite.OutcomeComplete
	}
	if db.reads() {
		return sqlite.OutcomeNotReset
	}
	*stall = max(*stall, time.Duration(freeCost*float64(w.SizeBytes)+copyCost*backlog))
	w.SizeBytes, w.Frames, w.CheckpointedFrames, w.Restarted = 0, 0, 0, now
	w.ResetsTotal++
	return sqlite.OutcomeTruncated
}
