package watchdog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"

	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/internal/watchdog/statefile"
	"github.com/sqlwatch/sqlwatch/policy"
)

func TestLoopTruncatesWhenThePolicySaysSo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &scene{walBytes: 8 << 20}
		w := run(t, Options{Targets: []Target{s.target("app")}, Policies: policies(t, shrink)})
		time.Sleep(5 * time.Second) // on synctest's clock
		synctest.Wait()

		if got, want := get(s, func(s *scene) []sqlite.Mode { return s.calls }), []sqlite.Mode{sqlite.Passive,
			sqlite.Truncate}; !slices.Equal(got, want) {
			t.Errorf("checkpoints %v, want %v: PASSIVE once, since it was complete, then TRUNCATE on the tail, then rest", got,
				want)
		}
		d, err := w.Database("/srv/app")
		if err != nil {
			t.Fatal(err)
		}
		if len(d.Actions) != 1 || !d.Actions[0].OK || d.Actions[0].Outcome != "truncated" ||
			d.Actions[0].Reclaimed != 8<<20 || d.Actions[0].Policy != "shrink" {
			t.Errorf("actions %+v, want one truncation of 8 MiB by shrink", d.Actions)
		}
		if got := d.Decision.Policies[0].Phase; got != policy.Cooldown {
			t.Errorf("phase %s, want %s", got, policy.Cooldown)
		}
		if d.Sample.WAL.SizeBytes != 0 {
			t.Errorf("the published sample still shows %d bytes", d.Sample.WAL.SizeBytes)
		}
		m := w.options.Metrics
		for name, got := range map[string]float64{
			"truncate checkpoints": testutil.ToFloat64(m.checkpoints.WithLabelValues("app", "truncate")),
			"passive checkpoints":  testutil.ToFloat64(m.checkpoints.WithLabelValues("app", "passive")),
			"actions":              testutil.ToFloat64(m.policyActions.WithLabelValues("app", "shrink", "checkpoint")),
			"state cooldown":       testutil.ToFloat64(m.policyState.WithLabelValues("app", "shrink", "cooldown")),
		} {
			if got != 1 {
				t.Errorf("%s: %v, want 1", name, got)
			}
		}
		if got := testutil.ToFloat64(m.policyState.WithLabelValues("app", "shrink", "inactive")); got != 0 {
			t.Errorf("two states at once")
		}
		if err := w.end(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if got := get(s, func(s *scene) int { return s.closes }); got != 1 {
			t.Errorf("closed %d times, want once", got)
		}
	})
}

func TestRhythm(t *testing.T) {
	t.Parallel()
	t.Run("a busy database is polled ten times a second and sampled once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := &scene{}
			run(t, Options{Targets: []Target{s.target("app")}, Policies: policies(t, "")})
			time.Sleep(10 * time.Second)
			samples, polls := get(s, func(s *scene) int { return s.samples }), get(s, func(s *scene) int { return s.polls })
			if samples < 10 || samples > 11 || polls < 80 || polls > 95 {
				t.Errorf("%d samples and %d polls in 10 s", samples, polls)
			}
		})
	})
	t.Run("an idle one is left alone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := &scene{}
			run(t, Options{Targets: []Target{s.target("app")}, Policies: policies(t, shrink)})
			time.Sleep(2 * idleAfter)
			s.set(func(s *scene) { s.samples, s.polls = 0, 0 })
			time.Sleep(50 * time.Second)
			if samples, polls := get(s, func(s *scene) int { return s.samples }), get(s,
				func(s *scene) int { return s.polls }); samples != 10 || polls != 0 {
				t.Errorf("%d samples and %d polls in 50 s, want 10 and 0", samples, polls)
			}
			s.set(func(s *scene) { s.commits++ })
			time.Sleep(15 * time.Second)
			if samples := get(s, func(s *scene) int { return s.samples }); samples < 19 {
				t.Errorf("%d samples: a write did not bring the database back to one a second", samples)
			}
		})
	})
	t.Run("many do not wake together", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			const n = 1000
			var targets []Target
			scenes := make([]*scene, n)
			for i := range scenes {
				scenes[i] = &scene{}
				targets = append(targets, scenes[i].target(fmt.Sprint("db", i)))
			}
			run(t, Options{Targets: targets, Policies: policies(t, "")})
			time.Sleep(1500 * time.Millisecond)
			together := map[time.Time]int{}
			for _, s := range scenes {
				together[get(s, func(s *scene) time.Time { return s.times[0] })]++
			}
			for at, count := range together {
				if count > n/8 { // they share ten ticks a second
					t.Errorf("%d of %d databases had a turn at %v", count, n, at)
				}
			}
		})
	})
}

