package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/sqlwatch/sqlwatch/internal/notify/channel"
	"github.com/sqlwatch/sqlwatch/internal/quote"
)

// load writes files into a directory and loads it. Names without an extension
// get ".hcl".
func load(t testing.TB, files map[string]string) (*Config, hcl.Diagnostics) {
	t.Helper()
	return loadIn(t, t.TempDir(), files)
}

func loadIn(t testing.TB, dir string, files map[string]string) (*Config, hcl.Diagnostics) {
	t.Helper()
	for name, text := range files {
		if filepath.Ext(name) == "" {
			name += ".hcl"
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Load(dir, testEnv)
}

// show renders diagnostics as `sqlwatch check` does.
func show(cfg *Config, diags hcl.Diagnostics) string {
	var b bytes.Buffer
	quote.Diagnostics(&b, cfg.Files, diags, false)
	return b.String()
}

func TestLoadErrors(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", 100_000)
	tests := []struct{ name, src, want string }{
		{"F1_syntax", "server {\n  listen = \n}", "a.hcl:2"},
		{"F1_unknown_key", "server {\n  listne = \"x\"\n}", `"listen"`},
		{"F1_unknown_block", "databse \"a\" {\n}", `"database"`},
		{"F1_type", "database \"a\" {\n  path = [1]\n}", "path must be text"},
		{"F1_no_place", "database \"a\" {\n}", "either path"},
		{"F1_relative", "database \"a\" {\n  path = \"app.db\"\n}", "absolute"},
		{"F1_replica_type", "replica \"s4\" \"a\" {\n}", `"s3" or "file"`},
		{"F1_unknown_replica", "database \"a\" {\n  path = \"/a\"\n  replicate_to = [replica.s3.mian]\n}\nreplica \"s3\" " +
			"\"main\" {\n  bucket = \"b\"\n}", `Did you mean "replica.s3.main"`},
		{"F1_half_a_replica", "database \"a\" {\n  path = \"/a\"\n  replicate_to = [replica.main]\n}\nreplica \"s3\" " +
			"\"main\" {\n  bucket = \"b\"\n}", `Did you mean "replica.s3.main"?`},
		{"F1_no_reference", "database \"a\" {\n  path = \"/a\"\n  replicate_to = [\"main\"]\n}\nreplica \"s3\" " +
			"\"main\" {\n  bucket = \"b\"\n}", "such as replica.s3.main."},
		{"F1_quoted_replica", "database \"a\" {\n  path = \"/a\"\n  replicate_to = [\"replica.s3.main\"]\n}\nreplica " +
			"\"s3\" " +
			"\"main\" {\n  bucket = \"b\"\n}", "without quotes: replica.s3.main"},
		{"F1_unknown_variable", "database \"a\" {\n  path = var.x\n}", "x"},
		{"F2_deep", "locals {\n  a = " + deep + "\n}", "Nested too deep"},
		{"F2_deep_unary", "locals {\n  a = " + strings.Repeat("!", 100_000) + "true\n}", "Nested too deep"},
		{"F2_deep_unary_spaced", "locals {\n  a = " + strings.Repeat("! ", 100_000) + "true\n}", "Nested too deep"},
		{"F2_deep_conditional", "locals {\n  a = " + strings.Repeat("true ? 1 : ", 50_000) + "1\n}", "Nested too deep"},
		{"F2_deep_template", "locals {\n  a = " + strings.Repeat(`"${`, 50_000) + "\n}", "Nested too deep"},
		{"F2_large", strings.Repeat("# comment\n", 200_000), "larger than 1048576 bytes"},
		{"F2_NUL", "locals {\n  a = \"\x00\"\n}", "zero byte"},
		{"F2_invalid_UTF8", "locals {\n  a = \"\xff\"\n}", "not UTF-8"},
		{"F2_BOM", "\xef\xbb\xbflocals {}", "byte order mark"},
		{"F3_for_explosion", "locals {\n  l = [0,1,2,3,4,5,6,7,8,9]\n  a = [for a in local.l : [for b in local.l : [for c " +
			"in local.l : [for d in local.l : [for e in local.l : [for f in local.l : 1]]]]]]\n}", "too costly"},
		{"F3_doubling", "locals {\n" + doubling() + "}", "too costly"},
		{"F4_cycle", "locals {\n  a = local.b\n  b = local.c\n  c = local.a\n}", "local.a → local.b → local.c → local.a"},
		{"F4_self", "locals {\n  a = local.a + 1\n}", "local.a → local.a"},
		{"F5_missing_env", "notifier \"webhook\" \"x\" {\n  url = env(\"NO_SUCH_VARIABLE\")\n}",
			"NO_SUCH_VARIABLE is not set"},
		{"F5_missing_file", "notifier \"webhook\" \"x\" {\n  url = file(\"/no/such/file\")\n}", "/no/such/file"},
		{"F5_device", "notifier \"webhook\" \"x\" {\n  url = file(\"/dev/zero\")\n}", "not a regular file"},
		{"unknown_notifier", "notifier \"slak\" \"x\" {\n  url = \"https://x\"\n}", "slack"},
		{"notifier_without_topic", "notifier \"ntfy\" \"x\" {\n  url = \"https://ntfy.sh\"\n}", "topic"},
		{"notifier_with_another's_attribute", "notifier \"slack\" \"x\" {\n  url = \"https://x\"\n  secret = \"s\"\n}",
			"secret"},
		{"relative_program", "notifier \"exec\" \"x\" {\n  command = [\"notify\"]\n}", "absolute path"},
		{"mail_without_port", "notifier \"email\" \"x\" {\n  smarthost = \"mail\"\n  from = \"a@b.c\"\n  to = [\"a@b.c\"]\n}",
			"host:port"},
		{"notices_to_a_heartbeat", "notifier \"heartbeat\" \"x\" {\n  url = \"https://x\"\n}\npolicy \"p\" {\n  when = " +
			"wal.bytes > 1e9\n  notify = [notifier.heartbeat.x]\n}", "no notifier.heartbeat.x"},
		{"F5_missing_variable", "variable \"limit\" {}", "SQLWATCH_VAR_limit"},
		{"F7_duplicate_database", "database \"a\" {\n  path = \"/a\"\n}\ndatabase \"a\" {\n  path = \"/b\"\n}", "a.hcl:1"},
		{"F8_zero_interval", "replica \"file\" \"a\" {\n  dir = \"/b\"\n  sync_every = \"0s\"\n}", "must be from"},
		{"F8_negative_interval", "replica \"file\" \"a\" {\n  dir = \"/b\"\n  sync_every = \"-1s\"\n}", "must be from"},
		{"F8_nanosecond", "replica \"file\" \"a\" {\n  dir = \"/b\"\n  sync_every = \"1ns\"\n}", "must be from"},
		{"F8_overflow", "replica \"file\" \"a\" {\n  dir = \"/b\"\n  sync_every = \"99999999999999h\"\n}", "not a duration"},
		{"F8_retention", "replica \"file\" \"a\" {\n  dir = \"/b\"\n  snapshot {\n    every = \"48h\"\n  }\n  retention " +
			"{\n    keep = \"24h\"\n  }\n}", "cannot be restored"},
		{"F8_full", "replica \"file\" \"a\" {\n  dir = \"/b\"\n  snapshot {\n    every = \"48h\"\n    full_every = " +
			"\"24h\"\n  }\n}", "Snapshots out of order"},
		{"F8_thinning", "replica \"file\" \"a\" {\n  dir = \"/b\"\n  retention {\n    keep = \"240h\"\n    every_sync = " +
			"\"48h\"\n    every_5m = \"24h\"\n  }\n}", "Retention out of order"},
		{"F8_thinning_beyond_keep", "replica \"file\" \"a\" {\n  dir = \"/b\"\n  retention {\n    keep = \"24h\"\n    " +
			"every_30s = \"48h\"\n  }\n}", "Retention out of order"},
		{"F8_restart", "database \"a\" {\n  path = \"/a\"\n  restart {\n    at = \"-5MB\"\n  }\n}", "not an amount of bytes"},
		{"admin over TCP", "server {\n  admin = \"127.0.0.1:9943\"\n}", "never offered over TCP"},
		{"port that is too large", "server {\n  listen = \"127.0.0.1:99999\"\n}", "a.hcl:2:12"},
		{"port that is no service", "server {\n  listen = \":abc\"\n}", "a.hcl:2:12"},
		{"port below zero", "server {\n  listen = \"localhost:-1\"\n}", "a.hcl:2:12"},
		{"no port", "server {\n  listen = \"localhost:\"\n}", "listen must be host:port"},
		{"admin longer than a socket's name", "server {\n  admin = \"unix:///" + strings.Repeat("a", 107) + "\"\n}",
			"a.hcl:2:11"},
		{"secret in a label", "database \"a\" {\n  path = \"/a\"\n  labels = { x = secret(\"s\") }\n}", "without secrets"},
		{"secret in a path", "database \"a\" {\n  path = secret(\"/a\")\n}", "Secret out of place"},
		{"bad name", "database \"a/b\" {\n  path = \"/a\"\n}", "slash"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cfg, diags := load(t, map[string]string{"a": test.src})
			got := show(cfg, diags)
			if !diags.HasErrors() || !strings.Contains(got, test.want) {
				t.Errorf("got %.600s\nwant %q", got, test.want)
			}
		})
	}
}

// doubling returns a "billion laughs" attack: each local is ten times as long as the one before.
func doubling() string {
	var b strings.Builder
	fmt.Fprintln(&b, `  a0 = "0123456789"`)
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&b, "  a%d = \"%s\"\n", i, strings.Repeat(fmt.Sprintf("${local.a%d}", i-1), 10))
	}
	return b.String()
}

