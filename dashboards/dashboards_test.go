package dashboards

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the JSON files")

// dashboard has the fields of a JSON file that the tests check.
type dashboard struct {
	UID, Title, Description string
	Templating              struct {
		List []struct {
			Name, Type, Description string
			Query                   any
		}
	}
	Annotations struct {
		List []struct{ Name, Expr string }
	}
	Links  []struct{ URL string }
	Panels []panel
}

type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	Datasource               struct{ UID string }
	FieldConfig              struct {
		Defaults struct{ Unit string }
	}
	Targets []struct{ RefID, Expr, LegendFormat string }
}

func files(t *testing.T) map[string]dashboard {
	t.Helper()
	all := map[string]dashboard{}
	for _, b := range All() {
		text, err := os.ReadFile(b.UID + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var d dashboard
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatalf("%s: %v", b.UID, err)
		}
		all[b.UID] = d
	}
	if len(all) != 4 {
		t.Fatalf("%d dashboards, want 4", len(all))
	}
	return all
}

func TestGolden(t *testing.T) {
	for _, b := range All() {
		want, err := b.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(b.UID+".json", want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(b.UID + ".json")
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s.json is not what the code says (%v): go generate ./dashboards", b.UID, err)
		}
	}
	written, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range written {
		uid, isJSON := strings.CutSuffix(f.Name(), ".json")
		if isJSON && !slices.ContainsFunc(All(), func(b Board) bool { return b.UID == uid }) {
			t.Errorf("%s belongs to no dashboard", f.Name())
		}
	}
}

func TestEveryDashboard(t *testing.T) {
	all := files(t)
	for uid, d := range all {
		if d.UID != uid || d.Title == "" || d.Description == "" {
			t.Errorf("%s: uid %q, title %q, description %q", uid, d.UID, d.Title, d.Description)
		}
		var variables []string
		for _, v := range d.Templating.List {
			variables = append(variables, v.Name)
			if v.Description == "" {
				t.Errorf("%s: variable %s has no description", uid, v.Name)
			}
		}
		if want := []string{"datasource", "job", "instance", "db"}; !slices.Equal(variables, want) {
			t.Errorf("%s: variables %v, want %v", uid, variables, want)
		}
		for _, name := range []string{"Checkpoints", "Policy actions"} {
			if !slices.ContainsFunc(d.Annotations.List, func(a struct{ Name, Expr string }) bool {
				return a.Name == name &&
					a.Expr != ""
			}) {
				t.Errorf("%s: no annotation %q", uid, name)
			}
		}
		linked := map[string]bool{uid: true}
		for _, l := range d.Links {
			other := strings.TrimPrefix(l.URL, "/d/")
			linked[other] = true
			if _, ok := all[other]; !ok {
				t.Errorf("%s: link to %s, which is no dashboard", uid, l.URL)
			}
		}
		if len(linked) != len(all) {
			t.Errorf("%s links to %v, not to all the others", uid, linked)
		}
		if first := d.Panels[0]; first.Type != "row" || first.Title != "Is everything well?" {
			t.Errorf("%s begins with %s %q", uid, first.Type, first.Title)
		}
	}
}

func TestEveryPanel(t *testing.T) {
	for uid, d := range files(t) {
		ids, titles := map[int]bool{}, map[string]bool{}
		row := ""
		for _, p := range d.Panels {
			if p.ID < 1 || ids[p.ID] {
				t.Errorf("%s: %q has the id %d, which is 0 or that of another panel", uid, p.Title, p.ID)
			}
			ids[p.ID] = true
			if p.Type == "row" {
				row = p.Title
				continue
			}
			if titles[row+p.Title] {
				t.Errorf("%s: two panels %q in one row", uid, p.Title)
			}
			titles[row+p.Title] = true
			if p.Title == "" || len(p.Description) < 20 || !strings.HasSuffix(p.Description, ".") {
				t.Errorf("%s: panel %q is described as %q", uid, p.Title, p.Description)
			}
			if p.FieldConfig.Defaults.Unit == "" || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
				t.Errorf("%s: panel %q: unit %q, datasource %q, %d queries", uid, p.Title, p.FieldConfig.Defaults.Unit,
					p.Datasource.UID, len(p.Targets))
			}
		}
	}
}

