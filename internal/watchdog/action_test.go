package watchdog

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/internal/watchdog/statefile"
	"github.com/sqlwatch/sqlwatch/policy"
)

// notices collects the notices that a database's policies send.
type notices struct {
	mu     sync.Mutex
	sent   []string // names of policies, with "end of " before that of a resolved notice
	said   []string // messages
	answer error
}

func (n *notices) notify(_ context.Context, notice Notice) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	name := notice.Action.Policy
	if notice.Resolved {
		name = "end of " + name
	}
	n.sent, n.said = append(n.sent, name), append(n.said, notice.Action.Message)
	return n.answer
}

func (n *notices) all() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.sent)
}

// target returns the scene's target, whose policies can notify.
func (n *notices) target(s *scene, name string) Target {
	target := s.target(name)
	open := target.Open
	target.Open = func(ctx context.Context) (Parts, error) {
		parts, err := open(ctx)
		parts.Actions.Notify = n.notify
		return parts, err
	}
	return target
}

// An upload that hangs for a day delays neither a checkpoint nor a notice.
func TestBesideAnUpload_C13(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &scene{walBytes: 8 << 20}
		s.snapshot = func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}
		n := &notices{}
		text := shrink + `
policy "backup" {
  when = wal.bytes > 0
  snapshot {}
}
policy "tell" {
  when     = wal.bytes > 0
  for      = "20m"
  severity = "critical"
  cooldown = "2h"
  notify   = [notifier.webhook.ops]
}`
		run(t, Options{Targets: []Target{n.target(s, "app")}, Policies: policies(t, text)})
		for range 12 {
			time.Sleep(10 * time.Minute)
			s.set(func(s *scene) { s.walBytes = 8 << 20; s.commits++ })
		}
		synctest.Wait()
		if got := get(s, func(s *scene) int { return len(s.calls) }); got < 4 {
			t.Errorf("%d checkpoint steps beside the upload, want two ladders' at least", got)
		}
		if got := n.all(); !slices.Equal(got, []string{"tell", "end of tell"}) {
			t.Errorf("sent %v", got)
		}
	})
}

