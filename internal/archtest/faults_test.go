package archtest

import (
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the test column of docs/faults.md")

const faultTable = "../../docs/faults.md"

var (
	faultID  = regexp.MustCompile(`[PDSCFHRXIV][0-9]{1,2}`)
	inName   = regexp.MustCompile(`(?:[a-z]|_|\b)([PDSCFHRXIV][0-9]{1,2})(?:[A-Z]|_|\b)`)
	testFunc = regexp.MustCompile(`^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	storeS3  = regexp.MustCompile(`S3\b|S3[A-Z_]`) // in a function's name S3 is the store, not the fault
	subtest  = regexp.MustCompile(`"([PDSCFHRXIV][0-9]{1,2}(?:[ _/:,][^"]*)?)"`)
)

// docs/faults.md says which tests cover each fault. Tests have the fault's id in their name or in
// that of a subtest; a row without a test says why.
func TestFaultTable(t *testing.T) {
	tests := faultTests(t)
	text, err := os.ReadFile(faultTable)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	rows := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 6 || faultID.FindString(cells[1]) != strings.TrimSpace(cells[1]) ||
			strings.TrimSpace(cells[1]) == "" {
			out.WriteString(line)
			continue
		}
		id := strings.TrimSpace(cells[1])
		if rows[id] {
			t.Errorf("%s is the id of two faults: a test that carries it would count for both", id)
		}
		rows[id] = true
		want := strings.Join(tests[id], ", ")
		cells[3] = " " + want + " "
		out.WriteString(strings.Join(cells, "|") + "\n")
		if want == "" && strings.TrimSpace(cells[4]) == "" {
			t.Errorf("%s has neither a test nor a reason why not", id)
		}
	}
	for id, names := range tests {
		if !rows[id] {
			t.Errorf("%v claim to cover %s, which docs/faults.md does not know", names, id)
		}
	}
	if out.String() == string(text) {
		return
	}
	if !*update {
		t.Fatal("docs/faults.md names other tests than there are: go test ./internal/archtest -run TestFaultTable -update")
	}
	if err := os.WriteFile(faultTable, []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// faultTests returns the tests of the whole repository by fault.
func faultTests(t *testing.T) map[string][]string {
	t.Helper()
	tests := map[string][]string{}
	err := filepath.WalkDir("../..", func(path string, e fs.DirEntry, err error) error {
		script := strings.Contains(path, "testdata/") && strings.HasSuffix(path, ".txt")
		if err != nil || e.IsDir() || !script && !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		pkg := strings.TrimPrefix(filepath.Dir(path), "../../")
		test := filepath.Base(path)
		for line := range strings.Lines(string(text)) {
			named := ""
			switch m := testFunc.FindStringSubmatch(line); {
			case script && strings.HasPrefix(line, "#"):
				named = line
			case m != nil:
				test = m[1]
				named = storeS3.ReplaceAllString(test, "")
			case !script:
				for _, m := range subtest.FindAllStringSubmatch(line, -1) {
					named += " " + m[1]
				}
			}
			named = strings.ReplaceAll(named, "_", "__") // matches do not overlap
			for _, m := range inName.FindAllStringSubmatch(named, -1) {
				if name := pkg + "." + test; !slices.Contains(tests[m[1]], name) {
					tests[m[1]] = append(tests[m[1]], name)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tests
}

// The tests that documents name exist.
func TestDocumentsNameRealTests(t *testing.T) {
	named := regexp.MustCompile(`([a-z0-9/]+)\.((?:Test|Fuzz|Benchmark)\w+)`)
	for _, doc := range []string{"assumptions.md", "faults.md", "track-record.md"} {
		text, err := os.ReadFile(filepath.Join("../../docs", doc))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range named.FindAllStringSubmatch(string(text), -1) {
			files, err := filepath.Glob(filepath.Join("../..", m[1], "*_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(files, func(file string) bool {
				code, err := os.ReadFile(file)
				return err == nil && strings.Contains(string(code), "func "+m[2]+"(")
			}) {
				t.Errorf("docs/%s names %s, which does not exist", doc, m[0])
			}
		}
	}
}

// Workflows name actions by commit: a tag can be moved.
func TestWorkflowPinsActions_X3(t *testing.T) {
	workflows, err := filepath.Glob("../../.github/workflows/*.yml")
	if err != nil || len(workflows) == 0 {
		t.Fatalf("no workflow: %v", err)
	}
	pinned := regexp.MustCompile(`uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d`)
	for _, path := range workflows {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "permissions:\n  contents: read\n") ||
			strings.Contains(string(text), "pull_request_target") {
			t.Errorf("%s has more rights than reading, or runs strangers' code with them", path)
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, "uses:") && !pinned.MatchString(line) {
				t.Errorf("%s: %s is not named by commit", path, strings.TrimSpace(line))
			}
		}
	}
}
