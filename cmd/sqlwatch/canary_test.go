package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// planted is a configuration with a different secret in every position in which people write one.
// No address in it answers.
const planted = `
database "app" {
  path         = "PATH"
  replicate_to = [replica.s3.bad]
}
variable "given" {
  type    = string
  default = "x"
}
locals {
  key    = "canary-local"
  marked = secret("canary-marked")
}
replica "s3" "bad" {
  bucket   = "b"
  endpoint = "http://127.0.0.1:1"
  region   = "x"
  prefix   = "p/${db.name}"
  credentials {
    access_key    = "canary-access"
    secret_key    = secret(local.key)
    session_token = env("CANARY_TOKEN")
  }
}
notifier "webhook" "w" {
  url      = "http://user:canary-user@127.0.0.1:1/canary-path?t=canary-query"
  headers  = { Authorization = "Bearer canary-header", X-Key = env("CANARY_TOKEN") }
  secret   = "canary-sign"
  template = "{\"key\": \"${secret("canary-template")}\"}"
}
notifier "slack" "s" { url = "http://127.0.0.1:1/canary-slack" }
notifier "discord" "d" { url = "http://127.0.0.1:1/canary-discord" }
notifier "ntfy" "n" {
  url   = "http://127.0.0.1:1/canary-ntfy"
  token = "canary-token"
}
notifier "pagerduty" "p" {
  url         = "http://127.0.0.1:1/canary-pager"
  routing_key = "canary-routing"
}
notifier "email" "e" {
  smarthost = "127.0.0.1:1"
  from      = "a@example.com"
  to        = ["b@example.com"]
  username  = "u"
  password  = "canary-mail"
}
notifier "exec" "x" { command = ["/bin/false", secret("canary-argument"), "--key=${local.marked}"] }
notifier "heartbeat" "h" {
  url      = "http://127.0.0.1:1/canary-beat"
  fail_url = "http://127.0.0.1:1/canary-fail"
  every    = "10s"
}
policy "talk" {
  when = (wal.frames + 1 > 0 && db.name != secret("canary-when") && db.name != env("CANARY_TOKEN") &&
  db.name != var.given)
  unless   = db.path == secret(file("FILE")) || max_over(db.name == secret("canary-signal"), "1h") > 0.5
  cooldown = "10s"
  message  = "${local.marked} ${secret("canary-message")} ${format("%s", secret("canary-format"))}"
  notify = [notifier.webhook.w, notifier.slack.s, notifier.discord.d, notifier.ntfy.n, notifier.pagerduty.p,
  notifier.email.e, notifier.exec.x]
}
policy "each" {
  for_each = { a = secret("canary-each"), b = local.marked }
  when     = wal.frames + 1 > 0 && db.name != each.value
  cooldown = "10s"
  message  = "${each.key} ${each.value}"
  notify   = [notifier.exec.x]
}
policy "drain" {
  when     = wal.frames + 1 > 0
  cooldown = "1s"
  checkpoint {
    step "passive" {}
  }
}
`

// spoiled maps text of planted to the same text with a mistake: a diagnostic quotes each.
var spoiled = map[string]string{
	`secret_key    = secret(local.key)`:        `secret_key    = secret(local.key) + 1`,
	`access_key    = "canary-access"`:          `access_key    = ["canary-access"]`,
	`secret   = "canary-sign"`:                 `secret   = "canary-sign" - 2`,
	`url      = "http://user`:                  `url      = "gopher://user`,
	`"Bearer canary-header", X-Key`:            `"Bearer canary-header" * 2, X-Key`,
	`token = "canary-token"`:                   `token = {a = "canary-token"}`,
	`routing_key = "canary-routing"`:           `routing_key = "canary-routing`,
	`password  = "canary-mail"`:                `password  = bytes("canary-mail")`,
	`secret("canary-argument"), "--key`:        `secret(duration("canary-argument")), "--key`,
	`!= secret("canary-when") &&`:              `> secret("canary-when") &&`,
	`for_each = { a = secret("canary-each"),`:  `for_each = [secret("canary-each"), "a"] == {`,
	`message  = "${each.key} ${each.value}"`:   `message  = "${each.key} ${each.value.x}"`,
	`key    = "canary-local"`:                  `key    = "canary-local" + 1`,
	`marked = secret("canary-marked")`:         "marked = secret(\n\"canary-marked\"\n) + 1",
	`template = "{\"key\": \"${secret("canary`: `template = "{\"key\": \"${secret("canary-x" "canary`,
}

