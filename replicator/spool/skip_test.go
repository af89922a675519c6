package spool

import (
	"os"
	"slices"
	"testing"

	"github.com/superfly/ltx"
)

// TestSkip_I9: segments that wait to be shipped are kept when the position advances without a
// segment, over restarts and partial releases, and released ones do not come back.
func TestSkip_I9(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := newSpool(t, dir)
	want := func(what string, last ltx.TXID, held ...ltx.TXID) {
		t.Helper()
		for _, again := range []bool{false, true} {
			if again {
				s = newSpool(t, dir)
			}
			var bytes int64
			for _, segment := range s.List() {
				bytes += segment.Size
			}
			if got := txids(s); !slices.Equal(got, held) || s.Last() != last || s.Bytes() != bytes {
				t.Fatalf("%s, opened again: %v: %v of %d bytes to %d, want %v to %d", what, again, got, s.Bytes(), s.Last(),
					held, last)
			}
		}
	}
	for txid := range ltx.TXID(3) {
		add(t, s, txid+1)
	}
	if err := s.Skip(Position{TXID: 4, PageSize: 1024}, true); err != nil {
		t.Fatal(err)
	}
	want("skipped", 4, 1, 2, 3)
	if p := s.Position(); p.PageSize != 1024 {
		t.Errorf("position %+v", p)
	}
	if err := s.Release(1); err != nil {
		t.Fatal(err)
	}
	want("released in part", 4, 2, 3)
	p := s.Position()
	p.Doubt = "why"
	if err := s.Restate(p); err != nil {
		t.Fatal(err)
	}
	want("restated", 4, 2, 3)
	if s.Position().Doubt != "why" {
		t.Error("the doubt is gone")
	}
	add(t, s, 5)
	want("goes on", 5, 2, 3, 5)
	if err := s.Skip(Position{TXID: 6, PageSize: 512}, true); err != nil {
		t.Fatal(err)
	}
	add(t, s, 7)
	want("skipped again", 7, 2, 3, 5, 7)
	if err := s.Release(6); err != nil {
		t.Fatal(err)
	}
	want("released to the position", 7, 7)
	if err := s.Release(7); err != nil {
		t.Fatal(err)
	}
	want("released", 7)
	add(t, s, 8)
	if err := s.Skip(Position{TXID: 9, PageSize: 512}, false); err != nil {
		t.Fatal(err)
	}
	want("not kept", 9)
}

// TestRestate_unwritten: a position that could not be written does not replace the one before.
func TestRestate_unwritten(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]func(*Spool){
		"of a segment": func(s *Spool) { add(t, s, 1) },
		"of none":      func(*Spool) {},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := newSpool(t, dir)
			before(s)
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			p := s.Position()
			p.Doubt = "why"
			if err := s.Restate(p); err == nil || s.Position().Doubt != "" {
				t.Errorf("%v, position %+v", err, s.Position())
			}
		})
	}
}
