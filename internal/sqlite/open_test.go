package sqlite

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const nobody = 65534

// onThread runs f on a thread of its own after drop has reduced its privileges. The thread ends
// with the goroutine.
func onThread(t *testing.T, drop func() error, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to drop privileges from")
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := drop()
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("drop privileges: %v", err)
	}
}

// asUser runs f on a thread whose uid is uid.
func asUser(t *testing.T, uid uintptr, f func()) {
	t.Helper()
	onThread(t, func() error {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
			return errno
		}
		return nil
	}, f)
}

// idleDatabase creates a WAL database that nobody has open, in a directory of its own; both
// belong to uid.
func idleDatabase(t *testing.T, uid int) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "app.db")
	shell(t, path, "PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
	for _, p := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{dir, path} {
		if err := os.Chown(p, uid, -1); err != nil {
			t.Skipf("needs root to give a file away: %v", err)
		}
	}
	return path
}

// listing lists a database's directory, with owner, mode, size and time of change.
func listing(t *testing.T, path string) string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, entry := range entries {
		var stat unix.Stat_t
		if err := unix.Stat(filepath.Join(filepath.Dir(path), entry.Name()), &stat); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&b, entry.Name(), stat.Uid, stat.Mode, stat.Size, stat.Mtim)
	}
	return b.String()
}

func TestOpen(t *testing.T) {
	t.Parallel()
	t.Run("D1_not_wal", testOpenNotWAL)
	t.Run("D1_hot_journal", testOpenHotJournal)
	t.Run("D16_empty_file", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "empty.db")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, path, ErrNotWAL)
	})
	t.Run("D3_missing", func(t *testing.T) {
		t.Parallel()
		refused(t, filepath.Join(t.TempDir(), "missing.db"), ErrNotExist)
	})
	t.Run("D19_not_a_database", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		refused(t, dir, fs.ErrInvalid)
		fifo := filepath.Join(dir, "fifo")
		if err := unix.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, fifo, fs.ErrInvalid)
		text := filepath.Join(dir, "text")
		if err := os.WriteFile(text, []byte(strings.Repeat("not a database\n", 500)), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, text, ErrCorrupt)
	})
	t.Run("D21_read_only", testOpenReadOnly)
	t.Run("D22_symlink", func(t *testing.T) {
		t.Parallel()
		path, app := newApp(t)
		link := filepath.Join(t.TempDir(), "link.db")
		if err := os.Symlink(path, link); err != nil {
			t.Fatal(err)
		}
		fill(t, app, 5)
		c := mustOpen(t, link)
		if got, err := c.Checkpoint(t.Context(), Truncate, Budget{Stall: patient}); err != nil || got.Reclaimed == 0 {
			t.Errorf("checkpoint through a link: %+v, %v", got, err)
		}
	})
	t.Run("D23_path", testOpenPath)
	t.Run("D24_exclusive", testOpenExclusive)
	t.Run("D36_X6_hostile", testOpenHostile)
	t.Run("P15_foreign_owner", testOpenForeignOwner)
	t.Run("P15_root_gives_files_to_owner", testOpenAsRoot)
	t.Run("P15_root_without_chown", testOpenWithoutChown)
}

// refused checks that Open fails with want and leaves no trace.
func refused(t *testing.T, path string, want error) {
	t.Helper()
	before := listing(t, path)
	c, err := Open(context.Background(), path, Options{})
	if c != nil || !errors.Is(err, want) {
		t.Errorf("got %v, %v, want %v", c, err, want)
	}
	if after := listing(t, path); after != before {
		t.Errorf("the directory changed from\n%sto\n%s", before, after)
	}
}

func testOpenNotWAL(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"delete", "truncate", "persist"} {
		path := filepath.Join(t.TempDir(), "app.db")
		shell(t, path, "PRAGMA journal_mode="+mode+"; CREATE TABLE t(v); INSERT INTO t VALUES (1)")
		refused(t, path, ErrNotWAL)
	}
}

