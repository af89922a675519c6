package replicator_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
	"github.com/sqlwatch/sqlwatch/replicator/requests"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/file"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

func TestShip(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory().Enforce(t)
	h := newHost(t, path, replica("memory.a", st))
	h.begin()
	if keys := st.Keys(); !slices.Contains(keys, store.LTXKey(9, 1, 1)) {
		t.Errorf("no snapshot of the fresh database: %q", keys)
	}
	for range 10 {
		w.commit(20)
		h.synced()
		wantRestored(t, st, path)
	}
	// I11: no requests when idle, and caught up nevertheless.
	h.eventually("quiet", func() bool {
		return !slices.ContainsFunc(h.r.Replicas(), func(s replicator.ReplicaStatus) bool { return s.LagSeconds > 0 })
	})
	h.wantIdle(func() string { return fmt.Sprint(st.Requests()) })
	// P3: what was not synced is stored during the shutdown.
	w.commit(5)
	h.halt()
	last := wantRestored(t, st, path)
	// A restart continues from the position before, without a snapshot or a comparison.
	snapshots := count(st.Keys(), "0009/")
	h.begin()
	w.commit(5)
	h.synced()
	if next := wantRestored(t, st, path); next.TXID <= last.TXID {
		t.Errorf("txid went from %d to %d over a restart", last.TXID, next.TXID)
	}
	if got := count(st.Keys(), "0009/"); got != snapshots {
		t.Errorf("a restart cost %d snapshots", got-snapshots)
	}
}

func count(keys []string, prefix string) (n int) {
	for _, k := range keys {
		if strings.HasPrefix(k, prefix) {
			n++
		}
	}
	return n
}

// TestShip_S2_outage: one replica is unreachable at the start, the other in the middle; neither
// delays the other or capture, and both recover on their own.
func TestShip_S2_outage(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	a, b := storetest.NewMemory().Enforce(t), storetest.NewMemory().Enforce(t)
	var aDown, bDown atomic.Bool
	down := func(off *atomic.Bool) func(string, string, int) storetest.Fault {
		return func(string, string, int) storetest.Fault {
			if off.Load() {
				return storetest.NotStored
			}
			return storetest.None
		}
	}
	aDown.Store(true)
	h := newHost(t, path, replica("memory.a", storetest.NewFaulty(a, down(&aDown))),
		replica("memory.b", storetest.NewFaulty(b, down(&bDown))))
	h.start()
	status := func(i int) replicator.ReplicaStatus { return h.r.Replicas()[i] }
	h.eventually("b has it", func() bool { return status(1).TXID > 0 && status(1).LagSeconds == 0 })
	w.commit(30)
	h.eventually("b is up to date", func() bool { return status(1).LagSeconds == 0 && status(1).TXID > 1 })
	if s := status(0); s.Healthy || s.Err == "" {
		t.Errorf("I8: a is unreachable, and its status is %+v", s)
	}
	bDown.Store(true)
	for range 5 {
		w.commit(10)
		h.eventually("capture continues", func() bool { return status(1).PendingBytes > 0 })
	}
	aDown.Store(false)
	bDown.Store(false)
	start := time.Now()
	h.synced()
	t.Logf("recovered %v after the outage", time.Since(start))
	wantRestored(t, a, path)
	wantRestored(t, b, path)
	if n := count(b.Keys(), "0009/"); n != 1 {
		t.Errorf("b got %d snapshots, want the first only", n)
	}
}

// TestShip_S2_spoolFull: when the spool is full, only restore points in between are lost.
func TestShip_S2_spoolFull(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory().Enforce(t)
	var down atomic.Bool
	h := newHost(t, path, replica("memory.a", storetest.NewFaulty(st, func(string, string, int) storetest.Fault {
		if down.Load() {
			return storetest.NotStored
		}
		return storetest.None
	})))
	h.options.Capture.SpoolLimit = 200_000
	h.options.Capture.BatchAge = 20 * time.Millisecond
	h.begin()
	down.Store(true)
	for range 40 {
		w.commit(30)
		h.r.Wake()
	}
	down.Store(false)
	h.eventually("recovery", func() bool { return h.sync() == nil && h.r.Replicas()[0].LagSeconds == 0 })
	w.commit(10)
	h.eventually("sync", func() bool { return h.sync() == nil })
	wantRestored(t, st, path)
}

