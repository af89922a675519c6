package doctor

import (
	"database/sql"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/mattn/go-sqlite3"
	"gopkg.in/yaml.v3"
)

func setting(t *testing.T, name, path string) string {
	t.Helper()
	for _, s := range Settings(path) {
		if s.Name == name {
			return s.Text
		}
	}
	t.Fatalf("no settings for %s", name)
	return ""
}

// The settings printed for Python run in Python.
func TestSettingsPython(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	program := setting(t, "python", path) + `
import json
print(json.dumps([db.execute("PRAGMA " + p).fetchone()[0] for p in
    ("journal_mode", "synchronous", "busy_timeout", "journal_size_limit", "wal_autocheckpoint")]))
`
	out, err := exec.Command("/usr/bin/python3", "-c", program).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got, want := strings.TrimSpace(string(out)), `["wal", 1, 5000, 67108864, 1000]`; got != want {
		t.Errorf("settings in force: %s, want %s", got, want)
	}
}

// The settings printed for Django are passed to Python's sqlite3 module, as arguments and
// statements.
func TestSettingsDjango(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	program := setting(t, "django", path) + `
import json, sqlite3
d = DATABASES["default"]
o = dict(d["OPTIONS"])
db = sqlite3.connect(d["NAME"], timeout=o["timeout"], isolation_level=o["transaction_mode"])
db.executescript(o["init_command"])
print(json.dumps([db.execute("PRAGMA " + p).fetchone()[0] for p in
    ("journal_mode", "synchronous", "busy_timeout", "journal_size_limit")]))
`
	out, err := exec.Command("/usr/bin/python3", "-c", program).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got, want := strings.TrimSpace(string(out)), `["wal", 1, 5000, 67108864]`; got != want {
		t.Errorf("settings in force: %s, want %s", got, want)
	}
}

// The data source name printed for the mattn driver is opened by that driver.
func TestSettingsGo(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	_, dsn, _ := strings.Cut(setting(t, "go-mattn", path), `sql.Open("sqlite3", `)
	var name string
	if err := json.Unmarshal([]byte(strings.TrimSuffix(strings.TrimSpace(dsn), ")")), &name); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite3", name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "1", "busy_timeout": "5000"} {
		var got string
		if err := db.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %s, want %s (%v)", pragma, got, want, err)
		}
	}
}

func TestSettingsText(t *testing.T) {
	t.Parallel()
	for _, s := range Settings("/srv/my.db") {
		if s.Name == "" || s.For == "" || s.File == "" || !strings.HasSuffix(s.Text, "\n") {
			t.Errorf("incomplete: %+v", s)
		}
		lower := strings.ToLower(s.Text)
		for _, want := range []string{"journal_mode", "wal", "synchronous", "normal"} {
			if !strings.Contains(lower, want) {
				t.Errorf("%s lacks %s", s.Name, want)
			}
		}
		if s.Name != "pocketbase" && !strings.Contains(s.Text, "/srv/my.db") {
			t.Errorf("%s does not name the database", s.Name)
		}
	}
	var rails struct {
		Production struct {
			Timeout int
			Pragmas map[string]any
		}
	}
	if err := yaml.Unmarshal([]byte(setting(t, "rails", "/srv/my.db")), &rails); err != nil ||
		rails.Production.Timeout != 5000 || rails.Production.Pragmas["journal_mode"] != "wal" {
		t.Errorf("rails: %+v, %v", rails, err)
	}
}

// The settings printed for Django before 5.1 run with a stand-in for Django's signal.
func TestSettingsDjangoBefore51(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	program := `
import sys, types, sqlite3, contextlib, json
receivers = []
signals = types.ModuleType("django.db.backends.signals")
signals.connection_created = types.SimpleNamespace(connect=receivers.append)
for name in ("django", "django.db", "django.db.backends"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["django.db.backends.signals"] = signals
` + setting(t, "django-before-5.1", path) + `
db = sqlite3.connect(sys.argv[1])
class Connection:
    vendor = "sqlite"
    def cursor(self):
        return contextlib.closing(db.cursor())
for r in receivers:
    r(sender=None, connection=Connection())
print(json.dumps([db.execute("PRAGMA " + p).fetchone()[0] for p in
    ("journal_mode", "synchronous", "busy_timeout", "journal_size_limit")]))
`
	out, err := exec.Command("/usr/bin/python3", "-c", program, path).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got, want := strings.TrimSpace(string(out)), `["wal", 1, 5000, 67108864]`; got != want {
		t.Errorf("settings in force: %s, want %s", got, want)
	}
}
