package main

import (
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/admin"
	"github.com/sqlwatch/sqlwatch/internal/blockers"
	"github.com/sqlwatch/sqlwatch/internal/daemon"
	"github.com/sqlwatch/sqlwatch/internal/doctor"
	"github.com/sqlwatch/sqlwatch/internal/importer"
	"github.com/sqlwatch/sqlwatch/internal/inventory"
	"github.com/sqlwatch/sqlwatch/internal/plan"
	"github.com/sqlwatch/sqlwatch/internal/quote"
	"github.com/sqlwatch/sqlwatch/internal/recovery"
	"github.com/sqlwatch/sqlwatch/internal/replay"
	"github.com/sqlwatch/sqlwatch/internal/show/schematest"
	"github.com/sqlwatch/sqlwatch/internal/walbench"
	"github.com/sqlwatch/sqlwatch/policy/policytest"
)

var update = flag.Bool("update", false, "rewrite the tables of docs/api.md")

// printed holds the types that commands print under --json, by the section of docs/api.md.
var printed = map[string]reflect.Type{
	"blockers": reflect.TypeFor[[]blockers.Blocker](), "writers": reflect.TypeFor[blockers.Writers](),
	"snapshots": reflect.TypeFor[[]listedFile](), "replicas": reflect.TypeFor[inventory.Report](),
	"restore": reflect.TypeFor[recovery.Report](), "doctor": reflect.TypeFor[doctor.Report](),
	"plan": reflect.TypeFor[[]plan.Policy](), "plan --new": reflect.TypeFor[plan.Changes](),
	"replay": reflect.TypeFor[[]replay.Database](), "quiet": reflect.TypeFor[[]admin.Quiet](),
	"tune show": reflect.TypeFor[[]admin.Tune](), "test": reflect.TypeFor[[]policytest.TestResult](),
	"check": reflect.TypeFor[[]quote.Finding](), "bench": reflect.TypeFor[walbench.Report](),
	"import": reflect.TypeFor[importer.Result](), "version": reflect.TypeFor[daemon.BuildInfo](),
}

// alike holds the commands that print what another section describes.
var alike = map[string]string{"status": "databases", "why": "databases", "snapshot": "action", "sync": "action",
	"checkpoint": "action", "wal": "snapshots", "verify": "restore"}

// docs/api.md lists every field that a command prints under --json.
func TestCommandsReferenceIsInStep(t *testing.T) {
	const name = "../../docs/api.md"
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	want, unitless, err := schematest.Reference{Sections: printed,
		Elsewhere: map[string]string{"health.Condition": "Health"},
		Sources: []string{".", "../../internal/admin", "../../internal/blockers", "../../internal/quote",
			"../../internal/daemon", "../../internal/doctor", "../../internal/importer", "../../internal/inventory",
			"../../internal/plan", "../../internal/recovery", "../../internal/replay", "../../internal/walbench",
			"../../policy", "../../policy/policytest", "../../policy/lang", "../../policy/calendar",
			"../../replicator/lineage", "../../replicator/restore"},
	}.Update(string(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range unitless {
		t.Errorf("%s has no unit in its name", field)
	}
	if *update {
		if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(text) {
		t.Error("docs/api.md is not what the commands print; go test ./cmd/sqlwatch -run Reference -update rewrites it")
	}
}

// Every command that has --json is in the reference.
func TestEveryJSONIsDocumented(t *testing.T) {
	t.Parallel()
	seen := 0
	var walk func(commands []*kingpin.CmdModel)
	walk = func(commands []*kingpin.CmdModel) {
		for _, c := range commands {
			walk(c.Commands)
			for _, f := range c.Flags {
				if f.Name != "json" {
					continue
				}
				seen++
				name := strings.TrimPrefix(c.FullCommand, "sqlwatch ")
				if printed[name] == nil && alike[name] == "" {
					t.Errorf("what %s --json prints is not documented", name)
				}
			}
		}
	}
	walk(newApplication(testEnvironment("nowhere")).Model().Commands)
	if seen < 15 {
		t.Errorf("only %d commands have --json", seen)
	}
}