func TestLoad_F2_CRLF(t *testing.T) {
	t.Parallel()
	cfg, diags := load(t, map[string]string{"a": "database \"a\" {\r\n  path = \"/srv/a.db\"\r\n}\r\n"})
	if len(diags) > 0 || cfg.Databases[0].Path != "/srv/a.db" {
		t.Errorf("%v %+v", diags, cfg.Databases)
	}
}

// If only every is given, it is the interval of full snapshots too, unless full_every says more.
func TestLoadSnapshot(t *testing.T) {
	t.Parallel()
	for block, want := range map[string][2]time.Duration{
		"":                                   {24 * time.Hour, 720 * time.Hour},
		"snapshot { every = \"6h\" }":        {6 * time.Hour, 6 * time.Hour},
		"snapshot { full_every = \"168h\" }": {24 * time.Hour, 168 * time.Hour},
		"snapshot {\n every = \"6h\"\n full_every = \"168h\"\n}": {6 * time.Hour, 168 * time.Hour},
	} {
		cfg, diags := load(t, map[string]string{"a": "replica \"file\" \"a\" {\n dir = \"/b\"\n" + block + "\n}\n" + `
database "app" {
  path         = "/app.db"
  replicate_to = [replica.file.a]
}`})
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		got, err := cfg.Replicas["file.a"].For("app", "/app.db", nil)
		if err != nil || got.SnapshotEvery != want[0] || got.SnapshotFull != want[1] {
			t.Errorf("%s: %v, %v, %v", block, got.SnapshotEvery, got.SnapshotFull, err)
		}
	}
}

