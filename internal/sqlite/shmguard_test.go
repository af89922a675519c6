package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/testapp"
)

// cutter truncates a file and restores it, in another process: opening and closing a -shm in this
// one would release SQLite's locks.
const cutter = `
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
keep = os.pread(fd, 1 << 20, 0)
for line in sys.stdin:
    if line.startswith("cut"):
        os.ftruncate(fd, int(line.split()[1]))
    else:
        os.pwrite(fd, keep, 0)
    print("ok", flush=True)
`

type cutFile struct {
	*testapp.Process
	t *testing.T
}

func (c *cutFile) do(line string) {
	c.t.Helper()
	c.Send(c.t, line)
	if got := c.Line(c.t); got != "ok" {
		c.t.Fatalf("%s: %s", line, got)
	}
}

// TestIndexCut_D84: a -shm that is truncated under a connection is an error of that database and
// of no other, and what SQLite then computes reaches neither the database nor the WAL.
func TestIndexCut_D84(t *testing.T) {
	t.Parallel()
	uses := map[string]func(ctx context.Context, c, other *Conn) error{
		"BeginRead": func(ctx context.Context, c, _ *Conn) error { return c.BeginRead(ctx) },
		"Passive": func(ctx context.Context, c, _ *Conn) error {
			_, err := c.Checkpoint(ctx, Passive, Budget{})
			return err
		},
		"Truncate": func(ctx context.Context, c, _ *Conn) error {
			_, err := c.Checkpoint(ctx, Truncate, Budget{})
			return err
		},
		"Freeze": func(ctx context.Context, c, other *Conn) error {
			f, err := c.Freeze(ctx, Budget{}, other)
			if err == nil {
				err = f.BeginRead(ctx, other)
				f.End()
			}
			return err
		},
		"Forget": func(_ context.Context, c, other *Conn) error {
			return errors.Join(other.EndRead(), c.Forget(0))
		},
		"CloseLast": func(context.Context, *Conn, *Conn) error { return ErrIndexCut },
	}
	for name, use := range uses {
		for _, to := range []string{"0", "4096", "8192"} {
			t.Run(name+"_"+to, func(t *testing.T) {
				t.Parallel()
				ctx := context.Background()
				path := filepath.Join(t.TempDir(), "app.db")
				app := startPython(t, session, path, "0")
				for _, s := range []string{"PRAGMA journal_mode=WAL", "PRAGMA wal_autocheckpoint=0", "CREATE TABLE t(x)",
					"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 9000) INSERT INTO t SELECT " +
						"randomblob(3000) FROM n"} {
					app.run(t, s)
				}
				conns := [2]*Conn{}
				for i := range conns {
					var err error
					if conns[i], err = Open(ctx, path, Options{}); err != nil {
						t.Fatal(err)
					}
				}
				if err := conns[1].BeginRead(ctx); err != nil {
					t.Fatal(err)
				}
				shm := &cutFile{testapp.Start(t, cutter, path+"-shm"), t}
				wal, main := fileSize(path+"-wal"), fileSize(path)
				shm.do("cut " + to)
				err := use(ctx, conns[0], conns[1])
				t.Logf("%v; cut noticed: %v", err, conns[0].indexCut())
				if to == "0" && !errors.Is(err, ErrIndexCut) {
					t.Errorf("%v, want ErrIndexCut", err)
				}
				if conns[0].indexCut() {
					for _, c := range conns { // both have the same mapping
						if err := c.EndRead(); err != nil {
							t.Error(err)
						}
						if err := c.BeginRead(ctx); !errors.Is(err, ErrIndexCut) {
							t.Errorf("a connection is used again: %v", err)
						}
						if _, err := c.Checkpoint(ctx, Passive, Budget{}); !errors.Is(err, ErrIndexCut) {
							t.Errorf("a connection checkpoints again: %v", err)
						}
					}
					if _, err := Open(ctx, path, Options{}); !errors.Is(err, ErrIndexCut) {
						t.Errorf("a connection joins them: %v", err)
					}
				}
				shm.do("restore")
				if err := errors.Join(conns[0].CloseLast(), conns[1].CloseLast()); err != nil {
					t.Error(err)
				}
				if fileSize(path+"-wal") != wal || to == "0" && fileSize(path) != main {
					t.Errorf("WAL %d bytes, main %d; were %d and %d", fileSize(path+"-wal"), fileSize(path), wal, main)
				}
				if got := fmt.Sprint(app.run(t, "SELECT count(*) FROM t")); !strings.Contains(got,
					"9000") {
					t.Errorf("the application finds %s", got)
				}
				if got := fmt.Sprint(app.run(t, "PRAGMA integrity_check")); !strings.Contains(got, "ok") {
					t.Errorf("integrity: %s", got)
				}
				c, err := Open(ctx, path, Options{})
				if err != nil {
					t.Fatalf("after it is whole again: %v", err)
				}
				if r, err := c.Checkpoint(ctx, Passive, Budget{}); err != nil || r.Outcome != OutcomeComplete {
					t.Errorf("checkpoint after it is whole again: %+v, %v", r, err)
				}
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// Memory faults outside a wal-index remain Go's, as before.
func TestIndexCut_D84_otherFaults(t *testing.T) {
	t.Parallel()
	if err := registerShim(); err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	b, err := unix.Mmap(int(file.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(b)
	if err := file.Truncate(0); err != nil {
		t.Fatal(err)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() == nil {
			t.Error("a fault in Go code did not reach Go")
		}
	}()
	t.Log(b[0])
}
