package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// asMember runs f on a thread with a uid, a gid and one supplementary group.
func asMember(t *testing.T, uid, gid, more int, f func()) {
	t.Helper()
	onThread(t, func() error {
		groups := []uint32{uint32(more)}
		if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 1, uintptr(unsafe.Pointer(&groups[0])), 0); errno != 0 {
			return errno
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); errno != 0 {
			return errno
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			return errno
		}
		return nil
	}, f)
}

// TestGroupMode/P15 opens databases of another user or group, and checks that the application can
// write while we are connected and afterwards.
func TestGroupMode(t *testing.T) {
	t.Parallel()
	const app, other, shared, own = 3001, 3002, 4000, 4001
	tests := []struct {
		name            string
		dirMode, mode   os.FileMode
		uid, gid, more  int
		appUID, appGID  int
		dirGID, fileGID int
		want            error
	}{
		{"P15_own_user_own_group", 0o770, 0o660, app, shared, shared, app, shared, shared, shared, nil},
		{"P15_own_user_another_group", 0o770, 0o660, app, own, shared, other, shared, shared, shared, ErrForeignOwner},
		{"P15_own_user_setgid_directory", 0o770 | os.ModeSetgid, 0o660, app, own, shared, other, shared, shared, shared, nil},
		{"P15_own_user_nobody_else", 0o755, 0o644, app, own, own, app, shared, shared, shared, nil},
		{"P15_group_mode", 0o770 | os.ModeSetgid, 0o660, other, own, shared, app, shared, shared, shared, nil},
		{"P15_group_mode_by_egid", 0o770, 0o660, other, shared, shared, app, shared, shared, shared, nil},
		{"P15_no_setgid", 0o770, 0o660, other, own, shared, app, shared, shared, shared, ErrForeignOwner},
		{"P15_group_may_not_write", 0o770 | os.ModeSetgid, 0o640, other, own, shared, app, shared, shared, shared,
			ErrForeignOwner},
		{"P15_sticky_directory", 0o770 | os.ModeSetgid | os.ModeSticky, 0o660, other, own, shared, app, shared, shared,
			shared, ErrForeignOwner},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := idleDatabase(t, app)
			dir := filepath.Dir(path)
			if err := errors.Join(os.Chown(dir, app, tt.dirGID), os.Chown(path, app, tt.fileGID), os.Chmod(dir, tt.dirMode),
				os.Chmod(path, tt.mode)); err != nil {
				t.Fatal(err)
			}
			insert := func(when string) {
				t.Helper()
				out, err := exec.Command("setpriv", "--reuid", fmt.Sprint(tt.appUID), "--regid", fmt.Sprint(tt.appGID),
					"--clear-groups",
					"sqlite3", path, "INSERT INTO t(v) VALUES(1)").CombinedOutput()
				if err != nil {
					t.Errorf("the application %s: %v: %s", when, err, out)
				}
			}
			asMember(t, tt.uid, tt.gid, tt.more, func() {
				c, err := Open(context.Background(), path, Options{})
				if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
				if err != nil {
					return
				}
				inserted := make(chan bool) // on another thread, which can still change its user
				go func() { defer close(inserted); insert("beside us") }()
				<-inserted
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			})
			insert("after us")
			if got := shell(t, path, "PRAGMA integrity_check"); got != "ok" {
				t.Error(got)
			}
		})
	}
}
