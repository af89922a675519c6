package watchdog

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/metric"
	"github.com/sqlwatch/sqlwatch/internal/watchdog/outcome"
	"github.com/sqlwatch/sqlwatch/policy"
)

// display publishes what is known of one database: its status, its conditions and
// the metrics of its policies. The status is replaced as a whole, so that anyone may
// read it at any time; the database's baton guards the rest.
type display struct {
	target  Target
	pause   atomic.Pointer[time.Time] // policies do not act before then
	putting sync.Mutex                // held while a status and its conditions are replaced
	board   *health.Board
	metrics *Metrics
	clock   func() time.Time
	changed func() // what is to survive a restart has changed
	found   bool   // the database was up once, in this life or an earlier one
	status  atomic.Pointer[DatabaseStatus]
}

// view is what a database shows beside what it measured and decided.
type view struct {
	actions  []ActionRecord
	running  string
	panics   int
	turn     uint64 // which
	lastBusy *Refusal
	saved    savedDatabase
}

// begin shows a database that has had no turn yet.
func (p *display) begin(saved savedDatabase, recent Recent) {
	p.found = saved.Found
	p.pause.Store(&time.Time{})
	p.status.Store(&DatabaseStatus{Name: p.target.Name, Path: p.target.Path, Labels: p.target.Labels, Found: saved.Found,
		Conditions: []health.Condition{}, Actions: recent.Actions, Changes: recent.Changes, saved: saved})
}

// publish shows what a turn found. Everything reachable from the status is
// handed over: nobody changes it any more. It returns what has changed.
func (p *display) publish(sample collector.Sample, decision policy.Decision, v view) (fresh []ChangeRecord) {
	before := p.status.Load()
	fresh = p.noteChanges(before.Decision, decision)
	s := &DatabaseStatus{Name: p.target.Name, Path: p.target.Path, Labels: p.target.Labels,
		Sample: &sample, Decision: &decision, LastBusy: v.lastBusy, Changes: before.Changes, turn: v.turn}
	if len(fresh) > 0 {
		s.Changes = append(slices.Clone(fresh), before.Changes[:min(len(before.Changes),
			max(0, KeptChanges-len(fresh)))]...)
	}
	p.store(s, v)
	return fresh
}

// refresh shows what has changed since the last turn's publish; nil is the sample
// that is shown already.
func (p *display) refresh(sample *collector.Sample, v view) {
	s := *p.status.Load()
	if sample != nil {
		s.Sample = sample
	}
	p.store(&s, v)
}

// failed shows why a database has no turns at the moment.
func (p *display) failed(reason string, v view) {
	s := *p.status.Load()
	s.Err, s.turn, v.running = reason, v.turn, ""
	if s.Sample == nil {
		s.Sample = &collector.Sample{At: p.clock(), DB: p.target.Name, Path: p.target.Path, State: collector.StateUnreadable,
			Err: reason}
	}
	p.store(&s, v)
}

// store publishes a status after all the rest of it is known.
func (p *display) store(s *DatabaseStatus, v view) {
	if !p.found && s.Sample != nil && s.Sample.State == collector.StateUp {
		p.found = true
		p.changed()
	}
	s.Actions, s.Running, s.Panics, s.Found = v.actions, v.running, v.panics, p.found
	s.saved, s.published = v.saved, time.Now()
	s.saved.Found = p.found
	p.putting.Lock()
	defer p.putting.Unlock()
	p.put(s, 0)
}

// put shows a status with the pause and the conditions of this moment.
func (p *display) put(s *DatabaseStatus, silent time.Duration) {
	now := p.clock()
	s.PausedUntil = *p.pause.Load()
	paused := s.PausedUntil.After(now)
	if !paused {
		s.PausedUntil = time.Time{}
	}
	p.metrics.paused.WithLabelValues(p.target.Name).Set(metric.Bool(paused))
	s.Conditions = p.board.Note(p.target.Name, now, health.OfDatabase(p.facts(s, now, silent)))
	p.status.Store(s)
}

