package top

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/admin"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
)

// database returns a database that is up, with a WAL of this many bytes.
func database(name string, wal int64, conditions ...health.Condition) admin.Database {
	sample := &collector.Sample{State: collector.StateUp}
	sample.WAL.Known, sample.WAL.SizeBytes = true, wal
	return admin.Database{DatabaseStatus: watchdog.DatabaseStatus{Name: name, Path: "/srv/" + name, Sample: sample,
		Conditions: conditions}}
}

type hands struct{ did []string }

func (h *hands) of(look Look) Hands {
	return Hands{
		Look: func(context.Context) Look { return look },
		Checkpoint: func(_ context.Context, db string) string {
			h.did = append(h.did, "checkpoint "+db)
			return db + " truncated"
		},
		Pause: func(_ context.Context, db string, d time.Duration) string {
			h.did = append(h.did, fmt.Sprint("pause ", db, " ", d))
			return db + " paused"
		},
	}
}

// screen is a model that a test sends keys to.
type screen struct {
	t *testing.T
	m tea.Model
}

func open(t *testing.T, h *hands, width, height int, databases ...admin.Database) *screen {
	look := Look{At: time.Unix(1_700_000_000, 0), From: "from the daemon", Databases: databases}
	s := &screen{t, newModel(t.Context(), time.Second, h.of(look))}
	s.send(tea.WindowSizeMsg{Width: width, Height: height})
	s.send(s.m.Init()())
	return s
}

func (s *screen) send(msg tea.Msg) tea.Cmd {
	s.t.Helper()
	var cmd tea.Cmd
	s.m, cmd = s.m.Update(msg)
	model := s.m.(Model)
	lines := model.lines()
	if len(lines) > model.height {
		s.t.Errorf("%d lines on a terminal of %d", len(lines), model.height)
	}
	for _, line := range lines {
		for _, code := range []string{bold, reverse, plain} {
			line = strings.ReplaceAll(line, code, "")
		}
		if n := ansi.StringWidth(line); n > model.width || strings.ContainsAny(line, "\x1b\a") {
			s.t.Errorf("%d of %d columns, or a control character: %q", n, model.width, line)
		}
	}
	return cmd
}

func (s *screen) keys(keys ...string) {
	s.t.Helper()
	codes := map[string]rune{"enter": tea.KeyEnter, "esc": tea.KeyEscape, "up": tea.KeyUp, "down": tea.KeyDown,
		"backspace": tea.KeyBackspace, "pgdown": tea.KeyPgDown}
	for _, k := range keys {
		msg := tea.KeyPressMsg{Code: codes[k]}
		if msg.Code == 0 {
			msg = tea.KeyPressMsg{Code: []rune(k)[0], Text: k}
		}
		if cmd := s.send(msg); cmd != nil {
			if out := cmd(); out != nil {
				s.send(out)
			}
		}
	}
}

func (s *screen) text() string { return strings.Join(s.m.(Model).lines(), "\n") }

func (s *screen) shows(want ...string) {
	s.t.Helper()
	text := s.text()
	for _, w := range want {
		before, after, found := strings.Cut(text, w)
		_ = before
		if !found {
			s.t.Fatalf("%q does not come, in its order, in\n%s", w, s.text())
		}
		text = after
	}
}

var bad = health.Condition{ID: "wal_large", Severity: health.Critical, What: "The WAL is large.",
	Why:  "A reader stays.",
	Cure: "sqlwatch blockers app"}

// Databases in trouble come first, then the order is the chosen one.
func TestOrder(t *testing.T) {
	t.Parallel()
	s := open(t, &hands{}, 100, 20, database("alpha", 10), database("beta", 99), database("gamma", 1, bad))
	s.shows("3 databases, 1 in trouble", "DATABASE", "gamma", "✖ wal_large", "alpha", "beta", "q quit")
	s.keys("s")
	s.shows("by trouble and WAL", "gamma", "beta", "alpha")
	s.keys("t")
	if s.shows("gamma"); strings.Contains(s.text(), "alpha") {
		t.Error("a database that is well is shown among those in trouble")
	}
}