func TestClock(t *testing.T) {
	t.Parallel()
	for name, jump := range map[string]time.Duration{"P8_back_an_hour": -time.Hour, "P8_forward_a_day": 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var offset time.Duration
				s := &scene{}
				clock := func() time.Time { return time.Now().Add(offset).Round(0) }
				s.clock = clock
				w := run(t, Options{Targets: []Target{s.target("app")}, Policies: policies(t, shrink), Clock: clock})
				time.Sleep(5 * time.Second)
				synctest.Wait()
				offset = jump
				s.set(func(s *scene) { s.samples, s.walBytes = 0, 8<<20 })
				time.Sleep(5 * time.Second)
				synctest.Wait()
				if samples := get(s, func(s *scene) int { return s.samples }); samples < 5 {
					t.Errorf("%d samples in the 5 s after the jump", samples)
				}
				d, err := w.Database("app")
				if err != nil || len(d.Actions) != 1 {
					t.Errorf("actions %v (%v): want one truncation after the jump", d.Actions, err)
				}
			})
		})
	}
}

func TestPanic(t *testing.T) {
	t.Parallel()
	t.Run("P6_others_go_on_and_it_is_restarted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var log journalOf
			bad, good := &scene{}, &scene{}
			bad.onSample = func() { panic("index out of range") }
			w := run(t, Options{Targets: []Target{bad.target("bad"), good.target("good")}, Policies: policies(t, ""),
				Logger: log.logger()})
			time.Sleep(20 * time.Second)
			synctest.Wait()
			if got := get(good, func(s *scene) int { return s.samples }); got < 20 {
				t.Errorf("the good database had %d samples in 20 s", got)
			}
			// Restarts come after 1, 2, 4 and 8 s: four or five in 20 s.
			opens := get(bad, func(s *scene) int { return s.opens })
			if opens < 4 || opens > 6 {
				t.Errorf("the bad database was opened %d times in 20 s", opens)
			}
			if got := testutil.ToFloat64(w.options.Metrics.panics.WithLabelValues("bad")); got != float64(opens) {
				t.Errorf("%v panics counted, %d opens", got, opens)
			}
			if d, _ := w.Database("bad"); !strings.Contains(d.Err, "index out of range") {
				t.Errorf("status says %q", d.Err)
			} else if len(d.Conditions) == 0 || d.Conditions[0].ID != "restarted" {
				t.Errorf("conditions %v, want that it was restarted", d.Conditions)
			}
			bad.set(func(s *scene) { s.onSample = nil })
			time.Sleep(2 * forgiveAfter)
			synctest.Wait()
			if d, _ := w.Database("bad"); d.Err != "" || d.Panics != 0 {
				t.Errorf("after recovery the status still says %q, %d panics", d.Err, d.Panics)
			}
			if !strings.Contains(log.String(), "index out of range") {
				t.Errorf("the log does not name the cause")
			}
		})
	})
}

func TestHungDatabaseStopsNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		hung, good := &scene{}, &scene{}
		hung.onSample = func() { <-release }
		w := run(t, Options{Targets: []Target{hung.target("hung"), good.target("good")}, Policies: policies(t, "")})
		time.Sleep(70 * time.Second)
		synctest.Wait()
		if got := get(good, func(s *scene) int { return s.samples }); got < 60 {
			t.Errorf("the good database had %d samples in 70 s", got)
		}
		if got := w.Overdue(); !slices.Equal(got, []string{"hung"}) {
			t.Errorf("overdue %v, want hung", got)
		}
		if w.Ready() {
			t.Errorf("ready, though one database was never seen")
		}
		_, err := w.Quiet(t.Context(), "hung")
		_, err2 := w.Remembered(t.Context(), "hung")
		for _, err := range []error{err, err2} {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("what is known of it: %v, want that it cannot be said now", err)
			}
		}
		err = w.end()
		if err == nil || !strings.Contains(err.Error(), "hung") || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Run returned %v, want the hung database's name after the grace", err)
		}
		close(release)
	})
}

func TestOpenFailsAndIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log journalOf
		s := &scene{}
		s.onOpen = func() error { return errTorn }
		w := run(t, Options{Targets: []Target{s.target("app")}, Policies: policies(t, ""), Logger: log.logger()})
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if d, _ := w.Database("app"); d.Err != errTorn.Error() {
			t.Errorf("status says %q", d.Err)
		}
		// H15: the same line is not logged thirty times.
		if got := strings.Count(log.String(), errTorn.Error()); got != 1 {
			t.Errorf("the log says it %d times", got)
		}
		s.set(func(s *scene) { s.onOpen = nil })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if d, _ := w.Database("app"); d.Err != "" || d.Sample == nil {
			t.Errorf("not recovered: %q", d.Err)
		}
	})
}

func TestReload(t *testing.T) {
	t.Parallel()
	t.Run("C9_unchanged_is_untouched_changed_is_reopened_removed_is_closed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			same, changed, removed, added := &scene{walBytes: 8 << 20}, &scene{}, &scene{}, &scene{}
			w := run(t, Options{Targets: []Target{same.target("same"), changed.target("changed"), removed.target("removed")},
				Policies: policies(t, shrink)})
			time.Sleep(3 * time.Second)
			other := changed.target("changed")
			other.Identity = "2"
			next := policies(t, shrink+strings.ReplaceAll(shrink, `"shrink"`, `"second"`))
			if err := w.Reload(context.Background(), []Target{same.target("same"), other, added.target("added")},
				next); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Second)
			synctest.Wait()
			for name, want := range map[*scene][2]int{same: {1, 0}, changed: {2, 1}, removed: {1, 1}, added: {1, 0}} {
				if got := [2]int{get(name, func(s *scene) int { return s.opens }),
					get(name, func(s *scene) int { return s.closes })}; got != want {
					t.Errorf("opens and closes %v, want %v", got, want)
				}
			}
			d, err := w.Database("same")
			if err != nil {
				t.Fatal(err)
			}
			if len(d.Decision.Policies) != 2 || d.Decision.Policies[0].Phase != policy.Cooldown {
				t.Errorf("after the reload %+v: want the cooldown kept and the second policy there", d.Decision.Policies)
			}
			if _, err := w.Database("removed"); !errors.Is(err, ErrUnknownDatabase) {
				t.Errorf("removed: %v", err)
			}
			page := pageOf(t, w.options.Metrics)
			if strings.Contains(page, `db="removed"`) ||
				!strings.Contains(page, `sqlwatch_policy_actions_total{action="checkpoint",db="added",policy="second"} 0`) {
				t.Errorf("metrics do not follow the reload")
			}
			if !strings.Contains(page, `sqlwatch_policy_actions_total{action="checkpoint",db="same",policy="shrink"} 1`) {
				t.Errorf("a counter of an unchanged database was lost")
			}
		})
	})
	t.Run("a disk that does not answer holds nobody up, and is not used twice", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			hung, heir, good := &scene{}, &scene{}, &scene{}
			hung.onSample = func() { <-release }
			w := run(t, Options{Targets: []Target{hung.target("hung")}, Policies: policies(t, "")})
			time.Sleep(3 * time.Second)
			other := heir.target("hung")
			other.Identity = "2"
			begun := time.Now()
			if err := w.Reload(context.Background(), []Target{other, good.target("good")}, policies(t, "")); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begun); took > 10*time.Second {
				t.Errorf("the reload took %s", took)
			}
			time.Sleep(3 * time.Second)
			synctest.Wait()
			if d, err := w.Database("hung"); err != nil || get(heir, func(s *scene) int { return s.opens }) > 0 ||
				!strings.Contains(d.Err, "does not answer") || get(good, func(s *scene) int { return s.samples }) == 0 {
				t.Errorf("beside one that hangs: %+v, %v", d, err)
			}
			close(release)
			time.Sleep(3 * time.Second)
			synctest.Wait()
			if get(hung, func(s *scene) int { return s.closes }) != 1 ||
				get(heir, func(s *scene) int { return s.samples }) == 0 {
				t.Error("the old one was not closed, or the new one has no turns, when the disk answers again")
			}
		})
	})
	t.Run("after the end", func(t *testing.T) {
		w := run(t, Options{Policies: policies(t, "")})
		if err := w.end(); err != nil {
			t.Fatal(err)
		}
		if err := w.Reload(context.Background(), nil, policies(t, "")); !errors.Is(err, ErrEnded) {
			t.Errorf("got %v, want %v", err, ErrEnded)
		}
	})
}

func TestPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &scene{}
		w := run(t, Options{Targets: []Target{s.target("app")}, Policies: policies(t, shrink)})
		time.Sleep(2 * time.Second)
		if err := w.Pause("app", time.Minute); err != nil {
			t.Fatal(err)
		}
		s.set(func(s *scene) { s.walBytes = 8 << 20 })
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if calls := get(s, func(s *scene) int { return len(s.calls) }); calls != 0 {
			t.Errorf("%d checkpoints while paused", calls)
		}
		if d, _ := w.Database("app"); d.PausedUntil.IsZero() {
			t.Errorf("the status does not show the pause")
		}
		time.Sleep(40 * time.Second)
		synctest.Wait()
		if calls := get(s, func(s *scene) int { return len(s.calls) }); calls != 2 {
			t.Errorf("%d checkpoints after the pause, want 2", calls)
		}
		if err := w.Pause("app", -1); !errors.Is(err, ErrBadRequest) {
			t.Errorf("negative pause: %v", err)
		}
		if err := w.Pause("nobody", time.Minute); !errors.Is(err, ErrUnknownDatabase) {
			t.Errorf("unknown database: %v", err)
		}
	})
}

func TestActionsBesideTheTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &scene{walBytes: 8 << 20}
		began, release := make(chan struct{}), make(chan struct{})
		s.snapshot = func(ctx context.Context) error {
			close(began)
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		text := `policy "backup" {
  when     = wal.bytes > 0
  cooldown = "24h"
  snapshot {}
}`
		w := run(t, Options{Targets: []Target{s.target("app")}, Policies: policies(t, text)})
		<-began
		before := get(s, func(s *scene) int { return s.samples })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := get(s, func(s *scene) int { return s.samples }) - before; got < 9 {
			t.Errorf("%d samples during a snapshot of 10 s: measuring stopped", got)
		}
		if d, _ := w.Database("app"); d.Running != "backup: snapshot" {
			t.Errorf("running %q", d.Running)
		}
		close(release)
		time.Sleep(time.Second)
		synctest.Wait()
		if d, _ := w.Database("app"); d.Running != "" || len(d.Actions) != 1 || !d.Actions[0].OK {
			t.Errorf("after the snapshot: running %q, actions %+v", d.Running, d.Actions)
		}
	})
}

// Series that are absent at zero are not created for every database, only to be left out of every
// scrape.
func TestQuietSeriesComeWhenTheyTell(t *testing.T) {
	t.Parallel()
	m := NewMetrics()
	m.zero("app", nil, policies(t, shrink+tuned))
	count := func() (all, quiet int) {
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(m)
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			all += len(f.Metric)
			for _, c := range catalogue {
				if c.Name == f.GetName() && c.AbsentAtZero {
					quiet += len(f.Metric)
				}
			}
		}
		return all, quiet
	}
	if all, quiet := count(); all == 0 || quiet > 0 {
		t.Errorf("at the start there are %d series, %d of them absent at zero", all, quiet)
	}
	m.Panicked("app")
	if _, quiet := count(); quiet != 1 {
		t.Errorf("after a panic %d such series are there", quiet)
	}
}

func TestMetricsAreClean(t *testing.T) {
	t.Parallel()
	m := NewMetrics()
	m.Detail = true
	m.Built("v1", "abc", "go1", "3.54.1")
	m.Reloaded(time.Unix(1, 0), nil)
	m.zero("app", nil, policies(t, shrink+tuned))
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(m); err != nil {
		t.Fatal(err)
	}
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	exported := map[string]bool{}
	for _, f := range families {
		exported[f.GetName()] = true
	}
	for _, c := range Catalogue() {
		// Windows and pauses are only known after the first turn.
		if !exported[c.Name] && c.Name != metricWindowOpen.Name {
			t.Errorf("%s is in the catalogue and not exported from the start", c.Name)
		}
	}
	m.forget("app")
	m.Reloaded(time.Unix(2, 0), errTorn)
	page := pageOf(t, m)
	if strings.Contains(page, `db="app"`) {
		t.Errorf("series of a forgotten database remain")
	}
	if !strings.Contains(page, "sqlwatch_config_last_reload_successful 0") ||
		!strings.Contains(page, "sqlwatch_config_last_reload_success_timestamp_seconds 1\n") {
		t.Errorf("a failed reload is not shown beside the last good one:\n%s", page)
	}
}

func pageOf(t *testing.T, c prometheus.Collector) string {
	t.Helper()
	registry := prometheus.NewRegistry()
	if err := registry.Register(c); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var page strings.Builder
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&page, f); err != nil {
			t.Fatal(err)
		}
	}
	return page.String()
}

