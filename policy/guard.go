package policy

import (
	"fmt"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/policy/lang/amounts"
)

// guard checks every guard in order and keeps the refusals.
func (s *step) guard(f floors) {
	s.guardMode()
	s.guardPause()
	s.guardUnless()
	s.guardWindow()
	s.guardRest()
	s.guardHoldOff()
	if s.p.Kind == ActCheckpoint {
		s.guardReader()
		s.guardStall()
	}
	s.guardFloor(f)
}

// clock and date format a time in now's time zone, and name the zone.
func clock(now, t time.Time) string { return t.In(now.Location()).Format("15:04:05 MST") }

func date(now, t time.Time) string { return t.In(now.Location()).Format("2006-01-02 15:04:05 MST") }

func (s *step) guardMode() {
	if s.p.DryRun || s.e.set.DryRun {
		s.refuse(GuardMode, fmt.Sprintf("dry run: it would %s now if no other guard refused", s.p.Kind), time.Time{})
	}
}

func (s *step) guardPause() {
	if until := s.e.in.PausedUntil; s.p.Kind != ActNotify && s.e.in.Now.Before(until) {
		s.refuse(GuardPause, "an operator has paused actions until "+date(s.e.in.Now, until), until)
	}
}

func (s *step) guardUnless() {
	if s.p.unless == nil {
		return
	}
	switch t, why := s.values.Truth(s.p.unless); {
	case t == True:
		s.refuse(GuardUnless, "`unless` holds: "+s.values.Tree(s.p.unless).Summary(), time.Time{})
	case t == Unknown:
		s.refuse(GuardUnless, "`unless` is unknown, and an unknown never acts: "+
			orElse(why, s.values.Tree(s.p.unless).Summary()), time.Time{})
	}
}

