package web

import (
	"fmt"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/testbrowser"
)

// opened opens a page with a small fleet, in which two databases are unfolded.
func opened(t *testing.T, width int, scheme string) *testbrowser.Browser {
	t.Helper()
	b := testbrowser.New(t)
	w, _ := startChanging(t, fleet(8)...)
	server := httptest.NewServer(Handler(Options{Watchdog: w, Version: "v1.2.3",
		Logger: slog.New(slog.DiscardHandler)}))
	t.Cleanup(server.Close)
	b.Screen(width, 800, scheme)
	b.Open(server.URL + "/?open=app&open=orders")
	b.Await("the page", `document.querySelectorAll("#databases > tbody").length === 8 && location.search !== ""`)
	return b
}

// The text can be read, in light and dark, on a desktop and on a phone.
func TestPageCanBeSeen_V1(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"light", "dark"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			b := opened(t, 1280, scheme)
			for _, width := range []int{1280, 760, 360} {
				b.Screen(width, 800, scheme)
				for what, problems := range map[string][]string{"contrast": b.Contrast(), "too wide": b.TooWide(),
					"too small": b.TooSmall()} {
					if len(problems) > 0 {
						t.Errorf("%d px, %s:\n  %s", width, what, strings.Join(problems, "\n  "))
					}
				}
				picture(t, b, fmt.Sprintf("page-%s-%d", scheme, width))
			}
		})
	}
}

// A screen reader announces what can be seen, on wide and narrow screens.
func TestPageCanBeHeard_V1(t *testing.T) {
	t.Parallel()
	b := opened(t, 1280, "light")
	for _, width := range []int{1280, 360} {
		b.Screen(width, 800, "light")
		nodes := b.Accessible()
		has := func(role, name string) {
			t.Helper() // a style may write in capitals
			if !slices.ContainsFunc(nodes, func(n testbrowser.Node) bool {
				return n.Role == role && strings.Contains(strings.ToLower(n.Name), strings.ToLower(name))
			}) {
				t.Errorf("%d px: a screen reader hears of no %s %q among\n%v", width, role, name, nodes)
			}
		}
		for _, want := range [][2]string{
			{"table", "Databases, those in trouble first"}, {"columnheader", "health"}, {"columnheader", "replicas, last hour"},
			{"rowheader", "app"}, {"rowheader", "tenant-004"}, {"link", "orders"}, {"main", ""}, {"banner", ""},
			{"navigation", "data"}, {"search", ""}, {"searchbox", "name"}, {"checkbox", "only trouble"}, {"status", ""},
			{"heading", "sqlwatch"}, {"heading", "Databases"}, {"heading", "Replicas"},
			{"image", "last hour: up to"}, {"image", "% of 512 MB"}, {"image", "7,000 frames, 2,500 of them in the database"},
			{"StaticText", "critical"},
		} {
			has(want[0], want[1])
		}
		var columns, expanded int
		level := 0.0
		for _, n := range nodes {
			if n.Role == "image" && n.Name == "" || n.Props["focusable"] == true && n.Name == "" && n.Role != "RootWebArea" {
				t.Errorf("%d px: %v has no name", width, n)
			}
			if n.Role == "columnheader" {
				columns++
			}
			if n.Props["expanded"] == true {
				expanded++
			}
			if now, ok := n.Props["level"].(float64); ok && n.Role == "heading" {
				if now > level+1 {
					t.Errorf("%d px: heading %q of level %v after one of %v", width, n.Name, now, level)
				}
				level = now
			}
			if n.Role == "row" || n.Role == "table" {
				if live := n.Props["live"]; live != nil && live != "off" {
					t.Errorf("%d px: each change of %v is read out", width, n)
				}
			}
		}
		if columns != 7 || expanded != 2 {
			t.Errorf("%d px: %d columns and %d unfolded rows, want 7 and 2", width, columns, expanded)
		}
	}
}

// Everything can be done by keyboard, in reading order, and the focus is visible.
func TestPageByKeyboard_V2(t *testing.T) {
	t.Parallel()
	b := opened(t, 1280, "light")
	const where = `(() => { const e = document.activeElement; return e.dataset.db || e.name || e.textContent; })()`
	var order []string
	for range 12 {
		b.Press("Tab")
		order = append(order, fmt.Sprint(b.Eval(where)))
		if b.Eval(`(() => { const s = getComputedStyle(document.activeElement);
			return s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2; })()`) != true {
			t.Errorf("it does not show that %v has the focus", order[len(order)-1])
		}
	}
	want := "sqlwatch metrics health databases decisions q trouble orders runbook runbook all of it why, as JSON"
	if got := strings.Join(order, " "); got != want {
		t.Errorf("the focus goes\n  %s, want\n  %s", got, want)
	}
	b.Press("/")
	if at := b.Eval(where); at != "q" {
		t.Errorf("/ leads to %v, want the filter", at)
	}
	for _, key := range []string{"t", "e", "n"} {
		b.Press(key)
	}
	b.Await("the filter", `document.querySelectorAll("#databases > tbody").length === 5 &&
		location.search.includes("q=ten")`)
	b.Eval(`document.querySelector("[data-db=tenant-002]").focus()`)
	b.Press("Enter")
	b.Await("the details", `document.querySelector("#db-tenant-002 .more") !== null`)
	b.Press("Enter")
	b.Await("the fold", `document.querySelector("#db-tenant-002 .more") === null`)
	if at := b.Eval(where); at != "tenant-002" {
		t.Errorf("after folding the focus is on %v", at)
	}
}

