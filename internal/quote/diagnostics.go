package quote

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// The colours of a terminal.
const (
	red    = "\x1b[1;31m"
	yellow = "\x1b[1;33m"
	bold   = "\x1b[1m"
	plain  = "\x1b[0m"
)

// Diagnostics writes diagnostics for a person: what is wrong, where, the
// line with a mark under the place, and what to do. Secrets that stand in the
// line are left out.
func Diagnostics(w io.Writer, files map[string]*hcl.File, diags hcl.Diagnostics, color bool) {
	paint := func(code, s string) string {
		if !color {
			return s
		}
		return code + s + plain
	}
	for _, d := range diags {
		head := paint(red, "error")
		if d.Severity == hcl.DiagWarning {
			head = paint(yellow, "warning")
		}
		fmt.Fprintf(w, "%s: %s\n", head, paint(bold, d.Summary))
		if s := d.Subject; s != nil {
			fmt.Fprintf(w, "  %s:%d:%d\n", s.Filename, s.Start.Line, s.Start.Column)
			writeSnippet(w, files[s.Filename], *s)
		}
		if d.Detail != "" {
			fmt.Fprintf(w, "  %s\n", d.Detail)
		}
		fmt.Fprintln(w)
	}
}

func writeSnippet(w io.Writer, f *hcl.File, r hcl.Range) {
	if f == nil {
		return
	}
	lines := bytes.Split(f.Bytes, []byte("\n"))
	if r.Start.Line < 1 || r.Start.Line > len(lines) {
		return
	}
	from := 0
	for _, l := range lines[:r.Start.Line-1] {
		from += len(l) + 1
	}
	text := lines[r.Start.Line-1]
	raw := printable(string(text))
	line := printable(redactRange(f.Bytes, hidingOf(f).regions, from, from+len(text)))
	number := fmt.Sprint(r.Start.Line)
	fmt.Fprintf(w, "  %s | %s\n", number, line)
	if line != raw {
		return // the columns have moved
	}
	width := 1
	if r.End.Line == r.Start.Line {
		width = max(1, r.End.Column-r.Start.Column)
	}
	lead := []rune(line)
	lead = lead[:min(len(lead), max(0, r.Start.Column-1))]
	for i, c := range lead {
		if c != '\t' {
			lead[i] = ' '
		}
	}
	fmt.Fprintf(w, "  %s | %s%s\n", strings.Repeat(" ", len(number)), string(lead), strings.Repeat("^", min(width, 120)))
}

// printable cuts a line to a width a terminal can show and takes control
// characters out of it.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f {
			return -1
		}
		return r
	}, s)
	if runes := []rune(s); len(runes) > 200 {
		return string(runes[:200]) + "…"
	}
	return s
}

// Finding is one diagnostic for machines.
type Finding struct {
	Severity string `json:"severity"` // error or warning
	Summary  string `json:"summary"`
	Detail   string `json:"detail,omitempty"`
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty"`
	Column   int    `json:"column,omitempty"`
}

// Findings returns diagnostics for machines, never nil.
func Findings(diags hcl.Diagnostics) []Finding {
	out := []Finding{}
	for _, d := range diags {
		j := Finding{Severity: "error", Summary: d.Summary, Detail: d.Detail}
		if d.Severity == hcl.DiagWarning {
			j.Severity = "warning"
		}
		if s := d.Subject; s != nil {
			j.File, j.Line, j.Column = s.Filename, s.Start.Line, s.Start.Column
		}
		out = append(out, j)
	}
	return out
}
