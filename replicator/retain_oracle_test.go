package replicator

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/compact"
	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// model is a replica as a list of files, written as shipping does and maintained with
// catalog.NextWindow and catalog.Unneeded. It also knows every batch, so that it can serve as an
// oracle.
type model struct {
	rnd     *rand.Rand
	now     time.Time
	files   []store.LTXFile
	at      map[string]time.Time
	done    map[int]ltx.TXID
	batches []batchEnd // all that were ever shipped, ascending
	txid    ltx.TXID
	last    time.Time // of the newest batch
	doomed  map[string]time.Time
	options RetentionOptions
	broken  string
}

type batchEnd struct {
	txid ltx.TXID
	at   time.Time
	lone bool // what came before it was never shipped
}

func newModel(seed uint64) *model {
	m := &model{
		rnd: rand.New(rand.NewPCG(seed, 1)), now: time.Date(2024, 3, 1, 12, 0, 0, 0, time.UTC),
		at: map[string]time.Time{}, done: map[int]ltx.TXID{}, doomed: map[string]time.Time{},
	}
	m.options = RetentionOptions{Keep: time.Duration(5+m.rnd.IntN(180)) * time.Minute,
		Grace: time.Duration(m.rnd.IntN(10)) * time.Minute}
	if seed%2 == 1 {
		m.options.Thin = []time.Duration{
			time.Duration(1+m.rnd.IntN(10)) * time.Minute,
			time.Duration(m.rnd.IntN(60)) * time.Minute,
			time.Duration(m.rnd.IntN(120)) * time.Minute,
		}
	}
	return m
}

func (m *model) add(level int, min, max ltx.TXID, at time.Time) {
	key := store.LTXKey(level, min, max)
	m.files = append(m.files, store.LTXFile{Level: level, MinTXID: min, MaxTXID: max,
		Object: store.Object{Key: key, Size: 1000}})
	m.at[key] = at
}

// ship adds a batch and, now and then, a snapshot, the beginning of a new chain, or a hole before
// the batch.
func (m *model) ship() {
	m.now = m.now.Add(time.Duration(m.rnd.ExpFloat64() * float64(20*time.Second)))
	if m.rnd.IntN(12) == 0 {
		m.now = m.now.Add(time.Duration(m.rnd.IntN(40)) * time.Minute)
	}
	m.last = m.last.Add(time.Millisecond)
	if at := m.now.Add(-time.Duration(m.rnd.IntN(900)) * time.Millisecond); at.After(m.last) {
		m.last = at
	}
	lone := false
	from := m.txid + 1
	m.txid += ltx.TXID(1 + m.rnd.IntN(3))
	switch n := m.rnd.IntN(40); {
	case n == 0 && m.txid > 3: // a new owner
		m.txid = custody.LeapOver(m.txid) + 1
		fallthrough
	case len(m.files) == 0, n == 1: // the whole database
		lone = m.txid != from
		m.add(store.SnapshotLevel, 1, m.txid, m.last)
	case n < 5:
		m.add(0, from, m.txid, m.last)
		m.add(store.SnapshotLevel, 1, m.txid, m.last)
	default:
		m.add(0, from, m.txid, m.last)
	}
	m.batches = append(m.batches, batchEnd{m.txid, m.last, lone})
}

func (m *model) compact() {
	for i, interval := range compact.Intervals() {
		level := i + 1
		for {
			w := catalog.NextWindow(m.files, level, m.done[level], interval, m.now.Add(-2*time.Second),
				func(f store.LTXFile) time.Time { return m.at[f.Object.Key] })
			if len(w.Inputs) > 1 {
				last := w.Inputs[len(w.Inputs)-1]
				m.add(level, w.Inputs[0].MinTXID, last.MaxTXID, m.at[last.Object.Key])
				for k, f := range w.Inputs[1:] {
					if f.MinTXID != w.Inputs[k].MaxTXID+1 {
						m.broken = (fmt.Sprintf("inputs %v are not contiguous", w.Inputs))
					}
				}
			}
			m.done[level] = w.Until
			if len(w.Inputs) == 0 {
				break
			}
		}
	}
}

