package views

import (
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/config"
)

// The next openings are shown in the window's own time zone, across a change of its clocks: the
// window follows the wall clock, so one night is an hour longer.
func TestOpenings(t *testing.T) {
	t.Parallel()
	cfg, diags := config.Load("testdata/windows.hcl", func(string) (string, bool) { return "", false })
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	var out strings.Builder
	Openings(&out, cfg.Policies.Windows, time.Date(2026, 10, 24, 12, 0, 0, 0, time.UTC))
	want := `window night opens next:
  Sun 25 Oct 2026 01:30 CEST, for 4 h 0 min
  Mon 26 Oct 2026 01:30 CET, for 3 h 0 min
  Tue 27 Oct 2026 01:30 CET, for 3 h 0 min
window quiet: learned from 3 days of history on; ` + "`sqlwatch quiet DB`" + ` shows the week
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
