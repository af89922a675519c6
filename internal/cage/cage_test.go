package cage_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/cage"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

func TestMain(m *testing.M) {
	cage.Enter()
	if path := os.Getenv("CAGE_CHECK"); path != "" { // a parent that is killed while it waits for its child
		fmt.Println(cage.Check{Path: path, Full: true}.Run(context.Background()))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// database creates a database with Python's SQLite. Then it replaces the text of parts of the
// schema, as may be the case in what comes from a store.
func database(t *testing.T, sql string, forged map[string]string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.db")
	script := "import sqlite3\ndb = sqlite3.connect('" + path + "', isolation_level=None)\ndb.executescript('''" + sql +
		"''')\n"
	for name, text := range forged {
		script += fmt.Sprintf("db.execute('PRAGMA writable_schema=ON')\n"+
			"db.execute('UPDATE sqlite_master SET sql=? WHERE name=?', (%q, %q))\n", text, name)
	}
	if out, err := exec.Command("python3", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

const table = "CREATE TABLE t(a, b); CREATE INDEX i ON t(length(a)); " +
	"CREATE INDEX j ON t(a) WHERE b < 0; " +
	"WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<5000) " +
	"INSERT INTO t SELECT hex(zeroblob(60)), x FROM n;"

// bombs returns schemas whose check takes too much memory or time.
func bombs() map[string]map[string]string {
	long := "length(replace(hex(zeroblob(1000000+b)), '0', '00'))"
	slow := "CREATE INDEX j ON t(a) WHERE " + long + strings.Repeat(" + "+long, 4) + " < 0" // it lacks no row
	columns := make([]string, 60)
	for i := range columns {
		columns[i] = fmt.Sprintf("replace(hex(zeroblob(15000000)), '0', '0%d')", i%10)
	}
	return map[string]map[string]string{
		"memory": {"i": "CREATE INDEX i ON t(" + strings.Join(columns, ", ") + ")"},
		"time":   {"j": slow},
	}
}

// peak returns the peak memory of this process, in bytes.
func peak(t *testing.T) (kib int64) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}

func TestCheck(t *testing.T) {
	t.Parallel()
	sound := database(t, table, nil)
	for _, full := range []bool{false, true} {
		if err := (cage.Check{Path: sound, Full: full}).Run(t.Context()); err != nil {
			t.Errorf("a sound database, full %v: %v", full, err)
		}
	}
	corrupt := filepath.Join(t.TempDir(), "b.db")
	data, err := os.ReadFile(sound)
	if err != nil {
		t.Fatal(err)
	}
	copy(data[4096:], strings.Repeat("\xee", 4096))
	if err := os.WriteFile(corrupt, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (cage.Check{Path: corrupt}).Run(t.Context()); !errors.Is(err, sqlite.ErrCorrupt) {
		t.Errorf("a corrupt one: %v", err)
	}
	if err := (cage.Check{Path: filepath.Join(t.TempDir(), "none")}).Run(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	odd := filepath.Join(t.TempDir(), "a%20?b#c 'd'\n.db")
	if data, err = os.ReadFile(sound); err == nil {
		err = os.WriteFile(odd, data, 0o600)
	}
	if err := errors.Join(err, cage.Check{Path: odd, Full: true}.Run(t.Context())); err != nil {
		t.Errorf("an odd name: %v", err)
	}
	// Only the full check finds an index that lacks a row.
	lacking := database(t, "CREATE TABLE t(a); INSERT INTO t VALUES(1),(2); CREATE INDEX i ON t(a) WHERE a=1;",
		map[string]string{"i": "CREATE INDEX i ON t(a)"})
	if err := (cage.Check{Path: lacking, Full: true}).Run(t.Context()); !errors.Is(err, sqlite.ErrCorrupt) {
		t.Errorf("an index without a row: %v", err)
	}
}

// TestBombs_D36: whatever a crafted schema does to a check is limited to the child, and the error
// names the limit.
func TestBombs_D36(t *testing.T) {
	t.Parallel()
	for name, forged := range bombs() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := database(t, table, forged)
			before, start := peak(t), time.Now()
			err := cage.Check{Path: path, Full: true, CPU: 3 * time.Second, Memory: 384 << 20}.Run(t.Context())
			if !errors.Is(err, cage.ErrLimit) || errors.Is(err, sqlite.ErrCorrupt) {
				t.Errorf("%v, want ErrLimit", err)
			}
			if name == "time" && !strings.Contains(err.Error(), "processor time") {
				t.Errorf("%v, want the processor time named", err)
			}
			if grown := peak(t) - before; grown > 64<<20 {
				t.Errorf("this process grew by %d MiB", grown>>20)
			}
			t.Logf("after %s: %v", time.Since(start).Round(time.Millisecond), err)
		})
	}
	t.Run("duration", func(t *testing.T) {
		t.Parallel()
		path := database(t, table, bombs()["time"])
		err := cage.Check{Path: path, Full: true, Duration: 500 * time.Millisecond}.Run(t.Context())
		if !errors.Is(err, cage.ErrLimit) || !strings.Contains(err.Error(), "longer than 500ms") {
			t.Errorf("%v, want ErrLimit", err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		err := cage.Check{Path: database(t, table, bombs()["time"]), Full: true}.Run(ctx)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want DeadlineExceeded", err)
		}
	})
}

// childOf waits for the process that checks path.
func childOf(t *testing.T, path string) (pid int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-time.After(5 * time.Millisecond) {
		found, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, f := range found {
			text, err := os.ReadFile(f)
			if err != nil || !strings.HasPrefix(string(text), "sqlwatch-check\x00full\x00"+path+"\x00") {
				continue
			}
			if _, err := fmt.Sscanf(f, "/proc/%d/", &pid); err == nil {
				return pid
			}
		}
	}
	t.Fatal("no child was seen")
	return 0
}

// TestKilled_D36: a child that is killed gives no verdict, and it has neither our environment nor
// our descriptors.
func TestKilled_D36(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "of nobody else's business")
	path := database(t, table, bombs()["time"])
	done := make(chan error, 1)
	go func() { done <- cage.Check{Path: path, Full: true}.Run(t.Context()) }()
	pid := childOf(t, path)
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || strings.Contains(string(environ), "AWS") || strings.Contains(string(environ), "HOME") {
		t.Errorf("its environment: %q, %v", environ, err)
	}
	if fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)); err != nil || len(fds) > 16 {
		t.Errorf("it has %d descriptors, %v", len(fds), err)
	}
	waitFor(t, "first in line", func() bool {
		score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
		return err == nil && strings.TrimSpace(string(score)) == "1000"
	})
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, cage.ErrLimit) || !strings.Contains(err.Error(), "something killed it") {
		t.Errorf("%v, want ErrLimit", err)
	}
}

