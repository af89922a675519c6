package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sqlwatch/sqlwatch/internal/lookup"
)

// files creates empty files below a directory.
func files(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, n := range names {
		path := filepath.Join(dir, n)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestExpand_F6_glob(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files(t, dir, "acme/data.db", "acme/data.db-wal", "acme/data.db-shm", "acme/data.db-journal", "zeta/data.db",
		"state/data.db")
	cfg, diags := load(t, map[string]string{"a": fmt.Sprintf(`
server {
  state_dir = "%[1]s/state"
}
database "t" {
  glob         = "%[1]s/*/data.db*"
  name         = "tenant-${path_element(db.path, -2)}"
  labels       = { tier = "gold" }
  replicate_to = [replica.s3.m]
}
database "unnamed" {
  glob = "%[1]s/none/*.db"
}
replica "s3" "m" {
  bucket = "b"
  prefix = "/v1/${db.name}/"
}`, dir)})
	if len(diags) > 0 {
		t.Fatal(show(cfg, diags))
	}
	targets, err := cfg.Expand()
	if err != nil || len(targets) != 2 {
		t.Fatalf("%v %+v", err, targets)
	}
	if got := targets[0]; got.Name != "tenant-acme" || got.Replicas[0].S3.Prefix != "v1/tenant-acme" ||
		got.Labels["tier"] != "gold" {
		t.Errorf("%+v", got)
	}
	if u := cfg.Unmatched(); len(u) != 1 || u[0].Name != "unnamed" {
		t.Errorf("unmatched %+v", u)
	}
}

// A tenant's link to another tenant's file, or to a file elsewhere, is not watched under the
// tenant's name. Links within a directory, and above the glob, belong to the operator and are
// followed.
func TestExpand_X11_links(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files(t, dir, "real/victim/data.db", "real/inside/v2.db", "elsewhere/secret.db", "real/evil/none", "real/worse/none")
	for link, target := range map[string]string{
		"tenants":             "real",
		"real/evil/data.db":   "../victim/data.db",
		"real/worse/data.db":  dir + "/elsewhere/secret.db",
		"real/inside/data.db": "v2.db",
		"real/dirlink":        "victim",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	cfg, diags := load(t, map[string]string{"a": fmt.Sprintf(`
database "t" {
  glob = "%s/tenants/*/data.db"
  name = "tenant-${path_element(db.path, -2)}"
}`, dir)})
	if len(diags) > 0 {
		t.Fatal(show(cfg, diags))
	}
	targets, err := cfg.Expand()
	var got []string
	for _, target := range targets {
		got = append(got, target.Name)
	}
	if want := "tenant-inside tenant-victim"; strings.Join(got, " ") != want {
		t.Errorf("watched: %q, want %q", got, want)
	}
	for _, name := range []string{"evil", "worse", "dirlink"} {
		if err == nil || !strings.Contains(err.Error(), "/"+name+"/data.db: database \"t\": a link leads to") {
			t.Errorf("%s is not told of: %v", name, err)
		}
	}
}

func TestExpandNamesWithoutTemplate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files(t, dir, "acme/x.db", "zeta/x.db", "zeta/y.db")
	cfg, diags := load(t, map[string]string{"a": fmt.Sprintf("database \"t\" {\n  glob = \"%s/*/*.db\"\n}", dir)})
	if len(diags) > 0 {
		t.Fatal(show(cfg, diags))
	}
	targets, err := cfg.Expand()
	if err != nil || len(targets) != 3 || targets[0].Name != "t-acme-x" || targets[2].Name != "t-zeta-y" {
		t.Errorf("%v %+v", err, targets)
	}
}

func TestExpand_F7_contradictions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files(t, dir, "a.db", "b.db", "acme/data.db", "zeta/data.db")
	if err := os.Link(filepath.Join(dir, "a.db"), filepath.Join(dir, "hard.db")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a.db", filepath.Join(dir, "soft.db")); err != nil {
		t.Fatal(err)
	}
	two := func(first, second string) string {
		return fmt.Sprintf("database \"one\" {\n  path = \"%s/a.db\"\n  %s\n}\ndatabase \"two\" {\n  path = \"%s/%s\"\n}\n",
			dir, first, dir, second)
	}
	s3 := func(name, prefix string) string {
		return fmt.Sprintf("replica \"s3\" %q {\n  bucket = \"b\"\n  prefix = %q\n}\n", name, prefix)
	}
	tests := []struct{ name, src, want string }{
		{"same path", two("", "a.db"), "same file as"},
		{"hard link", two("", "hard.db"), "same file as"},
		{"symbolic link", two("", "soft.db"), "same file as"},
		{"same missing path", "database \"one\" {\n  path = \"/none/x.db\"\n}\ndatabase \"two\" {\n  path = " +
			"\"/none/./x.db\"\n}", "watched already"},
		{"same name", fmt.Sprintf("database \"t\" {\n  glob = \"%s/*/data.db\"\n  name = \"t\"\n}", dir),
			`the name "t" is taken`},
		{"same prefix", two("replicate_to = [replica.s3.x]", "b.db\"\n  replicate_to = [replica.s3.x]\n  name = \"two") +
			s3("x", "v1"), "put ${db.name}"},
		{"prefix of another's", two("replicate_to = [replica.s3.x]",
			"b.db\"\n  replicate_to = [replica.s3.y]\n  name = \"two") + s3("x", "v1") + s3("y", "v1/two"), "one on s3.x"},
		{"prefix around another's", two("replicate_to = [replica.s3.y]",
			"b.db\"\n  replicate_to = [replica.s3.x]\n  name = \"two") + s3("x", "v1") + s3("y", "v1/two"), "one on s3.y"},
		{"two replicas of one database", two("replicate_to = [replica.s3.x, replica.s3.y]", "b.db") + s3("x", "v1") +
			s3("y", "v1"), ""},
		{"dots in a prefix", two("replicate_to = [replica.s3.x]", "b.db") + s3("x", "v1/../v2"), "has an element"},
		{"a prefix that leaves no room for keys", two("replicate_to = [replica.s3.x]", "b.db") +
			s3("x", strings.Repeat("p", 972)), "has 972 bytes"},
		{"relative dir", two("labels = { at = \"x\" }\n  replicate_to = [replica.file.x]", "b.db") +
			"replica \"file\" \"x\" {\n  dir = \"${db.labels.at}\"\n}", "not absolute"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cfg, diags := load(t, map[string]string{"a": test.src})
			if diags.HasErrors() {
				t.Fatal(show(cfg, diags))
			}
			targets, err := cfg.Expand()
			if test.want == "" {
				test.want = "within the place of"
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
			if len(targets) != 1 {
				t.Errorf("%d targets, want the one that is in no contradiction", len(targets))
			}
		})
	}
	cfg, diags := load(t, map[string]string{
		"a": two("replicate_to = [replica.s3.x]", "b.db\"\n  replicate_to = [replica.s3.y]\n  name = \"two") + s3("x", "v1") +
			s3("y", "v10")})
	if _, err := cfg.Expand(); diags.HasErrors() || err != nil {
		t.Errorf("v1 and v10 do not collide: %v %v", diags, err)
	}
}

func TestExpandHostileNames_D23(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files(t, dir, "ok/data.db", "with space?#%/data.db", "ünï/data.db", "new\nline/data.db")
	cfg, diags := load(t, map[string]string{
		"a": fmt.Sprintf("database \"t\" {\n  glob = \"%s/*/data.db\"\n  name = path_element(db.path, -2)\n}", dir)})
	if len(diags) > 0 {
		t.Fatal(show(cfg, diags))
	}
	targets, err := cfg.Expand()
	if err == nil || !strings.Contains(err.Error(), "control character") || len(targets) != 3 {
		t.Errorf("%v %+v", err, targets)
	}
}

func TestDefault(t *testing.T) {
	t.Parallel()
	cfg, err := Default([]string{"/srv/a/app.db", "/srv/b/app.db"}, "file:///backups")
	if err != nil {
		t.Fatal(err)
	}
	targets, err := cfg.Expand()
	if err != nil || len(targets) != 2 || targets[0].Name != "app" || targets[1].Name != "app-2" ||
		targets[1].Replicas[0].File.Dir != "/backups/app-2" {
		t.Errorf("%v %+v", err, targets)
	}
	one, err := Default([]string{"x.db"},
		"s3://bucket/some/prefix?endpoint=http://127.0.0.1:9000&region=r&path_style=true")
	if err != nil {
		t.Fatal(err)
	}
	targets, err = one.Expand()
	want := S3{Bucket: "bucket", Prefix: "some/prefix", Region: "r", Endpoint: "http://127.0.0.1:9000", PathStyle: true}
	if err != nil || targets[0].Replicas[0].S3 != want || !filepath.IsAbs(targets[0].Path) {
		t.Errorf("%v %+v", err, targets)
	}
	if len(cfg.Policies.Policies) != 3 {
		t.Error("no built-in policy")
	}
}

// TestParseReplicaURL_F15: a URL that is not understood is refused with the place of the mistake,
// and no secret is repeated.
func TestParseReplicaURL_F15(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"http://x/y": "must be file or s3", "s3:///x": "no bucket", "file://host/x": "file:///dir",
		"/plain/path":                 "must be file or s3",
		"s3://key:" + canary + "@b/p": "credentials do not belong", "s3://b/%zz" + canary: "character 8",
		"s3://b/a/../b": "has an element",
		"s3:/b/p":       `"://"`, "file:/dir": `"://"`, "s3://host:9000/b": "?endpoint=",
		"s3://b/p q":                 "character 9 is a blank",
		"s3://b/p?regoin=x":          "parameter at character 10: unknown parameter",
		"s3://b/p?region=x&region=y": `parameter at character 19: "region" is given twice`,
		"s3://b/p?path_style=tru":    "path_style is true or false", "s3://b/p?region=x;path_style=true": "divided by &",
		"s3://b/p?region=":   "has no value",
		"s3://b/p?region=x&": "has no value", "s3://b/p?": "", "s3://b/p#q": "character 9 is a #", "file:///a#b": "write %23",
		"file:///a?b": "write it as %3F",
		"s3://b/p?endpoint=http://u:" + canary + "@h": "has credentials", "s3://b/p?endpoint=http:/h": "one slash only",
		"s3://b/p?endpoint=http://": "names no host", "s3://b/p?endpoint=s3://h": "begins with s3://",
		"s3://b/p?endpoint=https://h/%3Fx=1":   "takes no parameters",
		"s3://b/p?endpoint=https://h%3Fx=1":    "takes no parameters",
		"s3://b/p?endpoint=http://h:" + canary: "not a URL",
	} {
		_, err := ParseReplicaURL(url)
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", url, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), canary) &&
			!strings.HasPrefix(url, "s3://b/%zz") {
			t.Errorf("%s: %v, want %q", url, err, want)
		}
	}
	for url, want := range map[string]S3{
		"s3://b/p?endpoint=localhost:9000&region=r": {Bucket: "b", Prefix: "p", Endpoint: "localhost:9000",
			Region: "r"},
		"s3://b?endpoint=https://x.supabase.co/storage/v1/s3": {
			Bucket: "b", Endpoint: "https://x.supabase.co/storage/v1/s3"},
		"s3://b/p%20q?path_style=0&endpoint=http%3A%2F%2Fh%3A90": {Bucket: "b", Prefix: "p q", Endpoint: "http://h:90",
			HostStyle: true},
		"s3://b/%23?path_style=1": {Bucket: "b", Prefix: "#", PathStyle: true},
	} {
		if got, err := ParseReplicaURL(url); err != nil || got.S3 != want {
			t.Errorf("%s: %+v, %v; want %+v", url, got.S3, err, want)
		}
	}
}

