package web

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/testbrowser"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/policy"
)

// picture saves a screenshot of the page in the directory $SQLWATCH_SCREENSHOTS, if that is set.
func picture(t *testing.T, b *testbrowser.Browser, name string) {
	t.Helper()
	dir := os.Getenv("SQLWATCH_SCREENSHOTS")
	if dir == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), b.Picture(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// changing is a Sampler whose sample a test sets.
type changing struct {
	at *atomic.Pointer[collector.Sample]
}

func (c changing) Sample(context.Context) collector.Sample {
	s := *c.at.Load()
	s.At = time.Now()
	return s
}
func (c changing) Poll()        {}
func (c changing) Close() error { return nil }

// startChanging is start with samples that can be set, by name.
func startChanging(t *testing.T, samples ...collector.Sample) (*watchdog.Watchdog,
	map[string]*atomic.Pointer[collector.Sample]) {
	t.Helper()
	w, _, at := startOnBoard(t, samples...)
	return w, at
}

// startOnBoard is startChanging, and also returns the board with the conditions.
func startOnBoard(t *testing.T, samples ...collector.Sample) (*watchdog.Watchdog, *health.Board,
	map[string]*atomic.Pointer[collector.Sample]) {
	t.Helper()
	board := health.NewBoard()
	policies, diags := policy.Parse(nil, &policy.Scope{})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	at := map[string]*atomic.Pointer[collector.Sample]{}
	var targets []watchdog.Target
	for _, s := range samples {
		at[s.DB] = &atomic.Pointer[collector.Sample]{}
		at[s.DB].Store(&s)
		targets = append(targets, watchdog.Target{Name: s.DB, Path: "/srv/" + s.DB,
			Open: func(context.Context) (watchdog.Parts, error) {
				return watchdog.Parts{Sampler: changing{at[s.DB]}}, nil
			}})
	}
	return run(t, watchdog.Options{Targets: targets, Policies: policies, Interval: 20 * time.Millisecond,
		Health: board}), board, at
}

// severable is a server that can be told to stop answering.
type severable struct {
	mu      sync.Mutex
	severed bool
	next    http.Handler
}

func (s *severable) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	severed := s.severed
	s.mu.Unlock()
	if severed {
		panic(http.ErrAbortHandler)
	}
	s.next.ServeHTTP(rw, r)
}

func (s *severable) sever(yes bool) { s.mu.Lock(); s.severed = yes; s.mu.Unlock() }

// anHour returns the past hour of a replica that was out of reach for some minutes.
func anHour(outage ...float64) collector.ReplicaHistory {
	var h collector.ReplicaHistory
	for i := range 60 {
		h.BehindByMinute = append(h.BehindByMinute, new(0.4+float64(i%3)))
		if at := i - 20; at >= 0 && at < len(outage) {
			h.BehindByMinute[i] = &outage[at]
		}
	}
	return h
}

func fleet(n int) []collector.Sample {
	all := []collector.Sample{
		{DB: "app", State: collector.StateUp, Database: collector.Database{SizeBytes: 153e6, Pages: 37354,
			EngineVersion: "3.45.1", Processes: 3},
			WAL: collector.WAL{Known: true, SizeBytes: 41e6, PageSize: 4096, Frames: 7000, CheckpointedFrames: 2500,
				LastWrite: time.Now().Add(-3 * time.Second), LagSince: time.Now().Add(-40 * time.Second)},
			Readers: collector.Readers{Active: 1, OldestFrame: 2500, PinnedSince: time.Now().Add(-42 * time.Second),
				OldestPID: 4711, OldestCommand: "report"},
			Disk: collector.Disk{Known: true, FreeBytes: 80e9, SizeBytes: 200e9, Mountpoint: "/srv"},
			Replicas: []collector.Replica{{Name: "s3.main", Healthy: true, CaughtUp: time.Now(), ObjectiveSeconds: 1,
				LastSnapshot: time.Now().Add(-5 * time.Hour), StoredBytes: 420e6,
				OldestRestorePoint: time.Now().Add(-700 * time.Hour), LastVerified: time.Now().Add(-50 * time.Hour),
				DrillSeconds: 12.3, ReplicaHistory: anHour(40, 100, 160, 220, 30)}}},
		{DB: "orders", State: collector.StateUp, WAL: collector.WAL{Known: true, SizeBytes: 612e6, PageSize: 4096,
			Frames: 90000, CheckpointedFrames: 90000}, Locks: collector.Locks{WriteHeld: true,
			WriteSince: time.Now().Add(-78 * time.Second), WriterPID: 913, WriterCommand: "import"}},
		{DB: "gone", State: collector.StateMissing,
			Err: "no file at /srv/gone: waiting for the application to create it. If the path is wrong, correct it in the " +
				"configuration."},
	}
	for i := range n - len(all) {
		all = append(all, collector.Sample{DB: fmt.Sprintf("tenant-%03d", i), State: collector.StateUp,
			Database: collector.Database{SizeBytes: 4e6},
			WAL:      collector.WAL{Known: true, SizeBytes: 4152e3, PageSize: 4096, Frames: 100, CheckpointedFrames: 100},
			Replicas: []collector.Replica{{Name: "s3.main", Healthy: true, CaughtUp: time.Now(), ObjectiveSeconds: 1,
				ReplicaHistory: anHour()}}})
	}
	return all
}

