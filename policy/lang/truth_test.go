package lang

import "testing"

// Expressions follow Kleene's tables, which are tested in package truth.
func TestTruthTables(t *testing.T) {
	t.Parallel()
	// An unreadable database: wal.bytes is unknown.
	write := map[Truth]string{True: "true", False: "false", Unknown: "wal.bytes > 0"}
	truths := []Truth{False, Unknown, True}
	for _, a := range truths {
		if got := worth(t, "!("+write[a]+")"); got != a.Not() {
			t.Errorf("!%s is worth %s", write[a], got)
		}
		for _, b := range truths {
			for op, want := range map[string]Truth{" && ": a.And(b), " || ": a.Or(b)} {
				src := "(" + write[a] + ")" + op + "(" + write[b] + ")"
				if got := worth(t, src); got != want {
					t.Errorf("%s is worth %s, want %s", src, got, want)
				}
			}
		}
	}
}

// worth evaluates a condition on a database that cannot be read, both as translated code
// and with the expression library, which must agree.
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
