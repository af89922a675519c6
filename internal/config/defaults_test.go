package config

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
)

// settings holds for each default of the reference a configuration with a place for it: %s is
// replaced by the attribute, or by nothing.
var settings = map[string]string{
	"listen":        "server {\n%s\n}",
	"admin":         "server {\n%s\n}",
	"state_dir":     "server {\n%s\n}",
	"allow_empty":   "server {\n%s\n}",
	"at":            "database \"app\" {\n  path = \"/srv/app.db\"\n  restart {\n%s\n  }\n}",
	"stall_budget":  "database \"app\" {\n  path = \"/srv/app.db\"\n  restart {\n%s\n  }\n}",
	"sync_every":    replicated("%s"),
	"every":         replicated("snapshot {\n%s\n full_every = \"720h\"\n}"),
	"full_every":    replicated("snapshot {\n%s\n}"),
	"keep":          replicated("retention {\n%s\n}"),
	"timeout":       "notifier \"exec\" \"n\" {\n  command = [\"/bin/true\"]\n%s\n}",
	"group_wait":    "notifier \"exec\" \"n\" {\n  command = [\"/bin/true\"]\n%s\n}",
	"send_resolved": "notifier \"exec\" \"n\" {\n  command = [\"/bin/true\"]\n%s\n}",
	"quantile":      "window \"quiet\" {\n  learn {\n    signal = wal.bytes\n%s\n  }\n}",
	"min_history":   "window \"quiet\" {\n  learn {\n    signal = wal.bytes\n%s\n  }\n}",
}

func replicated(more string) string {
	return "database \"app\" {\n  path = \"/srv/app.db\"\n  replicate_to = [replica.file.r]\n}\n" +
		"replica \"file\" \"r\" {\n  dir = \"/r\"\n" + more + "\n}"
}

// concrete matches a default that is a value, not a description.
var concrete = regexp.MustCompile("^`?([0-9][0-9A-Za-z.:]*|true|false|unix|/var/[^`]*)`?$")

// The defaults in the reference are what holds if an attribute is not written.
func TestDefaultsOfTheReference(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			continue
		}
		attr := strings.Trim(cells[1], " `")
		for _, cell := range cells[2:] {
			cell, _, _ = strings.Cut(strings.TrimSpace(cell), ":")
			if m := concrete.FindStringSubmatch(cell); m != nil && documented[attr] == "" {
				documented[attr] = m[1]
			}
		}
	}
	delete(documented, "at_once") // 0 in the configuration, which stands for the store's own default
	documented["listen"], documented["admin"] = "127.0.0.1:9942", "unix:///run/sqlwatch/admin.sock"
	for _, attr := range slices.Sorted(maps.Keys(documented)) {
		if settings[attr] == "" {
			t.Errorf("docs/configuration.md says that the default of %s is %s, and nothing tries it", attr, documented[attr])
		}
	}
	for attr, config := range settings {
		value := documented[attr]
		if value == "" || !strings.Contains(string(text), "`"+value+"`") && !strings.Contains(string(text), "| "+value+" |") {
			t.Errorf("docs/configuration.md says no default of %s", attr)
			continue
		}
		if !regexp.MustCompile(`^([0-9.]+|true|false)$`).MatchString(value) {
			value = fmt.Sprintf("%q", value)
		}
		without, with := meaning(t, fmt.Sprintf(config, "")), meaning(t, fmt.Sprintf(config, attr+" = "+value))
		if without != with {
			t.Errorf("%s = %s is not the default:\n%s\n%s", attr, value, with, without)
		}
	}
}

// meaning returns what a configuration means, however it is written.
func meaning(t *testing.T, text string) string {
	t.Helper()
	cfg, diags := loadIn(t, t.TempDir(), map[string]string{"a.hcl": text})
	if diags.HasErrors() {
		t.Fatalf("%s\n%s", text, show(cfg, diags))
	}
	targets, err := cfg.Expand()
	if err != nil {
		t.Fatal(err)
	}
	said := fmt.Sprintf("%+v %+v", cfg.Server, cfg.Uploads)
	for _, d := range targets {
		d.Range = hcl.Range{}
		said += fmt.Sprintf(" %+v", d)
	}
	for _, n := range cfg.Notifiers {
		said += fmt.Sprintf(" %+v", n.Target)
	}
	for _, w := range cfg.Policies.Windows {
		if w.Learn != nil {
			said += fmt.Sprint(w.Learn.Quantile, w.Learn.MinHistory)
		}
	}
	return said
}
