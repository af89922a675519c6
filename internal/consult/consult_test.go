package consult

import (
	"io"
	"testing"

	"github.com/sqlwatch/sqlwatch/internal/admin"
	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/doctor"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/target"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
)

// soon gives up a function that does not return, and waits for one that does.
func TestSoon(t *testing.T) {
	t.Parallel()
	never := make(chan struct{})
	t.Cleanup(func() { close(never) })
	if soon(func() { <-never }) {
		t.Error("soon waited for a function that does not return")
	}
	looked := false
	if !soon(func() { looked = true }) || !looked {
		t.Error("a look that returns is not waited for")
	}
}

// The daemon's conditions are found by a database's name or its path, and are never nil.
func TestAnswers(t *testing.T) {
	t.Parallel()
	app := admin.Database{}
	app.DatabaseStatus = watchdog.DatabaseStatus{Name: "app", Path: "/srv/app.db",
		Conditions: []health.Condition{{ID: "paused", Severity: health.Info}, {ID: "hung", Severity: health.Critical}}}
	known := answers{databases: []admin.Database{app}}
	for _, target := range []config.DatabaseTarget{{Name: "app"}, {Name: "app.db", Path: "/srv/app.db"}} {
		if got := known.of(target, nil); len(got) != 2 || wrong(got) != 1 {
			t.Errorf("%v: %v", target, got)
		}
	}
	if got := known.of(config.DatabaseTarget{Name: "other", Path: "/srv/other.db"}, nil); got == nil || len(got) != 0 {
		t.Errorf("of another: %v", got)
	}
	if named, err := known.named([]string{"app"}); err != nil || len(named) != 1 || named[0].Path != "/srv/app.db" {
		t.Errorf("by name: %v, %v", named, err)
	}
	if _, err := known.named([]string{"nobody"}); err == nil {
		t.Error("somebody was found who is not there")
	}
}

// doctor does not repeat as a finding what the daemon already reports.
func TestOneFactIsToldOnce(t *testing.T) {
	t.Parallel()
	found := []doctor.Finding{{ID: "wal-reset-bug"}, {ID: "world-readable"}}
	left := unsaid(found, []health.Condition{{ID: "wal_reset_bug"}})
	if len(left) != 1 || left[0].ID != "world-readable" {
		t.Errorf("left is %v", left)
	}
}

// A name that is in no configuration is looked up with the daemon, which may have been started
// with files as arguments: the cures of conditions use such names.
func TestNameWithoutConfiguration(t *testing.T) {
	t.Parallel()
	app := admin.Database{}
	app.DatabaseStatus = watchdog.DatabaseStatus{Name: "app", Path: "/srv/app.db"}
	c := Consultation{Resolver: &target.Resolver{Surroundings: target.Surroundings{
		Getenv: func(string) (string, bool) { return "", false }, Stderr: io.Discard}}}
	if _, err := c.Resolver.ConfigPath(); err == nil {
		t.Skip("this machine has a configuration")
	}
	got, cfg, tips, err := c.targets(Request{Names: []string{"app"}}, answers{databases: []admin.Database{app}})
	if err != nil || len(got) != 1 || got[0].Path != "/srv/app.db" || cfg != nil || len(tips) > 0 {
		t.Errorf("%v, %v, %v", got, tips, err)
	}
	other := Request{Names: []string{"other"}}
	if _, _, _, err := c.targets(other, answers{databases: []admin.Database{app}}); err == nil {
		t.Error("a database that nobody knows was found")
	}
}
