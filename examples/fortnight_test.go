package examples_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2/hclparse"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/policy"
	"github.com/sqlwatch/sqlwatch/policy/policytest"
)

// workloads are ten fortnights of one database. Each is a script that is repeated some times.
var workloads = []struct {
	name, database, script string
	times                  int
}{
	{"steady", "", `during "336h" { write = "300KB" }`, 1},
	{"busy", "", `during "336h" { write = "1.2MB" }`, 1},
	{"bursty", "", "during \"55m\" { write = \"2KB\" }\nduring \"5m\" { write = \"1.5MB\" }\n", 336},
	{"nightly batch", "", "during \"22h\" { write = \"20KB\" }\nduring \"2h\" { write = \"1.5MB\" }\n", 14},
	{"a week with a rhythm", "", "during \"9h\" { write = \"1KB\" }\nduring \"9h\" { write = \"500KB\" }\n" +
		"during \"6h\" { write = \"50KB\" }\n", 14},
	{"an application that checkpoints by itself", `autocheckpoint = "4MB"`, `during "336h" { write = "1MB" }`, 1},
	{"readers that come and go", "", "during \"336h\" {\n write = \"300KB\"\n reader_every = \"1m\"\n reader_for = " +
		"\"20s\"\n}",
		1},
	{"a report every morning", "", "during \"8h\" { write = \"100KB\" }\nduring \"3h\" {\n write = \"100KB\"\n reader = " +
		"true\n}\n" +
		"during \"13h\" { write = \"100KB\" }\n", 14},
	{"a slow disk", "", "during \"336h\" {\n write = \"300KB\"\n write_speed = \"8MB\"\n sync = \"3s\"\n}", 1},
	{"writers that hold the lock", "", "during \"50m\" { write = \"300KB\" }\nduring \"10m\" {\n write = \"300KB\"\n " +
		"write_lock = true\n}\n", 336},
}

// Over a fortnight of each workload, the WAL stays under twice the threshold of each policy
// that we ship. If a reader holds the WAL, which no policy can change, `sqlwatch test` says
// for how long, and the limit applies to the rest of the time.
func TestFortnights(t *testing.T) {
	t.Parallel()
	env := map[string]string{"B2_KEY_ID": "k", "B2_APP_KEY": "s", "OPS_WEBHOOK": "https://localhost/x"}
	load := func(name string) *policy.Set {
		cfg, diags := config.Load(name, func(key string) (string, bool) { v, ok := env[key]; return v, ok })
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		return cfg.Policies
	}
	for _, shipped := range []struct {
		name, database, labels string
		set                    *policy.Set
		threshold              int
		subject                string
		days                   int // of the fortnight, unless figures are asked for
	}{
		{"built in", "app", "", policy.Defaults(), 64, "shrink-wal", 14},
		{"off-peak", "shop", "", load("off-peak.hcl"), 256, "shrink-wal-off-peak", 2},
		{"full", "app", "", load("full.hcl"), 100, "shrink-wal-off-peak", 2},
		{"tenants, gold", "billing", "gold", load("many-tenants.hcl"), 32, "shrink-gold", 2},
		{"tenants", "tenant-a", "standard", load("many-tenants.hcl"), 128, "shrink-tenants", 2},
	} {
		for _, w := range workloads {
			t.Run(shipped.name+"/"+w.name, func(t *testing.T) {
				t.Parallel()
				script := strings.Repeat(w.script+"\n", w.times)
				if shipped.days < 14 && os.Getenv("SQLWATCH_FIGURES") == "" {
					// Only some of the days, so that the test is fast; SQLWATCH_FIGURES asks for all.
					script = strings.Repeat(strings.ReplaceAll(w.script, "336h", fmt.Sprint(24*shipped.days, "h"))+"\n",
						(w.times*shipped.days+13)/14)
				}
				labels := ""
				if shipped.labels != "" {
					labels = fmt.Sprintf("labels = { tier = %q }\n", shipped.labels)
				}
				src := fmt.Sprintf("test \"t\" {\n policy = %q\n start = \"2026-03-23T00:00:00Z\"\n never = wal.bytes > "+
					"bytes(\"1TB\")\n database {\n name = %q\n %s%s\n }\n%s}", shipped.subject, shipped.database, labels, w.database,
					script)
				f, diags := hclparse.NewParser().ParseHCL([]byte(src), "fortnight_test.hcl")
				if diags.HasErrors() {
					t.Fatal(diags)
				}
				tests, diags := policytest.Parse(shipped.set, f.Body)
				if diags.HasErrors() {
					t.Fatal(diags)
				}
				began := time.Now()
				r := tests[0].Run()
				for _, failure := range r.Failures {
					t.Errorf("after %s: %+v; it says: %s", failure.After, failure.Mismatches, failure.Reason)
				}
				limit := int64(2 * shipped.threshold * 1e6)
				var said strings.Builder
				r.Write(&said)
				switch told := strings.Contains(said.String(), "no policy decides"); {
				case r.FreeWAL >= limit:
					t.Errorf("the WAL grows to %d MB while no reader holds it", r.FreeWAL/1e6)
				case r.MaxWAL >= limit && !told:
					t.Errorf("the WAL grows to %d MB, and the report does not say why: %s", r.MaxWAL/1e6, &said)
				case told != (w.name == "a report every morning"):
					t.Errorf("a reader that stays is reported: %v: %s", told, &said)
				}
				if r.Length < time.Duration(shipped.days)*24*time.Hour {
					t.Errorf("only %s were simulated", r.Length)
				}
				if os.Getenv("SQLWATCH_FIGURES") != "" {
					t.Logf("%s in %s: %d runs, WAL up to %d MB, stalls up to %s, %s in all", r.Length,
						time.Since(began).Round(time.Millisecond), r.Runs, r.MaxWAL/1e6, r.MaxStall, r.Stalls)
				}
			})
		}
	}
}
