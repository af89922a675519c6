package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
)

// output is a log that can be written to and read concurrently.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func poll(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			all := make([]byte, 1<<20)
			t.Fatalf("timed out: %s; what everybody does:\n%s", what, all[:runtime.Stack(all, true)])
		}
	}
}

// inProcess returns a daemon in this process whose watchdog runs, without listeners.
func inProcess(t *testing.T, configuration string) (*Daemon, *output) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "sqlwatch.hcl")
	server := fmt.Sprintf("server {\n  state_dir = %q\n}\n", dir)
	if err := os.WriteFile(path, []byte(server+configuration), 0o600); err != nil {
		t.Fatal(err)
	}
	load := func() (*config.Config, error) {
		cfg, diags := config.Load(path, os.LookupEnv)
		if diags.HasErrors() {
			return nil, diags
		}
		return cfg, nil
	}
	cfg, err := load()
	if err != nil {
		t.Fatal(err)
	}
	log := &output{}
	d, err := New(Options{Config: cfg, Load: load, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.watchdog.Run(ctx, 10*time.Second) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	poll(t, "the watchdog is ready", d.watchdog.Ready)
	return d, log
}

// Databases of a glob come and go while it is expanded: each is added and released once, and the
// log stays short.
func TestGlobRescan_D40_V4(t *testing.T) {
	t.Parallel()
	const databases = 200
	files := t.TempDir()
	template := filepath.Join(t.TempDir(), "template.db")
	if err := exec.Command("sqlite3", template, "PRAGMA journal_mode=WAL; CREATE TABLE t (x)").Run(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(template)
	if err != nil {
		t.Fatal(err)
	}
	name := func(i int) string { return filepath.Join(files, fmt.Sprintf("tenant%04d.db", i)) }
	create := func(from, to int) {
		for i := from; i < to; i++ {
			if err := os.WriteFile(name(i), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	create(0, databases/2)
	d, log := inProcess(t, fmt.Sprintf("database \"tenants\" {\n  glob = %q\n}\n", files+"/*.db"))
	if got := len(d.watchdog.Targets()); got != databases/2 {
		t.Fatalf("%d databases at the start, want %d", got, databases/2)
	}
	// Files appear and vanish during the expansion.
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		flickering := filepath.Join(files, "flicker.db")
		for {
			select {
			case <-stop:
				os.Remove(flickering)
				return
			default:
				os.WriteFile(flickering, content, 0o600)
				os.Remove(flickering)
			}
		}
	}()
	create(databases/2, databases)
	for i := range databases / 4 {
		if err := os.Remove(name(i)); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		if err := d.rescan(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	<-stopped
	if err := d.rescan(t.Context()); err != nil {
		t.Fatal(err)
	}
	const want = databases - databases/4
	if got := len(d.watchdog.Targets()); got != databases && got != databases+1 {
		t.Errorf("%d databases in the end, want %d and perhaps the one that flickers: those that went stay", got, databases)
	}
	poll(t, "all are up", func() bool {
		up := 0
		for _, s := range d.watchdog.Samples() {
			if s.State == collector.StateUp {
				up++
			}
		}
		return up == want
	})
	gone := filepath.Base(strings.TrimSuffix(name(0), ".db"))
	if s, err := d.watchdog.Database("tenants-" + gone); err != nil || s.Sample.State != collector.StateMissing ||
		health.Worst(s.Conditions) != health.Critical {
		t.Errorf("V4: the database that went is %+v (%v), want missing and critical", s, err)
	}
	if err := d.forget(t.Context(), "tenants-"+gone); err != nil {
		t.Error(err)
	}
	if _, err := d.watchdog.Database("tenants-" + gone); !errors.Is(err, watchdog.ErrUnknownDatabase) {
		t.Errorf("after it was forgotten: %v", err)
	}
	if err := d.forget(t.Context(), "tenants-tenant0100"); err == nil {
		t.Error("a database that is there was forgotten")
	}
	if again, err := loadWatched(d.config.Server.StateDir); err != nil ||
		again.known["tenants-tenant0001"].Path != name(1) {
		t.Errorf("after a restart %+v is known (%v)", again, err)
	}
	if text := log.String(); strings.Contains(text, "level=ERROR") || strings.Count(text, "\n") > 2*databases {
		t.Errorf("%d lines of log:\n%.2000s", strings.Count(text, "\n"), text)
	}
}
