package catalog_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/merge"
	"github.com/sqlwatch/sqlwatch/replicator/moment"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// machine simulates a host whose clock is set now and then, with an application that commits, a
// capture that polls, and a replica that is compacted. It records what was true at which time.
type machine struct {
	t       *testing.T
	rnd     *rand.Rand
	store   *storetest.Memory
	now     time.Time // the true time
	offset  time.Duration
	offsets []setting // every setting of the clock

	commits []time.Time      // true times
	holds   map[ltx.TXID]int // how many commits each restore point includes

	// State of the capture.
	txid    ltx.TXID
	rising  time.Time
	stamp   moment.Stamp
	mark    moment.Mark
	kept    moment.Mark // the mark that a restart finds
	started time.Time   // when the machine was booted
	boots   int
	read    moment.Reading

	// State of the replica.
	queue  []queued // not uploaded yet
	files  []store.LTXFile
	lost   map[ltx.TXID]bool // TXIDs that are in no file any more
	told   map[ltx.TXID]bool // ends of chains that the next chain says it follows
	at     map[string]time.Time
	done   map[int]ltx.TXID
	backed bool // uploads are held back
	steady bool // the clock is never set
}

type setting struct {
	since  time.Time // true time
	offset time.Duration
}

type queued struct {
	txid   ltx.TXID
	rising time.Time
	stamp  moment.Stamp
}

func newMachine(t *testing.T, seed uint64) *machine {
	m := &machine{
		t: t, rnd: rand.New(rand.NewPCG(seed, 7)), store: storetest.NewMemory(), now: time.Date(2026, 3, 1, 12, 0, 0, 0,
			time.UTC),
		holds: map[ltx.TXID]int{}, lost: map[ltx.TXID]bool{}, told: map[ltx.TXID]bool{},
		at: map[string]time.Time{}, done: map[int]ltx.TXID{},
	}
	m.started, m.steady, m.store.ListMetadata = m.now, seed%2 == 0, seed%3 == 0
	m.set(0)
	m.commit()
	m.boot()
	m.capture(moment.Mark{})
	m.upload()
	m.snapshot()
	return m
}

func (m *machine) clock() time.Time { return m.now.Add(m.offset) }

func (m *machine) boot() { m.started, m.boots = m.now, m.boots+1 }

// reading returns what the capture reads from the clocks.
func (m *machine) reading() moment.Reading {
	return moment.Reading{Wall: m.clock(), Passed: m.now.Sub(m.started), Boot: strconv.Itoa(m.boots)}
}

func (m *machine) set(offset time.Duration) {
	m.offset = offset
	m.offsets = append(m.offsets, setting{m.now, offset})
}

func (m *machine) commit() { m.commits = append(m.commits, m.now) }

// capture captures what was committed as one batch.
func (m *machine) capture(mark moment.Mark) {
	m.read = m.reading()
	m.now = m.now.Add(time.Duration(m.rnd.IntN(20)) * time.Millisecond)
	m.txid++
	m.rising = m.rising.Add(time.Millisecond)
	if now := m.clock().Truncate(time.Millisecond); now.After(m.rising) {
		m.rising = now
	}
	mark.Watch(m.reading())
	m.stamp = m.stamp.Next(m.txid, m.clock(), m.rising, mark)
	m.mark.Taken(m.read)
	m.kept = m.mark
	m.holds[m.txid] = len(m.commits)
	m.queue = append(m.queue, queued{m.txid, m.rising, m.stamp})
}

func (m *machine) put(level int, low, high ltx.TXID, rising time.Time, notes map[string]string) {
	f := store.LTXFile{Level: level, MinTXID: low, MaxTXID: high, Object: store.Object{Key: store.LTXKey(level, low, high),
		Size: 1000}}
	if notes[store.MetaTimestamp] == "" {
		notes[store.MetaTimestamp] = rising.UTC().Format(time.RFC3339Nano)
	}
	if _, err := m.store.Put(m.t.Context(), f.Object.Key, storetest.Bytes(nil),
		store.PutOptions{Metadata: notes}); err != nil {
		m.t.Fatal(err)
	}
	f.Object.Metadata = notes
	if !f.Snapshot() {
		m.files = append(m.files, f)
	}
	if now := m.clock(); rising.After(now) {
		rising = now
	}
	m.at[f.Object.Key] = rising
}

