package worker

import "time"

// sayAgain is the least time between two log lines about trouble that lasts, or comes and goes.
const sayAgain = time.Minute

// Trouble decides what is logged about an error that may last: its beginning, its end, and
// each change of its kind in between.
type Trouble struct {
	what string    // the kind last logged; "" after its end
	said time.Time // when it was last logged
}

// Met reports whether an error of the kind what is to be logged now.
func (t *Trouble) Met(what string, now time.Time) bool {
	if what == t.what || !t.said.IsZero() && now.Sub(t.said) < sayAgain {
		return false
	}
	t.what, t.said = what, now
	return true
}

// Over notes the end of the trouble and reports whether to log it: only if the beginning was.
func (t *Trouble) Over() bool {
	was := t.what != ""
	t.what = ""
	return was
}
