package worker

import "time"

// sayAgain is how often at most a trouble that lasts, or comes and goes, is logged.
const sayAgain = time.Minute

// Trouble decides what is logged of one that may last: its beginning, its end,
// and between them what it has become.
type Trouble struct {
	what string    // as logged; empty after its end
	said time.Time // when something was logged last
}

// Met reports whether a trouble of the kind what is to be logged.
func (t *Trouble) Met(what string, now time.Time) bool {
	if what == t.what || !t.said.IsZero() && now.Sub(t.said) < sayAgain {
		return false
	}
	t.what, t.said = what, now
	return true
}

// Over reports whether its end is to be logged: if its beginning was.
func (t *Trouble) Over() bool {
	was := t.what != ""
	t.what = ""
	return was
}

// What names the kind of what lasts, as it was logged; "" after its end.
func (t *Trouble) What() string { return t.what }
