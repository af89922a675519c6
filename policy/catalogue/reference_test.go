package catalogue_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/sqlwatch/sqlwatch/policy/catalogue"
	"github.com/sqlwatch/sqlwatch/policy/lang/measured"
)

var update = flag.Bool("update", false, "write the second part of docs/policy.md")

const (
	document = "../../docs/policy.md"
	begin    = "<!-- from here on made by go test ./policy/catalogue -update -->\n"
)

// The second part of docs/policy.md is what is generated from the catalogue.
func TestPolicyReferenceIsCurrent(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	first, _, marked := strings.Cut(string(text), begin)
	if !marked {
		t.Fatalf("%s has no line %q", document, begin)
	}
	want := first + begin + reference()
	if *update {
		if err := os.WriteFile(document, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(text) != want {
		t.Error("docs/policy.md is not what the catalogue says: go test ./policy/catalogue -update")
	}
}

// units names a unit in a table.
func units(u measured.Unit) string {
	return map[measured.Unit]string{measured.AnyUnit: "", measured.Count: "count", measured.Bytes: "bytes",
		measured.Seconds: "seconds", measured.Ratio: "ratio", measured.Text: "text", measured.Bool: "truth",
		measured.WindowUnit: "window"}[u]
}

func reference() string {
	var b strings.Builder
	b.WriteString("\n## Blocks\n")
	for _, block := range catalogue.Blocks {
		fmt.Fprintf(&b, "\n### %s\n\n%s", block.Name, block.Doc)
		if len(block.Blocks) > 0 {
			fmt.Fprintf(&b, " Blocks in it: `%s`.", strings.Join(block.Blocks, "`, `"))
		}
		b.WriteString("\n\n| attribute | meaning | default |\n|---|---|---|\n")
		for _, a := range block.Attributes {
			name, required := strings.CutSuffix(a.Name, "!")
			if required {
				a.Default = "required"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, a.Doc, a.Default)
		}
	}
	b.WriteString("\n## Signals\n\nNumbers are in base units: bytes, seconds, ratios from 0 to 1, counts. What has not " +
		"been measured is unknown.\n\n| name | unit | meaning |\n|---|---|---|\n")
	for _, n := range measured.Names {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", n.String(), units(n.Unit), n.Doc)
	}
	for _, n := range measured.Texts {
		fmt.Fprintf(&b, "| `%s.%s` | text | %s |\n", n.Group, n.Name, n.Doc)
	}
	b.WriteString("| `db.labels.NAME` | text | a label; `null` where the database does not carry it |\n" +
		"| `replica[\"TYPE.NAME\"].…` | | `lag`, `pending_bytes`, `healthy`, `last_verified_age` of one " +
		"replica, as `replica[\"s3.main\"].lag` |\n" +
		"| `window.NAME.open` | truth | |\n| `window.NAME.opens_in`, `window.NAME.closes_in` | seconds | |\n" +
		"| `tune.NAME`, `var.NAME`, `local.NAME`, `each.key`, `each.value` | | |\n" +
		"\n## Functions\n\n| function | result | meaning |\n|---|---|---|\n")
	for _, f := range catalogue.Functions {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", strings.ReplaceAll(f.Usage, "|", "\\|"), units(f.Unit), f.Doc)
	}
	b.WriteString("\n## Guards\n\nAn armed policy asks them in this order; the first that refuses is what `sqlwatch " +
		"why` shows.\n\n| guard | refuses because |\n|---|---|\n")
	for _, g := range catalogue.Guards {
		fmt.Fprintf(&b, "| `%s` | %s |\n", g.Name, g.Doc)
	}
	return b.String()
}

// Each block is listed once, each attribute once in its block, and all have a meaning.
func TestCatalogueIsWhole(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	add := func(name, doc string) {
		if seen[name] || doc == "" {
			t.Errorf("%s: listed twice (%v), or without a meaning (%q)", name, seen[name], doc)
		}
		seen[name] = true
	}
	for _, b := range catalogue.Blocks {
		add(b.Name, b.Doc)
		for _, a := range b.Attributes {
			add(b.Name+"."+a.Name, a.Doc)
		}
		kind, _, _ := strings.Cut(b.Name, " ")
		if len(catalogue.Schema(kind).Attributes) != len(b.Attributes) {
			t.Errorf("the schema of %s does not have all of its attributes", kind)
		}
	}
	for _, f := range catalogue.Functions {
		add(f.Name+"()", f.Doc)
	}
}