func TestState(t *testing.T) {
	t.Parallel()
	t.Run("survives a restart", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "policy-state.json")
		s := &scene{walBytes: 8 << 20}
		o := Options{Targets: []Target{s.target("app")}, Policies: policies(t, shrink), StateFile: file,
			Interval: 20 * time.Millisecond}
		w := run(t, o)
		eventually(t, "a truncation", func() bool { d, _ := w.Database("app"); return d != nil && len(d.Actions) == 1 })
		if err := w.end(); err != nil {
			t.Fatal(err)
		}
		s.set(func(s *scene) { s.walBytes, s.calls = 8<<20, nil })
		w = run(t, o)
		eventually(t, "a decision", func() bool { d, _ := w.Database("app"); return d != nil && d.Decision != nil })
		if d, _ := w.Database("app"); d.Decision.Policies[0].Refused != policy.GuardCooldown &&
			d.Decision.Policies[0].Phase != policy.Cooldown {
			t.Errorf("after the restart %+v, want the cooldown to go on", d.Decision.Policies[0])
		}
		if calls := get(s, func(s *scene) int { return len(s.calls) }); calls != 0 {
			t.Errorf("%d checkpoints within the cooldown", calls)
		}
	})
	t.Run("history survives a restart", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		s := &scene{walBytes: 1 << 20}
		o := Options{Targets: []Target{s.target("app")}, StateFile: filepath.Join(dir, "state"),
			HistoryFile: filepath.Join(dir, "history"), Interval: 20 * time.Millisecond,
			Policies: policies(t, "policy \"trend\" {\n when = avg_over(wal.bytes, \"1h\") > bytes(\"100MB\")\n checkpoint "+
				"{}\n}")}
		w := run(t, o)
		eventually(t, "a decision", func() bool { d, _ := w.Database("app"); return d != nil && d.Decision != nil })
		first := (*w.databases.Load())[0]
		if err := w.end(); err != nil {
			t.Fatal(err)
		}
		w = run(t, o)
		eventually(t, "a decision", func() bool { d, _ := w.Database("app"); return d != nil && d.Decision != nil })
		second := (*w.databases.Load())[0]
		if err := w.end(); err != nil {
			t.Fatal(err)
		}
		if got, want := second.past.history.Oldest(), first.past.history.Oldest(); want.IsZero() || !got.Equal(want) {
			t.Errorf("after the restart the history begins at %v, before it at %v", got, want)
		}
	})
	t.Run("P13_every_flipped_byte_is_noticed", func(t *testing.T) {
		t.Parallel()
		saved := map[string]savedDatabase{"app": {Policies: map[string]policy.PolicyState{
			"shrink": {Version: policy.StateVersion, Phase: policy.Cooldown, Attempt: 3}}}}
		data, err := statefile.Encode(saved, 7)
		if err != nil {
			t.Fatal(err)
		}
		if got, seq, err := statefile.Decode[savedDatabase](data); err != nil || seq != 7 ||
			got["app"].Policies["shrink"].Attempt != 3 {
			t.Fatalf("round trip: %+v, %v", got, err)
		}
		unexported := cmp.AllowUnexported(savedDatabase{})
		for i := range data {
			flipped := slices.Clone(data)
			flipped[i] ^= 0x01
			if got, seq, err := statefile.Decode[savedDatabase](flipped); err == nil &&
				(seq != 7 || !cmp.Equal(got, saved, unexported)) {
				t.Errorf("byte %d (%q) flipped: decoded to %+v without an error", i, data[i], got)
			}
		}
	})
	t.Run("P13_corrupt_is_set_aside", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		file := filepath.Join(dir, "policy-state.json")
		write(t, file, `{"version":1,"checksum":1,"databases":{"app"`)
		var log journalOf
		w := run(t, Options{Policies: policies(t, ""), StateFile: file, Logger: log.logger()})
		eventually(t, "ready", w.Ready)
		if err := w.end(); err != nil {
			t.Fatal(err)
		}
		aside, err := filepath.Glob(file + ".corrupt-*")
		if err != nil || len(aside) != 1 || !strings.Contains(log.String(), aside[0]) {
			t.Errorf("set aside %v (%v), log:\n%s", aside, err, log.String())
		}
	})
	t.Run("P11_unknown_version_is_refused_and_left_alone", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "policy-state.json")
		const text = `{"version":7,"checksum":0,"databases":{}}`
		write(t, file, text)
		w := run(t, Options{Policies: policies(t, ""), StateFile: file})
		if err := <-w.ended; !errors.Is(err, statefile.ErrVersion) || !strings.Contains(err.Error(), file) {
			t.Errorf("got %v", err)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != text {
			t.Errorf("the file is now %q (%v)", got, err)
		}
	})
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