// copyTree copies a directory, as a crash would leave it.
func copyTree(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// The process is killed before, during and after an action: its cooldown holds, and nothing is
// done twice, whatever the save that happens every five seconds had written by then.
func TestKilledAroundAnAction_P17(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	states := func(dir string) string { return filepath.Join(dir, "state.json") }
	s := &scene{walBytes: 8 << 20}
	left := map[string]string{}
	target := s.target("app")
	open := target.Open
	target.Open = func(ctx context.Context) (Parts, error) {
		parts, err := open(ctx)
		inner := parts.Checkpointer
		parts.Checkpointer = checkpointerFunc(func(ctx context.Context, mode sqlite.Mode, b sqlite.Budget) (sqlite.Result,
			error) {
			if left["during"] == "" {
				left["during"] = copyTree(t, dir)
			}
			return inner.Checkpoint(ctx, mode, b)
		})
		return parts, err
	}
	w := run(t, Options{Targets: []Target{target}, Policies: policies(t, shrink), StateFile: states(dir),
		Interval: 10 * time.Millisecond})
	eventually(t, "a checkpoint", func() bool { d, err := w.Database("app"); return err == nil && len(d.Actions) == 1 })
	if err := w.Pause("", time.Hour); err != nil { // returns at once; the next turn applies it
		t.Fatal(err)
	}
	eventually(t, "a turn", func() bool { d, _ := w.Database("app"); return !d.PausedUntil.IsZero() })
	left["after"] = copyTree(t, dir)
	if err := w.end(); err != nil {
		t.Fatal(err)
	}
	left["at the end"] = copyTree(t, dir)
	for when, dir := range left {
		t.Run(when, func(t *testing.T) {
			for start := range 5 { // starts of a daemon that is killed again and again
				s := &scene{walBytes: 8 << 20}
				again := run(t, Options{Targets: []Target{s.target("app")}, Policies: policies(t, shrink), StateFile: states(dir),
					Interval: 5 * time.Millisecond})
				eventually(t, "twenty turns", func() bool { return get(s, func(s *scene) int { return s.samples }) > 20 })
				if calls := get(s, func(s *scene) []sqlite.Mode { return s.calls }); len(calls) > 0 {
					t.Fatalf("start %d: it acted again: %v", start, calls)
				}
				d, _ := again.Database("app")
				if rest := time.Until(d.Decision.Policies[0].Earliest); rest < 50*time.Minute {
					t.Errorf("start %d: it rests for %s, want the hour's cooldown: %+v", start, rest, d.Decision.Policies[0])
				}
				if err := again.end(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// checkpointerFunc makes a Checkpointer of a function.
type checkpointerFunc func(context.Context, sqlite.Mode, sqlite.Budget) (sqlite.Result, error)

func (f checkpointerFunc) Checkpoint(ctx context.Context, mode sqlite.Mode, b sqlite.Budget) (sqlite.Result, error) {
	return f(ctx, mode, b)
}

// A newer state file takes precedence over an older one of a single database.
func TestStateOfTheHigherNumberHolds_P17(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "state.json")
	state := func(attempt int) map[string]savedDatabase {
		return map[string]savedDatabase{"app": {Policies: map[string]policy.PolicyState{
			"p": {Version: policy.StateVersion, Attempt: attempt}}}}
	}
	if err := os.MkdirAll(file+".d", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ all, own uint64 }{{5, 4}, {4, 5}, {0, 1}} {
		for path, f := range map[string]struct {
			attempt int
			seq     uint64
		}{file: {1, test.all}, file + ".d/x.json": {2, test.own}} {
			if err := statefile.Write(path, state(f.attempt), f.seq); err != nil {
				t.Fatal(err)
			}
		}
		w := New(Options{StateFile: file})
		saved, err := w.load()
		if err != nil {
			t.Fatal(err)
		}
		want := 1
		if test.own > test.all {
			want = 2
		}
		if got := saved["app"].Policies["p"].Attempt; got != want || w.seq.Load() != max(test.all, test.own) {
			t.Errorf("%+v: attempt %d, want %d; counts on from %d", test, got, want, w.seq.Load())
		}
	}
}

// The database leaves the configuration for a while and comes back: its cooldown is still there,
// and so is the past that policies look back to. A restart in between changes nothing.
func TestRemembersWhatLeft_F13(t *testing.T) {
	t.Parallel()
	text := shrink + `policy "past" {
  when = max_over(wal.bytes, "1h") > bytes("1TB")
  sync {}
}`
	dir := t.TempDir()
	options := func(targets ...Target) Options {
		return Options{Targets: targets, Policies: policies(t, text), StateFile: dir + "/state.json",
			HistoryFile: dir + "/history.json", Interval: 5 * time.Millisecond}
	}
	s := &scene{walBytes: 8 << 20}
	w := run(t, options(s.target("app")))
	eventually(t, "a checkpoint", func() bool { d, err := w.Database("app"); return err == nil && len(d.Actions) == 1 })
	oldest := (*w.databases.Load())[0].past.history
	for _, targets := range [][]Target{nil, {s.target("app")}, nil} {
		if err := w.Reload(t.Context(), targets, policies(t, text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.end(); err != nil {
		t.Fatal(err)
	}
	w = run(t, options())
	eventually(t, "ready", w.Ready)
	again := &scene{walBytes: 8 << 20}
	if err := w.Reload(t.Context(), []Target{again.target("app")}, policies(t, text)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "twenty turns", func() bool { return get(again, func(s *scene) int { return s.samples }) > 20 })
	if calls := get(again, func(s *scene) int { return len(s.calls) }); calls > 0 {
		t.Errorf("%d checkpoints within the cooldown", calls)
	}
	d := (*w.databases.Load())[0]
	if err := w.end(); err != nil {
		t.Fatal(err)
	}
	if got, want := d.past.history.Oldest(), oldest.Oldest(); want.IsZero() || !got.Equal(want) {
		t.Errorf("the past begins at %v, want %v", got, want)
	}
}

// A panic in an action that runs beside the turns is a failed run of that policy, and is counted.
func TestPanicInAnAction_P6(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &scene{walBytes: 8 << 20}
		s.snapshot = func(context.Context) error { panic("torn") }
		w := run(t, Options{Targets: []Target{s.target("app")}, Metrics: NewMetrics(), Policies: policies(t, `
policy "backup" {
  when     = wal.bytes > 0
  cooldown = "1h"
  snapshot {}
}`)})
		time.Sleep(time.Minute)
		synctest.Wait()
		d, _ := w.Database("app")
		panics := testutil.ToFloat64(w.options.Metrics.panics.WithLabelValues("app"))
		if len(d.Actions) == 0 || d.Actions[0].OK || panics != float64(len(d.Actions)) {
			t.Errorf("%v panics are counted: %+v", panics, d.Actions)
		}
	})
}

// A panic while the end of an action is recorded restarts the database, as one in a turn does.
func TestPanicAfterAnAction_P6(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &scene{walBytes: 8 << 20}
		s.snapshot = func(context.Context) error { return nil }
		log := slog.New(&panicsOnce{Handler: slog.DiscardHandler, at: `"backup"`})
		w := run(t, Options{Targets: []Target{s.target("app")}, Metrics: NewMetrics(), Logger: log, Policies: policies(t, `
policy "backup" {
  when     = wal.bytes > 0
  cooldown = "1m"
  snapshot {}
}`)})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		d, _ := w.Database("app")
		panics := testutil.ToFloat64(w.options.Metrics.panics.WithLabelValues("app"))
		if panics != 1 || len(d.Actions) == 0 || !d.Actions[0].OK {
			t.Errorf("%v panics are counted: %+v", panics, d.Actions)
		}
	})
}

// panicsOnce is a log whose handler panics at the first record that has a text.
type panicsOnce struct {
	slog.Handler
	at   string
	done atomic.Bool
}

func (p *panicsOnce) Enabled(context.Context, slog.Level) bool { return true }
func (p *panicsOnce) WithAttrs([]slog.Attr) slog.Handler       { return p }

func (p *panicsOnce) Handle(_ context.Context, r slog.Record) error {
	found := false
	r.Attrs(func(a slog.Attr) bool { found = found || strconv.Quote(a.Value.String()) == p.at; return true })
	if found && p.done.CompareAndSwap(false, true) {
		panic("torn")
	}
	return nil
}

// A panic inside a checkpoint counts as a failed run, and the policy can act again.
func TestPanicInACheckpoint_P6(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &scene{walBytes: 8 << 20}
		target := s.target("app")
		open, panics := target.Open, 1
		target.Open = func(ctx context.Context) (Parts, error) {
			parts, err := open(ctx)
			parts.Checkpointer = checkpointerFunc(func(ctx context.Context, mode sqlite.Mode, b sqlite.Budget) (sqlite.Result,
				error) {
				if panics--; panics >= 0 {
					panic("torn")
				}
				return s.Checkpoint(ctx, mode, b)
			})
			return parts, err
		}
		w := run(t, Options{Targets: []Target{target}, Policies: policies(t, shrink)})
		time.Sleep(time.Minute)
		synctest.Wait()
		if d, _ := w.Database("app"); len(d.Actions) != 1 || !d.Actions[0].OK {
			t.Errorf("a minute after the panic: %+v", d.Actions)
		}
	})
}
