package doctor

import "strings"

// Setting is the configuration for one kind of application.
type Setting struct {
	Name string `json:"name"` // the value of --settings
	For  string `json:"for"`  // its title
	File string `json:"file"` // where the text belongs
	Text string `json:"text"`
}

// The recommended values, and what each is for. WAL mode is stored in the file; all others
// belong to a connection and must be set on each.
const settingsHead = `journal_mode=WAL              readers and the writer do not stop each other
synchronous=NORMAL            one sync per checkpoint instead of per commit;
                              FULL if the last commits before a power cut count
busy_timeout=5000             wait 5 s for a lock instead of failing at once
journal_size_limit=67108864   a WAL that was large once is cut to 64 MiB when it restarts
wal_autocheckpoint=1000       the default; leave it on
foreign_keys=ON               SQLite checks references only where a connection asks for it
cache_size=-20000             20 MB of pages in memory, where reads repeat; the default is 2 MB
mmap_size=0                   the default; reading by mmap turns a disk error into a crash
temp_store=MEMORY             sorting without files, where there is memory for it
begin writes with BEGIN IMMEDIATE: a read transaction that turns into a write
                              fails at once when another wrote meanwhile, whatever the timeout
`

// SettingsHead says what each recommended pragma is for.
func SettingsHead() string { return settingsHead }

// Settings returns the recommended settings for each kind of application, for a
// database at path.
func Settings(path string) []Setting {
	var out []Setting
	for _, s := range settings {
		s.Text = strings.ReplaceAll(s.Text, "PATH", path)
		out = append(out, s)
	}
	return out
}

var settings = []Setting{
	{Name: "django", For: "Django 5.1 and later", File: "settings.py", Text: `DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": "PATH",
        "OPTIONS": {
            "timeout": 5,
            "transaction_mode": "IMMEDIATE",
            "init_command": (
                "PRAGMA journal_mode=WAL;"
                "PRAGMA synchronous=NORMAL;"
                "PRAGMA journal_size_limit=67108864;"
                "PRAGMA wal_autocheckpoint=1000;"
            ),
        },
    }
}
`},
	{Name: "django-before-5.1", For: "Django before 5.1, which has neither init_command nor transaction_mode",
		File: "apps.py, in AppConfig.ready()", Text: `from django.db.backends.signals import connection_created

def set_pragmas(sender, connection, **kwargs):
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=NORMAL")
            cursor.execute("PRAGMA busy_timeout=5000")
            cursor.execute("PRAGMA journal_size_limit=67108864")

connection_created.connect(set_pragmas)  # for PATH and every other SQLite database
`},
	{Name: "rails", For: "Rails 8 and later", File: "config/database.yml", Text: `production:
  adapter: sqlite3
  database: PATH
  timeout: 5000
  default_transaction_mode: immediate
  pragmas:
    journal_mode: wal
    synchronous: normal
    journal_size_limit: 67108864
    wal_autocheckpoint: 1000
`},
	{Name: "laravel", For: "Laravel 11.15 and later (transaction_mode and pragmas: 12 and later)",
		File: "config/database.php, under connections", Text: `'sqlite' => [
    'driver' => 'sqlite',
    'database' => env('DB_DATABASE', 'PATH'),
    'prefix' => '',
    'foreign_key_constraints' => env('DB_FOREIGN_KEYS', true),
    'busy_timeout' => 5000,
    'journal_mode' => 'WAL',
    'synchronous' => 'NORMAL',
    'transaction_mode' => 'IMMEDIATE',
    'pragmas' => [
        'journal_size_limit' => 67108864,
        'wal_autocheckpoint' => 1000,
    ],
],
`},
	{Name: "node", For: "Node (better-sqlite3)",
		File: "where the database is opened; writes: db.transaction(fn).immediate()",
		Text: `const Database = require('better-sqlite3');
const db = new Database('PATH', { timeout: 5000 });
db.pragma('journal_mode = WAL');
db.pragma('synchronous = NORMAL');
db.pragma('journal_size_limit = 67108864');
db.pragma('wal_autocheckpoint = 1000');
`},
	{Name: "go-mattn", For: "Go (mattn/go-sqlite3)", File: "where the database is opened",
		Text: `// _txlock=immediate makes every BeginTx a BEGIN IMMEDIATE: read with a second *sql.DB that lacks it.
db, err := sql.Open("sqlite3", "file:PATH?_journal_mode=WAL&_synchronous=NORMAL&_busy_timeout=5000&_txlock=immediate")
`},
	{Name: "go-modernc", For: "Go (modernc.org/sqlite)", File: "where the database is opened",
		Text: `// busy_timeout comes first: turning WAL on may have to wait.
db, err := sql.Open("sqlite", "file:PATH?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)"+
	"&_pragma=synchronous(NORMAL)&_pragma=journal_size_limit(67108864)&_txlock=immediate")
`},
	{Name: "python", For: "Python (sqlite3)", File: "where the database is opened", Text: `import sqlite3

db = sqlite3.connect("PATH", timeout=5.0, isolation_level="IMMEDIATE")
db.execute("PRAGMA journal_mode=WAL")
db.execute("PRAGMA synchronous=NORMAL")
db.execute("PRAGMA journal_size_limit=67108864")
db.execute("PRAGMA wal_autocheckpoint=1000")
`},
	{Name: "pocketbase", For: "PocketBase", File: "main.go, only where PocketBase is used as a framework: its own " +
		"defaults are WAL, NORMAL and 10 s already", Text: `app := pocketbase.NewWithConfig(pocketbase.Config{
	DBConnect: func(dbPath string) (*dbx.DB, error) {
		return dbx.Open("sqlite", dbPath+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)"+
			"&_pragma=journal_size_limit(67108864)&_pragma=synchronous(NORMAL)&_pragma=foreign_keys(ON)"+
			"&_pragma=temp_store(MEMORY)&_pragma=cache_size(-32000)")
	},
})
`},
}