// pauseUntil shows a pause, or the end of one, whatever the database is at.
func (p *display) pauseUntil(until time.Time) {
	p.putting.Lock()
	defer p.putting.Unlock()
	p.pause.Store(&until)
	s := *p.status.Load()
	p.put(&s, p.silence(&s, time.Now()))
}

// facts is what health may know of a database.
func (p *display) facts(s *DatabaseStatus, now time.Time, silent time.Duration) health.Database {
	d := health.Database{
		Name: s.Name, Path: s.Path, Now: now, Replicated: len(p.target.Replicas) > 0, Found: s.Found,
		OpenErr: s.Err, Sample: s.Sample, SilentFor: silent, PausedUntil: s.PausedUntil, Faults: s.Panics,
		Failed: failedOf(s.Actions),
	}
	for i := 0; s.Decision != nil && i < len(s.Decision.Policies); i++ {
		d.Hinder(s.Decision.Policies[i].Policy, s.Decision.Policies[i].Hindered)
	}
	return d
}

// failedOf returns the newest action of a policy, where it failed and its next
// try is still to come.
func failedOf(actions []ActionRecord) *health.Attempt {
	for _, a := range actions {
		switch {
		case a.Action == string(policy.ActNotify), outcome.WrongMoment(a.Outcome):
			continue
		case a.OK || a.Policy == Operator:
			return nil
		}
		return &health.Attempt{Action: a.Action, Policy: a.Policy, Outcome: a.Outcome, Err: a.Err, Advice: a.Advice}
	}
	return nil
}

// shown returns what the database published last. While the watchdog runs, that of
// one that is silent for a minute is not the truth any more: a read that never
// returns from a dead disk looks like this.
func (p *display) shown(running bool, started time.Time) *DatabaseStatus {
	if s := p.status.Load(); !running || p.silence(s, started) == 0 {
		return s
	}
	p.putting.Lock()
	defer p.putting.Unlock()
	s := *p.status.Load()
	if silent := p.silence(&s, started); silent > 0 { // else it has just spoken
		p.put(&s, silent)
	}
	return &s
}

// silence is how long a database has published nothing, 0 where that is not long.
func (p *display) silence(s *DatabaseStatus, started time.Time) time.Duration {
	last := s.published
	if last.IsZero() {
		last = started
	}
	if silent := time.Since(last); silent > overdueAfter {
		return silent
	}
	return 0
}

// noteChanges returns this turn's changes of mind, and brings the policy metrics up
// to date. That a policy has nothing to do when it is first seen is no change.
func (p *display) noteChanges(before *policy.Decision, now policy.Decision) (fresh []ChangeRecord) {
	m, db := p.metrics, p.target.Name
	old := make(map[string]policy.PolicyDecision)
	if before != nil {
		for _, d := range before.Policies {
			old[d.Policy] = d
		}
	}
	for _, d := range now.Policies {
		was, known := old[d.Policy]
		if known && was.Phase == d.Phase && was.Refused == d.Refused {
			continue
		}
		m.phase(db, d.Policy, was.Phase, d.Phase)
		if d.Refused != policy.GuardNone {
			m.policyRefusals.WithLabelValues(db, d.Policy, string(d.Refused)).Inc()
		}
		if !known && d.Phase == policy.Inactive {
			continue
		}
		fresh = append(fresh, ChangeRecord{At: now.At, Policy: d.Policy, Phase: string(d.Phase), Refused: string(d.Refused),
			Reason: d.Reason})
	}
	for window, open := range now.Windows {
		m.windowOpen.WithLabelValues(db, window).Set(metric.Bool(open == policy.True))
	}
	for _, t := range now.Tunes {
		m.tuned.WithLabelValues(db, t.Policy, t.Name).Set(t.Suggested)
	}
	return fresh
}

// watchSilent puts databases that have fallen silent on the board, whether
// anybody looks at them or not.
func (w *Watchdog) watchSilent() {
	for _, d := range *w.databases.Load() {
		d.display.shown(w.running.Load(), w.started)
	}
}