// TestOrphan_D36: a child does not outlive the process that waits for it.
func TestOrphan_D36(t *testing.T) {
	t.Parallel()
	path := database(t, table, bombs()["time"])
	parent := exec.Command("/proc/self/exe")
	parent.Env = append(os.Environ(), "CAGE_CHECK="+path)
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	pid := childOf(t, path)
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	waitFor(t, "the child to go", func() bool {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return err != nil || len(text) == 0 // gone, or not reaped yet
	})
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// TestPriority: the check of a restore, for which somebody waits, has the priority of its parent;
// the check of a drill has a nice value of at least 10.
func TestPriority(t *testing.T) {
	t.Parallel()
	own, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	own = 20 - own // the system call returns 20 minus the nice value
	for _, last := range []bool{false, true} {
		path := database(t, table, bombs()["time"])
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		ended := make(chan error, 1)
		go func() { ended <- cage.Check{Path: path, Full: true, Last: last}.Run(ctx) }()
		want := own
		if last {
			want = max(own, 10)
		}
		got, found := -100, false
		for !found || got != want {
			select {
			case err := <-ended:
				t.Fatalf("the check ended: %v; priority %d, want %d", err, got, want)
			case <-time.After(5 * time.Millisecond):
			}
			got, found = niceOf(t, path)
		}
		cancel()
		<-ended
	}
}

// niceOf returns the nice value of the child that checks path.
func niceOf(t *testing.T, path string) (nice int, found bool) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		text, _ := os.ReadFile(name)
		if args := strings.Split(string(text), "\x00"); args[0] != "sqlwatch-check" || len(args) < 3 || args[2] != path {
			continue
		}
		stat, _ := os.ReadFile(filepath.Join(filepath.Dir(name), "stat"))
		_, rest, _ := strings.Cut(string(stat), ") ")
		if fields := strings.Fields(rest); len(fields) > 16 {
			_, err := fmt.Sscan(fields[16], &nice)
			return nice, err == nil
		}
	}
	return 0, false
}