func TestLoadThinning(t *testing.T) {
	t.Parallel()
	cfg, diags := load(t, map[string]string{"a": `
replica "file" "a" {
  dir = "/b"
  retention {
    every_sync = "24h"
    every_5m   = "168h"
  }
}
database "app" {
  path         = "/app.db"
  replicate_to = [replica.file.a]
}`})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	targets, err := cfg.Replicas["file.a"].For("app", "/app.db", nil)
	if err != nil || targets.RetentionKeep != DefaultRetentionKeep || !slices.Equal(targets.RetentionThin,
		[]time.Duration{24 * time.Hour, 0, 168 * time.Hour}) {
		t.Errorf("%+v, %v", targets, err)
	}
}

func TestLoad_F5_files(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fifo, secret, big := filepath.Join(dir, "fifo"), filepath.Join(dir, "secret"), filepath.Join(dir, "big")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(secret, []byte(canary+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(big, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(big, 64<<20); err != nil {
		t.Fatal(err)
	}
	source := func(path string) map[string]string {
		return map[string]string{"a": fmt.Sprintf("replica \"s3\" \"m\" {\n  bucket = \"b\"\n  credentials {\n    "+
			"access_key = \"k\"\n    secret_key = secret(file(%q))\n  }\n}", path)}
	}
	cfg, diags := load(t, source(secret))
	if got := cfg.Replicas["s3.m"].target.S3.SecretKey.Reveal(); diags.HasErrors() || got != canary {
		t.Errorf("secret %q %v: the line break at the end must be gone", got, diags)
	}
	for path, want := range map[string]string{fifo: "not a regular file", big: "larger than"} {
		if cfg, diags := load(t, source(path)); !strings.Contains(show(cfg, diags), want) {
			t.Errorf("%s: %s", path, show(cfg, diags))
		}
	}
}

// TestSecretsStayHidden_H10 passes a canary through everything that prints.
func TestSecretsStayHidden_H10(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "s"), []byte(canary), 0o600); err != nil {
		t.Fatal(err)
	}
	wrong := []string{
		`bytes(secret(env("B2_APP_KEY")))`, `duration(env("B2_APP_KEY"))`, `regex(secret(env("B2_APP_KEY")), "x")`,
		`regex("^x$", env("B2_APP_KEY"))`,
		`env(secret(env("B2_APP_KEY")))`, `file(env("B2_APP_KEY"))`,
		fmt.Sprintf("percent(file(%q))", filepath.Join(dir, "s")),
		`format(secret(env("B2_APP_KEY")), 1, 2)`, `path_element(secret("` + canary + `"), 9)`, `secret("` + canary + `").x`,
		`1 + secret("` + canary + `"`,
		`{ a = secret(env("B2_APP_KEY")) }[secret(env("B2_APP_KEY"))]`, `local.key + 1`, `jsonencode(local.key).x`,
	}
	for i, x := range wrong {
		t.Run(fmt.Sprint(i), func(t *testing.T) { // the name becomes part of a path
			t.Parallel()
			cfg, diags := load(t, map[string]string{"a": "locals {\n  key = secret(env(\"B2_APP_KEY\"))\n  a = " + x +
				"\n}\ndatabase \"a\" {\n  path = local.a\n}\n" +
				"policy \"p\" {\n  when = " + x + " == 1\n  message = \"${local.key}\"\n  sync {}\n}"})
			if !diags.HasErrors() {
				t.Error("no error")
			}
			j, err := json.Marshal(quote.Findings(diags))
			if err != nil {
				t.Fatal(err)
			}
			if all := show(cfg, diags) + string(j) + fmt.Sprintf("%v %+v", diags, cfg.Replicas); strings.Contains(all, canary) {
				t.Errorf("the secret shows:\n%s", all)
			}
		})
	}
	s := Secret(canary)
	data, err := json.Marshal(map[string]any{"s": s, "t": S3{SecretKey: s}})
	if err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "s", s, "t", S3{SecretKey: s})
	slog.New(slog.NewJSONHandler(io.MultiWriter(&logged), nil)).Info("x", "s", s, "t",
		&Notifier{Target: channel.Target{URL: canary}})
	all := string(data) + logged.String() + fmt.Sprintf("%v %+v %#v %s %q %x %d", s, S3{SecretKey: s},
		Notifier{Target: channel.Target{URL: canary}}, s,
		s, s, s)
	if strings.Contains(all, canary) || strings.Contains(all, fmt.Sprintf("%x", canary)) {
		t.Errorf("the secret shows: %s", all)
	}
}

