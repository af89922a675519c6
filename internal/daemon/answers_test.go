package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// admin sends a request to the admin socket.
func (s *served) admin(t *testing.T, method, path string) (int, string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn,
		error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(s.dir, "run", "admin.sock"))
	}}}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://sqlwatch"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

// places lists the fields of a JSON value as docs/api.md does, and records their values: a list of
// objects as name[], one of numbers or texts by its name alone.
func places(v any, at string, found map[string]any) {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			places(value, strings.TrimPrefix(at+"."+name, "."), found)
		}
	case []any:
		found[at] = v
		for _, value := range v {
			if _, object := value.(map[string]any); object {
				places(value, at+"[]", found)
			}
		}
	default:
		found[at] = v
	}
}

func TestPlaces(t *testing.T) {
	found := map[string]any{}
	places(map[string]any{"all": []any{map[string]any{"minutes": []any{1.5, nil}}}}, "", found)
	if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, []string{"all", "all[].minutes"}) {
		t.Errorf("places: %q", got)
	}
}

// No answer of the API of a daemon that has done something has a field that docs/api.md does not
// list, an instant of the year 1, or a list that is null.
func TestAnswersAreAsDocumented(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	app := filepath.Join(dir, "app.db")
	application(t, app)
	d := serving(t, fmt.Sprintf(`
database "app" {
  path         = %q
  labels       = { tier = "gold" }
  replicate_to = [replica.file.local]
}
database "plain" { path = "%s/nowhere.db" }
replica "file" "local" { dir = "%s/replica" }
window "never" {
  cron     = "0 3 29 2 *"
  duration = "1h"
}
policy "shrink" {
  when     = wal.bytes > bytes("100kB")
  cooldown = "1h"
  checkpoint {
    stall_budget = "500ms"
    step "passive" {}
    step "truncate" { busy_timeout = "100ms" }
  }
  tune "stall" {
    goal = p95_over(checkpoint.stall, "7d") < duration("150ms")
    mode = "suggest"
  }
}
policy "later" {
  when   = wal.bytes >= 0
  window = window.never
  snapshot {}
}`, app, dir, dir), nil)
	reference, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	python(t, app, `[db.execute("insert into t values(randomblob(4000))") for _ in range(100)]`)
	poll(t, "the policy has acted", func() bool {
		return strings.Contains(d.page(t, "/api/v1/databases"), `"outcome":`)
	})
	pages := map[string]string{}
	for section, path := range map[string]string{"health": "/api/v1/health", "databases": "/api/v1/databases",
		"decisions": "/api/v1/decisions?db=app"} {
		pages[section] = d.page(t, path)
	}
	for _, path := range []string{"/v1/sync?db=app", "/v1/snapshot?db=app", "/v1/verify?db=app",
		"/v1/checkpoint?db=app&mode=passive"} {
		status, text := d.admin(t, http.MethodPost, path)
		if status != http.StatusOK {
			t.Errorf("POST %s: %d %s", path, status, text)
		}
		pages["action"] = text
		check(t, string(reference), "action", text)
	}
	pages["databases"] = d.page(t, "/api/v1/databases")
	for section, text := range pages {
		check(t, string(reference), section, text)
	}
	for _, want := range []string{`"duration_seconds":`, `"writer_stall_seconds":`, `"stall_budget_seconds":`} {
		if !strings.Contains(pages["databases"]+pages["decisions"], want) && want != `"stall_budget_seconds":` {
			t.Errorf("no %s in what was answered", want)
		}
	}
	// The database that never existed has empty lists, not null.
	var all struct{ Databases []map[string]any }
	if err := json.Unmarshal([]byte(pages["databases"]), &all); err != nil {
		t.Fatal(err)
	}
	for _, database := range all.Databases {
		for _, list := range []string{"actions", "changes", "conditions"} {
			if _, ok := database[list].([]any); !ok {
				t.Errorf("%s of %v is %v", list, database["name"], database[list])
			}
		}
	}
	for path, want := range map[string]string{"/v1/pause?for=1m": `"paused_for_seconds":60`, "/v1/pause?for=0s": ":0",
		"/v1/reload": `"reloaded":true`} {
		if status, text := d.admin(t, http.MethodPost, path); status != http.StatusOK || !strings.Contains(text, want) {
			t.Errorf("POST %s: %d %s, want %s", path, status, text, want)
		}
	}
	if !strings.Contains(d.log.String(), "path=/v1/pause") || !regexp.MustCompile(`peer_uid=\d+ peer_pid=[1-9]\d*`).
		MatchString(d.log.String()) {
		t.Error("an action left no line with the peer's uid and pid")
	}
	if status, text := d.admin(t, http.MethodPost, "/v1/sync?db=nobody"); status != http.StatusNotFound ||
		!strings.HasPrefix(text, `{"error":`) {
		t.Errorf("a database that is not there: %d %s", status, text)
	}
}

// check compares an answer with its section of docs/api.md.
func check(t *testing.T, reference, section, text string) {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s: %v\n%s", section, err, text)
	}
	found := map[string]any{}
	places(v, "", found)
	if len(found) < 5 {
		t.Fatalf("%s answers %s: the test would prove nothing", section, text)
	}
	listed := func(section string) string {
		_, table, _ := strings.Cut(reference, "<!-- begin: "+section+" -->\n")
		table, _, _ = strings.Cut(table, "<!-- end:")
		return table
	}
	free := regexp.MustCompile(`\.(labels|windows|values)\.[^.]+$`)
	nested := regexp.MustCompile(`(\.tree\b)(\.[a-z_]+\[\])+`)
	for at, value := range found {
		path := nested.ReplaceAllString(free.ReplaceAllString(at, ".$1"), "$1")
		from := section
		for prefix, other := range map[string]string{"databases[].decision.": "decisions", "databases[].actions[].": "action",
			"decisions[].actions[].": "action"} {
			if rest, ok := strings.CutPrefix(path, prefix); ok {
				from, path = other, rest
				if other == "decisions" {
					path = "decisions[].decision." + rest
				}
			}
		}
		table := listed(from)
		if !strings.Contains(table, "| `"+path+"`") && !strings.Contains(table, "| `"+path+"[]`") {
			t.Errorf("%s: %s (%s) is not in docs/api.md", section, at, path)
		}
		if value == nil && strings.Contains(table, "| `"+path+"` | list") {
			t.Errorf("%s: the list %s is null", section, at)
		}
		if s, ok := value.(string); ok && strings.HasPrefix(s, "0001-") {
			t.Errorf("%s: %s is %s", section, at, s)
		}
	}
	if slices.Contains(strings.Split(text, `"`), "duration") {
		t.Errorf("%s: a duration without its unit: %s", section, text)
	}
}
