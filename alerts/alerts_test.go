// Package alerts_test checks that every alerting rule has a runbook and tests, and that
// rules, dashboards and documents name the metrics that the code exports.
package alerts_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"gopkg.in/yaml.v3"
)

const (
	rulesFile   = "sqlwatch.rules.yml"
	runbookBase = "https://github.com/sqlwatch/sqlwatch/blob/main/alerts/runbooks/"
)

type rule struct {
	Alert, Record, Expr string
	Labels, Annotations map[string]string
}

func rules(t *testing.T) []rule {
	t.Helper()
	var file struct{ Groups []struct{ Rules []rule } }
	decode(t, rulesFile, &file)
	var all []rule
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) < 20 {
		t.Fatalf("%d rules: the test would prove nothing", len(all))
	}
	return all
}

func decode(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func alertNames(t *testing.T) []string {
	var names []string
	for _, r := range rules(t) {
		if r.Alert != "" && !slices.Contains(names, r.Alert) {
			names = append(names, r.Alert)
		}
	}
	return names
}

func TestEveryAlertExplainsItself(t *testing.T) {
	for _, r := range rules(t) {
		if r.Alert == "" {
			continue
		}
		if s := r.Labels["severity"]; s != "warning" && s != "critical" {
			t.Errorf("%s: severity %q", r.Alert, s)
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s: no summary or no description", r.Alert)
		}
		if got, want := r.Annotations["runbook_url"], runbookBase+r.Alert+".md"; got != want {
			t.Errorf("%s: runbook_url %q, want %q", r.Alert, got, want)
		}
	}
}

func TestEveryAlertHasARunbook(t *testing.T) {
	names := alertNames(t)
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join("runbooks", name+".md"))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, heading := range []string{"# " + name, "## What it means", "## How to see it", "## What to do"} {
			if !strings.Contains(string(text), heading+"\n") {
				t.Errorf("the runbook of %s has no %q", name, heading)
			}
		}
		if !strings.Contains(string(text), "sqlwatch ") {
			t.Errorf("the runbook of %s names no command", name)
		}
	}
	books, err := filepath.Glob("runbooks/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, book := range books {
		if !slices.Contains(names, strings.TrimSuffix(filepath.Base(book), ".md")) {
			t.Errorf("%s belongs to no alert", book)
		}
	}
}

// Commands in runbooks and in docs/operations.md are commands that exist.
func TestDocumentsNameRealCommands(t *testing.T) {
	var known []string
	sources, err := filepath.Glob("../cmd/sqlwatch/*.go")
	if err != nil {
		t.Fatal(err)
	}
	registered := regexp.MustCompile(`(?:app\.Command\(|registerAction\(app, env, |registerListing\(app, env, )"([a-z]+)"`)
	for _, path := range sources {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range registered.FindAllStringSubmatch(string(text), -1) {
			known = append(known, m[1])
		}
	}
	if len(known) < 15 {
		t.Fatalf("found only the commands %v", known)
	}
	documents, err := filepath.Glob("runbooks/*.md")
	if err != nil {
		t.Fatal(err)
	}
	used := regexp.MustCompile("(?m)(?:`|^ *|sudo -u [a-z]+ )sqlwatch ([a-z]+)")
	for _, path := range append(documents, "../docs/operations.md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range used.FindAllStringSubmatch(codeOf(string(text)), -1) {
			if !slices.Contains(known, m[1]) {
				t.Errorf("%s names `sqlwatch %s`, which is no command", path, m[1])
			}
		}
	}
}

// codeOf returns the code spans and code blocks of a document.
func codeOf(markdown string) string {
	var b strings.Builder
	for _, m := range regexp.MustCompile("(?s)```.*?```|`[^`\n]+`").FindAllString(markdown, -1) {
		b.WriteString(m + "\n")
	}
	return b.String()
}

type unitTest struct {
	Name            string
	PromqlExprTests []struct {
		Expr       string
		ExpSamples []any `yaml:"exp_samples"`
	} `yaml:"promql_expr_test"`
}

