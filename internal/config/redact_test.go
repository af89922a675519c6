package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/quote"
	"github.com/sqlwatch/sqlwatch/policy"
)

// secretPlaces has a secret in every position in which people write one, each beside or within a
// mistake.
var secretPlaces = map[string]string{
	"plain": "replica \"s3\" \"m\" {\n bucket = \"b\"\n credentials {\n access_key = \"CANARY\"\n secret_key " +
		"= 5 + \"CANARY\"\n }\n}",
	"single quotes": "replica \"s3\" \"m\" {\n bucket = \"b\"\n credentials {\n secret_key = 'CANARY'\n }\n}",
	"no quotes":     "replica \"s3\" \"m\" {\n bucket = \"b\"\n credentials {\n secret_key = CANARY\n }\n}",
	"unclosed":      "replica \"s3\" \"m\" {\n bucket = \"b\"\n credentials {\n secret_key = \"CANARY\n }\n}",
	"unclosed call": "locals {\n a = secret(\"CANARY\"\n}",
	"dollar":        "notifier \"webhook\" \"w\" {\n url = \"https://x/CANARY${b\"\n}",
	"heredoc":       "locals {\n a = secret(<<EOT\nCANARY\nEOT\n) + 1\n}",
	"open heredoc":  "locals {\n a = secret(<<EOT\nCANARY\n) + 1\n}",
	"lines":         "locals {\n a = secret(\n \"CANARY\"\n ) + 1\n}",
	"list":          "policy \"p\" {\n when = true\n databases = [secret(\"CANARY\")]\n sync {}\n}",
	"map":           "database \"d\" {\n path = \"/d\"\n labels = { a = secret(\"CANARY\") }\n}",
	"format":        "database \"d\" {\n path = secret(format(\"%s-%s\", \"CANARY\", \"x\"))\n}",
	"template":      "database \"d\" {\n path = \"/x/${secret(\"CANARY\")}\"\n}",
	"through a local": "locals {\n a = \"CANARY\" + 1\n b = \"${local.a}-x\"\n}\nreplica \"s3\" \"m\" {\n bucket = " +
		"secret(local.b)\n}",
	"through a var": "variable \"k\" {\n type = number\n default = \"CANARY\"\n}\nreplica \"s3\" \"m\" {\n bucket = " +
		"secret(var.k)\n}",
	"webhook":      "notifier \"webhook\" \"w\" {\n url = \"gopher://h/CANARY\"\n}",
	"webhook list": "notifier \"webhook\" \"w\" {\n url = [\"https://h/CANARY\"]\n}",
	"webhook name": "notifier \"webhook\" \"w\" {\n url = \"https://user:CANARY@[\"\n}",
	"endpoint":     "replica \"s3\" \"m\" {\n bucket = \"b\"\n endpoint = \"http://user:CANARY@host:1/x\" + 1\n}",
	"env default": "replica \"s3\" \"m\" {\n bucket = \"b\"\n credentials {\n access_key = \"x\"\n secret_key = " +
		"env(\"NOT_SET\", \"CANARY\") + 1\n }\n}",
	"env":              "database \"d\" {\n path = env(\"KEY\")\n}",
	"env in a pattern": "policy \"p\" {\n when = true\n databases = [env(\"KEY\")]\n mode = env(\"KEY\")\n sync {}\n}",
	"in a policy":      "policy \"p\" {\n when = db.name == secret(\"CANARY\") && wal.byts > 1\n sync {}\n}",
	"in a message":     "policy \"p\" {\n when = wal.byts > 1\n message = \"${secret(\"CANARY\")}\"\n sync {}\n}",
	"after a comment": "replica \"s3\" \"m\" {\n bucket = \"b\"\n credentials {\n /* key */ secret_key /* it */ = " +
		"\"CANARY\" + 1\n }\n}",
	"one line": "replica \"s3\" \"m\" { credentials { secret_key = \"CANARY\", access_key = \"CANARY\" } }",
}

var jsonPlaces = map[string]string{
	"value": `{"replica": {"s3": {"m": {"bucket": 5, "credentials": {"secret_key": "CANARY", "access_key": ` +
		`["CANARY"], "x": 1}}}}}`,
	"call":     `{"database": {"d": {"path": "${secret(\"CANARY\")}"}}}`,
	"notifier": `{"notifier": {"webhook": {"w": {"url": "gopher://x/CANARY"}}}}`,
	"broken":   `{"notifier": {"webhook": {"w": {"url": "https://x/CANARY", }}}}`,
}

