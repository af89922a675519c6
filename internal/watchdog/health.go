package watchdog

import (
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/policy"
)

// judge returns the conditions of what is about to be published.
func (d *database) judge(s *DatabaseStatus) []health.Condition {
	now := d.watchdog.options.Clock()
	if !d.found && s.Sample != nil && s.Sample.State == collector.StateUp {
		d.found = true
		d.watchdog.dirty.Store(true)
	}
	return d.watchdog.options.Health.Note(d.target.Name, now, health.OfDatabase(d.facts(s, now, 0)))
}

// facts is what health may know of a database.
func (d *database) facts(s *DatabaseStatus, now time.Time, silent time.Duration) health.Database {
	return health.Database{
		Name: s.Name, Path: s.Path, Now: now, Replicated: len(d.target.Replicas) > 0, Found: s.Found,
		OpenErr: s.Err, Sample: s.Sample, SilentFor: silent, PausedUntil: s.PausedUntil, Faults: s.Panics,
		Failed: failedOf(s.Actions),
	}
}

// failedOf returns the newest action of a policy, where it failed and its next
// try is still to come.
func failedOf(actions []ActionRecord) *health.Attempt {
	for _, a := range actions {
		switch {
		case a.Action == string(policy.ActNotify), wrongMoment(a.Outcome):
			continue
		case a.OK || a.Policy == Operator:
			return nil
		}
		return &health.Attempt{Action: a.Action, Policy: a.Policy, Outcome: a.Outcome, Err: a.Err, Advice: a.Advice}
	}
	return nil
}

// shown returns what the database published last. Of one that is silent for a
// minute that is not the truth any more: a read that never returns from a dead
// disk looks like this.
func (d *database) shown() *DatabaseStatus {
	s := d.status.Load()
	last := s.published
	if last.IsZero() {
		last = d.watchdog.started
	}
	silent := time.Since(last)
	if silent <= overdueAfter || !d.watchdog.running.Load() {
		return s
	}
	now, late := d.watchdog.options.Clock(), *s
	late.Conditions = d.watchdog.options.Health.Note(d.target.Name, now, health.OfDatabase(d.facts(s, now, silent)))
	return &late
}

// watchSilent puts databases that have fallen silent on the board, whether
// anybody looks at them or not.
func (w *Watchdog) watchSilent() {
	for _, d := range *w.databases.Load() {
		d.shown()
	}
}
