// Package demo shows a newcomer sqlwatch at work: an application that has never heard of
// it, the daemon beside it, and at the end a restore and its verdict.
package demo

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	toolkit "github.com/prometheus/exporter-toolkit/web"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/daemon"
	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/durable"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/internal/views"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/internal/watchdog/plain"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store/file"
)

// demoWriter is an application that has never heard of sqlwatch.
const demoWriter = `
import os, sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], timeout=5, isolation_level=None)
db.execute("PRAGMA journal_mode=WAL")
db.execute("PRAGMA synchronous=NORMAL")
db.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, placed REAL, note TEXT)")
parent = os.getppid()
while os.getppid() == parent:
    db.execute("INSERT INTO orders (placed, note) VALUES (?, ?)", (time.time(), "x" * 900))
    time.sleep(0.002)
`

// demoConfig is the configuration of the demo: a small threshold and a window
// that opens every other minute, so that there is something to see soon.
const demoConfig = `server {
  listen    = %q
  admin     = "unix://%[2]s/admin.sock"
  state_dir = "%[2]s/state"
}

database "demo" {
  path         = "%[2]s/demo.db"
  replicate_to = [replica.file.copy]
}

replica "file" "copy" {
  dir = "%[2]s/replica"
}

# Here every other minute is off-peak.
window "off_peak" {
  cron     = "*/2 * * * *"
  duration = "1m"
}

policy "shrink-wal-off-peak" {
  when      = wal.bytes > bytes("2MB")
  for       = "3s"
  window    = window.off_peak
  max_defer = "15s" # longer than that the WAL does not wait for off-peak
  cooldown  = "10s"
  checkpoint {
    stall_budget = "200ms"
    step "passive"  { repeat = 2 }
    step "truncate" { busy_timeout = "100ms" }
  }
}
`

// Options are what the demo needs of the program that it is part of.
type Options struct {
	Stdout io.Writer
	Logger *slog.Logger
	Build  daemon.BuildInfo
	Load   func(path string) (*config.Config, error)
	Listen string        // the address of the status page; if it is taken, the demo takes any other
	Length time.Duration // 0: until the context ends
}

// Run makes a database in a temporary directory, starts an application on it, and runs the
// daemon beside it until the context ends; then it restores the replica and compares.
func Run(ctx context.Context, o Options) error {
	dir, err := os.MkdirTemp("", "sqlwatch-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	database := filepath.Join(dir, "demo.db")
	path := filepath.Join(dir, "demo.hcl")
	if err := durable.WriteFile(path, fmt.Appendf(nil, demoConfig, freeAddress(o.Listen), dir), 0o600); err != nil {
		return err
	}
	writer, err := startWriter(database)
	if err != nil {
		return err
	}
	defer writer.stop()
	if err := awaitDatabase(ctx, database); err != nil {
		return err
	}
	load := func() (*config.Config, error) { return o.Load(path) }
	cfg, err := load()
	if err != nil {
		return err
	}
	d, err := daemon.New(daemon.Options{
		Config: cfg, Load: load, Logger: o.Logger, Build: o.Build, CountBusy: true,
		Web:   listeningAt(),
		Ready: func(addresses []string) { introduce(o.Stdout, addresses, dir, writer) },
	})
	if err != nil {
		return err
	}
	if o.Length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Length)
		defer cancel()
	}
	// The application ends first, so that the last sync has its last commit.
	defer context.AfterFunc(ctx, writer.stop)()
	if err := d.Run(ctx); err != nil {
		return err
	}
	writer.stop()
	if err := recount(o.Stdout, d.Status()); err != nil {
		return err
	}
	return restoreDemo(o.Stdout, database, filepath.Join(dir, "replica"), filepath.Join(dir, "restored.db"))
}

// listeningAt are the flags of the listeners as `run` would have them by default.
func listeningAt() *toolkit.FlagConfig {
	var socket bool
	var file string
	addresses := []string{""}
	return &toolkit.FlagConfig{WebListenAddresses: &addresses, WebSystemdSocket: &socket, WebConfigFile: &file}
}

// freeAddress returns the address, or one with any port if that one is taken.
func freeAddress(address string) string {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return "127.0.0.1:0"
	}
	listener.Close()
	return address
}

func introduce(w io.Writer, addresses []string, dir string, writer *demoApplication) {
	fmt.Fprintf(w, `
An application (%s, pid %d) writes to %s/demo.db.
sqlwatch runs beside it and empties the WAL when a policy says so.

  status page   http://%[4]s/
  metrics       http://%[4]s/metrics
  the policy    %[3]s/demo.hcl

In another terminal:

  %[5]s --config %[3]s/demo.hcl why demo
  %[5]s --config %[3]s/demo.hcl blockers demo
  %[5]s --config %[3]s/demo.hcl top

Ctrl-C ends it: then the replica is restored and compared with the database.

`, writer.name, writer.command.Process.Pid, dir, strings.Join(addresses, ", "), ownCommand())
}

// ownCommand returns what to type to run this very program: its name only where
// the shell finds it by that, and the newcomer's `go run` where that built it.
func ownCommand() string {
	program, err := os.Executable()
	if err != nil {
		return "sqlwatch"
	}
	return commandFor(program)
}

