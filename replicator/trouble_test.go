package replicator

import (
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/capture"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// TestTrouble_S2: an outage is a line when it begins and one when it ends; a
// trouble that changes its face, or comes and goes, is at most one a minute.
func TestTrouble_S2(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	var lines int
	var tr trouble
	met := func(what string) {
		if tr.met(what, now) {
			lines++
		}
	}
	for range 3600 { // two hours, an attempt every two seconds
		met("unavailable")
		now = now.Add(2 * time.Second)
	}
	if lines != 1 {
		t.Errorf("an outage of two hours is %d lines before its end, want 1", lines)
	}
	if !tr.over() || tr.over() {
		t.Error("its end is one line, and there is one end")
	}
	lines = 0
	for i := range 3600 { // now a timeout, now a refusal
		met([]string{"timeout", "unavailable"}[i%2])
		now = now.Add(2 * time.Second)
	}
	if lines < 60 || lines > 120 {
		t.Errorf("two hours of two troubles by turns are %d lines, want one a minute", lines)
	}
	lines = 0
	for i := range 3600 { // every other attempt succeeds
		if i%2 == 0 {
			met("unavailable")
		} else if tr.over() {
			lines++
		}
		now = now.Add(2 * time.Second)
	}
	if lines > 250 {
		t.Errorf("two hours of a store that comes and goes are %d lines, want two a minute at most", lines)
	}
}

// TestLag_S2_captureStopped: a replica that has everything captured is not up to date
// while capture has stopped.
func TestLag_S2_captureStopped(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	r, err := New(Options{
		Name: "app", StateDir: t.TempDir(), Files: func() *dbfile.Files { return nil }, Clock: func() time.Time { return now },
		Replicas: []ReplicaOptions{{Name: "memory.a", Store: storetest.NewMemory()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := spool.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r.segments.Store(s)
	r.replicas[0].known = true
	now = now.Add(time.Minute)
	for _, tt := range []struct {
		captured error
		want     float64
	}{{nil, 0}, {capture.ErrSpoolFull, 60}, {ErrNotOpen, 0}} {
		r.note(tt.captured)
		if got := r.Replicas()[0].LagSeconds; got != tt.want {
			t.Errorf("lag after %v: %v s, want %v", tt.captured, got, tt.want)
		}
	}
}

// TestRecent_isBounded: while compaction fails, the newest files are kept for it.
func TestRecent_isBounded(t *testing.T) {
	t.Parallel()
	p := &replica{times: map[string]time.Time{}}
	const n = 3 * maxRecent
	for txid := ltx.TXID(1); txid <= n; txid++ {
		f := store.LTXFile{MinTXID: txid, MaxTXID: txid, Object: store.Object{Key: store.LTXKey(0, txid, txid)}}
		p.times[f.Object.Key] = time.Unix(0, 0)
		p.remember(f)
	}
	if got := len(p.recent); got > maxRecent || len(p.times) != got {
		t.Errorf("%d files and %d times are kept, want at most %d", got, len(p.times), maxRecent)
	}
	if got := p.recent[len(p.recent)-1].MaxTXID; got != n {
		t.Errorf("the newest file kept is %d, want %d", got, n)
	}
}
