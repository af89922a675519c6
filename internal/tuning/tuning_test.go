package tuning

import (
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"github.com/sqlwatch/sqlwatch/internal/admin"
	"github.com/sqlwatch/sqlwatch/policy"
)

const before = `# The policies of the shop.
policy "shrink" { # off-peak
  when = wal.bytes > bytes("100MB")
  checkpoint {
    # what the checkout bears
    stall_budget = "200ms" # was 100ms
    step "truncate" {}
  }
  tune "stall" {
    goal = p95_over(checkpoint.stall, "7d") < duration("150ms")
  }
  tune "limit" {
    start = bytes("1MB") // a guess
    goal  = wal.bytes < bytes("1GB")
  }
}

policy "other" {
  when = wal.bytes > 0
}
`

func view(db string, tunes ...policy.TuneDecision) admin.Database {
	v := admin.Database{Decision: &admin.Decision{}}
	v.Name = db
	for _, t := range tunes {
		v.Decision.Tunes = append(v.Decision.Tunes, admin.Tune{TuneDecision: t})
	}
	return v
}

// Export changes the values, and no character beside them.
func TestExport(t *testing.T) {
	t.Parallel()
	stall := policy.TuneDecision{Policy: "shrink", Name: "stall", Attribute: "stall_budget", Literal: `duration("150ms")`,
		Suggested: 0.15, Start: 0.2}
	limit := policy.TuneDecision{Policy: "shrink", Name: "limit", Attribute: "start", Literal: `bytes("1.1MB")`,
		Suggested: 1.1e6, Start: 1e6}
	values, err := Values([]admin.Database{view("a", stall, limit), view("b", stall)})
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]*hcl.File{"/etc/a.hcl": {Bytes: []byte(before)}, "/etc/b.hcl": {Bytes: []byte("# nothing\n")}}
	changed, err := Export(files, values)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer(`"200ms"`, `duration("150ms")`, `bytes("1MB")`, `bytes("1.1MB")`).Replace(before)
	if got := string(changed["/etc/a.hcl"]); got != want || len(changed) != 1 {
		t.Errorf("%d files, got\n%s\nwant\n%s", len(changed), got, want)
	}
	empty := map[string]*hcl.File{"a.hcl": {Bytes: []byte("policy \"shrink\" {\n  checkpoint {}\n}\n")}}
	changed, err = Export(empty, values[1:])
	if got, want := string(changed["a.hcl"]), "policy \"shrink\" {\n  checkpoint {\n    stall_budget = "+
		"duration(\"150ms\")\n  }\n}\n"; err != nil || got != want {
		t.Errorf("of an empty block: %v\n%s", err, got)
	}
	other := stall
	other.Literal = `duration("1s")`
	if _, err := Values([]admin.Database{view("a", stall), view("b", other)}); err == nil ||
		!strings.Contains(err.Error(), "name one database") {
		t.Errorf("two databases that differ: %v", err)
	}
	gone := []Value{{Policy: "gone", Tune: "x", Attribute: "start", Literal: "1"}}
	if _, err := Export(files, gone); err == nil || !strings.Contains(err.Error(), "by hand") {
		t.Errorf("a policy that is in no file: %v", err)
	}
}
