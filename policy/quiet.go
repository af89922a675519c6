package policy

import (
	"fmt"
	"math"
	"time"

	"github.com/sqlwatch/sqlwatch/policy/lang"
	"github.com/sqlwatch/sqlwatch/policy/lang/amounts"
)

// Quiet is what a learned window knows of a database: its week, hour by hour, and why it is
// open or closed now.
type Quiet struct {
	DB      string    `json:"db"`
	Window  string    `json:"window"`
	At      time.Time `json:"at"`
	Zone    string    `json:"timezone"` // the time zone of the week
	Signal  string    `json:"signal"`   // as written
	Open    Truth     `json:"open"`
	Changes time.Time `json:"changes,omitzero"` // when it next opens or closes; zero: not known
	Why     string    `json:"why"`              // one sentence

	Learned   bool      `json:"learned"` // it has seen enough; until then the fallback applies
	Since     time.Time `json:"since,omitzero"`
	SeenSecs  float64   `json:"seen_seconds"`  // how much of the week it has seen
	NeedsSecs float64   `json:"needs_seconds"` // how long it must have watched
	Level     *float64  `json:"level"`         // the signal counts as quiet up to this value
	Expected  *float64  `json:"expected"`      // the signal's usual value at this time of the week
	Live      *float64  `json:"live"`          // the signal's value now
	Fallback  string    `json:"fallback,omitempty"`
	Except    []string  `json:"except"`
	Hours     []Hour    `json:"hours"` // of the week, from Monday 00:00: 168
}

// Hour is what a learned window knows of one hour of the week.
type Hour struct {
	Day      string   `json:"day"`  // Monday to Sunday
	Hour     int      `json:"hour"` // 0 to 23
	Value    *float64 `json:"value"`
	Quiet    Truth    `json:"quiet"`    // whether the whole of it counts as quiet; unknown: never seen
	Share    float64  `json:"share"`    // of its quarters that count as quiet
	Evidence int      `json:"evidence"` // in how many weeks it was seen; 0: derived from the same hour of other days
}

// HoursOfWeek is how many hours a week has.
const HoursOfWeek = 7 * 24

// Learned lists the windows that learn, sorted by name.
func (s *Set) Learned() (names []string) {
	for _, w := range s.windows.Order {
		if w.Learn != nil {
			names = append(names, w.Name)
		}
	}
	return names
}

// Quiet returns what a learned window knows of a database; ok is false for any other kind of window.
func (s *Set) Quiet(window string, in Input) (q Quiet, ok bool) {
	w := s.Windows[window]
	if w == nil || w.Learn == nil {
		return Quiet{}, false
	}
	e := s.newEvaluation(in)
	defer s.release(e)
	l := w.Learn
	st := s.windows.LearnedState(e.values, l, in.Now)
	know := e.values.Learning(l.Signal, l.Location, l.Quantile, l.MinHistory)
	q = Quiet{DB: in.Sample.DB, Window: window, At: in.Now, Zone: l.Location.String(), Signal: e.values.Source(l.Signal),
		Open: st.Open, Learned: know.Learned, Since: know.Since, SeenSecs: know.Seen.Seconds(),
		NeedsSecs: l.MinHistory.Seconds(), Level: known(know.Level), Expected: known(know.Expected), Live: known(know.Live),
		Fallback: l.Fallback, Except: append([]string{}, l.Except...), Hours: hoursOf(know)}
	change := st.OpensIn
	if st.Open == True {
		change = st.ClosesIn
	}
	if !math.IsNaN(change) {
		q.Changes = in.Now.Add(seconds(change))
	}
	q.Why = s.whyQuiet(l, st, know, in.Now)
	return q, true
}

// known returns a pointer to a value, or nil if it is not known.
func known(v float64) *float64 {
	if math.IsNaN(v) {
		return nil
	}
	return &v
}

// hoursOf combines the quarters of the week into hours.
func hoursOf(know lang.Learning) []Hour {
	hours := make([]Hour, HoursOfWeek)
	quarters := len(know.Week) / HoursOfWeek
	for i := range hours {
		h := Hour{Day: time.Weekday((i/24 + 1) % 7).String(), Hour: i % 24}
		sum, seen, quiet := 0.0, 0, 0
		for k := i * quarters; k < (i+1)*quarters; k++ {
			v := know.Week[k]
			if math.IsNaN(v) {
				continue
			}
			if seen == 0 || know.Weeks[k] < h.Evidence {
				h.Evidence = know.Weeks[k]
			}
			sum, seen = sum+v, seen+1
			if v <= know.Level {
				quiet++
			}
		}
		if seen > 0 {
			h.Value, h.Share, h.Quiet = known(sum/float64(seen)), float64(quiet)/float64(seen), False
			if quiet == seen {
				h.Quiet = True
			}
		}
		hours[i] = h
	}
	return hours
}

// whyQuiet returns one sentence that says why a learned window is open or closed.
func (s *Set) whyQuiet(l *Learn, st lang.WindowState, know lang.Learning, now time.Time) string {
	for _, name := range l.Except {
		if s.Windows[name].At(now).Open == True {
			return fmt.Sprintf("closed: window.%s is open, which except names", name)
		}
	}
	if !know.Learned {
		holds := "nothing stands in for it, so that it is not known to be open"
		if l.Fallback != "" {
			holds = fmt.Sprintf("until then window.%s holds, which is %s", l.Fallback, openWord(st.Open))
		}
		if know.Since.IsZero() {
			return "its signal has not been seen yet; " + holds
		}
		return fmt.Sprintf("it has watched for %s and seen %s of the week; it needs %s (min_history) and three quarters "+
			"of them; %s", amounts.HumanSeconds(now.Sub(know.Since).Seconds()), amounts.HumanSeconds(know.Seen.Seconds()),
			amounts.HumanSeconds(l.MinHistory.Seconds()), holds)
	}
	local := now.In(l.Location)
	at := fmt.Sprintf("%s %02d:%02d", local.Weekday(), local.Hour(), local.Minute()/15*15)
	switch {
	case math.IsNaN(know.Live):
		return "its signal is not known now"
	case st.Open == True:
		return fmt.Sprintf("open: at %s the signal is usually %.4g and is %.4g now; up to %.4g counts as quiet", at,
			know.Expected, know.Live, know.Level)
	case know.Expected <= know.Level:
		return fmt.Sprintf("closed: %s is usually quiet (%.4g), but the signal is %.4g now; up to %.4g counts as quiet", at,
			know.Expected, know.Live, know.Level)
	}
	return fmt.Sprintf("closed: at %s the signal is usually %.4g; up to %.4g counts as quiet", at, know.Expected,
		know.Level)
}

func openWord(t Truth) string {
	switch t {
	case True:
		return "open"
	case False:
		return "closed"
	}
	return "not known to be open"
}
