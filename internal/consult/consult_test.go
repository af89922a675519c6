package consult

import (
	"testing"

	"github.com/sqlwatch/sqlwatch/internal/admin"
	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
)

// A look that does not return is given up; one that does is waited for.
func TestSoon(t *testing.T) {
	t.Parallel()
	never := make(chan struct{})
	t.Cleanup(func() { close(never) })
	if soon(func() { <-never }) {
		t.Error("a look that does not return is waited for")
	}
	looked := false
	if !soon(func() { looked = true }) || !looked {
		t.Error("a look that returns is not waited for")
	}
}

// What the daemon knows is found by a database's name or its path, and is never nil.
func TestAnswers(t *testing.T) {
	t.Parallel()
	app := admin.Database{}
	app.DatabaseStatus = watchdog.DatabaseStatus{Name: "app", Path: "/srv/app.db",
		Conditions: []health.Condition{{ID: "paused", Severity: health.Info}, {ID: "hung", Severity: health.Critical}}}
	known := answers{databases: []admin.Database{app}}
	for _, target := range []config.DatabaseTarget{{Name: "app"}, {Name: "app.db", Path: "/srv/app.db"}} {
		if got := known.of(target); len(got) != 2 || wrong(got) != 1 {
			t.Errorf("%v: %v", target, got)
		}
	}
	if got := known.of(config.DatabaseTarget{Name: "other", Path: "/srv/other.db"}); got == nil || len(got) != 0 {
		t.Errorf("of another: %v", got)
	}
	if named, err := known.named([]string{"app"}); err != nil || len(named) != 1 || named[0].Path != "/srv/app.db" {
		t.Errorf("by name: %v, %v", named, err)
	}
	if _, err := known.named([]string{"nobody"}); err == nil {
		t.Error("somebody was found who is not there")
	}
}