func (m *model) retain() {
	var files []catalog.Dated
	for _, f := range m.files {
		files = append(files, catalog.Dated{LTXFile: f, At: m.at[f.Object.Key]})
	}
	sort.Slice(files, func(i, j int) bool { return files[i].Object.Key < files[j].Object.Key })
	wanted := catalog.Sift(slices.DeleteFunc(slices.Clone(files), func(f catalog.Dated) bool {
		return f.Level != store.SnapshotLevel
	}), m.options.Keep, m.options.Thin, m.now)
	files = slices.DeleteFunc(files, func(f catalog.Dated) bool { return !wanted(f) })
	doomed := map[string]time.Time{}
	gone := map[string]bool{}
	for _, f := range catalog.Unneeded(files, m.options.Keep, m.options.Thin, m.now, nil) {
		since, ok := m.doomed[f.Object.Key]
		if !ok {
			since = m.now
		}
		doomed[f.Object.Key] = since
		gone[f.Object.Key] = m.now.Sub(since) >= m.options.Grace
	}
	m.doomed = doomed
	m.files = slices.DeleteFunc(m.files, func(f store.LTXFile) bool { return gone[f.Object.Key] })
}

// restorable returns every TXID that a plan reaches by the planner's rule: the newest snapshot at
// or before it, then any chain of files. It tries all of them.
func (m *model) restorable() map[ltx.TXID]bool {
	var snaps []ltx.TXID
	for _, f := range m.files {
		if f.Snapshot() {
			snaps = append(snaps, f.MaxTXID)
		}
	}
	slices.Sort(snaps)
	out := map[ltx.TXID]bool{}
	for i, s := range snaps {
		limit := ltx.TXID(1 << 62)
		if i+1 < len(snaps) {
			limit = snaps[i+1] - 1
		}
		reached := map[ltx.TXID]bool{s: true}
		for grew := true; grew; {
			grew = false
			for _, f := range m.files {
				if f.Snapshot() || f.MaxTXID > limit || reached[f.MaxTXID] {
					continue
				}
				for at := range reached {
					if f.MinTXID <= at+1 && f.MaxTXID > at {
						reached[f.MaxTXID], grew = true, true
						break
					}
				}
			}
		}
		for t := range reached {
			out[t] = true
		}
	}
	return out
}

// coarseness returns the length of the windows of which, at that age, only the end need be
// restorable.
func (m *model) coarseness(age time.Duration) time.Duration {
	var coarse time.Duration
	for i, thin := range m.options.Thin {
		if thin > 0 && age >= thin {
			coarse = max(coarse, compact.Intervals()[i])
		}
	}
	return coarse
}

// check returns an error unless every instant inside the kept range can be restored: to the newest
// batch before it or, where thinning applies, to the end of the window before.
func (m *model) check() error {
	can := m.restorable()
	cutoff := m.now.Add(-m.options.Keep)
	for i, b := range m.batches {
		if i+1 < len(m.batches) && !m.batches[i+1].at.After(cutoff) {
			continue // not the newest at the cutoff
		}
		ok := false
		coarse := m.coarseness(m.now.Sub(b.at))
		for k := i; k >= 0 && !ok; k-- {
			// The batches that such a restore lacks must all be in one window.
			ok = can[m.batches[k].txid] && (k == i || coarse > 0 && !m.batches[k+1].at.Before(b.at.Truncate(coarse)))
		}
		if !ok {
			return fmt.Errorf("%s: batch %d of %s (age %s) cannot be restored; keep %s thin %v", m.now.Format(time.TimeOnly),
				b.txid, b.at.Format(time.TimeOnly), m.now.Sub(b.at), m.options.Keep, m.options.Thin)
		}
	}
	return nil
}

// TestRetention_I9_C8 runs random histories against the oracle.
func TestRetention_I9_C8(t *testing.T) {
	t.Parallel()
	seeds := uint64(4_000)
	if testing.Short() {
		seeds = 500
	}
	deleted, shipped := 0, 0
	for seed := range seeds {
		m := newModel(seed)
		for range 20 + m.rnd.IntN(60) {
			m.ship()
			if m.rnd.IntN(3) == 0 {
				m.compact()
			}
			if m.rnd.IntN(8) == 0 {
				before := len(m.files)
				m.retain()
				deleted += before - len(m.files)
				if err := m.check(); err != nil {
					t.Fatalf("seed %d: %v\n%s", seed, err, m)
				}
			}
		}
		if m.broken != "" {
			t.Fatalf("seed %d: %s", seed, m.broken)
		}
		shipped += len(m.batches)
	}
	t.Logf("%d seeds, %d batches, %d files deleted", seeds, shipped, deleted)
	if deleted < int(seeds) {
		t.Errorf("only %d files were deleted in %d histories: the test proves nothing", deleted, seeds)
	}
}