// No output of the program contains a secret: not when the configuration is checked, explained,
// logged, served or kept, not when a notifier fails or a reload is refused.
func TestCanariesInEveryPosition(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "secret")
	if err := os.WriteFile(file, []byte("canary-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	db := filepath.Join(dir, "app.db")
	holdDatabase(t, db)
	text := strings.NewReplacer("PATH", db, "FILE", file).Replace(planted)
	environ := []string{"CANARY_TOKEN=canary-environment", "SQLWATCH_VAR_given=canary-variable"}
	d := startDaemon(t, dir, text, environ...)

	var all strings.Builder
	shows := func(what, text string) {
		fmt.Fprintf(&all, "== %s ==\n%s\n", what, text)
		for _, at := range regexp.MustCompile(`canary-[a-z]+`).FindAllStringIndex(text, -1) {
			t.Errorf("%s shows %s:\n…%s…", what, text[at[0]:at[1]], text[max(0, at[0]-200):min(len(text), at[1]+100)])
		}
	}
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command("sqlwatch", append([]string{"--config", d.config}, args...)...)
		cmd.Env = append(os.Environ(), environ...)
		out, _ := cmd.CombinedOutput()
		shows(strings.Join(args, " "), strings.ReplaceAll(string(out), file, "FILE"))
	}
	decisions := filepath.Join(dir, "state", "decisions.jsonl")
	poll(t, "the notices have failed and are in the decision log", func() bool {
		log, _ := os.ReadFile(decisions)
		_, conditions := d.get("/api/v1/health")
		return strings.Contains(string(log), `"talk"`) && strings.Contains(string(log), "each-a") &&
			strings.Count(conditions, "notification_failed") > 0
	})

	source, err := os.ReadFile(d.config)
	if err != nil {
		t.Fatal(err)
	}
	next := filepath.Join(dir, "next.hcl")
	changed := strings.NewReplacer("10s", "20s", "canary-each", "canary-other", "canary-when", "canary-then").
		Replace(string(source))
	if err := os.WriteFile(next, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	run("plan", "--new", next)
	run("plan", "--new", next, "--json")
	run("replay", "app", "--new", next)
	for _, args := range [][]string{{"check"}, {"check", "--json"}, {"plan"}, {"plan", "--json"}, {"why", "app"},
		{"why", "app", "talk"}, {"why", "app", "each-a"}, {"why", "app", "--json"}, {"status"}, {"status", "--json"},
		{"tune", "show"}, {"quiet", "app"}, {"doctor"}, {"replay", "app"}, {"replicas"},
		{"fmt", "--check", "--diff"},
		{"notify", "test", "webhook.w"}, {"notify", "test", "exec.x"}, {"notify", "test", "email.e"},
		{"notify", "test", "ntfy.n"}, {"notify", "test", "pagerduty.p"}, {"notify", "test", "slack.s"}} {
		run(args...)
	}
	for _, path := range []string{"/", "/metrics", "/api/v1/health", "/api/v1/databases", "/api/v1/decisions",
		"/api/v1/decisions?db=app"} {
		_, page := d.get(path)
		shows(path, page)
	}

	for good, bad := range spoiled {
		if !strings.Contains(text, good) {
			t.Errorf("%q is not in what is planted", good)
		}
		d.write(t, strings.Replace(text, good, bad, 1)+"policy \"broken\" {\n  wehn = true\n}\n")
		before := strings.Count(d.log.String(), "reload")
		d.signal(t, syscall.SIGHUP)
		poll(t, "the reload is refused", func() bool { return strings.Count(d.log.String(), "reload") > before })
		run("check")
		run("check", "--json")
		run("fmt", "--check", "--diff")
		run("why", "app")
	}
	d.end(t)
	shows("the log", d.log.String())
	err = filepath.WalkDir(filepath.Join(dir, "state"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		shows("state/"+e.Name(), string(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen := strings.Count(all.String(), "(secret)"); seen < 20 {
		t.Errorf("(secret) stands %d times in what was shown: the test proves little", seen)
	}
}

// holdDatabase creates a database in WAL mode that another process keeps open.
func holdDatabase(t *testing.T, path string) {
	t.Helper()
	writer := exec.Command("/usr/bin/python3", "-c", `import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("pragma journal_mode = wal")
db.execute("create table t(x)")
db.commit()
print("ready", flush=True)
sys.stdin.read()`, path)
	stdin, err := writer.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := writer.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		writer.Wait()
	})
	if _, err := io.ReadFull(stdout, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
}
