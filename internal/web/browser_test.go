package web

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/policy"
)

// browser is a headless Chromium with one page, spoken to over a pipe.
type browser struct {
	t       *testing.T
	in      *os.File
	out     *bufio.Reader
	session string
	id      int
}

// newBrowser starts a Chromium that enforces what the page's headers say.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium here")
	}
	theirIn, ourOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ourIn, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
		"--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--user-data-dir="+t.TempDir(), "--remote-debugging-pipe",
		"about:blank")
	cmd.ExtraFiles = []*os.File{theirIn, theirOut}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirIn.Close()
	theirOut.Close()
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		ourOut.Close()
		ourIn.Close()
	})
	b := &browser{t: t, in: ourOut, out: bufio.NewReader(ourIn)}
	target := b.call("Target.createTarget", map[string]any{"url": "about:blank"})["targetId"]
	b.session = b.call("Target.attachToTarget", map[string]any{"targetId": target, "flatten": true})["sessionId"].(string)
	b.call("Page.enable", nil)
	return b
}

// call sends one command and returns its result.
func (b *browser) call(method string, params map[string]any) map[string]any {
	b.t.Helper()
	b.id++
	message := map[string]any{"id": b.id, "method": method}
	if params != nil {
		message["params"] = params
	}
	if b.session != "" {
		message["sessionId"] = b.session
	}
	text, err := json.Marshal(message)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.in.Write(append(text, 0)); err != nil {
		b.t.Fatal(err)
	}
	for {
		text, err := b.out.ReadBytes(0)
		if err != nil {
			b.t.Fatalf("%s: the browser has gone: %v", method, err)
		}
		var answer struct {
			ID     int
			Result map[string]any
			Error  any
		}
		if err := json.Unmarshal(text[:len(text)-1], &answer); err != nil {
			b.t.Fatal(err)
		}
		if answer.ID == b.id {
			if answer.Error != nil {
				b.t.Fatalf("%s: %v", method, answer.Error)
			}
			return answer.Result
		}
	}
}

// eval returns the value of an expression in the page.
func (b *browser) eval(expression string) any {
	b.t.Helper()
	answer := b.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true,
		"awaitPromise": true})
	if problem := answer["exceptionDetails"]; problem != nil {
		b.t.Fatalf("%s: %v", expression, problem)
	}
	return answer["result"].(map[string]any)["value"]
}

// await polls until the expression is true.
func (b *browser) await(what, expression string) {
	b.t.Helper()
	for deadline := time.Now().Add(time.Minute); b.eval(expression) != true; <-time.After(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("waited in vain for %s at %v; the page says:\n%v", what,
				b.eval("location.href + document.querySelectorAll('tbody').length + "+
					"[...document.querySelectorAll('tbody')].map((t) => t.id)"), b.eval("document.body.innerText"))
		}
	}
}

// picture keeps what the page looks like where $SQLWATCH_SCREENSHOTS says.
func (b *browser) picture(name string) {
	b.t.Helper()
	dir := os.Getenv("SQLWATCH_SCREENSHOTS")
	if dir == "" {
		return
	}
	data, err := base64.StdEncoding.DecodeString(b.call("Page.captureScreenshot",
		map[string]any{"format": "png"})["data"].(string))
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), data, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// screen sets the window's size, and light or dark.
func (b *browser) screen(width, height int, scheme string) {
	b.t.Helper()
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1,
		"mobile": width < 600})
	b.call("Emulation.setEmulatedMedia", map[string]any{
		"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}})
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

// startOnBoard is startChanging with the board that the conditions stand on.
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

// severable is a server that can be told to answer nothing any more.
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

// anHour is the past of a replica that was out of reach for some minutes of it.
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
				LastWrite: time.Now().Add(-3 * time.Second), OldestBacklog: time.Now().Add(-40 * time.Second)},
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

// The page in a browser that enforces its headers: values change in place, what a
// person has focused, selected, unfolded or scrolled to stays, and what is old says so.
func TestPageInABrowser_V1_V2(t *testing.T) {
	t.Parallel()
	b := newBrowser(t)
	w, at := startChanging(t, fleet(40)...)
	door := &severable{next: Handler(Options{Watchdog: w, Gatherer: nothing{}, Version: "v1.2.3",
		Logger: slog.New(slog.DiscardHandler)})}
	server := httptest.NewServer(door)
	t.Cleanup(server.Close)

	b.screen(1280, 800, "light")
	b.call("Page.navigate", map[string]any{"url": server.URL + "/"})
	b.await("the page", `document.querySelectorAll("#databases > tbody").length === 40`)
	b.picture("page-light")
	if first := b.eval(
		`document.querySelector("tbody").id + " " + document.querySelector("tbody").className`); first != "db-orders bad" {
		t.Errorf("the first row is %v: what is worst comes first", first)
	}

	b.eval(`document.querySelector("#db-app a").focus(); document.querySelector("#db-app a").click()`)
	b.await("the details", `document.querySelector("#db-app .more") !== null`)
	b.eval(`scrollTo(0, 300); getSelection().selectAllChildren(document.querySelector("#db-orders .health p"))`)
	selected := b.eval(`String(getSelection())`)
	changed := *at["app"].Load()
	changed.Database.SizeBytes = 777e6
	at["app"].Store(&changed)
	b.await("the new size", `document.querySelector("#db-app").innerText.includes("777 MB")`)
	if at := b.eval(`document.activeElement.dataset.db`); at != "app" {
		t.Errorf("the focus is on %v, want app's link", at)
	}
	if now := b.eval(`String(getSelection())`); now != selected || !strings.Contains(fmt.Sprint(now), "write lock") {
		t.Errorf("the selection was %q and is %q", selected, now)
	}
	if y := b.eval(`scrollY`); y != 300.0 {
		t.Errorf("scrolled to %v, want 300", y)
	}
	if open := b.eval(`document.querySelector("#db-app .more") !== null`); open != true {
		t.Error("what was unfolded is folded")
	}
	b.eval(`scrollTo(0, 0)`)
	b.picture("page-unfolded")

	b.eval(`getSelection().removeAllRanges()`)
	healed := *at["orders"].Load()
	healed.Locks = collector.Locks{}
	at["orders"].Store(&healed)
	b.await("the order to change", `document.querySelector("#db-orders").className === "warn"`)

	b.eval(`document.querySelector("[name=trouble]").click()`)
	b.await("only trouble", `document.querySelectorAll("#databases > tbody").length === 2`)
	b.eval(`document.querySelector("[name=trouble]").click()`)
	b.await("all again", `document.querySelectorAll("#databases > tbody").length === 40`)

	for name, screen := range map[string][2]int{"phone": {390, 844}, "dark": {1280, 800}} {
		b.screen(screen[0], screen[1], map[string]string{"phone": "light", "dark": "dark"}[name])
		b.picture("page-" + name)
		if wide := b.eval(`document.documentElement.scrollWidth <= innerWidth`); wide != true {
			t.Errorf("%s: the page is wider than the screen", name)
		}
	}

	door.sever(true)
	b.await("the page to say that it is old",
		`document.body.classList.contains("stale") && document.title.includes("does not answer")`)
	b.picture("page-stale")
	door.sever(false)
	b.await("the page to recover",
		`!document.body.classList.contains("stale") && !document.title.includes("does not answer")`)
}
