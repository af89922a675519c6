package collector

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
)

func TestAdvance(t *testing.T) {
	index := func(salt1, salt2, change, frames uint32) dbfile.WALIndex {
		return dbfile.WALIndex{Salt1: salt1, Salt2: salt2, Change: change, MaxFrame: frames}
	}
	tests := []struct {
		name       string
		prev, next dbfile.WALIndex
		rebuilt    bool
		want       delta
	}{
		{"nothing", index(1, 2, 10, 50), index(1, 2, 10, 50), false, delta{}},
		{"one commit", index(1, 2, 10, 50), index(1, 2, 11, 53), false, delta{1, 3, 0}},
		{"many commits", index(1, 2, 10, 50), index(1, 2, 110, 250), false, delta{100, 200, 0}},
		{"change counter wraps", index(1, 2, math.MaxUint32-1, 50), index(1, 2, 3, 60), false, delta{5, 10, 0}},
		{"first commit", index(0, 0, 0, 0), index(77, 88, 1, 4), false, delta{1, 4, 0}},
		{"first commits, several generations", index(0, 0, 0, 0), index(77, 88, 9, 4), false, delta{9, 9, 0}},
		{"TRUNCATE of a full WAL", index(1, 2, 10, 50), index(2, 9, 10, 0), false, delta{0, 0, 1}},
		{"TRUNCATE of an empty WAL", index(1, 2, 10, 0), index(2, 9, 10, 0), false, delta{}},
		{"TRUNCATE, then a fresh connection writes", index(2, 9, 10, 0), index(500, 600, 11, 2), false, delta{1, 2, 0}},
		{"both unseen", index(1, 2, 10, 50), index(500, 600, 11, 2), false, delta{1, 2, 1}},
		{"restart by the writer", index(1, 2, 10, 1000), index(2, 9, 11, 3), false, delta{1, 3, 1}},
		{"salt-1 wraps", index(math.MaxUint32, 2, 10, 1000), index(0, 9, 11, 3), false, delta{1, 3, 1}},
		{"three restarts", index(1, 2, 10, 1000), index(4, 9, 3010, 3), false, delta{3000, 3000, 3}},
		{"more steps of salt-1 than commits", index(1, 2, 10, 1000), index(4, 9, 11, 3), false, delta{1, 3, 1}},
		{"salt-1 went back", index(9, 2, 10, 1000), index(4, 9, 11, 3), false, delta{1, 3, 1}},
		{"rebuilt after a crash, nothing new", index(1, 2, 10, 50), index(1, 2, 0, 50), false, delta{}},
		{"rebuilt, commits after", index(1, 2, 10, 50), index(1, 2, 3, 56), false, delta{3, 6, 0}},
		{"rebuilt, one unseen commit before the crash", index(1, 2, 10, 50), index(1, 2, 0, 56), false, delta{1, 6, 0}},
		{"rebuilt and seen, counter already higher", index(1, 2, 2, 50), index(1, 2, 5, 60), true, delta{5, 10, 0}},
		{"last close, database at rest", index(1, 2, 10, 50), index(0, 0, 0, 0), true, delta{0, 0, 1}},
		{"last close of an empty WAL", index(1, 2, 10, 0), index(0, 0, 0, 0), true, delta{}},
		{"reopened after the last close, unseen", index(1, 2, 10, 50), index(7, 8, 4, 9), true, delta{4, 9, 1}},
		{"rebuilt with another WAL, not seen missing", index(1, 2, 10, 50), index(7, 8, 4, 9), false, delta{4, 9, 1}},
		{"older files put back", index(1, 2, 10, 50), index(1, 2, 8, 40), false, delta{}},
		{"older files put back, seen missing", index(1, 2, 10, 50), index(1, 2, 8, 40), true, delta{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := advance(tt.prev, tt.next, tt.rebuilt); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// walModel changes a wal-index as SQLite does, and counts what really happened.
type walModel struct {
	rng     *rand.Rand
	x       dbfile.WALIndex
	truth   delta
	idle    uint64 // resets of an empty WAL
	random  bool   // the next first frame gets two random salts, as from a fresh connection
	rebuilt bool
}

func (m *walModel) commit(frames uint32) {
	if m.x.MaxFrame == 0 && m.random {
		m.x.Salt1, m.x.Salt2 = m.rng.Uint32(), m.rng.Uint32()
		m.random = false
	}
	m.x.Change++
	m.x.MaxFrame += frames
	m.truth.commits++
	m.truth.frames += uint64(frames)
}

func (m *walModel) reset() {
	if m.x.MaxFrame > 0 {
		m.truth.resets++
	} else {
		m.idle++
	}
	m.x.Salt1++
	m.x.Salt2 = m.rng.Uint32()
	m.x.MaxFrame = 0
}

func (m *walModel) crash() {
	m.x.Change = 0
	m.rebuilt = true
}

func (m *walModel) lastClose() {
	if m.x.MaxFrame > 0 {
		m.truth.resets++
	}
	m.x = dbfile.WALIndex{}
	m.random, m.rebuilt = true, true
}

// FuzzTotals samples a simulated database after random steps: the totals never exceed
// what really happened, and commits are exact unless a wal-index was lost.
func FuzzTotals(f *testing.F) {
	f.Add(uint64(1), []byte{0, 0, 9, 1, 0, 9})
	f.Add(uint64(2), []byte{0, 9, 2, 9, 0, 0, 9, 3, 9, 0, 9})
	f.Add(uint64(3), []byte{4, 1, 0, 0, 9, 1, 1, 1, 0, 9})
	f.Fuzz(func(t *testing.T, seed uint64, steps []byte) {
		m := &walModel{rng: rand.New(rand.NewPCG(seed, 1)), random: true}
		m.x.Change = m.rng.Uint32() // so that it wraps now and then
		if seed%2 == 0 {
			m.x.Change = math.MaxUint32 - 3
		}
		prev := m.x
		var got delta
		lost := false
		for _, step := range steps {
			switch step % 10 {
			case 0, 4, 5, 6:
				m.commit(1 + m.rng.Uint32N(20))
			case 1:
				m.reset()
				m.commit(1 + m.rng.Uint32N(20))
			case 2:
				m.reset()
			case 3:
				m.crash()
				lost = true
			case 7:
				m.lastClose()
				lost = true
			case 8:
				m.random = true
			case 9:
				d := advance(prev, m.x, m.rebuilt)
				got = delta{got.commits + d.commits, got.frames + d.frames, got.resets + d.resets}
				prev, m.rebuilt = m.x, false
				check(t, got, m, lost)
			}
		}
	})
}

func check(t *testing.T, got delta, m *walModel, lost bool) {
	t.Helper()
	truth := m.truth
	if got.commits > truth.commits || got.frames > truth.frames || got.resets > truth.resets+m.idle {
		t.Fatalf("counted %+v, more than the truth %+v", got, truth)
	}
	if !lost && got.commits != truth.commits {
		t.Fatalf("counted %d commits of %d, though no wal-index was lost", got.commits, truth.commits)
	}
}

// TestTotalsAreExactWhenLookedAtOften samples after every step: then nothing is estimated.
func TestTotalsAreExactWhenLookedAtOften(t *testing.T) {
	for seed := range uint64(200) {
		m := &walModel{rng: rand.New(rand.NewPCG(seed, 2)), random: true}
		prev := m.x
		var got delta
		for range 500 {
			switch m.rng.IntN(12) {
			default:
				m.commit(1 + m.rng.Uint32N(20))
			case 0:
				m.reset()
			case 1:
				m.crash()
			case 2:
				m.lastClose()
			case 3:
				m.random = true
			}
			d := advance(prev, m.x, m.rebuilt)
			got = delta{got.commits + d.commits, got.frames + d.frames, got.resets + d.resets}
			prev, m.rebuilt = m.x, false
		}
		if got != m.truth {
			t.Fatalf("seed %d: counted %+v, truth %+v", seed, got, m.truth)
		}
	}
}

func TestLagAge(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	steps := []struct {
		name               string
		second             int
		frames, backfilled uint32
		want               time.Time
	}{
		{"empty", 0, 0, 0, time.Time{}},
		{"first frames", 1, 10, 0, at(1)},
		{"more frames", 2, 20, 0, at(1)},
		{"partial checkpoint of the first", 3, 20, 10, at(2)},
		{"in the middle of a mark", 4, 30, 15, at(2)},
		{"second backfilled", 5, 30, 20, at(4)},
		{"all backfilled", 6, 30, 30, time.Time{}},
		{"D43 backfill above the head, as in a reset", 7, 5, 30, time.Time{}},
	}
	var l lag
	for _, s := range steps {
		if got := l.observe(at(s.second), s.frames, s.backfilled); !got.Equal(s.want) {
			t.Errorf("%s: oldest %v, want %v", s.name, got, s.want)
		}
	}
	l.clear()
	if got := l.observe(at(9), 3, 0); !got.Equal(at(9)) {
		t.Errorf("new generation: oldest %v, want %v", got, at(9))
	}
}

func TestLagIsBounded(t *testing.T) {
	start := time.Unix(1000, 0)
	var l lag
	for i := range 10_000 {
		l.observe(start.Add(time.Duration(i)*time.Second), uint32(i+1), 0)
	}
	if len(l.marks) > lagMarks {
		t.Errorf("%d marks, bound is %d", len(l.marks), lagMarks)
	}
	// Frame 5,001 was first seen in second 5,000: its estimated age may be too high, never
	// too low.
	got := l.observe(start.Add(10_000*time.Second), 10_000, 5_000)
	if got.After(start.Add(5_000*time.Second)) || got.IsZero() {
		t.Errorf("oldest %v is younger than the truth", got.Sub(start))
	}
}

func TestHeldRatio(t *testing.T) {
	var h heldRatio
	now := time.Unix(1000, 0)
	if got := h.observe(now, true); got != 1 {
		t.Errorf("first sample: %v, want 1", got)
	}
	var got float64
	for i := range 6000 { // ten minutes, held in one of four samples
		now = now.Add(100 * time.Millisecond)
		got = h.observe(now, i%4 == 0)
	}
	if math.Abs(got-0.25) > 0.01 {
		t.Errorf("held in a quarter of the samples: %v", got)
	}
	for range 6000 {
		now = now.Add(100 * time.Millisecond)
		got = h.observe(now, false)
	}
	if got > 0.001 {
		t.Errorf("ten minutes after the last hold: %v", got)
	}
	if got = h.observe(now.Add(-time.Hour), true); got > 1 || math.IsNaN(got) {
		t.Errorf("clock stepped back: %v", got) // P8
	}
}
