package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// `plan --new` evaluates another configuration with what the daemon remembers: a condition that
// has held for some time need not hold for that long again.
func TestPlanNewAsksTheDaemon(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := filepath.Join(dir, "app.db")
	holdDatabase(t, db)
	const configuration = `database "app" {
  path = "PATH"
}
policy "drain" {
  when = wal.frames + 1 > 0
  for  = "1h"
  checkpoint {
    step "passive" {}
  }
}
`
	text := strings.Replace(configuration, "PATH", db, 1)
	d := startDaemon(t, dir, text)
	plan := func(change func(string) string) (string, int) {
		own, err := os.ReadFile(d.config)
		if err != nil {
			t.Fatal(err)
		}
		next := filepath.Join(dir, "next.hcl")
		if err := os.WriteFile(next, []byte(change(string(own))), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sqlwatch", "--config", d.config, "plan", "--new", next)
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	same, code := plan(func(s string) string { return strings.ReplaceAll(s, "  ", "\t") + "# a comment\n" })
	if code != exitOK || same != "Nothing to do, nothing to change.\n" {
		t.Errorf("the same configuration: exit %d, %s", code, same)
	}
	deadline := time.Now().Add(time.Minute)
	for {
		out, code := plan(func(s string) string { return strings.Replace(s, `"1h"`, `"2s"`, 1) })
		if !strings.HasPrefix(out, "~ policy drain: for\n") || code != exitFindings || strings.Contains(out, "No daemon") {
			t.Fatalf("exit %d, %s", code, out)
		}
		if strings.Contains(out, "app  drain: would checkpoint now") && strings.Contains(out, "[was pending: ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it would never act: %s", out)
		}
	}
}
