package policy

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/checkpoint"
)

// randomTimed returns the text of three windows and of a policy with random waits, all in
// whole minutes.
func randomTimed(r *rand.Rand) string {
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	var b strings.Builder
	for i := range 3 {
		fmt.Fprintf(&b, "window \"w%d\" {\n cron = \"%d %s * * %s\"\n duration = \"%dm\"\n timezone = %q\n}\n", i, r.IntN(60),
			pick("2", "14", "*/5", "*/3", "22", "*"), pick("*", "*", "*", "1-5", "6"), 1+r.IntN(400),
			pick("UTC", "Europe/Berlin", "Asia/Kolkata"))
	}
	w := func() string { return fmt.Sprint("window.w", r.IntN(3)) }
	b.WriteString("policy \"p\" {\n when = wal.bytes > bytes(\"64MB\")\n")
	fmt.Fprintf(&b, " for = %q\n cooldown = %q\n", pick("0s", "0s", "3m", "45m"), pick("1m", "7m", "3h", "20h"))
	if r.IntN(12) == 0 {
		b.WriteString(" mode = \"dry_run\"\n")
	}
	if r.IntN(8) == 0 {
		b.WriteString(" unless = locks.writer_held\n")
	}
	if r.IntN(6) > 0 {
		fmt.Fprintf(&b, " window = %s\n", pick(w(), "any_of("+w()+", "+w()+")", "all_of("+w()+", "+w()+")",
			"all_of("+w()+", any_of("+w()+", "+w()+"))", "any_of("+w()+", all_of("+w()+", "+w()+"))",
			"all_of("+w()+", "+w()+", "+w()+")"))
		if r.IntN(3) == 0 {
			fmt.Fprintf(&b, " max_defer = %q\n", pick("1h", "26h", "40h"))
		}
	}
	busy := fmt.Sprintf(" on_busy {\n backoff = \"%dm\"\n max = \"2h\"\n }\n", 1+r.IntN(30))
	b.WriteString(pick(" sync {}\n", " snapshot {}\n", " notify = [notifier.webhook.ops]\n", " checkpoint {\n"+busy+" }\n",
		" until = wal.bytes < bytes(\"1MB\")\n checkpoint {\n"+busy+" }\n",
		" checkpoint {\n step \"passive\" {}\n"+busy+" }\n") + "}\n")
	return b.String()
}

// timed is a policy with its state and history at a time.
type timed struct {
	set    *Set
	now    time.Time
	states map[string]PolicyState
	past   *History
}

// look evaluates the policy now; an action ends at once, with the given result.
func (w *timed) look(s *collector.Sample, result ActionResult) (d PolicyDecision, acted bool) {
	s.At = w.now
	w.past.Add(s)
	all := w.set.Evaluate(Input{Now: w.now, Sample: s, History: w.past, SkipTree: true, SkipWords: true,
		Gap: 2 * time.Minute}, w.states)
	w.states = all.Next
	for range all.Actions {
		acted = true
		w.states = map[string]PolicyState{"p": w.set.Finished(w.states["p"], w.set.Policies[0], w.now, result)}
	}
	return all.Policies[0], acted
}

// While the measurements stay as they are, the policy acts at the time that `sqlwatch why`
// predicts, and does not act if it predicts none.
func TestEarliestIsTheMoment(t *testing.T) {
	t.Parallel()
	known, unknown := 0, 0
	for seed := range uint64(120) {
		r := rand.New(rand.NewPCG(7, seed))
		text := randomTimed(r)
		set, diags := parse(text)
		if diags.HasErrors() {
			continue // windows that never meet, and the like
		}
		w := &timed{set: set, past: set.NewHistory(), states: map[string]PolicyState{},
			now: time.Date(2026, 3, 20+r.IntN(12), r.IntN(24), r.IntN(60), 0, 0, time.UTC)}
		for range 1 + r.IntN(300) {
			s := sample(w.now, []int64{0, 200e6, 200e6, 200e6}[r.IntN(4)])
			w.look(s, ActionResult{Outcome: checkpoint.Outcome(1 + r.IntN(9)), Reclaimed: r.Int64N(1e8)})
			w.now = w.now.Add(time.Minute)
		}
		s := sample(w.now, []int64{0, 200e6, 200e6, 200e6, 200e6}[r.IntN(5)])
		s.Locks.WriteHeld = r.IntN(3) == 0
		d, acted := w.look(s, ActionResult{})
		told, reason := d.Earliest, d.Reason
		end := w.now.Add(2 * 24 * time.Hour)
		for !acted && w.now.Before(end) {
			w.now = w.now.Add(time.Minute)
			_, acted = w.look(s, ActionResult{})
		}
		switch {
		case told.IsZero() && acted:
			t.Errorf("seed %d: it acts at %s, which was not predicted (%s):\n%s", seed, w.now, reason, text)
		case told.IsZero():
			unknown++
		case !acted && told.Before(end):
			t.Errorf("seed %d: predicted to act at %s, but it did not (%s):\n%s", seed, told, reason, text)
		case acted && (told.After(w.now) || !told.After(w.now.Add(-time.Minute))):
			t.Errorf("seed %d: it acts at %s, predicted was %s (%s):\n%s", seed, w.now, told, reason, text)
		default:
			known++
		}
		if t.Failed() {
			return
		}
	}
	if known < 40 {
		t.Errorf("predicted %d times, not predicted %d times: the test proves little", known, unknown)
	}
}
