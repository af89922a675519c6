package watchdog

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

const snapshots = `
policy "backup" {
  when     = wal.bytes > bytes("4MB")
  cooldown = "1h"
  snapshot {}
}`

// reloads replaces what a watchdog has.
func reloads(t *testing.T, w *running, text string, targets ...Target) {
	t.Helper()
	if err := w.Reload(context.Background(), targets, policies(t, text)); err != nil {
		t.Fatal(err)
	}
}

// changed returns the target as another configuration has it.
func changed(target Target) Target {
	target.Identity = "2"
	return target
}

// An action that ends after a reload took its policy, or its database, away is over: when they
// come back, the policy acts again, and no other waits for it.
func TestActionOutlivesItsConfiguration_F13(t *testing.T) {
	t.Parallel()
	t.Run("the policy", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s, begun, release := &scene{walBytes: 8 << 20}, 0, make(chan struct{})
			s.snapshot = func(context.Context) error { begun++; <-release; return nil }
			w := run(t, Options{Targets: []Target{s.target("app")}, Policies: policies(t, snapshots)})
			time.Sleep(3 * time.Second)
			reloads(t, w, "", s.target("app"))
			close(release)
			time.Sleep(3 * time.Second)
			reloads(t, w, snapshots, s.target("app"))
			time.Sleep(30 * time.Minute)
			synctest.Wait()
			if begun != 1 {
				t.Errorf("%d snapshots within the cooldown", begun)
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			if d, _ := w.Database("app"); begun != 2 {
				t.Errorf("%d snapshots, the policy is %+v", begun, d.Decision.Policies)
			}
		})
	})
	for name, back := range map[string]bool{"the database changed": false, "the database left and came back": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				hung, heir := &scene{walBytes: 8 << 20}, &scene{walBytes: 8 << 20}
				target := hung.target("app")
				open := target.Open
				target.Open = func(ctx context.Context) (Parts, error) {
					parts, err := open(ctx)
					parts.Checkpointer = checkpointerFunc(func(context.Context, sqlite.Mode, sqlite.Budget) (sqlite.Result,
						error) {
						<-release // the disk does not answer
						return sqlite.Result{Outcome: sqlite.OutcomeFailed}, errTorn
					})
					return parts, err
				}
				w := run(t, Options{Targets: []Target{target}, Policies: policies(t, shrink)})
				time.Sleep(3 * time.Second)
				if back {
					reloads(t, w, shrink)
				}
				reloads(t, w, shrink, changed(heir.target("app")))
				close(release)
				time.Sleep(3 * time.Hour)
				synctest.Wait()
				if d, _ := w.Database("app"); get(heir, func(s *scene) int { return len(s.calls) }) == 0 {
					t.Errorf("no checkpoint, the policy is %+v", d.Decision.Policies)
				}
			})
		})
	}
}

// A reload takes a policy away in the turn in which what it told ends.
func TestReloadDuringATurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, n := &scene{walBytes: 8 << 20}, &notices{}
		const pinned = `
policy "passive" {
  when = wal.bytes < bytes("1MB")
  checkpoint {
    step "passive" {}
  }
}`
		target := n.target(s, "app")
		open := target.Open
		var during func()
		target.Open = func(ctx context.Context) (Parts, error) {
			parts, err := open(ctx)
			parts.Checkpointer = checkpointerFunc(func(context.Context, sqlite.Mode, sqlite.Budget) (sqlite.Result, error) {
				during()
				return sqlite.Result{Outcome: sqlite.OutcomeComplete}, nil
			})
			return parts, err
		}
		w := run(t, Options{Targets: []Target{target}, Policies: policies(t, tells+pinned)})
		during = func() { reloads(t, w, pinned, target) }
		time.Sleep(5 * time.Second)
		s.set(func(s *scene) { s.walBytes = 0 })
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if d, _ := w.Database("app"); d.Panics != 0 || d.Err != "" {
			t.Errorf("%d panics, %s", d.Panics, d.Err)
		}
	})
}

// A database that the configuration changes is the same to operators, and a pause ends at its time: neither
// a reload nor a restart ends it.
func TestChangedDatabase(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &scene{}
		target := s.target("app")
		o := Options{Targets: []Target{target}, Policies: policies(t, shrink),
			StateFile: filepath.Join(t.TempDir(), "state.json")}
		w := run(t, o)
		time.Sleep(2 * time.Second)
		if err := w.Pause("app", time.Hour); err != nil {
			t.Fatal(err)
		}
		s.set(func(s *scene) { s.walBytes, s.onOpen = 8<<20, func() error { return errTorn } })
		reloads(t, w, shrink, changed(target))
		time.Sleep(time.Minute)
		synctest.Wait()
		if d, _ := w.Database("app"); !d.Found || d.PausedUntil.IsZero() {
			t.Errorf("found before: %t, paused until %s", d.Found, d.PausedUntil)
		}
		reloads(t, w, shrink)
		reloads(t, w, shrink, target)
		s.set(func(s *scene) { s.onOpen = nil })
		time.Sleep(time.Minute)
		synctest.Wait()
		if calls := get(s, func(s *scene) int { return len(s.calls) }); calls != 0 {
			t.Errorf("%d checkpoints while paused", calls)
		}
		if err := w.end(); err != nil {
			t.Fatal(err)
		}
		run(t, o)
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if calls := get(s, func(s *scene) int { return len(s.calls) }); calls != 0 {
			t.Errorf("%d checkpoints while paused, after a restart", calls)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if calls := get(s, func(s *scene) int { return len(s.calls) }); calls == 0 {
			t.Error("no checkpoint after the pause")
		}
	})
}

