package policy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/checkpoint"
)

// randomPolicies returns the text of one to three policies, some of them harmful.
func randomPolicies(r *rand.Rand) string {
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	var b strings.Builder
	b.WriteString("window \"w\" {\n cron = \"*/7 * * * *\"\n duration = \"3m\"\n}\n")
	for i := range 1 + r.IntN(3) {
		fmt.Fprintf(&b, "policy \"p%d\" {\n when = %s\n for = %q\n cooldown = %q\n mode = %q\n", i,
			pick("true", "wal.bytes >= 0", `wal.bytes > bytes("1MB")`, `rate(wal.frames_written, "1m") >= 0`,
				`replica.lag > 0 || wal.frames > 3`, "!locks.writer_held"),
			pick("0s", "1s", "30s"), pick("1s", "2s", "1m"), pick("enforce", "enforce", "enforce", "dry_run"))
		if r.IntN(3) == 0 {
			fmt.Fprintf(&b, " unless = %s\n", pick("readers.active > 0", "checkpoint.stall > duration(\"1s\")", "false"))
		}
		if r.IntN(3) == 0 {
			fmt.Fprintf(&b, " window = window.w\n max_defer = %q\n", pick("1s", "1m"))
		}
		b.WriteString(pick(" sync {}\n", " snapshot {}\n", " notify = [notifier.webhook.ops]\n",
			" until = wal.bytes < 1\n checkpoint {\n on_busy {\n backoff = \"1s\"\n max = \"1s\"\n }\n }\n",
			" checkpoint {\n step \"truncate\" {}\n on_busy {\n backoff = \"1s\"\n max = \"1s\"\n }\n }\n",
			" checkpoint {\n step \"passive\" {}\n }\n") + "}\n")
	}
	return b.String()
}

// randomSample is a sample of a database that is sometimes unreadable.
func randomSample(r *rand.Rand, at time.Time, written *uint64) *collector.Sample {
	*written += uint64(r.IntN(1000))
	s := sample(at, r.Int64N(300e6)>>r.IntN(28))
	s.WAL.FramesWrittenTotal = *written
	switch r.IntN(8) {
	case 0:
		s.State = collector.StateUnreadable
	case 1:
		s.WAL.Known = false
	case 2:
		s.At = at.Add(-time.Hour)
	case 3:
		s.Readers = collector.Readers{Active: 1, PinnedSince: at.Add(-time.Duration(r.IntN(3000)) * time.Millisecond)}
	}
	return s
}

// TestProperty_I15_F9 runs 10,000 random series through random policies: the
// floors hold, a policy whose condition is unknown never acts, nor does a dry run, and
// Evaluate does not change the states that it is given.
func TestProperty_I15_F9(t *testing.T) {
	t.Parallel()
	const series, setSeries, shards = 10_000, 25, 4
	for shard := range shards {
		t.Run(fmt.Sprint("shard", shard), func(t *testing.T) {
			t.Parallel()
			var set *Set
			acted := 0
			for i := shard * series / shards; i < (shard+1)*series/shards; i++ {
				r := rand.New(rand.NewPCG(1, uint64(i)))
				if i%setSeries == 0 {
					set = mustParse(t, randomPolicies(r))
				}
				acted += runSeries(t, r, set, i)
				if t.Failed() {
					return
				}
			}
			if acted < series/shards {
				t.Errorf("only %d actions in %d series: the test proves little", acted, series/shards)
			}
		})
	}
}

func runSeries(t *testing.T, r *rand.Rand, set *Set, seed int) (acted int) {
	now, written := start.Add(time.Duration(r.IntN(1e6))*time.Second), uint64(0)
	h := set.NewHistory()
	states := map[string]PolicyState{}
	last := map[string]time.Time{}
	running := map[Lane]string{}
	for turn := range 12 {
		now = now.Add(time.Duration(r.IntN(4000)) * time.Millisecond)
		if r.IntN(6) == 0 {
			now = now.Add(time.Duration(r.IntN(40)) * time.Second)
		}
		s := randomSample(r, now, &written)
		h.Add(s)
		before := ""
		if turn == 5 {
			before = fmt.Sprint(states)
		}
		d := set.Evaluate(Input{Now: now, Sample: s, History: h, SkipTree: true}, states)
		if turn == 5 && fmt.Sprint(states) != before {
			t.Fatalf("seed %d: Evaluate changed its input", seed)
		}
		states = d.Next
		for _, a := range d.Actions {
			acted++
			lane := a.Kind.Lane()
			if lane == LaneNone {
				lane = Lane("notice " + a.Policy)
			}
			if running[lane] != "" {
				t.Fatalf("seed %d: %s begins while %s runs", seed, a.Policy, running[lane])
			}
			running[lane] = a.Policy
			mustHold(t, seed, set, d, a, s, now, last)
		}
		for _, lane := range slices.Sorted(maps.Keys(running)) {
			if name := running[lane]; r.IntN(2) == 0 {
				result := ActionResult{Outcome: checkpoint.Outcome(1 + r.IntN(9)), WriterStall: time.Duration(r.IntN(1e8)),
					Reclaimed: r.Int64N(1e8)}
				states[name] = set.Finished(states[name], policyNamed(set, name), now, result)
				delete(running, lane)
			}
		}
	}
	return acted
}

func policyNamed(s *Set, name string) *Policy {
	for _, p := range s.Policies {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// mustHold checks what must be true of every action.
func mustHold(t *testing.T, seed int, set *Set, d Decision, a *Action, s *collector.Sample, now time.Time,
	last map[string]time.Time) {
	t.Helper()
	p := policyNamed(set, a.Policy)
	floor := func(what string, interval time.Duration) {
		if prev, seen := last[what]; seen && now.Sub(prev) < interval {
			t.Errorf("seed %d: %s again after %s, the floor is %s", seed, what, now.Sub(prev), interval)
		}
		last[what] = now
	}
	for _, pd := range d.Policies {
		if pd.Policy == a.Policy && pd.When != True {
			t.Errorf("seed %d: %s acts though its condition is %s", seed, a.Policy, pd.When)
		}
	}
	if p.DryRun {
		t.Errorf("seed %d: a dry run acts", seed)
	}
	switch a.Kind {
	case ActCheckpoint:
		floor("checkpoint", MinCheckpointInterval)
		if a.Checkpoint.Truncates() {
			floor("truncate", MinTruncateInterval)
			if s.State != collector.StateUp || now.Sub(s.At) > MaxSampleAge || s.WAL.SizeBytes < MinTruncateBytes {
				t.Errorf("seed %d: truncates on %s, %s old, WAL of %d bytes", seed, s.State, now.Sub(s.At), s.WAL.SizeBytes)
			}
		}
	case ActSnapshot, ActVerify:
		floor("backup", MinBackupInterval)
	case ActNotify:
		floor("notify "+a.Policy, MinNotifyInterval)
	}
}

func BenchmarkEvaluate(b *testing.B) {
	set := Defaults()
	h := set.NewHistory()
	s := sample(start, 1e6)
	b.ReportAllocs()
	for b.Loop() {
		set.Evaluate(Input{Now: start, Sample: s, History: h}, nil)
	}
}