// downReplica is a host with two replicas and a small spool: a works, b is down.
type downReplica struct {
	*host
	w    *writer
	path string
	a, b *storetest.Memory
	down atomic.Bool
}

func newDownReplica(t *testing.T) *downReplica {
	d := &downReplica{a: storetest.NewMemory().Enforce(t), b: storetest.NewMemory().Enforce(t)}
	d.path, d.w = database(t)
	d.host = newHost(t, d.path, replica("memory.a", d.a),
		replica("memory.b", storetest.NewFaulty(d.b, func(string, string, int) storetest.Fault {
			if d.down.Load() {
				return storetest.NotStored
			}
			return storetest.None
		})))
	d.options.Capture.SpoolLimit = 400_000
	d.begin()
	d.down.Store(true)
	return d
}

// awaitA waits until a has everything.
func (d *downReplica) awaitA() {
	d.eventually("a is up to date", func() bool {
		d.r.Wake()
		s := d.r.Replicas()[0]
		return s.LagSeconds == 0 && s.PendingBytes == 0
	})
}

// TestShip_S2_hopeless: a replica that is unreachable for longer than the spool can bridge does not
// delay the other one, and gets a snapshot when it is back.
func TestShip_S2_hopeless(t *testing.T) {
	t.Parallel()
	d := newDownReplica(t)
	h, w := d.host, d.w
	for range 60 {
		w.commit(30)
		d.awaitA()
	}
	if s := h.r.Replicas()[1]; s.Healthy || s.LagSeconds == 0 {
		t.Errorf("b is unreachable, and its status is %+v", s)
	}
	d.down.Store(false)
	h.eventually("b is back", func() bool { return h.sync() == nil })
	wantRestored(t, d.a, d.path)
	wantRestored(t, d.b, d.path)
	// While the snapshot is being uploaded the spool may release segments that follow it.
	if n := count(d.b.Keys(), "0009/"); n != 2 && n != 3 {
		t.Errorf("b has %d snapshots, want a second one", n)
	}
	if n := count(d.a.Keys(), "0009/"); n != 1 {
		t.Errorf("a has %d snapshots because of b", n)
	}
}

// TestShip_S2_nothingLeft: the spool has released everything that a failing replica lacks, and the
// application no longer commits. The replica gets a snapshot nevertheless.
func TestShip_S2_nothingLeft(t *testing.T) {
	t.Parallel()
	d := newDownReplica(t)
	h, w := d.host, d.w
	left := func() bool {
		s := h.r.Replicas()
		return s[0].LagSeconds == 0 && s[1].PendingBytes == 0 && s[1].TXID < s[0].TXID
	}
	for round := 0; !left(); round++ {
		if round == 500 {
			t.Fatalf("the spool was never emptied: %+v", h.r.Replicas())
		}
		w.commit(30)
		d.awaitA()
	}
	d.down.Store(false)
	h.eventually("b is back", func() bool { return h.sync() == nil })
	wantRestored(t, d.b, d.path)
}

// TestShip_syncBeforeItIsKnown: a sync that begins before the replica was examined returns once it
// turns out that nothing is left to store.
func TestShip_syncBeforeItIsKnown(t *testing.T) {
	t.Parallel()
	path, _ := database(t)
	var asked atomic.Bool
	answer := make(chan struct{})
	close(answer)
	h := newHost(t, path, replica("memory.a", storetest.NewFaulty(storetest.NewMemory().Enforce(t),
		func(string, string, int) storetest.Fault {
			asked.Store(true)
			<-answer
			return storetest.None
		})))
	h.begin()
	h.halt()
	for range 3 {
		answer = make(chan struct{})
		asked.Store(false)
		h.start()
		h.eventually("the store is asked", asked.Load)
		synced := make(chan error, 1)
		go func() { synced <- h.sync() }()
		<-time.After(200 * time.Millisecond) // time for the sync to begin; otherwise nothing is proven
		close(answer)
		if err := <-synced; err != nil {
			t.Errorf("sync: %v", err)
		}
		h.halt()
	}
}

