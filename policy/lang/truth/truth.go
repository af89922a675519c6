// Package truth is Kleene's logic of three values: what is not known is unknown, and stays
// so until the rest decides alone.
package truth

import "math"

// Truth is a Kleene truth value.
type Truth int8

// The truth values. The zero value is Unknown.
const (
	Unknown Truth = iota
	False
	True
)

// String returns "unknown", "false" or "true".
func (t Truth) String() string {
	switch t {
	case True:
		return "true"
	case False:
		return "false"
	}
	return "unknown"
}

// MarshalText encodes the value by its name.
func (t Truth) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// Float returns 1, 0 or, for Unknown, NaN.
func (t Truth) Float() float64 {
	switch t {
	case True:
		return 1
	case False:
		return 0
	}
	return math.NaN()
}

// Of returns the truth whose Float is f; every other number is true.
func Of(f float64) Truth {
	switch {
	case math.IsNaN(f):
		return Unknown
	case f == 0:
		return False
	}
	return True
}

// Not returns Kleene's negation.
func (t Truth) Not() Truth {
	switch t {
	case True:
		return False
	case False:
		return True
	}
	return Unknown
}

// And returns Kleene's conjunction.
func (t Truth) And(u Truth) Truth {
	switch {
	case t == False || u == False:
		return False
	case t == True && u == True:
		return True
	}
	return Unknown
}

// Or returns Kleene's disjunction.
func (t Truth) Or(u Truth) Truth { return t.Not().And(u.Not()).Not() }
