package watchdog

import (
	"context"
	"log/slog"
	"maps"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/policy"
)

const (
	restAfter = 10 * time.Second // without a change, a database is no longer polled between its turns
	idleAfter = time.Minute      // without a change, it has every fifth turn only while its policies rest
	idlePace  = 5
)

// measure takes a sample and adds what only the replication knows.
func (d *database) measure(ctx context.Context) collector.Sample {
	sample := d.parts.Sampler.Sample(ctx)
	if replicas := d.parts.Actions.Replicas; replicas != nil {
		sample.Replicas = replicas()
	}
	if capture := d.parts.Actions.Capture; capture != nil {
		sample.Capture = capture()
	}
	if sample.WAL.Change != d.last.WAL.Change || sample.WAL.Salt1 != d.last.WAL.Salt1 ||
		sample.WAL.CheckpointedFrames != d.last.WAL.CheckpointedFrames || sample.State != d.last.State {
		d.changed = time.Now()
	}
	if sample.State != d.last.State && sample.State != collector.StateUp {
		d.log().Warn("this database cannot be measured; the others go on", "state", sample.State.String(), "err", sample.Err)
	} else if sample.State != d.last.State {
		d.log().Info("measuring", "path", sample.Path, "wal", humanize.IBytes(uint64(sample.WAL.SizeBytes)), "engine",
			sample.Database.EngineVersion)
	}
	d.last = sample
	return sample
}

// follow makes the history keep what the policies in force read, after a reload
// has replaced them.
func (d *database) follow(policies *policy.Set) *policy.Set {
	if d.reads != policies {
		d.history = policies.Retain(d.history)
		d.reads = policies
	}
	return policies
}

// input is what the policies may know.
func (d *database) input(sample collector.Sample) policy.Input {
	return policy.Input{
		Now:      d.watchdog.options.Clock(),
		Sample:   &sample,
		History:  d.history,
		Labels:   d.target.Labels,
		Replicas: d.target.Replicas,
		SkipTree: true,

		PausedUntil: *d.pauseUntil.Load(),
	}
}

// due returns the actions of a decision that may begin: one a lane at a time, and
// none of a database that is being let go. The states of the others' policies are
// left as they were, so that the same action is due again.
func (d *database) due(decision *policy.Decision) (actions []*policy.Action) {
	for _, a := range decision.Actions {
		if lane := a.Kind.Lane(); d.closing || lane != policy.LaneNone && d.running[lane] != "" {
			decision.Next = maps.Clone(decision.Next)
			decision.Next[a.Policy] = d.states[a.Policy]
			continue
		}
		actions = append(actions, a)
	}
	return actions
}

// remember takes over the policies' new states and has them saved where some
// policy is at work.
func (d *database) remember(next map[string]policy.PolicyState) {
	d.states = next
	for _, state := range next {
		if state.Phase != policy.Inactive {
			d.watchdog.dirty.Store(true)
		}
	}
}

// Explain evaluates the policies on the last sample once more, with the value
// tree that a turn does not build. It changes nothing.
func (w *Watchdog) Explain(ctx context.Context, nameOrPath string) (policy.Decision, error) {
	d, err := w.find(nameOrPath)
	if err != nil {
		return policy.Decision{}, err
	}
	if err := d.acquire(ctx); err != nil {
		return policy.Decision{}, err
	}
	defer d.release()
	in := d.input(d.last)
	in.SkipTree = false
	return w.policies.Load().Evaluate(in, d.states), nil
}

// pace returns how many intervals lie between two turns: more than one only
// where nothing has happened for a while and no policy is waiting for anything.
func (d *database) pace() time.Duration {
	if !d.idle() || len(d.running) > 0 {
		return 1
	}
	for _, state := range d.states {
		if state.Phase != policy.Inactive && state.Phase != policy.Cooldown {
			return 1
		}
	}
	return idlePace
}

func (d *database) idle() bool { return time.Since(d.changed) > idleAfter }

func (d *database) rests() bool { return time.Since(d.changed) > restAfter }

// until returns the time to the next beat of a rhythm. The beats fall on the same
// instants of the monotonic clock whatever a turn took, so that a stepped wall
// clock, a stopped process or a slow turn shifts nothing.
func (d *database) until(rhythm time.Duration) time.Duration {
	since := time.Since(d.watchdog.beats) - d.phase
	return rhythm - ((since%rhythm)+rhythm)%rhythm
}