// In a browser that enforces the page's headers, values change in place; what a person has
// focused, selected, unfolded or scrolled to stays; and the page says when it is out of date.
func TestPageInABrowser_V1_V2(t *testing.T) {
	t.Parallel()
	b := testbrowser.New(t)
	w, at := startChanging(t, fleet(40)...)
	door := &severable{next: Handler(Options{Watchdog: w, Version: "v1.2.3",
		Logger: slog.New(slog.DiscardHandler)})}
	server := httptest.NewServer(door)
	t.Cleanup(server.Close)

	b.Screen(1280, 800, "light")
	b.Open(server.URL + "/")
	b.Await("the page", `document.querySelectorAll("#databases > tbody").length === 40`)
	picture(t, b, "page-light")
	if first := b.Eval(
		`document.querySelector("tbody").id + " " + document.querySelector("tbody").className`); first != "db-orders bad" {
		t.Errorf("the first row is %v: what is worst comes first", first)
	}

	b.Eval(`document.querySelector("#db-app a").focus(); document.querySelector("#db-app a").click()`)
	b.Await("the details", `document.querySelector("#db-app .more") !== null`)
	b.Eval(`scrollTo(0, 300); getSelection().selectAllChildren(document.querySelector("#db-orders .health p"))`)
	selected := b.Eval(`String(getSelection())`)
	changed := *at["app"].Load()
	changed.Database.SizeBytes = 777e6
	at["app"].Store(&changed)
	b.Await("the new size", `document.querySelector("#db-app").innerText.includes("777 MB")`)
	if at := b.Eval(`document.activeElement.dataset.db`); at != "app" {
		t.Errorf("the focus is on %v, want app's link", at)
	}
	if now := b.Eval(`String(getSelection())`); now != selected || !strings.Contains(fmt.Sprint(now), "write lock") {
		t.Errorf("the selection was %q and is %q", selected, now)
	}
	if y := b.Eval(`scrollY`); y != 300.0 {
		t.Errorf("scrolled to %v, want 300", y)
	}
	if open := b.Eval(`document.querySelector("#db-app .more") !== null`); open != true {
		t.Error("what was unfolded is folded")
	}
	b.Eval(`scrollTo(0, 0)`)
	picture(t, b, "page-unfolded")

	b.Eval(`getSelection().removeAllRanges()`)
	healed := *at["orders"].Load()
	healed.Locks = collector.Locks{}
	at["orders"].Store(&healed)
	b.Await("the order to change", `document.querySelector("#db-orders").className === "warn"`)

	b.Eval(`document.querySelector("[name=trouble]").click()`)
	b.Await("only trouble", `document.querySelectorAll("#databases > tbody").length === 2`)
	b.Eval(`document.querySelector("[name=trouble]").click()`)
	b.Await("all again", `document.querySelectorAll("#databases > tbody").length === 40`)

	for name, screen := range map[string][2]int{"phone": {390, 844}, "dark": {1280, 800}} {
		b.Screen(screen[0], screen[1], map[string]string{"phone": "light", "dark": "dark"}[name])
		picture(t, b, "page-"+name)
		if wide := b.Eval(`document.documentElement.scrollWidth <= innerWidth`); wide != true {
			t.Errorf("%s: the page is wider than the screen", name)
		}
	}

	door.sever(true)
	b.Await("the page to say that it is old",
		`document.body.classList.contains("stale") && document.title.includes("does not answer")`)
	picture(t, b, "page-stale")
	if !slices.ContainsFunc(b.Accessible(), func(n testbrowser.Node) bool { return n.Role == "alert" }) {
		t.Error("a screen reader is not told that the page is old")
	}
	door.sever(false)
	b.Await("the page to recover",
		`!document.body.classList.contains("stale") && !document.title.includes("does not answer")`)
}