// A test whose name begins with "X fires" expects the alert X to fire, one that begins with
// "X silent" expects that it never does.
func TestEveryAlertHasATestThatFiresItAndOneThatDoesNot(t *testing.T) {
	paths, err := filepath.Glob("tests/*.yml")
	if err != nil {
		t.Fatal(err)
	}
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, path := range paths {
		var file struct{ Tests []unitTest }
		decode(t, path, &file)
		for _, test := range file.Tests {
			name, _, _ := strings.Cut(test.Name, " ")
			expected, unexpected := 0, 0
			for _, e := range test.PromqlExprTests {
				if !strings.Contains(e.Expr, "ALERTS") || name != "all" && !strings.Contains(e.Expr, `alertname="`+name+`"`) {
					continue
				}
				if len(e.ExpSamples) > 0 {
					expected++
				} else {
					unexpected++
				}
			}
			switch {
			case strings.HasPrefix(test.Name, name+" fires") && expected > 0:
				fires[name] = true
			case strings.HasPrefix(test.Name, name+" silent") && expected == 0 && unexpected > 0:
				silent[name] = true
			default:
				t.Errorf("%s: test %q does not expect what its name says", path, test.Name)
			}
		}
	}
	for _, name := range alertNames(t) {
		if !fires[name] || !silent[name] {
			t.Errorf("%s: a test that fires it: %v, one that does not: %v", name, fires[name], silent[name])
		}
	}
}

func TestPromtool(t *testing.T) {
	promtool := tool(t, "promtool")
	tests, err := filepath.Glob("tests/*.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"check", "rules", rulesFile},
		append([]string{"test", "rules"}, tests...),
	} {
		if out, err := exec.Command(promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// tool returns the path of a program that a test needs. If it is missing, the test is
// skipped; in CI it fails.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("CI") != "" {
		t.Fatalf("%s is not installed, and this is CI", name)
	}
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

// exported returns the names of all metrics that the code exports.
func exported(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	fqName := regexp.MustCompile(`fqName: "([^"]+)"`)
	for _, c := range collectors() {
		descs := make(chan *prometheus.Desc)
		go func() {
			c.Describe(descs)
			close(descs)
		}()
		for desc := range descs {
			names[fqName.FindStringSubmatch(desc.String())[1]] = true
		}
	}
	if len(names) < 40 {
		t.Fatalf("the code exports only %d metrics", len(names))
	}
	return names
}

// ours matches names of metrics and recording rules, but no prefix that ends in an underscore.
var ours = regexp.MustCompile(`\b(?:sqlite|sqlwatch)_[a-z0-9_]*[a-z0-9]\b|\bsqlwatch:[a-z0-9_:]+`)

// notMetrics are words that ours matches but that are no metrics.
var notMetrics = []string{"sqlite_version", "sqlwatch_exporter", "sqlwatch:latest"}

func TestEveryMetricNamedIsExported(t *testing.T) {
	known := exported(t)
	for _, r := range rules(t) {
		if r.Record != "" {
			known[r.Record] = true
		}
	}
	seen := 0
	for _, root := range []string{".", "../dashboards", "../docs/operations.md", "../docs/metrics.md", "../examples"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, name := range ours.FindAllString(string(text), -1) {
				seen++
				if !known[name] && !known[baseName(name)] && !slices.Contains(notMetrics, name) {
					t.Errorf("%s names %s, which nobody exports", path, name)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if seen < 200 {
		t.Errorf("found only %d names of metrics", seen)
	}
}

// baseName strips the suffix of a histogram's series.
func baseName(name string) string {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base, ok := strings.CutSuffix(name, suffix); ok {
			return base
		}
	}
	return name
}

// Every metric is on a dashboard, in a rule, or has a reason not to be.
func TestEveryMetricExportedIsUsed(t *testing.T) {
	reasons := map[string]string{
		"sqlwatch_build_info": "for the reader of a raw page",
	}
	boards, err := filepath.Glob("../dashboards/*.json")
	if err != nil || len(boards) == 0 {
		t.Fatalf("no dashboards: %v", err)
	}
	var used strings.Builder
	for _, path := range append(boards, rulesFile) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		used.Write(text)
	}
	for name := range exported(t) {
		if reasons[name] == "" && !regexp.MustCompile(`\b`+name+`(_bucket|_sum|_count)?\b`).MatchString(used.String()) {
			t.Errorf("%s is on no dashboard and in no rule", name)
		}
	}
}