// TestShip_S16_missingFile: a file is removed before it was compacted. The newest state becomes
// restorable again, and maintenance continues.
func TestShip_S16_missingFile(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory().Enforce(t)
	h := newHost(t, path, replica("memory.a", st))
	h.begin()
	h.commits(w, 3, 3)
	for _, key := range st.Keys() {
		if strings.HasPrefix(key, "0000/") { // the oldest
			if err := st.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	h.unkeep()
	h.eventually("a second snapshot", func() bool {
		h.skew.Add(int64(10 * time.Second)) // eventually beyond the end of the window
		w.commit(1)
		return h.sync() == nil && count(st.Keys(), "0009/") > 1
	})
	wantRestored(t, st, path)
}

// unconditional is a store like Backblaze's, which does not implement conditional writes.
type unconditional struct{ *storetest.Memory }

func (u unconditional) Put(ctx context.Context, key string, body store.Body, o store.PutOptions) (store.Object, error) {
	if o.Create || o.Match != "" {
		return store.Object{}, fmt.Errorf("put %s: %w", key, errors.ErrUnsupported)
	}
	return u.Memory.Put(ctx, key, body, o)
}

// TestShip_S13_noConditions: without conditional writes, sqlwatch checks each key before it writes.
func TestShip_S13_noConditions(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory().Enforce(t)
	h := newHost(t, path, replica("memory.a", unconditional{st}))
	h.begin()
	h.commits(w, 3, 3)
	h.halt()
	wantRestored(t, st, path)
	h.begin()
	wantRestored(t, st, path)
}

// TestShip_D4_replaced: another file at the database's path is captured once its files were opened
// again.
func TestShip_D4_replaced(t *testing.T) {
	t.Parallel()
	path, _ := database(t)
	other, w := database(t)
	w.commit(123)
	st := storetest.NewMemory().Enforce(t)
	h := newHost(t, path, replica("memory.a", st))
	h.options.Metrics = replicator.NewMetrics()
	h.begin()
	if out, err := exec.Command("sh", "-c",
		`sqlite3 "$1" "pragma wal_checkpoint(truncate)" && cp "$1" "$2.new" && rm -f "$2-wal" "$2-shm" && sqlite3 "$2.new" `+
			`"update t set k=k+1" && mv "$2.new" "$2"`, "sh", other, path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	h.eventually("the replacement is noticed", func() bool { return h.sync() != nil })
	h.closeFiles()
	h.openFiles()
	h.eventually("capture of the new file", func() bool { return h.sync() == nil })
	wantRestored(t, st, path)
	// A step between the removal of the side files and the rename counts a discontinuity of the
	// wal-index instead.
	n := h.metric("sqlwatch_replica_discontinuities_total", "replaced") +
		h.metric("sqlwatch_replica_discontinuities_total", "wal_index")
	if n < 1 {
		t.Errorf("discontinuities for replaced or wal_index: %v, want one at least", n)
	}
}

// metric returns the sum of a family's samples that have the label value.
func (h *host) metric(name, label string) (sum float64) {
	h.t.Helper()
	h.options.Metrics.Detail = true
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(h.options.Metrics)
	families, err := registry.Gather()
	if err != nil {
		h.t.Fatal(err)
	}
	found := false
	for _, f := range families {
		for _, s := range f.GetMetric() {
			if f.GetName() == name && strings.Contains(s.String(), strconv.Quote(label)) {
				sum, found = sum+s.GetGauge().GetValue()+s.GetCounter().GetValue(), true
			}
		}
	}
	if !found {
		h.t.Errorf("no series %s with %s", name, label)
	}
	return sum
}

// TestShip_fileReplica: the directory of a new replica is created. When it disappears, uploads
// stop; when an empty directory is put in its place, the replica there begins with a snapshot.
func TestShip_fileReplica(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	dir := filepath.Join(t.TempDir(), "app", "copy")
	st, err := file.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t, path)
	h.options.Metrics = replicator.NewMetrics()
	counts := &requests.Counts{}
	h.options.Replicas = []replicator.ReplicaOptions{replica("file.copy", store.Through(st, nil, counts.Observe))}
	h.options.Replicas[0].Requests = counts
	h.begin()
	wantRestored(t, st, path)
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	w.commit(3)
	if err := h.sync(); !errors.Is(err, store.ErrMisplaced) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("sync to a directory that was renamed: %v, want ErrMisplaced and its name", err)
	}
	h.eventually("failures are counted", func() bool {
		return h.metric("sqlwatch_replica_operation_failures_total",
			"misplaced") > 0
	})
	if _, err := os.Stat(dir); err == nil {
		t.Fatalf("%s was created again", dir)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	w.commit(3)
	h.eventually("uploads to the new directory", func() bool { return h.sync() == nil })
	wantRestored(t, st, path)
	// When the first directory is back, the replica continues there.
	if err := errors.Join(os.Rename(dir, dir+".second"), os.Rename(dir+".away", dir)); err != nil {
		t.Fatal(err)
	}
	w.commit(3)
	h.eventually("uploads to the directory that is back", func() bool { return h.sync() == nil })
	wantRestored(t, st, path)
	if n := h.metric("sqlwatch_replica_operations_total", "put"); n < 4 {
		t.Errorf("%v puts counted", n)
	}
}

// TestMetrics: the metrics of replicas and drills are exported, and counters follow the store's
// requests.
func TestMetrics(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	m := replicator.NewMetrics()
	m.Detail = true
	counts := &requests.Counts{}
	counts.Observe(store.Request{Operation: "put", Duration: time.Second})
	counts.Observe(store.Request{Operation: "list", Reason: "auth"})
	h := newHost(t, path, replica("memory.a", storetest.NewMemory().Enforce(t)))
	h.options.Replicas[0].Requests = counts
	h.options.Replicas[0].Prices = &requests.Prices{Write: 4e6, List: 6e6, Stored: 0.01}
	h.options.Metrics = m
	h.begin()
	w.commit(3)
	h.synced()
	if s := h.r.Status()[0]; s.MonthlyUSD != nil {
		t.Errorf("the cost of a month is %v, although the replica was only just started", *s.MonthlyUSD)
	}
	h.skew.Store(int64(2 * time.Hour)) // one PUT and one LIST were counted for that time
	if s := h.r.Status()[0]; s.MonthlyUSD == nil || *s.MonthlyUSD < 3000 || *s.MonthlyUSD > 3601 {
		t.Errorf("a month costs %+v, want nearly 3600 $", s)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if f.GetHelp() == "" {
			t.Errorf("%s has no help", f.GetName())
		}
		for _, s := range f.GetMetric() {
			got[f.GetName()] += s.GetGauge().GetValue() + s.GetCounter().GetValue() + float64(s.GetHistogram().GetSampleCount())
		}
	}
	for _, name := range []string{
		"caught_up_timestamp_seconds", "lag_seconds", "pending_bytes", "txid", "objective_seconds", "operations_total",
		"operation_failures_total",
		"operation_duration_seconds", "uploaded_bytes_total", "stored_bytes", "snapshot_last_success_timestamp_seconds",
		"restore_point_oldest_timestamp_seconds", "discontinuities_total",
	} {
		if _, ok := got["sqlwatch_replica_"+name]; !ok {
			t.Errorf("sqlwatch_replica_%s is missing", name)
		}
	}
	for _, name := range []string{"last_success_timestamp_seconds", "duration_seconds", "failures_total"} {
		if _, ok := got["sqlwatch_verify_"+name]; !ok {
			t.Errorf("sqlwatch_verify_%s is missing", name)
		}
	}
	for name, want := range map[string]float64{"sqlwatch_replica_operations_total": 2,
		"sqlwatch_replica_operation_failures_total": 1, "sqlwatch_replica_objective_seconds": quick.Seconds(),
		"sqlwatch_replica_lag_seconds": 0} {
		if got[name] != want {
			t.Errorf("%s = %v, want %v", name, got[name], want)
		}
	}
	for _, name := range []string{"snapshot_last_success", "restore_point_oldest"} {
		if at := got["sqlwatch_replica_"+name+"_timestamp_seconds"]; time.Since(time.Unix(int64(at), 0)) > time.Minute {
			t.Errorf("%s at %v after the first upload of the whole database", name, at)
		}
	}
	// A restarted process learns the time from the replica, and metrics of the configuration stay
	// exported.
	snapshot := h.metric("sqlwatch_replica_snapshot_last_success_timestamp_seconds", "memory.a")
	h.halt()
	h.metric("sqlwatch_replica_caught_up_timestamp_seconds", "memory.a")
	h.metric("sqlwatch_replica_discontinuities_total", "replaced")
	h.begin()
	if again := h.metric("sqlwatch_replica_snapshot_last_success_timestamp_seconds", "memory.a"); again != snapshot {
		t.Errorf("time of the newest snapshot over a restart: %v, then %v", snapshot, again)
	}
	if got["sqlwatch_replica_txid"] < 2 || got["sqlwatch_replica_uploaded_bytes_total"] <= 0 ||
		got["sqlwatch_replica_caught_up_timestamp_seconds"] < 1e9 {
		t.Errorf("after a sync: %v", got)
	}
}

// TestShip_S5_everyWriteTwoWays: a third of all writes fail, half of these after they were applied.
func TestShip_S5_everyWriteTwoWays(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory().Enforce(t)
	var mu sync.Mutex
	rnd := rand.New(rand.NewPCG(3, 3))
	faulty := storetest.NewFaulty(st, func(op, _ string, _ int) storetest.Fault {
		mu.Lock()
		defer mu.Unlock()
		switch n := rnd.IntN(24); {
		case n < 4 && op == "put", n < 1:
			return storetest.NotStored
		case n < 8 && op == "put":
			return storetest.Stored
		case n < 2 && op == "list":
			return storetest.Hidden
		}
		return storetest.None
	})
	h := newHost(t, path, replica("memory.a", faulty))
	h.start()
	for i := range 30 {
		w.commit(5)
		h.eventually("sync", func() bool { return h.sync() == nil })
		wantRestored(t, st, path)
		if i == 15 {
			h.halt()
			h.start()
		}
	}
	if n := faulty.Injected(storetest.Stored); n < 5 {
		t.Errorf("only %d lost replies", n)
	}
	for _, s := range h.r.Replicas() {
		if strings.Contains(s.Err, "other bytes") {
			t.Errorf("a repeated write was taken for another writer's: %+v", s)
		}
	}
}

// TestShip_P12_stateLost: a lost state directory costs a comparison, not a snapshot.
func TestShip_P12_stateLost(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory().Enforce(t)
	h := newHost(t, path, replica("memory.a", st))
	h.begin()
	w.commit(300)
	h.synced()
	h.halt()
	before := wantRestored(t, st, path)
	if err := os.RemoveAll(h.state); err != nil {
		t.Fatal(err)
	}
	w.commit(3)
	h.begin()
	after := wantRestored(t, st, path)
	if after.TXID != before.TXID+1 || count(st.Keys(), "0009/") != 1 {
		t.Errorf("txid %d after %d, keys %q: want one comparison", after.TXID, before.TXID, st.Keys())
	}
}

// TestShip_C5_foreign: a replica of another program is refused until it is adopted; then its
// history continues.
func TestShip_C5_foreign(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory().Enforce(t)
	h := newHost(t, path, replica("memory.a", st))
	h.begin()
	h.halt()
	// Without our own objects the replica looks as if another program had written it.
	if err := st.Delete(t.Context(), "sqlwatch/lease", "sqlwatch/lineage"); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(h.state); err != nil {
		t.Fatal(err)
	}
	w.commit(10)
	before := fmt.Sprint(st.Keys())
	h.start()
	h.eventually("refusal", func() bool { return strings.Contains(h.r.Replicas()[0].Err, "adopt") })
	if err := h.sync(); !errors.Is(err, custody.ErrForeign) {
		t.Errorf("sync: %v, want ErrForeign", err)
	}
	h.halt()
	if after := fmt.Sprint(st.Keys()); after != before {
		t.Errorf("a foreign replica was changed from %s to %s", before, after)
	}
	h.options.Replicas[0].Adopt = true
	if err := os.RemoveAll(h.state); err != nil {
		t.Fatal(err)
	}
	h.begin()
	if result := wantRestored(t, st, path); result.TXID != 2 {
		t.Errorf("adopted chain ends at txid %d, want 2", result.TXID)
	}
}

// TestShip_C2_C3_twoWriters: another database may not write, however long the replica's owner has
// been quiet; with --adopt it begins a chain far behind. The owner then stops, says so, and checks
// again on its own. Both histories can be restored.
func TestShip_C2_C3_twoWriters(t *testing.T) {
	t.Parallel()
	pathA, wa := database(t)
	pathB, wb := database(t)
	store := storetest.NewMemory().Enforce(t)
	a := newHost(t, pathA, replica("memory.a", store))
	a.begin()
	wa.commit(7)
	if err := a.sync(); err != nil {
		t.Fatal(err)
	}
	historyA := wantRestored(t, store, pathA)
	b := newHost(t, pathB, replica("memory.a", store))
	b.owner, b.boot = "host-b", "another"
	b.start()
	b.refused(lineage.Foreign, "host-a")
	b.skew.Store(int64(time.Hour)) // long after a's lease has expired
	wb.commit(99)
	if err := b.sync(); !errors.Is(err, custody.ErrForeign) {
		t.Fatalf("sync of another database: %v, want ErrForeign", err)
	}
	wa.commit(1)
	if err := a.sync(); err != nil {
		t.Fatalf("the owner, after that: %v", err)
	}
	historyA = wantRestored(t, store, pathA)
	b.halt()
	b.options.Replicas[0].Adopt = true
	b.start()
	b.eventually("b waits", func() bool { return strings.Contains(b.r.Replicas()[0].Err, "host-a") })
	b.skew.Store(int64(2 * time.Hour))
	b.eventually("b takes over", func() bool { return b.sync() == nil })
	historyB := wantRestored(t, store, pathB)
	if historyB.TXID < historyA.TXID+1000 {
		t.Errorf("the new owner begins at txid %d, close behind %d", historyB.TXID, historyA.TXID)
	}
	a.skew.Store(int64(2 * time.Hour)) // a slept in the meantime (P4)
	wa.commit(1)
	a.refused(lineage.Diverged, "host-b")
	if err := a.sync(); !errors.Is(err, lease.ErrFenced) {
		t.Errorf("sync of the loser: %v, want ErrFenced", err)
	}
	wantRestored(t, store, pathB)
	out := filepath.Join(t.TempDir(), "a.db")
	if _, err := restore.Run(t.Context(), store,
		restore.Options{Output: out, Target: catalog.Target{TXID: historyA.TXID}}); err != nil {
		t.Errorf("the loser's history: %v", err)
	}
}

// TestShip_compaction: while the clock runs through two days, windows are merged and read back, and
// retention deletes files that no promised restore needs.
func TestShip_compaction(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory().Enforce(t)
	o := replica("memory.a", st)
	o.Retention = replicator.RetentionOptions{Keep: 6 * time.Hour, Grace: time.Minute}
	o.SnapshotEvery = 3 * time.Hour
	h := newHost(t, path, o)
	st.SetClock(h.clock)
	h.begin()
	for range 60 {
		h.commits(w, 3, 2)
		h.skew.Add(int64(20 * time.Minute))
	}
	w.commit(1)
	h.eventually("compacted and retained", func() bool {
		h.skew.Add(int64(5 * time.Minute))
		w.commit(1)
		if h.sync() != nil {
			return false
		}
		keys := st.Keys()
		return count(keys, "0001/") > 0 && count(keys, "0003/") > 0 && count(keys, "0009/") > 2 &&
			!slices.Contains(keys, store.LTXKey(9, 1, 1))
	})
	wantRestored(t, st, path)
	t.Logf("files: %d captured, %d + %d + %d compacted, %d snapshots; %v", count(st.Keys(), "0000/"),
		count(st.Keys(), "0001/"), count(st.Keys(), "0002/"), count(st.Keys(), "0003/"), count(st.Keys(), "0009/"),
		st.Requests())
	if err := h.r.VerifyNow(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestShip_S16_corrupt: a drill notices that a file was deleted, and a new snapshot is taken.
func TestShip_S16_corrupt(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory().Enforce(t)
	h := newHost(t, path, replica("memory.a", st))
	h.begin()
	h.commits(w, 3, 5)
	if err := h.r.VerifyNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := h.r.Replicas()[0]; s.LastVerified.IsZero() || s.VerifyDuration <= 0 {
		t.Errorf("after a drill: %+v", s)
	}
	keys := st.Keys()
	if err := st.Delete(t.Context(), keys[0]); err != nil { // the first captured file: a gap
		t.Fatal(err)
	}
	if err := h.r.VerifyNow(t.Context()); err == nil {
		t.Error("a drill over a gap succeeded")
	}
	h.eventually("a drill succeeds again", func() bool { return h.r.VerifyNow(t.Context()) == nil })
	wantRestored(t, st, path)
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	files := func() *dbfile.Files { return nil }
	for name, o := range map[string]replicator.Options{
		"nothing":  {},
		"no store": {Name: "a", Files: files, StateDir: "x", Replicas: []replicator.ReplicaOptions{{Name: "r"}}},
		"equal names": {Name: "a", Files: files, StateDir: "x", Replicas: []replicator.ReplicaOptions{
			{Name: "r", Store: storetest.NewMemory()}, {Name: "r", Store: storetest.NewMemory()}}},
		"no directory": {Name: "a", Files: files},
	} {
		if _, err := replicator.New(o); err == nil {
			t.Errorf("%s: New returned nil", name)
		}
	}
}
