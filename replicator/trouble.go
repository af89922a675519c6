package replicator

import "time"

// sayAgain is how often at most a trouble that lasts, or comes and goes, is logged.
const sayAgain = time.Minute

// trouble decides what is logged of one that may last: its beginning, its end,
// and between them what it has become.
type trouble struct {
	what string    // as logged; empty after its end
	said time.Time // when something was logged last
}

// met reports whether a trouble of the kind what is to be logged.
func (t *trouble) met(what string, now time.Time) bool {
	if what == t.what || !t.said.IsZero() && now.Sub(t.said) < sayAgain {
		return false
	}
	t.what, t.said = what, now
	return true
}

// over reports whether its end is to be logged: if its beginning was.
func (t *trouble) over() bool {
	was := t.what != ""
	t.what = ""
	return was
}