func orElse(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (s *step) guardWindow() {
	if s.p.window == nil {
		return
	}
	now := s.e.in.Now
	st, why := s.values.Window(s.p.window)
	if st.Open == True {
		return
	}
	deadline := later(s.st.ArmedSince, s.armsAt).Add(s.p.MaxDefer)
	if s.p.MaxDefer > 0 && !now.Before(deadline) {
		return // it has waited long enough: better outside the window than never
	}
	opens, known := s.opensFrom(now)
	until := opens
	reason := "the window is not known to be open"
	switch {
	case st.Open == False && known:
		reason = s.p.outside(opens.Sub(now).Seconds())
	case st.Open == False:
		reason = "outside its window; when that opens is not known"
	case why != "":
		reason += ": " + why
	}
	if s.p.MaxDefer > 0 {
		reason += fmt.Sprintf("; max_defer lets it act at %s whatever the window", date(now, deadline))
		if until.IsZero() || deadline.Before(until) {
			until = deadline
		}
	}
	s.refuse(GuardWindow, reason, until)
}

// outside returns a sentence that says when the window opens.
func (p *Policy) outside(opensIn float64) string {
	last := p.closed.Load()
	if last == nil || last.opensIn != opensIn {
		last = &closedReason{opensIn, "outside its window, which opens in " + amounts.HumanSeconds(opensIn)}
		p.closed.Store(last)
	}
	return last.text
}

// guardRest makes the policy rest between two runs.
func (s *step) guardRest() {
	st := &s.st
	if !s.e.in.Now.Before(st.ReadyAt) {
		return
	}
	if st.Rest == Backing {
		s.refuse(GuardBackoff, fmt.Sprintf("the last run ended as %s (%d in a row); next try at %s",
			orElse(st.Outcome, "unknown"), st.Attempt, clock(s.e.in.Now, st.ReadyAt)), st.ReadyAt)
		return
	}
	s.refuse(GuardCooldown, "cooling down until "+clock(s.e.in.Now, st.ReadyAt), st.ReadyAt)
}

// guardHoldOff waits until the effect of something recent can be judged: that watching the
// database began, or that another policy acted on it.
func (s *step) guardHoldOff() {
	if s.p.HoldOff == 0 {
		return
	}
	now, since, what := s.e.in.Now, s.e.in.History.Unbroken(), "the watch of the database began"
	for i := range s.e.steps {
		if o := &s.e.steps[i]; o.p != s.p && o.p.Kind != ActNotify {
			if at := later(o.st.Started, o.st.Ended); at.After(since) {
				since, what = at, "policy "+o.p.Name+" acted"
			}
		}
	}
	if until := since.Add(s.p.HoldOff); !since.IsZero() && now.Before(until) {
		s.refuse(GuardHoldOff, fmt.Sprintf("%s at %s; it holds off until %s", what, clock(now, since),
			clock(now, until)), until)
	}
}

// guardReader refuses a TRUNCATE while a reader pins the WAL: TRUNCATE takes the write lock
// and then waits for readers, so it would stall writers for nothing.
func (s *step) guardReader() {
	r, w := s.e.sample.Readers, s.e.sample.WAL
	if !s.p.Ladder.Truncates() || r.Active == 0 || r.PinnedSince.IsZero() || r.OldestFrame >= w.Frames {
		return
	}
	if held := s.e.in.Now.Sub(r.PinnedSince); held >= ReaderPatience {
		s.refuse(GuardReader, fmt.Sprintf("%s keeps the WAL from frame %d of %d on, for %s; end that read transaction",
			reader(r.OldestPID, r.OldestCommand), r.OldestFrame, w.Frames, amounts.HumanSeconds(held.Seconds())), time.Time{})
	}
}

func reader(pid int, command string) string {
	if pid == 0 {
		return "a reader"
	}
	return fmt.Sprintf("reader %d (%s)", pid, command)
}

// guardStall leaves out the TRUNCATE if it would stall writers beyond the budget.
// PASSIVE harms nobody: it copies the WAL into the database, so that the next writer
// starts at the WAL's beginning and the WAL grows no further. The policy is refused
// only if PASSIVE has nothing to do.
func (s *step) guardStall() {
	if !s.p.Ladder.Truncates() || s.stallBudget <= 0 {
		return
	}
	stall := s.st.Stalls.Expect(s.e.in.Now.Sub(s.st.Truncation))
	if stall <= s.stallBudget {
		return
	}
	reason := fmt.Sprintf("the last truncations suggest that one would hold writers up for about %s, the budget is %s; "+
		"raise stall_budget, or look at what makes the disk slow", amounts.HumanSeconds(stall.Seconds()), s.stallBudget)
	w := s.e.sample.WAL
	if int64(w.LagFrames())*int64(w.PageSize) < MinTruncateBytes {
		s.refuse(GuardStall, reason, s.st.Truncation.Add(s.st.Stalls.Fits(s.stallBudget)))
		return
	}
	s.leftOut = reason
}

// floors is when actions on a database last began, over all policies.
type floors struct{ checkpoint, truncate, backup time.Time }

func (f *floors) add(s *step) {
	switch s.p.Kind {
	case ActCheckpoint:
		f.checkpoint = later(f.checkpoint, s.st.Started)
		f.truncate = later(f.truncate, s.st.Truncation)
	case ActSnapshot, ActVerify:
		f.backup = later(f.backup, s.st.Started)
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// guardFloor enforces the limits that no policy can override.
func (s *step) guardFloor(f floors) {
	if s.blind() {
		s.refuse(GuardFloor, "the database cannot be read now ("+orElse(s.e.in.Sample.Err, s.e.sample.State.String())+
			"): nothing is done to what is not known", time.Time{})
		return
	}
	last, interval := s.st.Started, MinCheckpointInterval
	switch s.p.Kind {
	case ActCheckpoint:
		last = f.checkpoint
		if s.p.Ladder.Truncates() && s.leftOut == "" {
			if size := s.e.sample.WAL.SizeBytes; size < MinTruncateBytes {
				s.refuse(GuardFloor, fmt.Sprintf("a WAL of %s is not worth a TRUNCATE; the floor is %s",
					amounts.HumanBytes(float64(size)), amounts.HumanBytes(MinTruncateBytes)), time.Time{})
				return
			}
			s.floor(f.truncate, MinTruncateInterval)
		}
	case ActSnapshot, ActVerify:
		last, interval = f.backup, MinBackupInterval
	case ActNotify:
		interval = MinNotifyInterval
	}
	s.floor(last, interval)
}

// blind refuses an action whose object is not known well enough, whatever the condition says
// ("when = true" reads nothing).
func (s *step) blind() bool {
	r := s.e.sample
	if s.p.Kind == ActCheckpoint {
		return r.State != collector.StateUp || !r.WAL.Known
	}
	return !s.e.fresh
}

func (s *step) floor(last time.Time, interval time.Duration) {
	if next := last.Add(interval); !last.IsZero() && s.e.in.Now.Before(next) {
		s.refuse(GuardFloor, fmt.Sprintf("the last %s began less than %s ago", s.p.Kind, interval), next)
	}
}