// String lists the files.
func (m *model) String() string {
	s := ""
	for _, f := range m.files {
		s += fmt.Sprintf("L%d %d-%d %s\n", f.Level, f.MinTXID, f.MaxTXID, m.at[f.Object.Key].Format(time.TimeOnly))
	}
	return s
}

// moments asks for the state at an instant after each batch in the kept range. Files that retention
// deleted must never prevent an answer; batches that were never shipped always must, unless another
// chain begins there.
func (m *model) moments(t *testing.T, seed uint64) (gaps int) {
	st := storetest.NewMemory()
	for _, f := range m.files {
		notes := map[string]string{store.MetaTimestamp: m.at[f.Object.Key].Format(time.RFC3339Nano)}
		if _, err := st.Put(t.Context(), f.Object.Key, storetest.Bytes(nil), store.PutOptions{Metadata: notes}); err != nil {
			t.Fatal(err)
		}
	}
	for i, b := range m.batches[:len(m.batches)-1] {
		next := m.batches[i+1]
		when := b.at.Add(next.at.Sub(b.at) / 2)
		if when.Before(m.now.Add(-m.options.Keep)) {
			continue
		}
		plan, err := catalog.MakePlan(t.Context(), st, catalog.Target{Timestamp: when})
		var gap *catalog.GapError
		var coarse *catalog.RangeError // names the restore points next to it
		thin := len(m.options.Thin) > 0
		switch {
		case thin && errors.As(err, &coarse):
		case next.txid%catalog.ChainStep == 0 && err == nil && plan.TXID == b.txid:
			gaps++ // nothing is missing between two chains
		case next.lone && !errors.As(err, &gap):
			t.Fatalf("seed %d: the moment between batch %d and a chain that begins at %d: %+v, %v; want a gap\n%s", seed, b.txid,
				next.txid, plan, err, m)
		case next.lone:
			gaps++
		case err != nil || plan.TXID > b.txid || !thin && plan.TXID != b.txid:
			t.Fatalf("seed %d: the moment after batch %d: %+v, %v; keep %s thin %v\n%s", seed, b.txid, plan, err,
				m.options.Keep, m.options.Thin, m)
		}
	}
	return gaps
}

// TestRetention_R2_moments: every moment in the kept range has an answer, unless it falls into
// batches that were never shipped.
func TestRetention_R2_moments(t *testing.T) {
	t.Parallel()
	gaps := 0
	for seed := range uint64(150) {
		m := newModel(seed)
		for range 20 + m.rnd.IntN(60) {
			m.ship()
			m.compact()
			if m.rnd.IntN(8) == 0 {
				m.retain()
			}
		}
		gaps += m.moments(t, seed)
	}
	if gaps < 20 {
		t.Errorf("only %d moments fell into batches that were never shipped", gaps)
	}
}

// TestRetentionBitesTheOracle: the oracle notices an implementation that deletes one file too many.
func TestRetentionBitesTheOracle(t *testing.T) {
	t.Parallel()
	caught := 0
	for seed := range uint64(200) {
		m := newModel(seed * 2)
		for range 40 {
			m.ship()
		}
		m.compact()
		if m.check() != nil {
			t.Fatal("the oracle objects to a complete replica")
		}
		i := m.rnd.IntN(len(m.files))
		m.files = slices.Delete(m.files, i, i+1)
		if m.check() != nil {
			caught++
		}
	}
	if caught < 20 {
		t.Errorf("of 200 replicas with a file missing only %d were noticed", caught)
	}
}

// TestRetentionProtects: the files of the last verified chain stay, however old they are.
func TestRetentionProtects(t *testing.T) {
	t.Parallel()
	m := newModel(2)
	m.options = RetentionOptions{Keep: time.Minute}
	for range 100 {
		m.ship()
	}
	m.add(store.SnapshotLevel, 1, m.txid, m.last)
	m.now = m.now.Add(time.Hour)
	var files []catalog.Dated
	protected := map[string]bool{}
	for i, f := range m.files {
		files = append(files, catalog.Dated{LTXFile: f, At: m.at[f.Object.Key]})
		if i < 3 {
			protected[f.Object.Key] = true
		}
	}
	sort.Slice(files, func(i, j int) bool { return files[i].Object.Key < files[j].Object.Key })
	gone := catalog.Unneeded(files, m.options.Keep, m.options.Thin, m.now, protected)
	if len(gone) == 0 {
		t.Fatal("nothing was found unneeded")
	}
	for _, f := range gone {
		if protected[f.Object.Key] {
			t.Errorf("%s belongs to the verified chain", f.Object.Key)
		}
	}
}