// upload stores the queued batches as one file.
func (m *machine) upload() {
	if len(m.queue) == 0 {
		return
	}
	first, last := m.queue[0], m.queue[len(m.queue)-1]
	notes := map[string]string{}
	moment.Merged(first.stamp, last.stamp).Put(notes)
	m.put(0, first.txid, last.txid, last.rising, notes)
	m.queue = nil
}

func (m *machine) snapshot() {
	if len(m.queue) == 0 {
		m.whole(map[string]string{})
	}
}

func (m *machine) whole(notes map[string]string) {
	m.stamp.Put(notes)
	m.put(store.SnapshotLevel, 1, m.txid, m.rising, notes)
}

func (m *machine) compact() {
	for i, interval := range []time.Duration{30 * time.Second, 5 * time.Minute, time.Hour} {
		for level := i + 1; ; {
			w := catalog.NextWindow(m.files, level, m.done[level], interval, m.clock(), func(f store.LTXFile) time.Time {
				return m.at[f.Object.Key]
			})
			m.done[level] = w.Until
			if len(w.Inputs) == 0 {
				break
			}
			if len(w.Inputs) > 1 {
				first, last := w.Inputs[0], w.Inputs[len(w.Inputs)-1]
				m.put(level, first.MinTXID, last.MaxTXID, m.at[last.Object.Key], merge.Notes(moment.Of(first.Object.Metadata),
					last.Object.Metadata, ""))
			}
		}
	}
}

// thin removes files that a higher level covers.
func (m *machine) thin() {
	covered := func(f store.LTXFile) bool {
		return slices.ContainsFunc(m.files, func(g store.LTXFile) bool {
			return g.Level == f.Level+1 && g.MinTXID <= f.MinTXID && f.MaxTXID <= g.MaxTXID
		})
	}
	gone := slices.DeleteFunc(slices.Clone(m.files), func(f store.LTXFile) bool { return !covered(f) })
	m.files = slices.DeleteFunc(m.files, covered)
	for _, f := range gone {
		if err := m.store.Delete(m.t.Context(), f.Object.Key); err != nil {
			m.t.Fatal(err)
		}
	}
}

// lose deletes every file that holds some TXID, as a person may who cleans up a bucket.
func (m *machine) lose() {
	if len(m.files) == 0 || len(m.lost) > 0 {
		return
	}
	txid := m.files[m.rnd.IntN(len(m.files))].MaxTXID
	for _, f := range m.files {
		if f.MinTXID <= txid && txid <= f.MaxTXID {
			for t := f.MinTXID; t <= f.MaxTXID; t++ {
				m.lost[t] = true
			}
			if err := m.store.Delete(m.t.Context(), f.Object.Key); err != nil {
				m.t.Fatal(err)
			}
		}
	}
	m.files = slices.DeleteFunc(m.files, func(f store.LTXFile) bool { return f.MinTXID <= txid && txid <= f.MaxTXID })
	for _, f := range m.files {
		for t := f.MinTXID; t <= f.MaxTXID; t++ {
			delete(m.lost, t)
		}
	}
}

// live lets d pass while the capture polls about once a second.
func (m *machine) live(d, betweenCommits time.Duration) {
	end, next := m.now.Add(d), m.now.Add(m.exp(betweenCommits))
	for m.now.Before(end) {
		look := m.now.Add(time.Second + time.Duration(m.rnd.IntN(int(time.Second/4))))
		for !next.After(look) {
			m.now = next
			m.commit()
			next = m.now.Add(m.exp(betweenCommits))
		}
		if look.After(m.now) {
			m.now = look
		}
		if len(m.commits) > m.holds[m.txid] {
			m.capture(m.mark)
		} else {
			m.mark.Look(m.reading())
		}
		if !m.backed {
			m.upload()
		}
		if m.rnd.IntN(20) == 0 {
			m.compact()
		}
	}
}

func (m *machine) exp(mean time.Duration) time.Duration {
	return time.Millisecond + time.Duration(m.rnd.ExpFloat64()*float64(mean))
}

