package freshness

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
)

func text(behind []*float64) (out string) {
	for _, b := range behind {
		if b == nil {
			out += " ?"
		} else {
			out += fmt.Sprintf(" %g", *b)
		}
	}
	return out
}

func TestHour(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_040, 0) // a minute begins
	replica := collector.Replica{Name: "s3.main"}
	h := NewHour(func() []collector.Replica { return []collector.Replica{replica} })
	h.now = func() time.Time { return now }
	look := func(after time.Duration, behind float64) string {
		now = now.Add(after)
		if replica.CaughtUp, replica.LagSeconds = now, behind; behind < 0 {
			replica.CaughtUp = time.Time{}
		}
		return text(h.Replicas()[0].BehindByMinute)
	}
	for _, step := range []struct {
		name   string
		after  time.Duration
		behind float64
		want   string
	}{
		{"nothing is known of the past at first", 0, -1, ""},
		{"a minute in which it was never whole is unknown", time.Minute, 3, " ?"},
		{"the present minute is not among them", 30 * time.Second, 9, " ?"},
		{"the worst of a minute stands for it", 30 * time.Second, 1, " ? 9"},
		{"minutes in which nobody asked are unknown", 3 * time.Minute, 2, " ? 9 1 ? ?"},
		{"a clock set back repeats nothing", -2 * time.Minute, 4, " ? 9 1 ? ?"},
		{"and goes on from there", time.Minute, 0, " ? 9 1 ? ? 4"},
	} {
		if got := look(step.after, step.behind); got != step.want {
			t.Errorf("%s: got%s, want%s", step.name, got, step.want)
		}
	}
	kept := h.Replicas()[0].BehindByMinute
	before := text(kept)
	for range 100 {
		look(time.Minute, 7)
	}
	if got := h.Replicas()[0].BehindByMinute; len(got) != Minutes || *got[0] != 7 {
		t.Errorf("%d minutes, the first %v; want %d of 7", len(got), *got[0], Minutes)
	}
	if text(kept) != before {
		t.Errorf("what was handed out has changed from%s to%s", before, text(kept))
	}
	if look(1000*time.Hour, 1); len(h.Replicas()[0].BehindByMinute) != Minutes {
		t.Error("a long sleep made the hour longer or shorter")
	}
}

// A restart forgets nothing of the past hour, and the minutes of the restart are unknown. A file
// that cannot be read counts as none.
func TestPast(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_040, 0)
	path := filepath.Join(t.TempDir(), "freshness.json")
	behind := func(past *Past, seconds float64) string {
		h := past.Of("app", func() []collector.Replica {
			return []collector.Replica{{Name: "s3.main", CaughtUp: now, LagSeconds: seconds}}
		})
		h.now = func() time.Time { return now }
		return text(h.Replicas()[0].BehindByMinute)
	}
	past := LoadPast(path)
	behind(past, 5)
	now = now.Add(time.Minute)
	if got := behind(past, 7); got != " 5" {
		t.Errorf("opened anew: %s", got)
	}
	if err := past.Save(); err != nil {
		t.Fatal(err)
	}
	now = now.Add(3 * time.Minute)
	if got := behind(LoadPast(path), 1); got != " 5 7 ? ?" {
		t.Errorf("after a restart: %s", got)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := behind(LoadPast(path), 1); got != "" {
		t.Errorf("of a corrupt file: %s", got)
	}
}

// A killed process has saved the past hour within the last minute, even that of a database that
// it did not open.
func TestKilled(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "freshness.json")
	synctest.Test(t, func(t *testing.T) {
		behind := func(past *Past, db string, seconds float64) string {
			h := past.Of(db, func() []collector.Replica {
				return []collector.Replica{{Name: "s3.main", CaughtUp: time.Now(), LagSeconds: seconds}}
			})
			return text(h.Replicas()[0].BehindByMinute)
		}
		live := func(past *Past) {
			ctx, kill := context.WithCancel(t.Context())
			go past.Keep(ctx, func(err error) { t.Error(err) })
			time.Sleep(61 * time.Second)
			synctest.Wait()
			kill()
		}
		past := LoadPast(path)
		behind(past, "app", 5)
		behind(past, "other", 6)
		live(past)
		past = LoadPast(path)
		if got := behind(past, "app", 7); got != " 5" {
			t.Errorf("after a life of a minute: %s", got)
		}
		live(past) // the other database is not opened in it
		if got := behind(LoadPast(path), "other", 1); got != " 6 ?" {
			t.Errorf("of the one that was not opened: %s", got)
		}
		time.Sleep(2 * time.Hour)
		past = LoadPast(path)
		live(past)
		if got := LoadPast(path).saved; len(got) > 0 {
			t.Errorf("after two hours: %+v", got)
		}
	})
}