// A database that is removed while it works leaves no series and no condition.
func TestRemovedAtWork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		busy, hung, release := &scene{walBytes: 8 << 20}, &scene{}, make(chan struct{})
		busy.snapshot = func(ctx context.Context) error { <-ctx.Done(); return errors.Join(errTorn, ctx.Err()) }
		w := run(t, Options{Targets: []Target{busy.target("busy"), hung.target("hung")}, Policies: policies(t, snapshots)})
		time.Sleep(3 * time.Second)
		hung.set(func(s *scene) { s.onSample = func() { <-release }; s.commits++ })
		if err := w.Pause("", time.Hour); err != nil { // a condition
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		reloads(t, w, snapshots)
		close(release)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		page := pageOf(t, w.options.Metrics) + pageOf(t, w.options.Health)
		for line := range strings.Lines(page) {
			if strings.Contains(line, `db="busy"`) || strings.Contains(line, `db="hung"`) {
				t.Errorf("left: %s", line)
			}
		}
	})
}

// What was told ends with the configuration of its policy or database, which nobody would end later.
func TestToldOfWhatIsRemoved(t *testing.T) {
	t.Parallel()
	const none = `
policy "tell" {
  databases = ["other"]
  when      = wal.bytes > bytes("4MB")
  notify    = [notifier.webhook.ops]
}`
	for name, reload := range map[string]func(w *running, target Target){
		"the policy":               func(w *running, target Target) { reloads(t, w, shrink, target) },
		"the policy, for this one": func(w *running, target Target) { reloads(t, w, none, target) },
		"the database":             func(w *running, _ Target) { reloads(t, w, tells) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, n, dropped := &scene{walBytes: 8 << 20}, &notices{}, []string{}
				target := n.target(s, "app")
				w := run(t, Options{Targets: []Target{target}, Policies: policies(t, tells),
					Dropped: func(db, policy string) { dropped = append(dropped, db+" "+policy) }})
				time.Sleep(5 * time.Second)
				reload(w, target)
				time.Sleep(5 * time.Second)
				synctest.Wait()
				if len(dropped) != 1 || dropped[0] != "app tell" {
					t.Errorf("dropped %q", dropped)
				}
			})
		})
	}
}

// A shutdown during a reload, or after one whose database was slow to leave, waits for the last sync of the
// database that the reload removes or changes.
func TestShutdownDuringAReload(t *testing.T) {
	t.Parallel()
	for _, hung := range []bool{false, true} {
		for name, change := range map[string]func(Target) []Target{
			"removed": func(Target) []Target { return nil },
			"changed": func(target Target) []Target { return []Target{changed(target)} },
		} {
			t.Run(fmt.Sprintf("%s, hung: %t", name, hung), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s, release, synced := &scene{}, make(chan struct{}), errors.New("no last sync")
					target := s.target("app")
					open := target.Open
					target.Open = func(ctx context.Context) (Parts, error) {
						parts, err := open(ctx)
						parts.Close = func(ctx context.Context) error {
							select {
							case <-time.After(10 * time.Second):
								synced = nil
							case <-ctx.Done():
								synced = ctx.Err()
							}
							return synced
						}
						return parts, err
					}
					state := filepath.Join(t.TempDir(), "state.json")
					w := New(Options{Targets: []Target{target}, Policies: policies(t, shrink), StateFile: state})
					ctx, cancel := context.WithCancel(context.Background())
					ended := make(chan error, 1)
					go func() { ended <- w.Run(ctx, 30*time.Second) }()
					time.Sleep(3 * time.Second)
					if hung {
						s.set(func(s *scene) { s.onSample = func() { <-release } })
						time.Sleep(3 * time.Second)
					}
					reloaded := make(chan error, 1)
					go func() { reloaded <- w.Reload(context.Background(), change(target), policies(t, shrink)) }()
					if hung {
						if err := <-reloaded; err != nil {
							t.Error(err)
						}
						close(release)
					}
					time.Sleep(time.Second)
					cancel()
					if err := <-ended; err != nil || synced != nil {
						t.Errorf("Run: %v, the last sync: %v", err, synced)
					}
					if hung {
						return
					}
					if err := <-reloaded; !errors.Is(err, ErrEnded) {
						t.Errorf("Reload: %v, want ErrEnded", err)
					}
					again := run(t, Options{Targets: []Target{target}, Policies: policies(t, shrink), StateFile: state})
					synctest.Wait()
					if d, err := again.Database("app"); err != nil || !d.Found {
						t.Errorf("after the next start: %+v, %v", d, err)
					}
				})
			})
		}
	}
}
