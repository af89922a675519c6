package quote

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

const native = `# the key is not in this comment
locals {
  key = "K-LOCAL"
}
replica "s3" "main" {
  bucket = "backups"
  credentials {
    access_key = env("ID")
    secret_key = "K-PLAIN"
  }
  region = secret("${local.key}-x")
}
`

// Redact shows text that is not secret as it is written, and nothing of a secret, even one behind
// a name.
func TestRedact(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ file, text, want string }{
		"native": {"a.hcl", native, strings.NewReplacer(`"K-LOCAL"`, Hidden, `"K-PLAIN"`, Hidden, `"${local.key}-x"`,
			Hidden).Replace(native)},
		"nothing secret": {"a.hcl", "a = 1\n", "a = 1\n"},
		"empty":          {"a.hcl", "", ""},
		"json": {"a.hcl.json", `{"replica": {"s3": {"m": {"secret_key": "K", "bucket": "b"}}}}`,
			`{"replica": {"s3": {"m": {"secret_key": "` + Hidden + `", "bucket": "b"}}}}`},
	} {
		if got := Redact(tt.file, []byte(tt.text)); got != tt.want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, tt.want)
		}
	}
}

// A diagnostic points at its place. On a line with a hidden secret the columns would be wrong, so
// there is no pointer.
func TestDiagnostics(t *testing.T) {
	t.Parallel()
	text := "bucket = \"b\x1b[31m\"\n\tpath = 5\nsecret_key = \"K-PLAIN\"\n"
	file := Quotable("a.hcl", []byte(text))
	at := func(line, from, to int) *hcl.Range {
		return &hcl.Range{Filename: "a.hcl", Start: hcl.Pos{Line: line, Column: from}, End: hcl.Pos{Line: line, Column: to}}
	}
	for name, tt := range map[string]struct {
		d    hcl.Diagnostic
		want string
	}{
		"a place": {hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Wrong", Detail: "Write 6.", Subject: at(2, 9, 10)},
			"error: Wrong\n  a.hcl:2:9\n  2 | \tpath = 5\n    | \t       ^\n  Write 6.\n\n"},
		"a secret": {hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: "Short", Subject: at(3, 14, 23)},
			"warning: Short\n  a.hcl:3:14\n  3 | secret_key = " + Hidden + "\n\n"},
		"control characters": {hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Odd", Subject: at(1, 1, 7)},
			"error: Odd\n  a.hcl:1:1\n  1 | bucket = \"b[31m\"\n    | ^^^^^^\n\n"},
		"no place": {hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Wrong"}, "error: Wrong\n\n"},
		"another file": {hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Wrong", Subject: &hcl.Range{Filename: "b.hcl"}},
			"error: Wrong\n  b.hcl:0:0\n\n"},
		"beyond a file": {hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Wrong", Subject: at(99, 1, 2)},
			"error: Wrong\n  a.hcl:99:1\n\n"},
	} {
		var out bytes.Buffer
		Diagnostics(&out, map[string]*hcl.File{"a.hcl": file}, hcl.Diagnostics{&tt.d}, false)
		if out.String() != tt.want {
			t.Errorf("%s: got\n%q, want\n%q", name, out.String(), tt.want)
		}
	}
}

// Nothing is shown of a file that has not been examined for secrets.
func TestUnseenFile(t *testing.T) {
	t.Parallel()
	file := &hcl.File{Bytes: []byte(native)}
	whole := hcl.Range{End: hcl.Pos{Byte: len(native)}}
	if text, ok := Place(file, whole); !ok || text != Hidden {
		t.Errorf("%q, %v", text, ok)
	}
	tokens, _ := hclsyntax.LexConfig(file.Bytes, "a.hcl", hcl.InitialPos)
	Hide(file, "a.hcl", tokens)
	if text, ok := Place(file, whole); !ok || text != Redact("a.hcl", []byte(native)) {
		t.Errorf("%q, %v", text, ok)
	}
	if text, ok := Place(file, hcl.Range{End: hcl.Pos{Byte: len(native) + 1}}); ok || text != "" {
		t.Errorf("beyond its end: %q", text)
	}
	if _, ok := Place(nil, whole); ok {
		t.Error("of no file there is a place")
	}
	for _, want := range []string{"K-LOCAL", "K-PLAIN"} {
		if !slices.Contains(Literals(file), want) {
			t.Errorf("%q is not among %q", want, Literals(file))
		}
	}
}

func TestFindings(t *testing.T) {
	t.Parallel()
	if got := Findings(nil); got == nil || len(got) != 0 {
		t.Errorf("of nothing: %#v", got)
	}
	got := Findings(hcl.Diagnostics{
		{Severity: hcl.DiagWarning, Summary: "Short", Detail: "Longer.",
			Subject: &hcl.Range{Filename: "a.hcl", Start: hcl.Pos{Line: 3, Column: 14}}},
		{Severity: hcl.DiagError, Summary: "Wrong"},
	})
	want := []Finding{{"warning", "Short", "Longer.", "a.hcl", 3, 14}, {Severity: "error", Summary: "Wrong"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
