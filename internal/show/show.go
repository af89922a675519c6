// Package show says sizes, times and spans as every view of sqlwatch does, and
// keeps text that comes from elsewhere from steering a terminal.
package show

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
)

// Bytes returns a size in the units in which a configuration is written: powers
// of ten, as "34 MB".
func Bytes(n int64) string { return humanize.Bytes(uint64(max(n, 0))) }

// Count returns a number of things by their name, which is one's: "1 file", "2 files", "2 policies",
// "2 processes".
func Count(n int, thing string) string {
	switch stem, y := strings.CutSuffix(thing, "y"); {
	case n == 1:
	case y:
		thing = stem + "ies"
	case strings.HasSuffix(thing, "s"):
		thing += "es"
	default:
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

// Time returns an instant with its zone, in the zone of whoever looks.
func Time(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 MST") }

// Clock returns the time of day with its zone.
func Clock(t time.Time) string { return t.Local().Format("15:04:05 MST") }

// Ago says how long before now an instant was.
func Ago(now, t time.Time) string {
	if t.IsZero() {
		return "not seen"
	}
	return Span(now.Sub(t)) + " ago"
}

// Span returns a duration with the precision that a person wants.
func Span(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d >= time.Hour:
		d = d.Round(time.Minute)
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	case d >= 10*time.Minute:
		return fmt.Sprintf("%d min", d.Round(time.Minute)/time.Minute)
	case d >= time.Minute:
		d = d.Round(time.Second)
		return fmt.Sprintf("%d min %d s", d/time.Minute, d%time.Minute/time.Second)
	case d >= 10*time.Second:
		return fmt.Sprintf("%d s", d.Round(time.Second)/time.Second)
	case d >= time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d == 0:
		return "0 s"
	case d < time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%d ms", d.Round(time.Millisecond)/time.Millisecond)
}

// Seconds is Span of a number of seconds.
func Seconds(s float64) string { return Span(time.Duration(s * float64(time.Second))) }

// Text returns s with every character escaped that could steer a terminal or turn
// the order of what is read: control characters, also the line's end, marks of
// direction, and bytes that are not UTF-8.
func Text(s string) string {
	if !strings.ContainsFunc(s, steers) {
		return s
	}
	return string(escape(nil, []byte(s), func(r rune) bool { return !steers(r) }))
}

// steers reports whether a terminal does something else with r than show it.
func steers(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == utf8.RuneError || r == '\u2028' ||
		r == '\u2029'
}

// escape appends text to dst; what may not stay becomes \x1b or \u202e.
func escape(dst, text []byte, stays func(rune) bool) []byte {
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && n == 1 || r < utf8.RuneSelf && !stays(r):
			dst = fmt.Appendf(dst, `\x%02x`, text[0])
		case !stays(r):
			dst = fmt.Appendf(dst, `\u%04x`, r)
		default:
			dst = append(dst, text[:n]...)
		}
		text = text[n:]
	}
	return dst
}

// Printer writes text to a terminal or a file. Lines, tabs and the colours of diagnostics
// stay, anything else that could steer a terminal is escaped as by Text.
type Printer struct{ to io.Writer }

// NewPrinter returns a Printer that writes to w.
func NewPrinter(w io.Writer) *Printer { return &Printer{w} }

// Unwrap returns what w writes to where it is a Printer, else w itself: for data that are
// no words, and to ask whether it is a terminal.
func Unwrap(w io.Writer) io.Writer {
	if p, ok := w.(*Printer); ok {
		return p.to
	}
	return w
}

// colours are what diagnostics are painted with. They hide nothing and move nothing.
var colours = regexp.MustCompile("\x1b\\[(0|1|1;31|1;33)m")

// Write implements io.Writer. A character that is cut in two by the end of p is
// escaped: every caller writes whole lines.
func (p *Printer) Write(text []byte) (int, error) {
	stays := func(r rune) bool { return r == '\n' || r == '\t' || !steers(r) }
	out := make([]byte, 0, len(text))
	rest := text
	for _, at := range colours.FindAllIndex(text, -1) {
		begin, end := at[0]-len(text)+len(rest), at[1]-len(text)+len(rest)
		out = append(escape(out, rest[:begin], stays), rest[begin:end]...)
		rest = rest[end:]
	}
	if _, err := p.to.Write(escape(out, rest, stays)); err != nil {
		return 0, err
	}
	return len(text), nil
}

// JSON writes v as Marshal encodes it, indented. What could steer a terminal and JSON lets pass is escaped as
// JSON does.
func JSON(w io.Writer, v any) error {
	text, err := indented(v)
	if err != nil {
		return err
	}
	var out []byte
	for _, r := range string(text) {
		if r != '\n' && steers(r) && r != utf8.RuneError {
			out = fmt.Appendf(out, `\u%04x`, r)
		} else {
			out = utf8.AppendRune(out, r)
		}
	}
	_, err = Unwrap(w).Write(out)
	return err
}

// Quote returns name as one word of a shell, for a command that somebody pastes.
func Quote(name string) string {
	plain := func(r rune) bool {
		return r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("_-./:@%+,=", r))
	}
	if name != "" && !strings.ContainsFunc(name, func(r rune) bool { return !plain(r) }) {
		return name
	}
	if strings.ContainsFunc(name, steers) {
		return "$'" + strings.ReplaceAll(Text(strings.ReplaceAll(name, `\`, `\\`)), "'", `\'`) + "'"
	}
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
}
