package watchdog

import (
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/policy"
)

const (
	restAfter = 10 * time.Second // without a change, a database is no longer polled between its turns
	idleAfter = time.Minute      // without a change, it has every fifth turn only while its policies rest
	idlePace  = 5
)

// past is what was measured of a database: the last sample, and what the policies look back
// to of earlier ones. The database's baton guards it.
type past struct {
	last    collector.Sample // of the last turn or look
	changed time.Time        // when the database was last seen to change
	history *policy.History
	reads   *policy.Set // whose variables the history keeps
}

// note stores the sample as the last one and returns the one before.
func (p *past) note(sample collector.Sample) (before collector.Sample) {
	before = p.last
	if sample.WAL.Change != before.WAL.Change || sample.WAL.Salt1 != before.WAL.Salt1 ||
		sample.WAL.CheckpointedFrames != before.WAL.CheckpointedFrames || sample.State != before.State {
		p.changed = time.Now()
	}
	p.last = sample
	return before
}

// follow makes the history keep what the present policies read, after a reload has replaced them.
func (p *past) follow(policies *policy.Set) *policy.Set {
	if p.reads != policies {
		p.history = policies.Retain(p.history)
		p.reads = policies
	}
	return policies
}

func (p *past) idle() bool { return time.Since(p.changed) > idleAfter }

func (p *past) rests() bool { return time.Since(p.changed) > restAfter }
