package truth

import "testing"

// Kleene's tables: a result is unknown if it depends on the value that an unknown operand
// really has.
func TestTables(t *testing.T) {
	t.Parallel()
	truths := []Truth{False, Unknown, True}
	for _, a := range truths {
		if got, want := a.Not(), both(func(x, _ bool) bool { return !x }, a, True); got != want {
			t.Errorf("not %s is %s, want %s", a, got, want)
		}
		if got := Of(a.Float()); got != a {
			t.Errorf("%s is %v, and that is %s", a, a.Float(), got)
		}
		for _, b := range truths {
			if got, want := a.And(b), both(func(x, y bool) bool { return x && y }, a, b); got != want {
				t.Errorf("%s and %s is %s, want %s", a, b, got, want)
			}
			if got, want := a.Or(b), both(func(x, y bool) bool { return x || y }, a, b); got != want {
				t.Errorf("%s or %s is %s, want %s", a, b, got, want)
			}
		}
	}
}

// both returns the result of f if it is the same for all values that a and b could have,
// else Unknown.
func both(f func(x, y bool) bool, a, b Truth) Truth {
	seen := map[bool]bool{}
	for _, x := range could(a) {
		for _, y := range could(b) {
			seen[f(x, y)] = true
		}
	}
	switch {
	case seen[true] && seen[false]:
		return Unknown
	case seen[true]:
		return True
	}
	return False
}

// could returns the values that a truth may have.
func could(t Truth) []bool {
	switch t {
	case True:
		return []bool{true}
	case False:
		return []bool{false}
	}
	return []bool{false, true}
}
