package ladders

import (
	"context"
	"testing"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/policy"
)

// busy is a database whose writer commits during the first checkpoints.
type busy struct {
	calls, during int
}

func (b *busy) Checkpoint(_ context.Context, mode sqlite.Mode, _ sqlite.Budget) (sqlite.Result, error) {
	b.calls++
	return sqlite.Result{Mode: mode, Outcome: sqlite.OutcomeComplete}, nil
}

func (b *busy) look(context.Context) collector.Sample {
	var s collector.Sample
	s.WAL = collector.WAL{Known: true, Frames: 100, CheckpointedFrames: 100}
	if b.calls <= b.during {
		s.WAL.CheckpointedFrames = 99
	}
	return s
}

// A PASSIVE that completed is repeated while somebody has committed in the meantime, as often as
// the step says. Before a TRUNCATE it is not repeated more often.
func TestPassiveUntilNothingIsLeft(t *testing.T) {
	t.Parallel()
	passive := policy.Step{Mode: sqlite.Passive, Repeat: 3}
	for _, test := range []struct {
		during, want int
		steps        []policy.Step
	}{
		{0, 1, []policy.Step{passive}}, {1, 2, []policy.Step{passive}}, {9, 3, []policy.Step{passive}},
		{9, 2, []policy.Step{passive, {Mode: sqlite.Truncate, Repeat: 1}}},
	} {
		b, counted := &busy{during: test.during}, 0
		c := Runner{Checkpointer: b, Look: b.look, Counted: func(sqlite.Result, error) { counted++ }}
		if r := c.Run(t.Context(), policy.Ladder{Steps: test.steps}); r.Outcome != sqlite.OutcomeComplete ||
			b.calls != test.want || counted != test.want {
			t.Errorf("commits during %d: %d checkpoints, %d counted, want %d: %+v", test.during, b.calls, counted, test.want, r)
		}
	}
}
