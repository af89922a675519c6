package show

import (
	"bytes"
	"encoding/json"
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

// A name that somebody else chose must not move the cursor, change the window's title, forge a
// line or reverse the text.
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

// A quoted text is one word to a shell, whatever it contains.
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

// The colours of diagnostics pass; other escape sequences do not.
func TestPrinter_V6_colours(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	NewPrinter(&out).Write([]byte("\x1b[1;31merror\x1b[0m: \x1b[8mhidden \x1b]0;title\a \x1b[1mX\x1b[0m\x1b[2J\n"))
	want := "\x1b[1;31merror\x1b[0m: \\x1b[8mhidden \\x1b]0;title\\x07 \x1b[1mX\x1b[0m\\x1b[2J\n"
	if out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
}

// JSON stays valid JSON, and its text does not control a terminal either.
func TestJSON_V6(t *testing.T) {
	t.Parallel()
	name := "a\u009b2J\x7f\u202e\x1b[2J\"ü"
	var out bytes.Buffer
	if err := JSON(NewPrinter(&out), map[string]string{"name": name}); err != nil {
		t.Fatal(err)
	}
	var back map[string]string
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back["name"] != name {
		t.Errorf("read back %q, %v; want %q", back["name"], err, name)
	}
	for _, r := range out.String() {
		if r != '\n' && steers(r) {
			t.Errorf("%q is left in %q", r, out.String())
		}
	}
}

func TestSuggest(t *testing.T) {
	t.Parallel()
	known := []string{"status", "snapshots", "restore", "sync", "top"}
	for word, want := range map[string]string{"statsu": "status", "snapshot": "snapshots", "restor": "restore",
		"xyzzy": "", "stats": "status", "res": "restore", "tap": "top"} {
		if got := Nearest(word, known); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", word, got, want)
		}
	}
	if got, want := Suggest("restor", known), "; did you mean restore?"; got != want {
		t.Errorf("Suggest = %q, want %q", got, want)
	}
}

func TestCount(t *testing.T) {
	t.Parallel()
	for want, got := range map[string]string{"1 file": Count(1, "file"), "2 files": Count(2, "file"),
		"0 policies": Count(0, "policy"), "1 policy": Count(1, "policy"),
		"3 processes": Count(3, "process")} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
