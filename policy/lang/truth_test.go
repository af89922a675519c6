package lang

import "testing"

// Kleene's tables, as functions and as what expressions make of them: unknown is what
// it would be for both of the values it could have.
func TestTruthTables(t *testing.T) {
	t.Parallel()
	// An unreadable database: wal.bytes is unknown.
	write := map[Truth]string{True: "true", False: "false", Unknown: "wal.bytes > 0"}
	truths := []Truth{False, Unknown, True}
	both := func(f func(a, b bool) bool, a, b Truth) Truth {
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
	for _, a := range truths {
		if got, want := a.Not(), both(func(x, _ bool) bool { return !x }, a, True); got != want {
			t.Errorf("not %s is %s, want %s", a, got, want)
		}
		if got := worth(t, "!("+write[a]+")"); got != a.Not() {
			t.Errorf("!%s is worth %s", write[a], got)
		}
		for _, b := range truths {
			and := both(func(x, y bool) bool { return x && y }, a, b)
			or := both(func(x, y bool) bool { return x || y }, a, b)
			if a.and(b) != and || a.or(b) != or {
				t.Errorf("%s and %s: and %s, or %s; want %s, %s", a, b, a.and(b), a.or(b), and, or)
			}
			for op, want := range map[string]Truth{" && ": and, " || ": or} {
				src := "(" + write[a] + ")" + op + "(" + write[b] + ")"
				if got := worth(t, src); got != want {
					t.Errorf("%s is worth %s, want %s", src, got, want)
				}
			}
		}
	}
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

// worth evaluates a condition on a database that cannot be read, as code and through
// the library, which must agree.
func worth(t *testing.T, src string) Truth {
	t.Helper()
	p := NewProgram(scope())
	x, diags := compile(p, src, Bool)
	if diags.HasErrors() {
		t.Fatal(src, diags)
	}
	s := sample(start, 1e6)
	s.State, s.WAL.Known = 0, false
	got, _ := p.At(Moment{Now: start, Sample: s}).Truth(x)
	delete(p.codes, x)
	if library, _ := p.At(Moment{Now: start, Sample: s}).Truth(x); library != got {
		t.Errorf("%s: code %s, library %s", src, got, library)
	}
	return got
}