// down lets d pass without a capture: it was ended in order or killed, and the machine may have
// been restarted.
func (m *machine) down(d, betweenCommits time.Duration) {
	if m.rnd.IntN(2) == 0 {
		m.mark = m.kept
	}
	end, set := m.now.Add(d), m.rnd.IntN(4) == 0 && !m.steady
	for next := m.now.Add(m.exp(betweenCommits)); next.Before(end); next = m.now.Add(m.exp(betweenCommits)) {
		m.now = next
		m.commit()
		if set && m.rnd.IntN(4) == 0 {
			m.step()
			set = false
		}
	}
	m.now = end
	if set {
		m.step()
	}
	if m.rnd.IntN(2) == 0 {
		m.boot()
	}
	if len(m.commits) > m.holds[m.txid] {
		mark := m.mark
		if m.rnd.IntN(3) == 0 { // continuity is not proven, so the batch comes from a comparison
			mark.Since = time.Time{}
		}
		m.capture(mark)
	}
}

// leap begins a chain that does not continue the one before: the state was lost, and the replica
// could not be read. The first batches of the chain may be in no file, or in files without a
// snapshot below them, and the chain may say what it follows, which earlier versions did not.
func (m *machine) leap() {
	m.upload()
	m.commit()
	notes, after := map[string]string{}, m.txid
	m.txid = m.txid/catalog.ChainStep*catalog.ChainStep + 2*catalog.ChainStep - 1
	if m.rnd.IntN(2) == 0 {
		m.stamp = moment.Stamp{}
	}
	m.capture(moment.Mark{})
	m.queue = nil
	if m.rnd.IntN(3) > 0 {
		m.told[after] = true
		notes[store.MetaAfter] = after.String()
		for range m.rnd.IntN(4) {
			m.now = m.now.Add(m.exp(5 * time.Second))
			m.commit()
			m.capture(m.mark)
			if m.rnd.IntN(2) == 0 {
				m.upload()
			}
			m.queue = nil
		}
	}
	m.whole(notes)
}

// step sets the clock to a wrong time, or back to the right one.
func (m *machine) step() {
	sizes := []time.Duration{time.Hour, 10 * 365 * 24 * time.Hour, 5 * time.Second, 24 * time.Hour}
	size := sizes[m.rnd.IntN(len(sizes))]
	switch n := m.rnd.IntN(5); {
	case m.offset != 0 && n < 4:
		m.set(0)
	case n%2 == 0:
		m.set(m.offset - size)
	default:
		m.set(m.offset + size)
	}
}

func (m *machine) run() {
	for range 6 + m.rnd.IntN(10) {
		pace := []time.Duration{time.Second, 20 * time.Second, 10 * time.Minute}[m.rnd.IntN(3)]
		switch n := m.rnd.IntN(10); {
		case n < 5:
			m.backed = m.rnd.IntN(5) == 0
			m.live(m.exp(2*time.Minute), pace)
			m.backed = false
		case n < 6:
			m.down(m.exp(5*time.Minute), pace)
		case n < 8 && !m.steady:
			m.step()
			m.live(m.exp(time.Minute), pace)
		case n < 9:
			m.snapshot()
			m.live(m.exp(5*time.Minute), 10*pace)
		case m.rnd.IntN(2) == 0:
			m.lose()
		default:
			m.leap()
		}
		m.upload()
		m.compact()
		if m.rnd.IntN(8) == 0 {
			m.thin()
		}
	}
	m.live(10*time.Second, time.Second)
	m.upload()
}

// tolerance is three times the interval of one second at which replicas are synced; grain is how
// long an instant lasts in this simulation.
const (
	tolerance = 3 * time.Second
	grain     = 50 * time.Millisecond
)

// was reports whether the database had n commits at the true time t, give or take tolerance.
func (m *machine) was(n int, t time.Time) bool {
	committed := func(t time.Time) int {
		i, _ := slices.BinarySearchFunc(m.commits, t, func(c, t time.Time) int {
			if c.After(t) {
				return 1
			}
			return -1
		})
		return i
	}
	return committed(t.Add(-tolerance-grain)) <= n && n <= committed(t.Add(grain))
}

// right reports whether the database had n commits at the time asked: the true time or, if the
// clock was wrong then, the time that it showed.
func (m *machine) right(n int, asked time.Time) bool {
	during := func(i int, t time.Time) bool {
		return !t.Before(m.offsets[i].since) && (i+1 == len(m.offsets) || !t.After(m.offsets[i+1].since))
	}
	for i, s := range m.offsets {
		if during(i, asked) && s.offset == 0 || m.was(n, asked) {
			return m.was(n, asked)
		}
	}
	for i, s := range m.offsets {
		if t := asked.Add(-s.offset); during(i, t) && m.was(n, t) {
			return true
		}
	}
	return false
}

