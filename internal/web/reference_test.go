package web

import (
	"flag"
	"os"
	"reflect"
	"testing"

	"github.com/sqlwatch/sqlwatch/internal/show/schematest"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/policy"
)

var update = flag.Bool("update", false, "rewrite the tables of docs/api.md")

// docs/api.md lists every field of every answer, as the types and the comments beside their
// fields say.
func TestAPIReferenceIsInStep(t *testing.T) {
	const name = "../../docs/api.md"
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	want, unitless, err := schematest.Reference{
		Sections: map[string]reflect.Type{
			"health": reflect.TypeFor[Health](), "databases": reflect.TypeFor[Databases](),
			"decisions": reflect.TypeFor[Decisions](), "action": reflect.TypeFor[watchdog.ActionRecord](),
		},
		Held: map[string]reflect.Type{"decisions[].decision": reflect.TypeFor[*policy.Decision]()},
		Elsewhere: map[string]string{"databases[].decision": "Decisions", "databases[].actions": "Action",
			"decisions[].actions": "Action"},
		Sources: []string{".", "../watchdog", "../health", "../../collector", "../../policy", "../../policy/lang"},
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
		t.Error("docs/api.md is not what the code answers; go test ./internal/web -run Reference -update rewrites it")
	}
}
