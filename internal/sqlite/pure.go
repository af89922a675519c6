//go:build !linux || !cgo

package sqlite

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"strings"
	"time"
)

// Linked says that SQLite itself is part of this program.
const Linked = false

// Without SQLite the program restores databases, and lets the sqlite3 shell check them where that is installed; it
// opens no database that is in use.
var errPure = fmt.Errorf("this program was built without SQLite, which needs Linux and cgo: %w", errors.ErrUnsupported)

// shell is the path of the sqlite3 shell on macOS and most other systems.
const shell = "/usr/bin/sqlite3"

// QuickCheck has SQLite's shell verify the structure of the database file at path, which
// nobody else uses. errors.Is(err, ErrCorrupt) when it is corrupt.
func QuickCheck(ctx context.Context, path string) error { return check(ctx, path, "quick_check(10)") }

// IntegrityCheck is QuickCheck and compares every index with its table.
func IntegrityCheck(ctx context.Context, path string) error {
	return check(ctx, path, "integrity_check(10)")
}

func check(ctx context.Context, path, pragma string) error {
	resolved, err := resolve(path)
	if err != nil {
		return fmt.Errorf("check database %s: %w", path, err)
	}
	cmd := exec.CommandContext(ctx, shell, "-batch", "-init", "/dev/null",
		dsn(resolved, url.Values{"mode": {"ro"}, "immutable": {"1"}}),
		"PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON; PRAGMA "+pragma)
	var problems bytes.Buffer
	cmd.Env, cmd.Stderr = []string{}, &problems
	out, err := cmd.Output()
	said := strings.TrimSpace(string(out))
	switch exit := (*exec.ExitError)(nil); {
	case err == nil && said == "ok":
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
		return fmt.Errorf("check database %s: %w: %s", path, ErrCorrupt, said)
	case errors.As(err, &exit) && exit.Exited():
		return fmt.Errorf("check database %s: %w: %s", path, ErrCorrupt, strings.TrimSpace(problems.String()))
	}
	return fmt.Errorf("check database %s with SQLite's shell: %w (leave the check out by --check none)", path, err)
}

// Version says that there is no SQLite library in this binary.
func Version() string { return "none" }

// CheckVersion returns an error: this program must not open a watched database.
func CheckVersion() error { return errPure }

// ReturnMemory has nothing to give back.
func ReturnMemory() {}

// HoldFreezes has nothing to hold.
func HoldFreezes() (release func()) { return func() {} }

// SetJournalModeWAL cannot be done without SQLite.
func SetJournalModeWAL(context.Context, string) error { return errPure }

// TableNames cannot be done without SQLite.
func TableNames(context.Context, string, string, bool) ([]string, error) { return nil, errPure }

// CopyScratch cannot be done without SQLite.
func CopyScratch(context.Context, Source, string, func(done, total int64)) error { return errPure }

// Conn is the type that Open has in other builds; here it returns none.
type Conn struct{}

// Open cannot be done without SQLite.
func Open(context.Context, string, Options) (*Conn, error) { return nil, errPure }

// The methods of a Conn, which all fail.

func (*Conn) BeginRead(context.Context) error   { return errPure }
func (*Conn) BeginMarked(context.Context) error { return errPure }
func (*Conn) EndRead() error                    { return errPure }
func (*Conn) InRead() bool                      { return false }
func (*Conn) ReadMark() int                     { return 0 }
func (*Conn) Rollback() error                   { return errPure }
func (*Conn) Close() error                      { return errPure }
func (*Conn) CloseLast() error                  { return errPure }
func (*Conn) CloseUnlinked(func() bool) error   { return errPure }
func (*Conn) Shed() error                       { return errPure }
func (*Conn) Forget(uint32) error               { return errPure }

func (*Conn) Checkpoint(context.Context, Mode, Budget) (Result, error) {
	return Result{Outcome: OutcomeFailed}, errPure
}

func (*Conn) CheckpointHooked(context.Context, Mode, Budget, Hooks) (Result, error) {
	return Result{Outcome: OutcomeFailed}, errPure
}

func (*Conn) Freeze(context.Context, Budget, *Conn) (*Freeze, error) { return nil, errPure }
func (*Conn) Stalled() time.Duration                                 { return 0 }

// Freeze is the type that Conn.Freeze has in other builds; here it returns none.
type Freeze struct{}

func (*Freeze) BeginRead(context.Context, *Conn) error   { return errPure }
func (*Freeze) BeginMarked(context.Context, *Conn) error { return errPure }
func (*Freeze) Stall() time.Duration                     { return 0 }
func (*Freeze) End() time.Duration                       { return 0 }

// Scratch is the type that OpenScratch has in other builds; here it returns none.
type Scratch struct{}

// OpenScratch cannot be done without SQLite.
func OpenScratch(string) (*Scratch, error) { return nil, errPure }

func (*Scratch) Exec(context.Context, string) error                     { return errPure }
func (*Scratch) Rows(context.Context, string) ([][]driver.Value, error) { return nil, errPure }
func (*Scratch) Prepare(context.Context, string) (*Prepared, error)     { return nil, errPure }
func (*Scratch) Close() error                                           { return errPure }

// Prepared is the type that Scratch.Prepare has in other builds; here it returns none.
type Prepared struct{}

func (*Prepared) Exec() error         { return errPure }
func (*Prepared) ReadOne(int64) error { return errPure }
func (*Prepared) Close() error        { return errPure }