// tells reports whether the chain that begins at next says that there was a TXID after txid before
// it.
func (m *machine) tells(txid, next ltx.TXID) bool {
	for end := range m.told {
		if txid < end && end < next {
			return true
		}
	}
	return false
}

// ask plans for a moment and judges the answer.
func (m *machine) ask(asked time.Time) (verdict string, err error) {
	plan, err := catalog.MakePlan(m.t.Context(), m.store, catalog.Target{Timestamp: asked})
	var outside *catalog.RangeError
	var gap *catalog.GapError
	switch {
	case errors.As(err, &outside), errors.As(err, &gap):
		return "refused", nil
	case err != nil:
		return "", err
	}
	// If the end of a chain was lost, only the next chain can say so. If it does, there must be a
	// doubt.
	if next := plan.Next; m.lost[plan.TXID+1] && !plan.Time().Equal(asked) && next != nil &&
		next.TXID != plan.TXID+1 && (next.TXID%catalog.ChainStep != 0 || m.tells(plan.TXID, next.TXID)) {
		return "", fmt.Errorf("%s: txid %d of %s: no error, although a gap follows", asked, plan.TXID, plan.Time())
	}
	right := m.right(m.holds[plan.TXID], asked)
	if d := plan.Doubt(tolerance, m.now.Add(time.Second)); d != nil {
		if d.Before.TXID != plan.TXID || d.After.TXID <= plan.TXID || d.Error() == "" {
			return "", fmt.Errorf("doubt %+v of %+v", d, plan)
		}
		if right {
			return "doubted and right", nil
		}
		return "doubted and wrong", nil
	}
	if !right {
		return "", fmt.Errorf("%s: txid %d of %s holds %d commits and is wrong, without a doubt; next %+v", asked, plan.TXID,
			plan.Time(), m.holds[plan.TXID], plan.Next)
	}
	return "right", nil
}

// TestMoments_R21 asks for random moments of random histories of machines whose clocks are set,
// that are down, or whose continuity is lost. The state returned must be the one of that moment, or
// a doubt or an error must say that it may not be. $SQLWATCH_QUESTIONS is how many moments are
// asked for; 100000 take two minutes.
func TestMoments_R21(t *testing.T) {
	t.Parallel()
	count := map[string]int{}
	histories, questions := 60, 90
	if text := os.Getenv("SQLWATCH_QUESTIONS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		histories = n/questions + 1
	}
	for seed := range uint64(histories) {
		m := newMachine(t, seed)
		m.run()
		first := m.offsets[0].since
		for range questions {
			asked := first.Add(time.Duration(m.rnd.Int64N(int64(m.now.Sub(first)))))
			if s := m.offsets[m.rnd.IntN(len(m.offsets))]; m.rnd.IntN(3) == 0 {
				asked = asked.Add(s.offset) // a time that the wrong clock showed
			}
			verdict, err := m.ask(asked)
			if err != nil {
				if verdict = "wrong without a word"; count[verdict] < 2 {
					t.Errorf("seed %d: %v\n%s", seed, err, m)
				}
			}
			count[verdict]++
		}
	}
	t.Log(count)
	if count["right"] < histories*questions/4 || count["doubted and wrong"] == 0 || count["refused"] == 0 {
		t.Errorf("%v: too few of some verdicts for a meaningful test", count)
	}
}

// String lists the settings of the clock and the restore points that are in files.
func (m *machine) String() string {
	s := ""
	for _, o := range m.offsets {
		s += fmt.Sprintf("clock %s: %s\n", o.since.Format(time.RFC3339Nano), o.offset)
	}
	for _, f := range m.files {
		stamp := moment.Of(f.Object.Metadata)
		s += fmt.Sprintf("L%d %d-%d %s since %s at %s, %d commits, steps %+v\n", f.Level, f.MinTXID, f.MaxTXID,
			f.Object.Metadata[store.MetaTimestamp],
			stamp.Since.Format(time.RFC3339Nano), stamp.Time.Format(time.RFC3339Nano), m.holds[f.MaxTXID], stamp.Steps)
	}
	return s
}