// Whatever is wrong, and wherever a secret is, the secret is in no diagnostic, no JSON, no
// formatted difference and no explanation.
func TestH10_I14_SecretsByPosition(t *testing.T) {
	t.Parallel()
	lookup := func(name string) (string, bool) { return canary + "-env", name == "KEY" }
	check := func(t *testing.T, name, text string) {
		t.Parallel()
		text = strings.ReplaceAll(text, "CANARY", canary)
		dir := t.TempDir()
		write(t, dir+"/"+name, text)
		cfg, diags := Load(dir, lookup)
		if len(diags) == 0 {
			t.Fatal("no finding: the test shows nothing")
		}
		var out bytes.Buffer
		quote.Diagnostics(&out, cfg.Files, diags, false)
		findings, err := json.Marshal(quote.Findings(diags))
		if err != nil {
			t.Fatal(err)
		}
		out.Write(findings)
		if !strings.Contains(text, "env(\"KEY\")") {
			out.WriteString(quote.Redact(name, []byte(text)))
		}
		dump, _ := json.Marshal(cfg.Notifiers)
		fmt.Fprintf(&out, "%s %+v %#v", dump, cfg.Notifiers, cfg.Notifiers)
		if strings.Contains(out.String(), canary) {
			t.Errorf("the secret shows:\n%s", out.String())
		}
	}
	for name, text := range secretPlaces {
		t.Run(name, func(t *testing.T) { check(t, "a.hcl", text) })
	}
	for name, text := range jsonPlaces {
		t.Run("json "+name, func(t *testing.T) { check(t, "a.hcl.json", text) })
	}
}

// The explanation of a decision shows neither a secret nor where it is written, and no text from
// the environment.
func TestH10_I14_SecretsInExplanations(t *testing.T) {
	t.Parallel()
	lookup := func(name string) (string, bool) {
		v, ok := map[string]string{"KEY": canary + "-env", "SQLWATCH_VAR_k": canary + "-var", "LIMIT": "5000000"}[name]
		return v, ok
	}
	dir := t.TempDir()
	write(t, dir+"/a.hcl", strings.ReplaceAll(`
variable "k" {
  type    = string
  default = "x"
}
locals {
  key = secret("CANARY-local")
}
policy "p" {
  when = wal.bytes > bytes(env("LIMIT")) && (db.name != secret(
    "CANARY-lines"
  ) || db.name == local.key || db.name == env("KEY") || db.name == var.k ||
    db.name == format("%s", secret("CANARY-format")))
  unless  = db.path == secret("CANARY-unless") || max_over(db.name == secret("CANARY-signal"), "1h") > 0.5
  message = "${db.name} ${local.key} ${secret("CANARY-message")}"
  sync {}
}`, "CANARY", canary))
	cfg, diags := Load(dir, lookup)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	now := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	history := cfg.Policies.NewHistory()
	sample := func() *collector.Sample {
		return &collector.Sample{At: now, DB: "app", State: collector.StateUp,
			WAL: collector.WAL{Known: true, SizeBytes: 6e6}}
	}
	for range 3 {
		now = now.Add(time.Second)
		history.Add(sample())
	}
	d := cfg.Policies.Evaluate(policy.Input{Now: now, Sample: sample(), History: history}, nil)
	past, err := json.Marshal(history)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	all := string(text) + string(past)
	for _, p := range d.Policies {
		all += p.Tree.String()
	}
	if strings.Contains(all, canary) || !strings.Contains(all, "(secret)") {
		t.Errorf("%s", all)
	}
	if !strings.Contains(all, "5.0 MB") {
		t.Errorf("a number out of the environment is not shown: %s", all)
	}
	if d.Action == nil || !strings.Contains(d.Action.Message, "app (secret) (secret)") {
		t.Errorf("acts with %+v: %s", d.Action, d.Policies[0].Reason)
	}
}

// A number whose digits would fill memory is refused before it is evaluated.
func TestF8_EnormousNumbers(t *testing.T) {
	t.Parallel()
	lookup := func(name string) (string, bool) { return "1e99999999", name == "N" || name == "SQLWATCH_VAR_v" }
	for name, text := range map[string]string{
		"for":      "policy \"p\" {\n when = true\n for = 1e99999999\n sync {}\n}",
		"small":    "policy \"p\" {\n when = true\n for = 1e-99999999\n sync {}\n}",
		"text":     "policy \"p\" {\n when = true\n for = \"1e99999999\"\n sync {}\n}",
		"product":  "policy \"p\" {\n when = true\n for = " + strings.Repeat("1e999 * ", 900) + "1\n sync {}\n}",
		"function": "policy \"p\" {\n when = wal.bytes > bytes(1e99999999)\n sync {}\n}",
		"env":      "policy \"p\" {\n when = true\n for = env(\"N\")\n sync {}\n}",
		"variable": "variable \"v\" {\n type = number\n default = 5\n}\npolicy \"p\" {\n when = wal.frames > var.v\n " +
			"message = \"${var.v}\"\n sync {}\n}",
		"template": "locals {\n a = \"${1e99999999}\"\n}",
		"digits":   "policy \"p\" {\n when = true\n for = " + strings.Repeat("9", 5000) + "\n sync {}\n}",
		"json":     "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := dir + "/a.hcl"
			if name == "json" {
				file, text = file+".json", `{"policy": {"p": {"when": true, "for": 1e99999999, "sync": {}}}}`
			}
			write(t, file, text)
			began := time.Now()
			_, diags := Load(dir, lookup)
			if !diags.HasErrors() {
				t.Error("accepted")
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
