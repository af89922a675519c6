// Package top is the live view of a terminal: one row a database, trouble first, details
// on demand, and the two actions that somebody looking at it wants, each after a question.
//
// Reading order: Model and its Update here, which is pure; view.go, what it shows; run.go,
// the terminal.
package top

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/sqlwatch/sqlwatch/internal/admin"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/internal/views"
	"github.com/sqlwatch/sqlwatch/internal/web"
)

// Look is what one look found.
type Look struct {
	At        time.Time
	From      string // "from the daemon", "by looking at the files"
	Itself    web.Health
	Databases []admin.Database
	Err       error
}

// Hands are what the view may do.
type Hands struct {
	Look       func(ctx context.Context) Look
	Checkpoint func(ctx context.Context, db string) (said string)
	Pause      func(ctx context.Context, db string, length time.Duration) (said string)
}

// pauseFor is how long policies are paused by a key.
const pauseFor = time.Hour

// order is by what rows are sorted below those in trouble.
type order int

const (
	byName order = iota
	byWAL
	bySize
	byLag
	orders
)

var orderNames = [orders]string{"name", "WAL", "size", "checkpoint lag"}

// question is an action that waits for a yes.
type question struct {
	text string
	do   tea.Cmd
}

// Model is the view's state. Update and View do nothing but compute.
type Model struct {
	every         time.Duration
	hands         commands
	look          Look
	width, height int
	cursor        string // the name of the chosen row: rows move
	order         order
	filter        string
	typing        bool // into the filter
	troubleOnly   bool
	detail        bool
	scroll        int // of the details
	ask           *question
	said          string // how the last action ended
	waiting       string // which action is under way
}

// commands are the Hands as commands of the library.
type commands struct {
	look       tea.Cmd
	checkpoint func(db string) tea.Cmd
	pause      func(db string) tea.Cmd
}

// The messages beside those of the terminal.
type (
	lookedMsg Look
	saidMsg   string
	tickMsg   time.Time
)

// Init implements tea.Model.
func (m Model) Init() tea.Cmd { return m.hands.look }

// Update implements tea.Model.
func (m Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case lookedMsg:
		if m.look = Look(msg); m.row() < 0 {
			m.cursor = ""
		}
		return m, tea.Tick(m.every, func(t time.Time) tea.Msg { return tickMsg(t) })
	case tickMsg:
		return m, m.hands.look
	case saidMsg:
		m.said, m.waiting = string(msg), ""
		return m, nil
	case tea.KeyPressMsg:
		return m.key(msg.String(), msg.Key().Text)
	}
	return m, nil
}

// key answers a key: of a question, of the filter, or of the table.
func (m Model) key(key, text string) (tea.Model, tea.Cmd) {
	switch {
	case key == "ctrl+c":
		return m, tea.Quit
	case m.ask != nil:
		asked := m.ask
		m.ask = nil
		if key == "y" {
			m.waiting, m.said = asked.text, ""
			return m, asked.do
		}
		return m, nil
	case m.typing:
		return m.typed(key, text), nil
	}
	switch key {
	case "q":
		return m, tea.Quit
	case "esc":
		m.detail, m.filter, m.scroll = false, "", 0
	case "enter":
		m.detail, m.scroll = !m.detail && m.chosen() != nil, 0
	case "up", "k":
		m = m.move(-1)
	case "down", "j":
		m = m.move(1)
	case "pgup":
		m = m.move(-10)
	case "pgdown":
		m = m.move(10)
	case "s":
		m.order = (m.order + 1) % orders
	case "t":
		m.troubleOnly = !m.troubleOnly
	case "/":
		m.typing, m.detail = true, false
	case "c", "p":
		m.ask = m.question(key)
	}
	return m, nil
}

func (m Model) question(key string) *question {
	d := m.chosen()
	if d == nil || m.waiting != "" {
		return nil
	}
	if key == "c" {
		return &question{"checkpoint " + d.Name, m.hands.checkpoint(d.Name)}
	}
	return &question{fmt.Sprintf("pause the policies of %s for %s", d.Name, show.Span(pauseFor)), m.hands.pause(d.Name)}
}

func (m Model) typed(key, text string) Model {
	switch key {
	case "enter":
		m.typing = false
	case "esc":
		m.typing, m.filter = false, ""
	case "backspace":
		if runes := []rune(m.filter); len(runes) > 0 {
			m.filter = string(runes[:len(runes)-1])
		}
	default:
		m.filter += text
	}
	return m
}

// move moves the chosen row, or the details.
func (m Model) move(by int) Model {
	if m.detail {
		m.scroll = max(0, m.scroll+by)
		return m
	}
	rows := m.rows()
	if len(rows) > 0 {
		m.cursor = rows[min(max(0, max(0, m.row())+by), len(rows)-1)].Name
	}
	return m
}

// rows returns the databases that are shown, in their order.
func (m Model) rows() []admin.Database {
	rows := slices.DeleteFunc(slices.Clone(m.look.Databases), func(d admin.Database) bool {
		return m.troubleOnly && !views.Wrong(d, health.Warning) || !strings.Contains(strings.ToLower(d.Name),
			strings.ToLower(m.filter))
	})
	slices.SortStableFunc(rows, func(a, b admin.Database) int {
		if order := cmp.Compare(rank(b), rank(a)); order != 0 {
			return order
		}
		if order := cmp.Compare(m.measure(b), m.measure(a)); order != 0 {
			return order
		}
		return strings.Compare(a.Name, b.Name)
	})
	return rows
}

// rank is higher the sooner a database wants somebody.
func rank(d admin.Database) int {
	switch health.Worst(d.Conditions) {
	case health.Critical:
		return 3
	case health.Warning:
		return 2
	}
	if views.Wrong(d, health.Warning) {
		return 1
	}
	return 0
}

func (m Model) measure(d admin.Database) int64 {
	if d.Sample == nil {
		return 0
	}
	switch m.order {
	case byWAL:
		return d.Sample.WAL.SizeBytes
	case bySize:
		return d.Sample.Database.SizeBytes
	case byLag:
		return int64(d.Sample.WAL.LagFrames())
	}
	return 0
}

// row returns the index of the chosen row, -1 where none is chosen or it is not shown.
func (m Model) row() int {
	return slices.IndexFunc(m.rows(), func(d admin.Database) bool { return d.Name == m.cursor })
}

// chosen returns the chosen database, the first where none was chosen yet.
func (m Model) chosen() *admin.Database {
	rows := m.rows()
	if len(rows) == 0 {
		return nil
	}
	return &rows[max(0, m.row())]
}