// A screen reader announces when the verdict changes, and is silent while it does not.
func TestPageSpeaksUp_V2(t *testing.T) {
	t.Parallel()
	b := testbrowser.New(t)
	w, at := startChanging(t, fleet(8)...)
	server := httptest.NewServer(Handler(Options{Watchdog: w, Logger: slog.New(slog.DiscardHandler)}))
	t.Cleanup(server.Close)
	b.Open(server.URL)
	b.Await("the page", `document.querySelectorAll("#databases > tbody").length === 8`)
	b.Eval(`window.said = []; window.region = document.querySelector("[role=status]");
		new MutationObserver(() => said.push(region.innerText))
			.observe(region, {childList: true, subtree: true, characterData: true})`)
	resize := func(to int64) {
		s := *at["app"].Load()
		s.Database.SizeBytes = to
		at["app"].Store(&s)
	}
	for i := range int64(3) { // three refreshes, each with a change elsewhere
		resize(100e6 + i*1e6)
		b.Await("a refresh", fmt.Sprintf(`document.querySelector("#db-app").innerText.includes("%d MB")`, 100+i))
	}
	if said := b.Texts(`said`); len(said) > 0 {
		t.Errorf("read out though nothing has changed: %q", said)
	}
	s := *at["orders"].Load()
	s.Locks, s.WAL.SizeBytes = collector.Locks{}, 1e6
	at["orders"].Store(&s)
	b.Await("the verdict to be read out", `said.some((s) => s.includes("gone is worth a look"))`)
	if b.Eval(`region.isConnected`) != true {
		t.Error("the region that is listened to was replaced")
	}
}

// The page works without scripts: it reloads itself, filters with a button, and a name is a link
// to the details.
func TestPageWithoutScript_V1(t *testing.T) {
	t.Parallel()
	b := testbrowser.New(t)
	w, _ := startChanging(t, fleet(8)...)
	server := httptest.NewServer(Handler(Options{Watchdog: w, Logger: slog.New(slog.DiscardHandler)}))
	t.Cleanup(server.Close)
	b.Call("Emulation.setScriptExecutionDisabled", map[string]any{"value": true})
	b.Open(server.URL + "/?trouble=1")
	b.Await("the rows", `document.querySelectorAll("#databases > tbody").length === 2`)
	if b.Eval(`document.querySelector("meta[http-equiv=refresh]") !== null &&
		document.querySelector("form button").getBoundingClientRect().height > 0`) != true {
		t.Error("nothing loads the page again, or there is no button")
	}
	b.Open(server.URL)
	b.Await("all rows", `document.querySelectorAll("#databases > tbody").length === 8`)
	b.Eval(`document.querySelector("[data-db=app]").click()`)
	b.Await("the details", `location.search === "?db=app" && document.body.innerText.includes("restored in 12 s")`)
}

// Everything that a person wants to know about a database is in its row or its details.
func TestPageTellsAll_V1(t *testing.T) {
	t.Parallel()
	b := opened(t, 1280, "light")
	row := fmt.Sprint(b.Eval(`document.querySelector("#db-app .main").innerText`))
	details := fmt.Sprint(b.Eval(`document.querySelector("#db-app .more").innerText`))
	for _, want := range []string{"well", "153 MB", "41 MB", "pid 4711 report pins for", "s3.main current"} {
		if !strings.Contains(row, want) {
			t.Errorf("the row lacks %q: %q", want, row)
		}
	}
	for _, want := range []string{"reader_pinning", "4,500 of 7,000 frames",
		"oldest reader at frame 2,500: pid 4711 report", "limit 512 MB", "29 days ago to now",
		"5 h 0 min ago", "restored in 12 s, 2 days ago", "420 MB", "3 processes"} {
		if !strings.Contains(details, want) {
			t.Errorf("the details lack %q: %q", want, details)
		}
	}
	links := b.Texts(`[...document.querySelectorAll("#db-orders .more a")].map((a) => a.href)`)
	if !slices.ContainsFunc(links, func(l string) bool { return strings.HasSuffix(l, "conditions.md#write_lock_held") }) {
		t.Errorf("no link to the runbook among %q", links)
	}
	// The columns are aligned, whatever they contain.
	for _, column := range []int{2, 3, 6} {
		expression := fmt.Sprintf(`[...new Set([...document.querySelectorAll("#databases .main, #databases > thead tr")]
			.map((r) => String(Math.round(r.children[%d - 1].getBoundingClientRect().left))))]`, column)
		if edges := b.Texts(expression); len(edges) != 1 {
			t.Errorf("column %d begins at %v", column, edges)
		}
	}
}

func TestSparkline(t *testing.T) {
	t.Parallel()
	r := collector.Replica{ObjectiveSeconds: 1, CaughtUp: time.Now()}
	if s := newSparkline(&r); s.Within != "" || s.Late != "" || !strings.Contains(s.Words, "nothing is known") {
		t.Errorf("of nothing: %+v", s)
	}
	r.BehindByMinute = []*float64{new(0.0), nil, new(0.0), new(0.0), new(3600.0), new(1e9)}
	s := newSparkline(&r)
	if s.Within != "M54 19h1V20h-1zM56 19h2V20h-2z" || s.Late != "M58 1h2V20h-2z" {
		t.Errorf("within %q, late %q", s.Within, s.Late)
	}
	if want := "up to 11574 days behind, 2 of 5 minutes beyond its objective"; !strings.Contains(s.Words, want) {
		t.Errorf("%q, want %q", s.Words, want)
	}
	if want := "6 min of it: not kept over a restart"; newSparkline(&r).Short != want {
		t.Errorf("%q, want %q", newSparkline(&r).Short, want)
	}
	r.BehindByMinute = make([]*float64, 100)
	for i := range r.BehindByMinute {
		r.BehindByMinute[i] = new(1.0)
	}
	if s := newSparkline(&r); s.Within != "M0 17h60V20h-60z" {
		t.Errorf("an even hour is %q", s.Within)
	}
}