func commandFor(program string) string {
	const source = "./cmd/sqlwatch"
	this, err := os.Stat(program)
	if found, lookErr := exec.LookPath("sqlwatch"); err == nil && lookErr == nil {
		if that, err := os.Stat(found); err == nil && os.SameFile(this, that) {
			return "sqlwatch"
		}
	}
	if strings.Contains(program, string(filepath.Separator)+"go-build") {
		if _, err := os.Stat(filepath.Join(source, "main.go")); err == nil {
			return "go run " + source
		}
	}
	if strings.ContainsAny(program, " '\"$`\\") {
		return "'" + strings.ReplaceAll(program, "'", `'\''`) + "'"
	}
	return program
}

// recount says what the daemon did while the demo ran.
func recount(w io.Writer, status *watchdog.Status) error {
	for _, d := range status.Databases {
		truncated := 0
		for _, a := range d.Actions {
			if a.OK {
				truncated++
			}
		}
		var commits uint64
		if d.Sample != nil { // ended before the first look
			commits = d.Sample.WAL.CommitsTotal
		}
		fmt.Fprintf(w, "\n%s: %d commits seen, the WAL was emptied %d times\n", d.Name, commits, truncated)
		for _, a := range d.Actions {
			if err := views.Record(w, "  "+a.At.Local().Format(time.TimeOnly), a); err != nil {
				return err
			}
		}
	}
	return nil
}

// restoreDemo restores the replica and compares it with the database, byte by byte.
func restoreDemo(w io.Writer, database, replica, restored string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	store, err := file.New(replica)
	if err != nil {
		return err
	}
	result, err := restore.Run(ctx, store, restore.Options{Output: restored, Check: restore.CheckFull})
	if err != nil {
		return err
	}
	if err := settle(ctx, database); err != nil {
		return err
	}
	same, err := sameContent(database, restored)
	if err != nil {
		return err
	}
	if !same {
		return fmt.Errorf("the restored database (TXID %s) passes integrity_check, but is not the database as it was left",
			result.TXID)
	}
	_, err = fmt.Fprintf(w, "\nRestored from the replica: TXID %s, %d pages, integrity_check ok, identical to the "+
		"database byte by byte.\n", result.TXID, result.Pages)
	return err
}

// settle moves everything from the WAL into the database, which nobody uses any more.
func settle(ctx context.Context, database string) error {
	files, err := dbfile.Open(database)
	if err != nil {
		return err
	}
	plain := plain.New(database, func() *dbfile.Files { return files }, nil)
	result, err := plain.Checkpoint(ctx, sqlite.Truncate, sqlite.Budget{Stall: time.Minute})
	if err == nil && result.Outcome != sqlite.OutcomeTruncated {
		err = fmt.Errorf("the database of the demo could not be checkpointed: %s", result.Outcome)
	}
	return errors.Join(err, files.Close())
}

func sameContent(a, b string) (bool, error) {
	var sums [2][sha256.Size]byte
	for i, path := range []string{a, b} {
		content, err := os.ReadFile(path)
		if err != nil {
			return false, err
		}
		sums[i] = sha256.Sum256(content)
	}
	return sums[0] == sums[1], nil
}

// demoApplication is the writer in its own process.
type demoApplication struct {
	name    string
	command *exec.Cmd
	ended   chan struct{}
	stdin   io.Closer
}

// startWriter starts whatever there is on this machine that can write to an
// SQLite database: Python, or SQLite's own shell.
func startWriter(database string) (*demoApplication, error) {
	if python, err := exec.LookPath("python3"); err == nil {
		app := &demoApplication{name: "python3", command: exec.Command(python, "-c", demoWriter, database)}
		return app, app.start()
	}
	shell, err := exec.LookPath("sqlite3")
	if err != nil {
		return nil, errors.New("the demo needs an application that writes: install python3 or sqlite3")
	}
	app := &demoApplication{name: "sqlite3", command: exec.Command(shell, "-batch", database)}
	stdin, err := app.command.StdinPipe()
	if err != nil {
		return nil, err
	}
	app.stdin = stdin
	if err := app.start(); err != nil {
		return nil, err
	}
	go feedShell(stdin)
	return app, nil
}

// feedShell types into SQLite's shell until it is gone.
func feedShell(w io.Writer) {
	_, err := io.WriteString(w, "PRAGMA journal_mode=WAL;\nPRAGMA busy_timeout=5000;\nPRAGMA "+
		"synchronous=NORMAL;\nCREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, placed REAL, note TEXT);\n")
	for tick := time.NewTicker(2 * time.Millisecond); err == nil; <-tick.C {
		_, err = io.WriteString(w, "INSERT INTO orders (placed, note) VALUES (julianday('now'), hex(randomblob(450)));\n")
	}
}

func (a *demoApplication) start() error {
	// The application must not get the terminal's Ctrl-C: the demo stops it.
	a.command.SysProcAttr = apart()
	a.command.Stderr = os.Stderr
	a.ended = make(chan struct{})
	if err := a.command.Start(); err != nil {
		return fmt.Errorf("start the writing application: %w", err)
	}
	go func() {
		a.command.Wait()
		close(a.ended)
	}()
	return nil
}

// stop ends the application and waits for it.
func (a *demoApplication) stop() {
	a.command.Process.Kill()
	<-a.ended
}

// awaitDatabase waits until the application has made its database.
func awaitDatabase(ctx context.Context, path string) error {
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if info, err := os.Stat(path + "-wal"); err == nil && info.Size() > 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline:
			return errors.New("the writing application has not made its database within 30 s")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