func TestLoad_F10_readable(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		mode os.FileMode
		src  string
		want bool
	}{
		{0o644, `secret_key = "literal-key"`, true},
		{0o644, `secret_key = secret("literal-key")`, true},
		{0o600, `secret_key = "literal-key"`, false},
		{0o644, `secret_key = secret(env("B2_APP_KEY"))`, false},
	} {
		path := filepath.Join(t.TempDir(), "c.hcl")
		src := "replica \"s3\" \"m\" {\n  bucket = \"b\"\n  credentials {\n    access_key = env(\"B2_KEY_ID\")\n    " +
			test.src + "\n  }\n}\n"
		if err := os.WriteFile(path, []byte(src), test.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, test.mode); err != nil {
			t.Fatal(err)
		}
		cfg, diags := Load(path, testEnv)
		got := show(cfg, diags)
		if diags.HasErrors() || strings.Contains(got, "Secrets in a readable file") != test.want ||
			strings.Contains(got, "literal-key") {
			t.Errorf("%v %s: %s", test.mode, test.src, got)
		}
	}
}

func TestLoadMerges(t *testing.T) {
	t.Parallel()
	cfg, diags := load(t, map[string]string{
		"z": "locals {\n  dir = \"/backups\"\n}\nvariable \"name\" {\n  default = \"n\"\n}",
		"a": "database \"one\" {\n  path = \"/srv/one.db\"\n  replicate_to = [replica.file.local]\n}",
		"m.hcl.json": `{"database": {"two": {"path": "/srv/two.db", "replicate_to": ["replica.file.local"]}}, "replica": ` +
			`{"file": {"local": {"dir": "${local.dir}/${db.name}"}}}, "policy": {"p": {"when": "${wal.bytes > ` +
			`bytes(\"1MB\")}", "checkpoint": {"step": [{"passive": {"repeat": 2}}, {"truncate": {}}]}}}}`,
		"x_test.hcl":  "this is not configuration",
		".hidden.hcl": "nor this",
		"readme.txt":  "nor this",
	})
	if len(diags) > 0 {
		t.Fatal(show(cfg, diags))
	}
	targets, err := cfg.Expand()
	if err != nil || len(targets) != 2 || targets[1].Replicas[0].File.Dir != "/backups/two" {
		t.Errorf("%v %+v", err, targets)
	}
	if p := cfg.Policies.Policies[0]; p.Name != "p" || p.Ladder.Steps[0].Repeat != 2 || !p.Ladder.Truncates() {
		t.Errorf("policy from JSON: %+v", p)
	}
}