// observe counts a checkpoint and what was refused to it.
func (d *database) observe(r sqlite.Result) {
	o := &d.watchdog.options
	o.Metrics.checkpoint(d.target.Name, r)
	if lock, refused := refusedLocks[r.Outcome]; refused && o.Busy != nil {
		o.Busy.Refused(d.target.Name, lock)
	}
}

// noteChanges returns the journal of changes of mind with those of this turn,
// and brings the policy metrics up to date.
func (d *database) noteChanges(before *policy.Decision, now policy.Decision, journal []ChangeRecord) []ChangeRecord {
	m := d.watchdog.options.Metrics
	old := make(map[string]policy.PolicyDecision)
	if before != nil {
		for _, p := range before.Policies {
			old[p.Policy] = p
		}
	}
	var fresh []ChangeRecord
	for _, p := range now.Policies {
		was, known := old[p.Policy]
		d.sayHindered(p)
		if known && was.Phase == p.Phase && was.Refused == p.Refused {
			continue
		}
		m.phase(d.target.Name, p.Policy, was.Phase, p.Phase)
		if p.Refused != policy.GuardNone {
			m.policyRefusals.WithLabelValues(d.target.Name, p.Policy, string(p.Refused)).Inc()
		}
		fresh = append(fresh, ChangeRecord{At: now.At, Policy: p.Policy, Phase: string(p.Phase), Refused: string(p.Refused),
			Reason: p.Reason})
	}
	for window, open := range now.Windows {
		m.windowOpen.WithLabelValues(d.target.Name, window).Set(gauge(open == policy.True))
	}
	for _, t := range now.Tunes {
		m.tuned.WithLabelValues(d.target.Name, t.Policy, t.Name).Set(t.Suggested)
	}
	m.paused.WithLabelValues(d.target.Name).Set(gauge(now.At.Before(*d.pauseUntil.Load())))
	if len(fresh) == 0 {
		return journal
	}
	return append(fresh, journal[:min(len(journal), max(0, recordedChanges-len(fresh)))]...)
}

// sayHindered logs that a policy does not come to do what it is for, and that it
// does again. One line, repeated every ten minutes while that lasts.
func (d *database) sayHindered(p policy.PolicyDecision) {
	matter := p.Policy + " hindered"
	if p.Hindered != "" {
		d.say(matter, slog.LevelWarn, true, "this policy cannot do all that it is for", "policy", p.Policy, "err", p.Hindered,
			"next", "see `sqlwatch why "+d.target.Name+" "+p.Policy+"`")
	} else if d.said[matter].failures > 0 {
		d.say(matter, slog.LevelInfo, false, "this policy is no longer hindered", "policy", p.Policy)
	}
}

// phase moves the one-hot state of a policy.
func (m *Metrics) phase(db, name string, was, now policy.Phase) {
	if was != "" {
		m.policyState.WithLabelValues(db, name, string(was)).Set(0)
	}
	m.policyState.WithLabelValues(db, name, string(now)).Set(1)
}

func gauge(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// zeroPolicy brings the series of one policy into being.
func (m *Metrics) zeroPolicy(db string, p *policy.Policy, dryRun bool) {
	for _, phase := range policy.Phases() {
		m.policyState.WithLabelValues(db, p.Name, string(phase))
	}
	for _, guard := range policy.Guards() {
		if canRefuse(p, guard, dryRun || p.DryRun) {
			m.policyRefusals.WithLabelValues(db, p.Name, string(guard))
		}
	}
	for _, t := range p.Tunes {
		m.tuned.WithLabelValues(db, p.Name, t.Name).Set(t.Start)
	}
	m.policyActions.WithLabelValues(db, p.Name, string(p.Kind))
	m.policyFailures.WithLabelValues(db, p.Name, string(p.Kind))
}

// canRefuse reports whether a guard can ever refuse this policy. What cannot is
// no series: a thousand databases have enough of them.
func canRefuse(p *policy.Policy, guard policy.Guard, dryRun bool) bool {
	switch guard {
	case policy.GuardMode:
		return dryRun
	case policy.GuardCooldown:
		return p.Cooldown > 0
	case policy.GuardReader, policy.GuardStall:
		return p.Ladder != nil && p.Ladder.Truncates()
	}
	return true
}
