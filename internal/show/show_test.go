package show

import (
	"bytes"
	"os/exec"
	"testing"
	"time"
)

func TestSpan(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0 s", -time.Second: "0 s", 300 * time.Microsecond: "0.3 ms", 42 * time.Millisecond: "42 ms",
		1500 * time.Millisecond: "1.5 s",
		42 * time.Second:        "42 s", 78 * time.Second: "1 min 18 s", 26 * time.Minute: "26 min",
		90 * time.Minute: "1 h 30 min", 72 * time.Hour: "3 days",
	} {
		if got := Span(d); got != want {
			t.Errorf("Span(%v) = %q, want %q", d, got, want)
		}
	}
}

// A name that somebody else chose must not move the cursor, retitle the window,
// forge a line or turn what is read around.
func TestText_V6_escapes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"app":              "app",
		"Müller ✔":         "Müller ✔",
		"\x1b]0;owned\a":   `\x1b]0;owned\x07`,
		"a\nok: all well":  `a\x0aok: all well`,
		"a\u202etxt.exe":   `a\u202etxt.exe`,
		"a\u009b2J":        `a\u009b2J`,
		"a\xffb":           `a\xffb`,
		"line\u2028forged": `line\u2028forged`,
	} {
		if got := Text(text); got != want {
			t.Errorf("Text(%q) = %q, want %q", text, got, want)
		}
	}
	var out bytes.Buffer
	if n, err := NewPrinter(&out).Write([]byte("a\tb\n\x1b[2Jc\r\n")); err != nil || n != 11 {
		t.Errorf("Write: %d, %v", n, err)
	}
	if got, want := out.String(), "a\tb\n\\x1b[2Jc\\x0d\n"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
}

// What is pasted into a shell is one word, whatever it holds.
func TestQuote_V6_one_word(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"app", "/srv/app.db", "a b", "$(reboot)", "it's", `a"b`, "", "a;b", "`id`", "a\nb",
		`back\slash`, "x\x1b'y"} {
		out, err := exec.Command("bash", "-c", "printf %s "+Quote(name)).Output()
		if err != nil || string(out) != name {
			t.Errorf("bash reads %s as %q (%v), want %q", Quote(name), out, err, name)
		}
	}
}