func TestFilterAndDetails(t *testing.T) {
	t.Parallel()
	s := open(t, &hands{}, 60, 30, database("alpha", 10), database("beta", 99), database("gamma", 1, bad))
	s.keys("/", "A", "L", "x", "backspace")
	s.shows("alpha", "filter by name: AL")
	if strings.Contains(s.text(), "beta") {
		t.Error("the filter lets others through")
	}
	s.keys("enter", "esc") // first end the typing, then show all again
	s.shows("gamma", "alpha", "beta")
	s.keys("down", "down", "enter")
	s.shows("beta", "/srv/beta", "wal: 99 B")
	s.keys("esc", "up", "up", "enter")
	s.shows("gamma", "CRITICAL wal_large: The WAL is large.", "A reader stays.", "→ sqlwatch blockers app")
}

// Nothing is done before a yes, and then only to the chosen database, even if rows have moved.
func TestActions(t *testing.T) {
	t.Parallel()
	h := &hands{}
	s := open(t, h, 100, 20, database("alpha", 10), database("beta", 99))
	s.keys("down", "c")
	s.shows("checkpoint beta? y: yes")
	s.keys("n")
	if len(h.did) > 0 {
		t.Fatalf("done without a yes: %v", h.did)
	}
	s.keys("c")
	look := s.m.(Model).look
	look.Databases = []admin.Database{database("aaa", 1), database("alpha", 10), database("beta", 99)}
	s.send(lookedMsg(look)) // another row appears above while the question is open
	s.keys("y")
	s.shows("beta truncated")
	s.keys("p", "y")
	s.shows("beta paused")
	if got := strings.Join(h.did, "; "); got != "checkpoint beta; pause beta 1h0m0s" {
		t.Errorf("did %s", got)
	}
}

// The screen copes with small terminals, many rows, names with escape sequences, a missing daemon
// and an error.
func TestSizes(t *testing.T) {
	t.Parallel()
	var many []admin.Database
	for i := range 200 {
		many = append(many, database(fmt.Sprintf("tenant-%03d\x1b[2J\a", i), int64(i), bad))
	}
	for _, size := range [][2]int{{80, 24}, {20, 5}, {1, 1}, {300, 100}, {40, 3}} {
		s := open(t, &hands{}, size[0], size[1], many...)
		s.keys("pgdown", "pgdown", "down", "enter", "pgdown", "down", "esc", "/", "1", "9", "enter", "c", "n")
		look := s.m.(Model).look
		look.Err, look.Databases = errors.New("no daemon\x1b[2J answers"), nil
		look.Itself.Conditions = health.Unreachable("gone", time.Now())
		s.send(lookedMsg(look))
		s.keys("down", "enter", "c", "p", "t", "s")
	}
	s := open(t, &hands{}, 80, 24, many...)
	for range 150 {
		s.keys("down")
	}
	s.shows("tenant-150")
}

// Characters that take two cells count as two: columns stay aligned, and no line is wider than
// the terminal.
func TestWideCharacters(t *testing.T) {
	t.Parallel()
	for _, width := range []int{60, 61, 120} {
		s := open(t, &hands{}, width, 12, database("顧客データ", 1e6), database("app", 2e6))
		s.shows("顧客データ")
		at := -1
		for _, line := range s.m.(Model).lines() {
			line = ansi.Strip(line)
			if n := ansi.StringWidth(line); n > width {
				t.Errorf("%d cells of %d: %s", n, width, line)
			}
			if before, _, found := strings.Cut(line, "  up"); found {
				column := ansi.StringWidth(strings.TrimRight(before, " "))
				column += len(before) - len(strings.TrimRight(before, " "))
				if at >= 0 && column != at {
					t.Errorf("the second column begins at %d and at %d", at, column)
				}
				at = column
			}
		}
		if at < 0 {
			t.Fatal("no row is shown")
		}
	}
}