// An application died inside a transaction of a database in rollback mode: its journal is left to
// the next writer, not to us.
func testOpenHotJournal(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	app := startPython(t, session, path, "0")
	app.run(t, "PRAGMA cache_size=1", "CREATE TABLE t(v)", "BEGIN", "INSERT INTO t VALUES (1)")
	app.run(t, "INSERT INTO t SELECT randomblob(4000) FROM (SELECT 1 UNION SELECT 2 UNION SELECT 3), sqlite_schema")
	app.Kill()
	if fileSize(path+"-journal") == 0 {
		t.Fatal("no journal was left")
	}
	refused(t, path, ErrNotWAL)
}

func testOpenReadOnly(t *testing.T) {
	t.Parallel()
	path := idleDatabase(t, nobody)
	asUser(t, nobody, func() {
		if err := os.Chmod(path, 0o444); err != nil {
			t.Error(err)
			return
		}
		if c, err := Open(context.Background(), path, Options{}); !errors.Is(err, ErrReadOnly) {
			t.Errorf("got %v, %v, want %v", c, err, ErrReadOnly)
		}
		c, err := Open(context.Background(), path, Options{ReadOnly: true})
		if err != nil {
			t.Errorf("read-only: %v", err)
			return
		}
		if err := c.BeginRead(context.Background()); err != nil {
			t.Error(err)
		}
		if err := c.Rollback(); err != nil {
			t.Error(err)
		}
		if got, err := c.Checkpoint(context.Background(), Passive, Budget{}); !errors.Is(err, ErrReadOnly) {
			t.Errorf("checkpoint on a read-only connection: %+v, %v", got, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

func testOpenPath(t *testing.T) {
	t.Parallel()
	names := []string{"plain.db", "with space.db", "what?.db", "a#b.db", "100%.db", "%41.db", "new\nline.db",
		"Überflüssig-日本.db", "a&mode=memory.db", "semi;colon=.db", "file:x.db", "bad\xff.db", "'quoted'\".db", ":memory:"}
	for _, name := range names {
		dir := t.TempDir()
		path := filepath.Join(dir, name)
		app := startPython(t, session, path, "0")
		app.run(t, "PRAGMA journal_mode=WAL", "CREATE TABLE t(v)")
		c, err := Open(t.Context(), path, Options{})
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		got, err := c.Checkpoint(t.Context(), Truncate, Budget{Stall: patient})
		if err != nil || got.Reclaimed == 0 {
			t.Errorf("%q: %+v, %v", name, got, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		app.Kill()
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 3 {
			t.Errorf("%q: directory holds %v, %v", name, entries, err)
		}
	}
	long := filepath.Join(t.TempDir(), strings.Repeat("d", 250), strings.Repeat("e", 250))
	if err := os.MkdirAll(long, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(long, "app.db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, filepath.Join(long, "app.db"), unix.ENAMETOOLONG)
}

func testOpenExclusive(t *testing.T) {
	t.Parallel()
	path := idleDatabase(t, os.Getuid())
	app := startPython(t, session, path, "0")
	app.run(t, "PRAGMA locking_mode=EXCLUSIVE", "INSERT INTO t(v) VALUES (1)")
	start := time.Now()
	refused(t, path, ErrBusy)
	if took := time.Since(start); took < openPatience || took > patient {
		t.Errorf("gave up after %v, want %v", took, openPatience)
	}
}

// testOpenHostile tries on our connection what a crafted database, or a bug of ours, could do.
func testOpenHostile(t *testing.T) {
	t.Parallel()
	path, app := newApp(t)
	app.run(t, "CREATE VIEW schema_version AS WITH RECURSIVE x(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM x) SELECT i "+
		"FROM x",
		"CREATE TRIGGER tr AFTER INSERT ON t BEGIN SELECT load_extension('/nowhere'); END")
	c := mustOpen(t, path)
	if err := errors.Join(c.BeginRead(t.Context()), c.EndRead()); err != nil {
		t.Error(err)
	}
	for _, sql := range []string{
		"ATTACH '/tmp/other.db' AS other",
		"SELECT load_extension('/nowhere')",
		"PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql=sql",
		"VACUUM INTO '" + path + ".copy'",
	} {
		if err := c.exec(t.Context(), sql); err == nil {
			t.Errorf("%s: was allowed", sql)
		}
	}
	for pragma, want := range map[string]string{"busy_timeout": "0", "wal_autocheckpoint": "0", "trusted_schema": "0",
		"cell_size_check": "1"} {
		row, err := c.queryRow(t.Context(), "PRAGMA "+pragma, 1)
		if err != nil || fmt.Sprint(row[0]) != want {
			t.Errorf("%s is %v, %v, want %s", pragma, row, err, want)
		}
	}
}

func testOpenForeignOwner(t *testing.T) {
	t.Parallel()
	path := idleDatabase(t, 12345)
	if err := os.Chmod(path, 0o606); err != nil { // others may write, the group may not
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	before := listing(t, path)
	asUser(t, nobody, func() {
		for _, o := range []Options{{}, {ReadOnly: true}} {
			if c, err := Open(context.Background(), path, o); !errors.Is(err, ErrForeignOwner) {
				t.Errorf("%+v: got %v, %v, want %v", o, c, err, ErrForeignOwner)
			}
		}
		if err := SetJournalModeWAL(context.Background(), path); !errors.Is(err, ErrForeignOwner) {
			t.Errorf("SetJournalModeWAL: got %v, want %v", err, ErrForeignOwner)
		}
	})
	if after := listing(t, path); after != before {
		t.Errorf("the directory changed from\n%sto\n%s", before, after)
	}
}

// If root's connection is the first, SQLite gives the files that it creates to the database's
// owner, who can continue to work.
func testOpenAsRoot(t *testing.T) {
	t.Parallel()
	path := idleDatabase(t, nobody)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	c := mustOpen(t, path)
	for _, suffix := range []string{"-wal", "-shm"} {
		var stat unix.Stat_t
		if err := unix.Stat(path+suffix, &stat); err != nil {
			t.Fatal(err)
		}
		if stat.Uid != nobody || stat.Mode&0o777 != 0o640 {
			t.Errorf("%s has uid %d and mode %o", suffix, stat.Uid, stat.Mode&0o777)
		}
	}
	asUser(t, nobody, func() {
		own, err := Open(context.Background(), path, Options{})
		if err != nil {
			t.Errorf("the owner is locked out: %v", err)
			return
		}
		if err := errors.Join(own.BeginRead(context.Background()), own.Rollback(), own.Close()); err != nil {
			t.Errorf("the owner cannot read: %v", err)
		}
	})
	if err := c.BeginRead(t.Context()); err != nil {
		t.Error(err)
	}
}

// Root in a container may lack the right to give files away.
func testOpenWithoutChown(t *testing.T) {
	t.Parallel()
	path := idleDatabase(t, nobody)
	onThread(t, func() error {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			return err
		}
		data[0].Effective &^= 1 << unix.CAP_CHOWN
		return unix.Capset(&header, &data[0])
	}, func() { refused(t, path, ErrForeignOwner) })
}

func TestTransactions(t *testing.T) {
	t.Parallel()
	path, app := newApp(t)
	fill(t, app, 5)
	c := mustOpen(t, path)

	if err := c.EndRead(); err != nil || c.InRead() {
		t.Errorf("EndRead without a transaction: %v", err)
	}
	if err := c.BeginRead(t.Context()); err != nil || !c.InRead() {
		t.Fatalf("BeginRead: %v", err)
	}
	if _, failure := app.try(t, "PRAGMA wal_checkpoint(TRUNCATE)"); failure != "" {
		t.Fatal(failure)
	}
	if fileSize(path+"-wal") == 0 {
		t.Error("the WAL was truncated under our read mark")
	}
	if err := c.EndRead(); err != nil || c.InRead() {
		t.Fatalf("EndRead: %v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.BeginRead(cancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// The application crashed, and ours is the last close. The WAL stays, with every frame and salt.
func TestClose_P16_leaves_the_WAL(t *testing.T) {
	t.Parallel()
	path, app := newApp(t)
	fill(t, app, 20)
	app.Kill()
	var before, after unix.Stat_t
	if err := unix.Stat(path+"-wal", &before); err != nil {
		t.Fatal(err)
	}
	header := walHeader(t, path)
	for _, use := range []func(c *Conn) error{
		func(*Conn) error { return nil },
		func(c *Conn) error { return c.BeginRead(t.Context()) },
		func(c *Conn) error { _, err := c.Checkpoint(t.Context(), Passive, Budget{}); return err },
	} {
		c, err := Open(t.Context(), path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(use(c), c.Close()); err != nil {
			t.Fatal(err)
		}
		if err := unix.Stat(path+"-wal", &after); err != nil {
			t.Fatal(err)
		}
		if after.Ino != before.Ino || after.Size != before.Size || walHeader(t, path) != header {
			t.Fatal("the WAL changed")
		}
	}
	if got := shell(t, path, "SELECT count(*) FROM t"); got != "20" {
		t.Errorf("the application's rows: %s, want 20", got)
	}
}

// ourLocks lists the locks that our process holds on a database's files.
func ourLocks(t *testing.T, paths ...string) []string {
	t.Helper()
	inodes := map[string]bool{}
	for _, path := range paths {
		var stat unix.Stat_t
		if err := unix.Stat(path, &stat); err != nil {
			t.Fatal(err)
		}
		inodes[strconv.FormatUint(stat.Ino, 10)] = true
	}
	file, err := os.Open("/proc/locks")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var locks []string
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		// 1: POSIX  ADVISORY  READ 12 fd:01:345 123 123
		fields := strings.Fields(scanner.Text())
		if len(fields) != 8 || fields[4] != strconv.Itoa(os.Getpid()) {
			continue
		}
		if inode := fields[5][strings.LastIndexByte(fields[5], ':')+1:]; inodes[inode] {
			locks = append(locks, strings.Join(fields[3:4], " ")+" "+fields[6])
		}
	}
	return locks
}

// The locks that we hold are counted before and after everything that we do. The descriptors
// opened beside the connections stay open longer than those.
func TestLocks(t *testing.T) {
	t.Parallel()
	path, app := newApp(t)
	fill(t, app, 20)
	for _, p := range []string{path, path + "-shm", path + "-wal"} {
		holdOpen(t, p)
	}
	expect := func(what string, want int) {
		t.Helper()
		if got := ourLocks(t, path, path+"-shm"); len(got) != want {
			t.Errorf("%s: we hold %v, want %d locks", what, got, want)
		}
	}
	expect("before", 0)
	a, err := Open(t.Context(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	const open = 2 // SHARED on the main file, DMS on the wal-index
	expect("open", open)
	b, err := Open(t.Context(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	expect("two connections", open)
	if err := a.BeginRead(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect("reading", open+1)
	if _, err := b.Checkpoint(t.Context(), Passive, Budget{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.CheckpointHooked(t.Context(), Truncate, Budget{}, Hooks{}); err != nil {
		t.Fatal(err)
	}
	expect("after checkpoints", open+1)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	expect("after one close", open+1)
	if err := a.EndRead(); err != nil {
		t.Fatal(err)
	}
	expect("after reading", open)
	freeze, err := a.Freeze(t.Context(), Budget{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	expect("frozen", open+1) // five neighbouring bytes
	freeze.End()
	expect("after the freeze", open)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	expect("after the last close", 0)
}

// A schema that cannot be parsed is distinguished from corrupt pages: a newer SQLite may have
// written it.
func TestOpenUnreadableSchema(t *testing.T) {
	t.Parallel()
	path, app := newApp(t)
	fill(t, app, 5)
	app.run(t, "PRAGMA writable_schema=ON",
		"INSERT INTO sqlite_schema VALUES ('table', 'new', 'new', 0, 'CREATE FUTURE TABLE new(x)')")
	if c, err := Open(t.Context(), path, Options{}); !errors.Is(err, ErrSchema) || !errors.Is(err, ErrCorrupt) {
		t.Errorf("got %v, %v, want ErrSchema", c, err)
	}
}
