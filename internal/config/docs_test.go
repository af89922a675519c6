package config

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"github.com/sqlwatch/sqlwatch/internal/notify/channel"
)

// prelude is the configuration that the examples of the language reference refer to.
const prelude = `
database "app" {
  path         = "/srv/app/app.db"
  labels       = { tier = "gold" }
  replicate_to = [replica.s3.main]
}
database "tenants" {
  glob         = "/srv/tenants/*.db"
  replicate_to = [replica.s3.main]
}
replica "s3" "main" {
  bucket = "b"
  prefix = "${db.name}"
}
notifier "webhook" "ops" {
  url = "https://hooks.example.com/x"
}
window "night" {
  cron     = "0 2 * * *"
  duration = "3h"
}
`

// beyondUnused drops the findings about unused blocks: an example need not use all that it shows.
func beyondUnused(diags hcl.Diagnostics) hcl.Diagnostics {
	return slices.DeleteFunc(diags, func(d *hcl.Diagnostic) bool { return d.Summary == "Never used" })
}

var fence = regexp.MustCompile("(?s)```(hcl|json)( test)?\n(.*?)```")

func TestPolicyReferenceExamples(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := fence.FindAllStringSubmatch(string(text), -1)
	if len(examples) < 7 {
		t.Fatalf("%d examples", len(examples))
	}
	for i, e := range examples {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			name := map[string]string{"hcl": "example.hcl", "json": "example.hcl.json", "hcl test": "example_test.hcl"}[e[1]+
				e[2]]
			dir, files := t.TempDir(), map[string]string{"prelude.hcl": prelude, name: e[3]}
			if e[2] != "" {
				files["policies.hcl"] = examples[1][3] // the tests belong to the second example
			}
			cfg, diags := loadIn(t, dir, files)
			if diags = beyondUnused(diags); len(diags) > 0 {
				t.Fatalf("%s\n%s", e[3], show(cfg, diags))
			}
			if e[2] != "" {
				playTests(t, cfg, dir)
			}
		})
	}
}

func TestNotifierReferenceExamples(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/notifiers.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := fence.FindAllStringSubmatch(string(text), -1)
	if len(examples) != 1 {
		t.Fatalf("%d examples", len(examples))
	}
	cfg, diags := loadIn(t, t.TempDir(), map[string]string{"example.hcl": examples[0][3]})
	if diags = beyondUnused(diags); len(diags) > 0 {
		t.Fatal(show(cfg, diags))
	}
	seen := map[string]bool{}
	for _, n := range cfg.Notifiers {
		seen[n.Type] = true
	}
	for _, typ := range channel.Types() {
		if !seen[typ] {
			t.Errorf("no example of %s", typ)
		}
	}
}
