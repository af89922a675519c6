package top

import (
	"fmt"
	"strings"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/sqlwatch/sqlwatch/internal/admin"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/internal/views"
)

const (
	reverse = "\x1b[7m"
	bold    = "\x1b[1m"
	plain   = "\x1b[0m"
)

// View implements tea.Model.
func (m Model) View() tea.View {
	view := tea.NewView(strings.Join(m.lines(), "\n"))
	view.AltScreen = true
	return view
}

// lines returns as many lines as the terminal has, none longer than it is wide.
func (m Model) lines() []string {
	width, height := m.width, m.height
	if width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	head := []string{bold + fit(m.title(), width) + plain}
	for _, c := range m.look.Itself.Conditions {
		head = append(head, fit(fmt.Sprintf("sqlwatch: %s: %s → %s", c.Severity, c.What, c.Cure), width))
	}
	if m.look.Err != nil {
		head = append(head, fit(m.look.Err.Error(), width))
	}
	foot := append([]string{m.prompt(width)}, keys(width)...)
	room := max(0, height-len(head)-len(foot))
	var body []string
	if m.detail {
		body = m.details(width)
		body = body[min(m.scroll, max(0, len(body)-room)):]
	} else {
		body = m.table(width, room)
	}
	body = body[:min(len(body), room)]
	for len(body) < room {
		body = append(body, "")
	}
	all := append(append(head, body...), foot...)
	return all[:min(len(all), height)]
}

// keys are the lines that say what the keys do: one where they fit, else two.
func keys(width int) []string {
	all := []string{"↑↓ choose", "enter details", "c checkpoint", "p pause",
		"/ filter", "t trouble only", "s sort", "q quit"}
	if line := strings.Join(all, "  "); ansi.StringWidth(line) <= width {
		return []string{line}
	}
	return []string{fit(strings.Join(all[:4], "  "), width), fit(strings.Join(all[4:], "  "), width)}
}

func (m Model) title() string {
	wrong := 0
	for _, d := range m.look.Databases {
		if views.Wrong(d, health.Warning) {
			wrong++
		}
	}
	text := fmt.Sprintf("sqlwatch  %s, %d in trouble", show.Count(len(m.look.Databases), "database"), wrong)
	if m.troubleOnly {
		text += " (only these)"
	}
	return fmt.Sprintf("%s  %s  by trouble and %s  %s", text, show.Clock(m.look.At), orderNames[m.order], m.look.From)
}

// prompt is the line for questions, the filter, and how things ended.
func (m Model) prompt(width int) string {
	switch {
	case m.ask != nil:
		return reverse + fit(m.ask.text+"? y: yes, any other key: no", width) + plain
	case m.typing:
		return fit("filter by name: "+m.filter+"▏", width)
	case m.waiting != "":
		return fit(m.waiting+" …", width)
	case m.said != "":
		return fit(m.said, width)
	case m.filter != "":
		return fit("only names with "+m.filter+" (esc shows all)", width)
	}
	return ""
}

// table returns the header and the rows around the chosen one.
func (m Model) table(width, room int) []string {
	rows := m.rows()
	if len(rows) == 0 {
		return []string{"no database is shown"}
	}
	cells := [][]string{views.Header}
	for _, d := range rows {
		row := views.Row(d, m.look.At)
		row[1] = fares(d)
		cells = append(cells, row)
	}
	widths := make([]int, len(views.Header))
	for _, row := range cells {
		for i, cell := range row {
			widths[i] = max(widths[i], ansi.StringWidth(show.Text(cell)))
		}
	}
	chosen := max(0, m.row())
	first := max(0, min(chosen-room/2, len(rows)-(room-1)))
	lines := []string{bold + fit(line(cells[0], widths), width) + plain}
	for i := first; i < len(rows) && len(lines) < room; i++ {
		text := fit(line(cells[i+1], widths), width)
		if i == chosen {
			text = reverse + text + strings.Repeat(" ", max(0, width-ansi.StringWidth(text))) + plain
		}
		lines = append(lines, text)
	}
	return lines
}

// fares is the worst that is wrong with a database, else its state.
func fares(d admin.Database) string {
	if len(d.Conditions) == 0 || !health.Wrong(d.Conditions) {
		return views.State(d)
	}
	mark := map[health.Severity]string{health.Critical: "✖ ", health.Warning: "▲ "}[d.Conditions[0].Severity]
	return mark + d.Conditions[0].ID
}

func line(cells []string, widths []int) string {
	var out strings.Builder
	for i, cell := range cells {
		cell = show.Text(cell)
		out.WriteString(cell)
		if i < len(cells)-1 {
			out.WriteString(strings.Repeat(" ", widths[i]-ansi.StringWidth(cell)+2))
		}
	}
	return out.String()
}

// details returns everything about the chosen database, wrapped.
func (m Model) details(width int) (lines []string) {
	d := m.chosen()
	if d == nil {
		return nil
	}
	say := func(indent, format string, args ...any) {
		lines = append(lines, wrap(show.Text(fmt.Sprintf(format, args...)), indent, width)...)
	}
	say("", "%s  %s  %s", d.Name, views.State(*d), d.Path)
	for _, c := range d.Conditions {
		say("", "%s %s: %s", strings.ToUpper(string(c.Severity)), c.ID, c.What)
		say("    ", "%s", c.Why)
		say("    ", "→ %s", c.Cure)
	}
	for i, name := range views.Header[2:] {
		if cell := views.Row(*d, m.look.At)[i+2]; cell != "-" {
			say("  ", "%s: %s", strings.ToLower(name), cell)
		}
	}
	policies(d, say)
	for _, a := range d.Actions {
		say("  ", "%s %s by %s: %s %s", show.Time(a.At), a.Action, a.Policy, a.Outcome, a.Err)
	}
	return lines
}

func policies(d *admin.Database, say func(indent, format string, args ...any)) {
	if d.Decision == nil {
		return
	}
	for _, p := range d.Decision.Policies {
		say("  ", "policy %s: %s: %s", p.Policy, p.Phase, p.Reason)
	}
}

// fit cuts a line to a width in cells, of which some characters take two, and takes out of
// it what could steer a terminal.
func fit(text string, width int) string {
	return ansi.Truncate(show.Text(text), max(0, width), "…")
}

// wrap breaks a line between words.
func wrap(text, indent string, width int) (lines []string) {
	current := indent
	for _, word := range strings.Fields(text) {
		if ansi.StringWidth(current)+1+ansi.StringWidth(word) > width && strings.TrimSpace(current) != "" {
			lines = append(lines, fit(current, width))
			current = indent
		}
		if strings.TrimSpace(current) != "" {
			current += " "
		}
		current += word
	}
	return append(lines, fit(current, width))
}
