package doctor

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// inForce runs a program that prints which settings are in force. If its language is not
// installed, the test is skipped.
func inForce(t *testing.T, want string, probe []string, run ...string) {
	t.Helper()
	if out, err := exec.Command(probe[0], probe[1:]...).CombinedOutput(); err != nil {
		t.Skipf("%s: %v: %s", strings.Join(probe, " "), err, out)
	}
	out, err := exec.Command(run[0], run[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := strings.TrimSpace(string(out)); got != want {
		t.Errorf("settings in force: %s, want %s", got, want)
	}
}

// script writes a program into a new directory.
func script(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The settings printed for Laravel are read by PHP and applied to a PDO connection as Laravel's
// connector does.
func TestSettingsLaravel(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	inForce(t, `["wal",1,5000,67108864,1000,1]`, []string{"php", "-r", "new PDO('sqlite::memory:');"},
		"php", script(t, "app.php", `<?php
function env($name, $default) { return $default; }
$connections = [
`+setting(t, "laravel", path)+`
];
$c = $connections['sqlite'];
touch($c['database']);
$db = new PDO('sqlite:' . $c['database']);
$pragmas = $c['pragmas'] + ['foreign_keys' => (int) $c['foreign_key_constraints'], 'busy_timeout' => $c['busy_timeout'],
    'journal_mode' => $c['journal_mode'], 'synchronous' => $c['synchronous']];
foreach ($pragmas as $name => $value) { $db->query("PRAGMA $name = $value")->fetchAll(); }
$db->exec('BEGIN ' . $c['transaction_mode']);
$db->exec('COMMIT');
echo json_encode(array_map(fn ($name) => $db->query("PRAGMA $name")->fetchColumn(),
    ['journal_mode', 'synchronous', 'busy_timeout', 'journal_size_limit', 'wal_autocheckpoint', 'foreign_keys']));
`))
}

// The settings printed for Rails are read by Ruby and applied to a connection of the sqlite3 gem
// as Rails' adapter does.
func TestSettingsRails(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	inForce(t, `["wal", 1, 5000, 67108864, 1000]`, []string{"ruby", "-e", `require "sqlite3"`},
		"ruby", script(t, "app.rb", `
require "sqlite3"
require "yaml"
c = YAML.load(DATA.read)["production"]
db = SQLite3::Database.new(c["database"])
db.busy_timeout(c["timeout"])
c["pragmas"].each { |name, value| db.execute("PRAGMA #{name} = #{value}") }
db.transaction(c["default_transaction_mode"].to_sym) { }
p(%w[journal_mode synchronous busy_timeout journal_size_limit wal_autocheckpoint].map { |name|
  db.get_first_value("PRAGMA #{name}") })
__END__
`+setting(t, "rails", path)))
}

// The settings printed for Node run in Node, if better-sqlite3 is installed.
func TestSettingsNode(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	inForce(t, `["wal",1,5000,67108864,1000]`, []string{"node", "-e", "require('better-sqlite3')"},
		"node", "-e", setting(t, "node", path)+`
console.log(JSON.stringify(['journal_mode', 'synchronous', 'busy_timeout', 'journal_size_limit', 'wal_autocheckpoint']
  .map((name) => db.pragma(name, { simple: true }))));
`)
}