func TestLoadJSONPlaces(t *testing.T) {
	t.Parallel()
	cfg, diags := load(t, map[string]string{
		"a.hcl.json": "{\"policy\": {\"p\": {\n  \"when\": \"${wal.byts > 1}\",\n  \"sync\": {}}}}"})
	if got := show(cfg, diags); !strings.Contains(got, "a.hcl.json:2:14") ||
		!strings.Contains(got, `Did you mean "bytes"?`) {
		t.Error(got)
	}
	cfg, diags = load(t, map[string]string{"a.hcl.json": "{\"policy\": {\"p\": {\"when\": \"wal.bytes > 1\", \"sync\": " +
		"{}}}}"})
	if got := show(cfg, diags); !strings.Contains(got, `"${…}"`) {
		t.Error(got)
	}
}

func TestDiagnosticSnippet(t *testing.T) {
	t.Parallel()
	cfg, diags := load(t, map[string]string{"a": "policy \"p\" {\n\twhen = wal.byts > 0\n\tsync {}\n}"})
	want := "a.hcl:2:9\n  2 | \twhen = wal.byts > 0\n    | \t       ^^^^^^^^\n  There is no wal.byts. Did you mean " +
		"\"bytes\"?\n"
	if got := show(cfg, diags); !strings.Contains(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	var color bytes.Buffer
	quote.Diagnostics(&color, cfg.Files, diags, true)
	if !strings.Contains(color.String(), "\x1b[1;31merror\x1b[0m") {
		t.Errorf("no colour: %q", color.String())
	}
}

func TestLoadVariableFromEnvironment(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.hcl")
	src := "variable \"at\" {\n  type = number\n  default = bytes(\"16MB\")\n}\ndatabase \"a\" {\n  path = \"/a\"\n  " +
		"restart {\n    at = var.at\n  }\n}\npolicy \"p\" {\n  when = wal.bytes > var.at\n  checkpoint {}\n}"
	if err := os.WriteFile(path, []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]int64{"": 16e6, "64000000": 64e6} {
		cfg, diags := Load(path, func(name string) (string, bool) { return value, value != "" && name == "SQLWATCH_VAR_at" })
		if len(diags) > 0 || cfg.Databases[0].Restart.At != want {
			t.Errorf("%q: %v %d", value, show(cfg, diags), cfg.Databases[0].Restart.At)
		}
	}
}

// A value out of bounds is reported with the bounds as people write them.
func TestLoadRestartBounds(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"1MB": "", "1TB": "",
		"999kB":     "at is 999 kB; it must be from 1.0 MB to 1.0 TB",
		"1000001MB": "it must be from 1.0 MB to 1.0 TB",
	} {
		path := filepath.Join(t.TempDir(), "c.hcl")
		if err := os.WriteFile(path, []byte("database \"a\" {\n  path = \"/a\"\n  restart {\n    at = bytes(\""+value+
			"\")\n  }\n}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, diags := Load(path, func(string) (string, bool) { return "", false })
		if text := show(cfg, diags); len(diags) > 0 != (want != "") || !strings.Contains(text, want) {
			t.Errorf("%s: %s, want %q", value, text, want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	names, _ := filepath.Glob("../../examples/*.hcl")
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("locals {\n  a = [for a in [1]: a]\n  b = local.a[*].x\n}"))
	recipes, _ := filepath.Glob("../../examples/recipes/*.hcl")
	for _, name := range recipes {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("policy \"p\" {\n for_each = { a = { b = bytes(\"1MB\") }, c = secret(\"d\") }\n hold_off = \"1m\"\n" +
		" when = max_over(wal.bytes > each.value.b, each.key) > 0\n checkpoint {}\n}\nvariable \"v\" {\n default = 1\n" +
		" validation {\n  condition = var.v > 0\n  error_message = \"${var.v}\"\n }\n}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "c.hcl")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, diags := Load(path, testEnv)
		quote.Diagnostics(io.Discard, cfg.Files, diags, true)
		if !diags.HasErrors() && cfg.Policies == nil {
			t.Error("no error and no policies")
		}
	})
}

// The environment of a unit or an image says where sqlwatch may write; the configuration need not
// repeat it, and takes precedence if it does.
func TestServerDirectoriesOfTheEnvironment(t *testing.T) {
	t.Parallel()
	environ := map[string]string{"STATE_DIRECTORY": "/var/lib/sqlwatch-app:/var/lib/other",
		"RUNTIME_DIRECTORY": "/run/sqlwatch-app"}
	lookup := func(name string) (string, bool) { v, ok := environ[name]; return v, ok }
	path := filepath.Join(t.TempDir(), "sqlwatch.hcl")
	for text, want := range map[string]Server{
		"": {Listen: "127.0.0.1:9942", Admin: "unix:///run/sqlwatch-app/admin.sock", StateDir: "/var/lib/sqlwatch-app"},
		"server {\n  admin = \"unix:///srv/a.sock\"\n  state_dir = \"/srv/state\"\n}\n": {
			Listen: "127.0.0.1:9942", Admin: "unix:///srv/a.sock", StateDir: "/srv/state"},
	} {
		if err := os.WriteFile(path, []byte(text+"database \"app\" {\n  path = \"/srv/app.db\"\n}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, diags := Load(path, lookup)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		if cfg.Server != want {
			t.Errorf("server of %q is %+v, want %+v", text, cfg.Server, want)
		}
	}
}

// A key can be in a file that systemd hands to the service (LoadCredential).
func TestCredentialOfSystemd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "s3-secret"), []byte("of-systemd\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "sqlwatch.hcl")
	text := "replica \"s3\" \"main\" {\n  bucket = \"b\"\n  credentials {\n    access_key = \"key\"\n" +
		"    secret_key = file(\"${env(\"CREDENTIALS_DIRECTORY\")}/s3-secret\")\n  }\n}\n" +
		"database \"app\" {\n  path = \"/srv/app.db\"\n  replicate_to = [replica.s3.main]\n}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, diags := Load(path, func(name string) (string, bool) { return dir, name == "CREDENTIALS_DIRECTORY" })
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	targets, err := cfg.Expand()
	if err != nil {
		t.Fatal(err)
	}
	if got := targets[0].Replicas[0].S3.SecretKey; got != "of-systemd" {
		t.Errorf("the secret key is %q", got)
	}
}

// TestAddresses: what can be listened at is taken.
func TestAddresses(t *testing.T) {
	t.Parallel()
	for _, line := range []string{`listen = ":0"`, `listen = "[::1]:65535"`, `listen = "localhost:http"`,
		`admin = "unix:///` + strings.Repeat("a", 106) + `"`} {
		if cfg, diags := load(t, map[string]string{"a": "server {\n" + line + "\n}"}); diags.HasErrors() {
			t.Errorf("%s: %s", line, show(cfg, diags))
		}
	}
}