func TestNoPanelOverlaps(t *testing.T) {
	for uid, d := range files(t) {
		taken := map[[2]int]string{}
		for _, p := range d.Panels {
			if p.GridPos.X < 0 || p.GridPos.W < 1 || p.GridPos.H < 1 || p.GridPos.X+p.GridPos.W > 24 {
				t.Errorf("%s: %q does not fit: %+v", uid, p.Title, p.GridPos)
			}
			for x := range p.GridPos.W {
				for y := range p.GridPos.H {
					cell := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
					if other, ok := taken[cell]; ok {
						t.Fatalf("%s: %q overlaps %q at %v", uid, p.Title, other, cell)
					}
					taken[cell] = p.Title
				}
			}
		}
	}
}

var (
	selector = regexp.MustCompile(`([A-Za-z_:][A-Za-z0-9_:]*)\{([^}]*)\}`)
	counter  = regexp.MustCompile(`_total\{|_bucket\{|_sum\{`)
	overTime = regexp.MustCompile(`(\w+)\([^()]*\[([^\]]+)\]`)
)

var grew = regexp.MustCompile(`increase\(([^\[]+)\[([^\]]+)\]\) > 0`)

// ofReplicas are metrics of a replica that have no label db.
var ofReplicas = []string{"sqlwatch_replica_operation_failures_total", "sqlwatch_replica_operation_duration_seconds"}

func baseOf(series string) string { return strings.TrimSuffix(series, "_bucket") }

// Every query uses the dashboard's variables, and a counter only in a function such as rate,
// over the interval that Grafana chooses.
func TestEveryQuery(t *testing.T) {
	for uid, d := range files(t) {
		check := func(title, expr string) {
			// A query made by grown counts as one counter in one function.
			for _, m := range grew.FindAllStringSubmatch(expr, -1) {
				expr = strings.ReplaceAll(expr, " or "+m[1]+" unless "+m[1]+" offset "+m[2], "")
			}
			selectors := selector.FindAllStringSubmatch(expr, -1)
			if len(selectors) == 0 {
				t.Errorf("%s, %q: no selector in %s", uid, title, expr)
			}
			for _, s := range selectors {
				if !strings.Contains(s[2], `job=~"$job",instance=~"$instance"`) {
					t.Errorf("%s, %q: %s does not follow job and instance", uid, title, s[0])
				}
				ofDatabase := strings.HasPrefix(s[1], "sqlite_") || strings.HasPrefix(s[1], "sqlwatch_") ||
					strings.HasPrefix(s[1], "sqlwatch:")
				ofProcess := strings.HasPrefix(s[1], "sqlwatch_config_") || strings.HasPrefix(s[1], "sqlwatch_scrape_") ||
					strings.HasPrefix(s[1], "sqlwatch_notification") || slices.Contains(ofReplicas, baseOf(s[1]))
				if ofDatabase && !ofProcess && !strings.Contains(s[2], `db=~"$db"`) {
					t.Errorf("%s, %q: %s does not follow db", uid, title, s[0])
				}
			}
			ranges := overTime.FindAllStringSubmatch(expr, -1)
			for _, r := range ranges {
				looksBack := r[1] == "predict_linear" || r[1] == "max_over_time"
				if r[2] != "$__rate_interval" && r[2] != "$__range" && !looksBack {
					t.Errorf("%s, %q: %s over a fixed %s", uid, title, r[1], r[2])
				}
			}
			if got, want := len(ranges), len(counter.FindAllString(expr, -1)); got < want {
				t.Errorf("%s, %q: %d counters and %d rates in %s", uid, title, want, got, expr)
			}
		}
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				check(p.Title, q.Expr)
				if q.LegendFormat == "" && p.Type != "table" {
					t.Errorf("%s, %q: no legend", uid, p.Title)
				}
			}
		}
		for _, a := range d.Annotations.List {
			check(a.Name, a.Expr)
		}
	}
}