// TestEndpoint_F15: a bad endpoint in a replica block is an error at its place.
func TestEndpoint_F15(t *testing.T) {
	t.Parallel()
	for _, endpoint := range []string{"https://h?x=1", "s3://h", "http:/h", "http://", "https://user:" + canary + "@h",
		"https://h#x", "https://", "ftp://h"} {
		_, diags := load(t, map[string]string{"a": "replica \"s3\" \"x\" {\n  bucket = \"b\"\n  endpoint = \"" + endpoint +
			"\"\n}\n"})
		if len(diags) != 1 || diags[0].Subject.Start.Line != 3 || strings.Contains(diags[0].Detail, canary) {
			t.Errorf("%s: %v", endpoint, diags)
		}
	}
	cfg, diags := load(t, map[string]string{
		"a": "replica \"s3\" \"x\" {\n  bucket = \"b\"\n  endpoint = \"http://h:90\"\n  path_style = false\n}\n"})
	if diags.HasErrors() {
		t.Fatal(show(cfg, diags))
	}
	if target, err := cfg.Replicas["s3.x"].For("db", "/x", nil); err != nil || !target.S3.HostStyle ||
		target.S3.PathStyle {
		t.Errorf("path_style = false: %+v, %v", target.S3, err)
	}
}

// TestExpand_F6_many: the time to expand many databases is nearly linear.
func TestExpand_F6_many(t *testing.T) {
	t.Parallel()
	cfg := &Config{Replicas: map[string]ReplicaTemplate{
		"file.x": {Type: "file", Name: "file.x", fixed: &ReplicaTarget{Name: "file.x", Type: "file", File: File{Dir: "/b"}},
			perDatabase: true}}}
	for i := range 10_000 {
		cfg.Databases = append(cfg.Databases, Database{Name: fmt.Sprint("d", i), Path: fmt.Sprintf("/none/%d.db", i),
			ReplicateTo: []string{"file.x"}})
	}
	targets, err := cfg.Expand()
	if err != nil || len(targets) != 10_000 {
		t.Errorf("%d targets, %v", len(targets), err)
	}
}

