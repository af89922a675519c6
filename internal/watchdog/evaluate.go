package watchdog

import (
	"context"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/policy"
)

// measure takes a sample and adds the state of the replication.
func (d *database) measure(ctx context.Context) collector.Sample {
	sample := d.parts.Sampler.Sample(ctx)
	if replicas := d.parts.Actions.Replicas; replicas != nil {
		sample.Replicas = replicas()
	}
	if capture := d.parts.Actions.Capture; capture != nil {
		sample.Capture = capture()
	}
	before := d.past.note(sample)
	if sample.State != before.State && sample.State != collector.StateUp {
		d.voice.Log.Warn("this database cannot be measured; others are not affected", "state", sample.State.String(), "err",
			sample.Err)
	} else if sample.State != before.State {
		d.voice.Log.Info("measuring", "path", sample.Path, "wal", humanize.Bytes(uint64(sample.WAL.SizeBytes)), "engine",
			sample.Database.EngineVersion)
	}
	return sample
}

// input returns what the policies may read.
func (d *database) input(sample collector.Sample) policy.Input {
	return policy.Input{
		Now:      d.options.Clock(),
		Sample:   &sample,
		History:  d.past.history,
		Labels:   d.target.Labels,
		Replicas: d.target.Replicas,
		SkipTree: true,

		PausedUntil: *d.display.pause.Load(),
	}
}

// Explain evaluates the policies on the last sample again, this time with the value tree,
// which a turn does not build. It changes nothing.
func (w *Watchdog) Explain(ctx context.Context, nameOrPath string) (policy.Decision, error) {
	d, err := w.find(nameOrPath)
	if err != nil {
		return policy.Decision{}, err
	}
	if err := d.acquire(ctx); err != nil {
		return policy.Decision{}, err
	}
	defer d.release()
	in := d.input(d.past.last)
	in.SkipTree = false
	return w.policies.Load().Evaluate(in, d.ledger.states), nil
}

// showGrace is how long a command waits at most until its effect is shown.
const showGrace = 2 * time.Second

// show starts a turn of each database at once and waits until its result is published, so that
// the next status request sees the effect of a command. It does not wait for a turn that hangs.
func (w *Watchdog) show(ctx context.Context, databases ...*database) {
	ctx, cancel := context.WithTimeout(ctx, showGrace)
	defer cancel()
	due := make([]uint64, len(databases))
	for i, d := range databases {
		if d.display.status.Load().Panics == 0 { // otherwise it waits to be restarted
			due[i] = d.turns.Load() + 1
			d.look()
		}
	}
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for i, d := range databases {
		for s := d.display.status.Load(); s.turn < due[i]; s = d.display.status.Load() {
			select {
			case <-poll.C:
			case <-ctx.Done():
				return
			case <-w.ended:
				return
			}
		}
	}
}

// pace returns the number of intervals between two turns. It is more than one only if nothing
// has happened for a while and no policy is waiting for anything.
func (d *database) pace() time.Duration {
	if d.past.idle() && d.ledger.rests() {
		return idlePace
	}
	return 1
}

// until returns the time until the next tick of an interval. Ticks fall on fixed
// instants of the monotonic clock, so that a stepped wall clock, a stopped process or
// a slow turn does not shift them.
func (d *database) until(rhythm time.Duration) time.Duration {
	since := time.Since(d.ticks) - d.phase
	return rhythm - ((since%rhythm)+rhythm)%rhythm
}

// counted counts a checkpoint and the locks that it was refused.
func (d *database) counted(r sqlite.Result) {
	d.options.Metrics.checkpoint(d.target.Name, r)
	if lock, refused := refusedLocks[r.Outcome]; refused && d.options.Busy != nil {
		d.options.Busy.Refused(d.target.Name, lock)
	}
}
