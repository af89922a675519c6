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

// display publishes the state of one database: its status, its conditions and the metrics
// of its policies. The status is replaced as a whole, so that any goroutine may read it at
// any time; the database's baton guards the rest.
type display struct {
	target  Target
	pause   atomic.Pointer[time.Time] // policies do not act before this time
	putting sync.Mutex                // held while a status and its conditions are replaced
	board   *health.Board
	metrics *Metrics
	clock   func() time.Time
	changed func() // told when something changed that must survive a restart
	found   bool   // the database has been up, in this run of the daemon or an earlier one
	status  atomic.Pointer[DatabaseStatus]
}

// view is what a database shows in addition to its sample and decision.
type view struct {
	actions  []ActionRecord
	running  string
	panics   int
	turn     uint64 // number of the turn
	lastBusy *Refusal
	saved    savedDatabase
}

// begin shows a database that has had no turn yet.
func (p *display) begin(saved savedDatabase, recent Recent) {
	p.found = saved.Found
	p.pause.Store(&saved.PausedUntil)
	p.status.Store(&DatabaseStatus{Name: p.target.Name, Path: p.target.Path, Labels: p.target.Labels, Found: saved.Found,
		Conditions: []health.Condition{}, Actions: recent.Actions, Changes: recent.Changes, saved: saved})
}

// publish shows the result of a turn. The caller hands over everything reachable from the
// arguments and must not change it any more. It returns the decisions that changed.
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

// refresh shows what has changed since the last turn published. If sample is nil, the last one stays.
func (p *display) refresh(sample *collector.Sample, v view) {
	s := *p.status.Load()
	if sample != nil {
		s.Sample = sample
	}
	p.store(&s, v)
}

// failed shows why a database currently has no turns.
func (p *display) failed(reason string, v view) {
	s := *p.status.Load()
	s.Err, s.turn, v.running = reason, v.turn, ""
	if s.Sample == nil {
		s.Sample = &collector.Sample{At: p.clock(), DB: p.target.Name, Path: p.target.Path, State: collector.StateUnreadable,
			Err: reason}
	}
	p.store(&s, v)
}

// store completes a status and publishes it.
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

// put publishes a status with the current pause and conditions.
func (p *display) put(s *DatabaseStatus, silent time.Duration) {
	now := p.clock()
	s.PausedUntil = *p.pause.Load()
	s.saved.PausedUntil = s.PausedUntil
	paused := s.PausedUntil.After(now)
	if !paused {
		s.PausedUntil = time.Time{}
	}
	p.metrics.paused.WithLabelValues(p.target.Name).Set(metric.Bool(paused))
	s.Conditions = p.board.Note(p.target.Name, now, health.OfDatabase(p.facts(s, now, silent)))
	p.status.Store(s)
}

// pauseUntil shows a pause, or the end of one, without waiting for a turn.
func (p *display) pauseUntil(until time.Time) {
	p.putting.Lock()
	defer p.putting.Unlock()
	p.pause.Store(&until)
	s := *p.status.Load()
	p.put(&s, p.silence(&s, time.Now()))
	p.changed()
}

// facts returns the input of the health rules.
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

// failedOf returns a policy's newest action if it failed and has not been retried yet.
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

// shown returns what the database published last. If the watchdog runs and the database has
// published nothing for a minute, that status is out of date, as when a read from a dead disk
// never returns: then shown publishes that it is silent.
func (p *display) shown(running bool, started time.Time) *DatabaseStatus {
	if s := p.status.Load(); !running || p.silence(s, started) == 0 {
		return s
	}
	p.putting.Lock()
	defer p.putting.Unlock()
	s := *p.status.Load()
	if silent := p.silence(&s, started); silent > 0 { // otherwise it has just published
		p.put(&s, silent)
	}
	return &s
}

// silence returns how long a database has published nothing, or 0 if that is not long.
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

// noteChanges returns the decisions that changed in this turn, and updates the policies'
// metrics. A policy that is inactive when it is first seen is not a change.
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

// watchSilent publishes the silence of databases that have stopped publishing, even if
// nobody asks for their status.
func (w *Watchdog) watchSilent() {
	for _, d := range *w.databases.Load() {
		d.display.shown(w.running.Load(), w.started)
	}
}