// TestPlan_R21_stepsElsewhere: steps of the clock are recorded in other files than the one asked
// for. If a chain knows nothing about the time before it, the chain before does. At the beginning
// of a chain nobody watched the clock. Steps that the newest batch no longer lists are in a batch
// nearer to the moment.
func TestPlan_R21_stepsElsewhere(t *testing.T) {
	t.Parallel()
	m := storetest.NewMemory()
	put := func(level int, low, high ltx.TXID, rising, shown time.Duration, steps ...moment.Step) {
		t.Helper()
		notes := map[string]string{store.MetaTimestamp: batchTime(0).Add(rising).Format(time.RFC3339Nano)}
		moment.Stamp{Time: batchTime(0).Add(shown), Since: batchTime(0).Add(shown), Steps: steps}.Put(notes)
		if _, err := m.Put(t.Context(), store.LTXKey(level, low, high), storetest.Bytes(nil),
			store.PutOptions{Metadata: notes}); err != nil {
			t.Fatal(err)
		}
	}
	stretch := func(low, high time.Duration) moment.Stretch {
		return moment.Stretch{Low: batchTime(0).Add(low), High: batchTime(0).Add(high)}
	}
	const chain = 2 * catalog.ChainStep
	back := moment.Step{TXID: 2, Stretch: stretch(-10*time.Minute, 0)}
	forgotten := moment.Step{TXID: chain + 1, Stretch: stretch(30*time.Minute, 32*time.Minute), Forward: true}
	put(9, 1, 1, 0, 0)
	put(0, 2, 2, time.Millisecond, -10*time.Minute, back)
	put(9, 1, chain, 20*time.Minute, 20*time.Minute)
	put(0, chain+1, chain+1, 40*time.Minute, 40*time.Minute, forgotten)
	var full []moment.Step
	for i := range ltx.TXID(moment.MaxSteps) {
		full = append(full, moment.Step{TXID: chain + 2 + i, Stretch: stretch(2*time.Hour, 2*time.Hour), Forward: true})
	}
	put(0, chain+2, chain+2+moment.MaxSteps, 3*time.Hour, 3*time.Hour, full...)
	for asked, want := range map[time.Duration]struct {
		txid  ltx.TXID
		clock bool
	}{
		-5 * time.Minute:             {2, true},
		20*time.Minute + time.Second: {chain, true},
		25 * time.Minute:             {chain, false},
		31 * time.Minute:             {chain, true},
		41 * time.Minute:             {chain + 1, false},
	} {
		plan, err := catalog.MakePlan(t.Context(), m, catalog.Target{Timestamp: batchTime(0).Add(asked)})
		if err != nil || plan.TXID != want.txid {
			t.Errorf("at %s: %+v, %v; want txid %d", asked, plan, err, want.txid)
			continue
		}
		if d := plan.Doubt(tolerance, time.Now()); (d != nil && d.Clock) != want.clock {
			t.Errorf("at %s: doubt %+v; want one of the clock: %v", asked, d, want.clock)
		}
	}
}

// TestPlan_R9_withinAMillisecond: an LTX header has a timestamp in milliseconds, but the clock is
// finer. A batch taken within the same millisecond as the moment asked for, but later, is not the
// state of that moment.
func TestPlan_R9_withinAMillisecond(t *testing.T) {
	t.Parallel()
	m := storetest.NewMemory()
	const fraction = 400 * time.Microsecond
	for txid := ltx.TXID(1); txid <= 3; txid++ {
		notes := map[string]string{store.MetaTimestamp: batchTime(txid).Format(time.RFC3339Nano)}
		moment.Stamp{Time: batchTime(txid).Add(fraction), Since: batchTime(txid - 1)}.Put(notes)
		if _, err := m.Put(t.Context(), store.LTXKey(0, txid, txid), storetest.Bytes(nil),
			store.PutOptions{Metadata: notes}); err != nil {
			t.Fatal(err)
		}
	}
	for after, want := range map[time.Duration]ltx.TXID{fraction - 1: 1, fraction: 2, fraction + 1: 2} {
		plan, err := catalog.MakePlan(t.Context(), m, catalog.Target{Timestamp: batchTime(2).Add(after)})
		if err != nil || plan.TXID != want {
			t.Errorf("%s after the second: TXID %d, %v; want %d", after, plan.TXID, err, want)
		}
	}
	plan, err := catalog.MakePlan(t.Context(), m, catalog.Target{Timestamp: batchTime(3).Add(fraction)})
	if err != nil || plan.TXID != 3 || !plan.Time().Equal(batchTime(3).Add(fraction)) {
		t.Errorf("the exact time of the newest batch: %+v, %v", plan, err)
	}
}
