package plan

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sqlwatch/sqlwatch/internal/admin"
	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/testapp"
	"github.com/sqlwatch/sqlwatch/policy"
)

// writer leaves 50 frames in the WAL, and stays connected.
const writer = `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("pragma journal_mode=wal"); db.execute("pragma wal_autocheckpoint=0")
db.execute("create table t(v)")
for _ in range(50): db.execute("insert into t values(randomblob(100))")
print("wrote", flush=True)
sys.stdin.read()
`

func load(t *testing.T, text string) *config.Config {
	t.Helper()
	name := filepath.Join(t.TempDir(), "sqlwatch.hcl")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, diags := config.Load(name, func(string) (string, bool) { return "", false })
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return cfg
}

// Without a daemon, one look at the files is enough to say, policy by policy, what another
// configuration would do instead; what stays the same is left out.
func TestCompare(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	testapp.Start(t, writer, path).Line(t)
	database := "database \"app\" {\n  path = \"" + path + "\"\n}\n"
	kept := "policy \"kept\" {\n  when = wal.bytes > bytes(\"1GB\")\n  checkpoint {}\n}\n"
	shrink := func(limit string) string {
		return "policy \"shrink\" {\n  when = wal.frames > " + limit + "\n  checkpoint {}\n}\n"
	}
	nobody := admin.New(filepath.Join(t.TempDir(), "admin.sock"))
	for name, tt := range map[string]struct {
		before, after string
		want          []Policy // without the reasons
	}{
		"nothing changes": {kept + shrink("1000"), kept + shrink("1000"), nil},
		"a policy would act": {kept + shrink("1000"), kept + shrink("10"),
			[]Policy{{DB: "app", Policy: "shrink", Phase: "running", Would: "checkpoint", Change: "was inactive"}}},
		"a policy more": {kept, kept + shrink("1000"), []Policy{{DB: "app", Policy: "shrink", Phase: "inactive",
			Change: "added"}}},
		"a policy less": {kept + shrink("1000"), kept, []Policy{{DB: "app", Policy: "shrink", Phase: "inactive",
			Change: "removed"}}},
	} {
		t.Run(name, func(t *testing.T) { // one after the other: a process opens a database once
			got, err := Compare(t.Context(), nobody, load(t, database+tt.before), load(t, database+tt.after))
			if err != nil || got.Daemon || got.Policies == nil || got.Configuration == nil {
				t.Fatalf("%+v, %v", got, err)
			}
			if changed := len(got.Configuration) > 0; changed != (tt.before != tt.after) {
				t.Errorf("changes of the configuration: %q", got.Configuration)
			}
			for i, p := range got.Policies {
				if p.Reason == "" {
					t.Errorf("%s has no reason", p.Policy)
				}
				got.Policies[i].Reason, got.Policies[i].Change = "", strings.SplitN(p.Change, ":", 2)[0]
			}
			if !slices.Equal(got.Policies, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got.Policies, tt.want)
			}
		})
	}
}

// A configuration whose databases contradict each other is not compared.
func TestCompareContradiction(t *testing.T) {
	t.Parallel()
	good := load(t, "database \"a\" {\n  path = \"/srv/a.db\"\n}\n")
	twice := load(t, "database \"a\" {\n  path = \"/srv/a.db\"\n}\ndatabase \"b\" {\n  path = \"/srv/a.db\"\n}\n")
	nobody := admin.New(filepath.Join(t.TempDir(), "admin.sock"))
	for _, pair := range [][2]*config.Config{{good, twice}, {twice, good}} {
		_, err := Compare(t.Context(), nobody, pair[0], pair[1])
		if err == nil || !strings.Contains(err.Error(), "/srv/a.db") {
			t.Errorf("got %v", err)
		}
	}
}

func TestOf(t *testing.T) {
	t.Parallel()
	v := admin.Database{Decision: &admin.Decision{Decision: policy.Decision{Actions: []*policy.Action{
		{Policy: "drill", Kind: policy.ActVerify}}}, Policies: []admin.Policy{
		{PolicyDecision: policy.PolicyDecision{Policy: "drill", Phase: policy.Running, Reason: "acts now"}},
		{PolicyDecision: policy.PolicyDecision{Policy: "shrink", Phase: policy.Inactive, Reason: "the condition is false"}}}}}
	v.Name = "app"
	got := Of([]admin.Database{{}, v})
	want := []Policy{{DB: "app", Policy: "drill", Phase: "running", Would: "verify", Reason: "acts now"},
		{DB: "app", Policy: "shrink", Phase: "inactive", Reason: "the condition is false"}}
	if !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got := Of(nil); got == nil || len(got) > 0 {
		t.Errorf("of nobody: %#v", got)
	}
	var out bytes.Buffer
	changes := Changes{Configuration: []string{"+ policy drill"}, Policies: append(got, Policy{Policy: "old",
		Change: "removed"})}
	if err := changes.Write(&out); err != nil || out.String() != `+ policy drill
No daemon answers: what follows is one look at the files, without a past.
app  drill: would verify now (running): acts now
app  shrink: nothing now (inactive): the condition is false
  old: nothing now ():  [removed]
` {
		t.Errorf("%v:\n%s", err, &out)
	}
	out.Reset()
	if err := (Changes{Configuration: []string{"~ server"}}).Write(&out); err != nil ||
		out.String() != "~ server\nWhat the policies do now stays the same.\n" {
		t.Errorf("%v:\n%s", err, &out)
	}
	out.Reset()
	if err := Write(&out, nil); err != nil || out.String() != "Nothing to do, nothing to change.\n" {
		t.Errorf("%v: %s", err, &out)
	}
}