// A block leaves out what it excludes, even what an earlier block has; a path of its own takes
// precedence over any glob; patterns that can match nothing are errors.
func TestExclude(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files(t, dir, "a/data.db", "b/data.db", "test-1/data.db", "test-2/data.db")
	cfg, diags := load(t, map[string]string{"a": fmt.Sprintf(`
database "tenants" {
  glob    = "%[1]s/*/data.db"
  exclude = ["%[1]s/test-*/*"]
}
database "own" {
  path = "%[1]s/b/data.db"
}`, dir)})
	if len(diags) > 0 {
		t.Fatal(show(cfg, diags))
	}
	known := []Known{{Name: "tenants-test-1", Path: dir + "/test-1/data.db", Block: "tenants"}}
	targets, leftOut := cfg.ExpandAround(known, lookup.New())
	var names []string
	for _, target := range targets {
		names = append(names, target.Name)
	}
	if fmt.Sprint(names) != "[own tenants-a]" || len(leftOut) != 0 {
		t.Errorf("%v, left out %v", names, leftOut)
	}
	for _, bad := range []string{`glob = "/a/*"` + "\n" + `exclude = ["test-*"]`, `glob = "/a/*"` + "\n" +
		`exclude = ["/a/["]`, `path = "/a"` + "\n" + `exclude = ["/b"]`} {
		if _, diags := load(t, map[string]string{"a": "database \"x\" {\n" + bad + "\n}"}); !diags.HasErrors() {
			t.Errorf("%s is accepted", bad)
		}
	}
}
