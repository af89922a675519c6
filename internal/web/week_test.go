package web

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"

	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/policy"
)

const learning = `
window "night" {
  cron     = "0 2 * * *"
  duration = "3h"
}
window "calm" {
  learn {
    signal   = rate(wal.frames_written, "1m")
    fallback = window.night
  }
}
policy "shrink" {
  when   = wal.bytes > bytes("1MB")
  window = window.calm
  checkpoint {}
}
`

// The week of a learned window is on the page of its database, and on no other page.
func TestPage_week(t *testing.T) {
	t.Parallel()
	parser := hclparse.NewParser()
	file, diags := parser.ParseHCL([]byte(learning), "c.hcl")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	content, diags := file.Body.Content(&hcl.BodySchema{Blocks: policy.Blocks()})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	policies, diags := policy.Parse(content.Blocks, &policy.Scope{Files: parser.Files()})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	var targets []watchdog.Target
	for _, s := range twoDatabases {
		targets = append(targets, watchdog.Target{Name: s.DB, Path: "/srv/" + s.DB, Open: opens(s)})
	}
	h := handler(t, run(t, watchdog.Options{Targets: targets, Policies: policies, Interval: 20 * time.Millisecond}))
	page := ask(h, "GET", "/?db=app", nil).Body.String()
	if n := strings.Count(page, "<rect class=\"busyx\""); n != policy.HoursOfWeek {
		t.Errorf("%d of %d hours never seen", n, policy.HoursOfWeek)
	}
	for _, want := range []string{"Week of window calm", "0 hours quiet, 0 busy, 168 never seen",
		"<title>Sunday 23:00: never seen</title>"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page of a database lacks %q", want)
		}
	}
	if page := ask(h, "GET", "/", nil).Body.String(); strings.Contains(page, "Week of window") {
		t.Error("the week is on the page of all databases")
	}
}
