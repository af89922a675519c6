package owner

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// checkEnv is the environment variable with a database that a child, started as another user,
// checks.
const checkEnv = "SQLWATCH_TEST_OWNER_OF"

func TestMain(m *testing.M) {
	path, child := os.LookupEnv(checkEnv)
	if !child {
		os.Exit(m.Run())
	}
	err := Check(path)
	var foreign *ForeignError
	if err != nil && !errors.As(err, &foreign) {
		fmt.Println("error", err)
	} else if err != nil {
		fmt.Println(foreign.UID, foreign)
	}
}

// Users and groups of a scene. They need not exist on this machine.
const (
	app, us             = 3001, 3002
	appGroup, ourGroup  = 4001, 4002
	sharedGroup, nobody = 4003, 4004
)

// TestCheck checks, as another user, which side files SQLite would create beside a database, and
// whether the application could use them.
func TestCheck(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	for name, tt := range map[string]struct {
		uid, gid     uint32 // of the database
		mode         fs.FileMode
		dirGID       uint32
		dirMode      fs.FileMode // with ModeSetgid, ModeSticky
		asUID, asGID uint32
		what, cure   string
	}{
		"its owner": {uid: us, gid: ourGroup, mode: 0o644, dirGID: ourGroup, dirMode: 0o755, asUID: us, asGID: ourGroup},
		"its owner, private, with another group": {uid: us, gid: appGroup, mode: 0o600, dirGID: appGroup, dirMode: 0o755,
			asUID: us, asGID: ourGroup},
		"its owner, whose group would not be the database's": {uid: us, gid: sharedGroup, mode: 0o660, dirGID: sharedGroup,
			dirMode: 0o775, asUID: us, asGID: ourGroup, what: "side files made by us would have group 4002", cure: "chmod g+s"},
		"its owner, in a setgid directory": {uid: us, gid: sharedGroup, mode: 0o660, dirGID: sharedGroup,
			dirMode: 0o775 | fs.ModeSetgid, asUID: us, asGID: ourGroup},
		"its owner, everybody may do what the group may": {uid: us, gid: sharedGroup, mode: 0o666, dirGID: sharedGroup,
			dirMode: 0o777, asUID: us, asGID: ourGroup},
		"another user, private": {uid: app, gid: sharedGroup, mode: 0o640, dirGID: sharedGroup,
			dirMode: 0o775 | fs.ModeSetgid, asUID: us, asGID: sharedGroup,
			what: "belongs to uid 3001 and we run as uid 3002, which its group may not write to",
			cure: "0660"},
		"another user of the group": {uid: app, gid: sharedGroup, mode: 0o660, dirGID: appGroup, dirMode: 0o777, asUID: us,
			asGID: sharedGroup},
		"another user, setgid directory": {uid: app, gid: sharedGroup, mode: 0o660, dirGID: sharedGroup,
			dirMode: 0o775 | fs.ModeSetgid, asUID: us, asGID: ourGroup},
		"another user, another group": {uid: app, gid: sharedGroup, mode: 0o660, dirGID: appGroup, dirMode: 0o777, asUID: us,
			asGID: nobody, what: "would have group 4004 instead of 4003", cure: "group 4003"},
		"another user, sticky directory": {uid: app, gid: sharedGroup, mode: 0o660, dirGID: sharedGroup,
			dirMode: 0o777 | fs.ModeSetgid | fs.ModeSticky, asUID: us, asGID: ourGroup, what: "its directory is sticky"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := place(t, tt.uid, tt.gid, tt.mode, tt.dirGID, tt.dirMode)
			got := checkAs(t, path, tt.asUID, tt.asGID)
			if tt.what == "" {
				if got != "" {
					t.Errorf("refused: %s", got)
				}
				return
			}
			if want := fmt.Sprintf("%d %s ", tt.uid, path); !strings.HasPrefix(got, want) {
				t.Errorf("%q does not begin with %q", got, want)
			}
			if !strings.Contains(got, tt.what) || !strings.Contains(got, tt.cure) {
				t.Errorf("got %q, want %q and %q", got, tt.what, tt.cure)
			}
			made(t, path, tt.asUID, tt.asGID, tt.gid)
		})
	}
}

// place creates a database and its directory with these owners and modes.
func place(t *testing.T, uid, gid uint32, mode fs.FileMode, dirGID uint32, dirMode fs.FileMode) (path string) {
	t.Helper()
	top := t.TempDir()
	for dir := top; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(top, "srv")
	path = filepath.Join(dir, "app.db")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(path, nil, 0o600), os.Chown(path, int(uid), int(gid)),
		os.Chmod(path, mode), os.Chown(dir, int(uid), int(dirGID)), os.Chmod(dir, dirMode)); err != nil {
		t.Fatal(err)
	}
	return path
}

// as makes a command run as another user, without further groups.
func as(cmd *exec.Cmd, uid, gid uint32) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	cmd.Dir = "/"
	return cmd
}

// checkAs returns Check's error as another user sees it, "" for none.
func checkAs(t *testing.T, path string, uid, gid uint32) string {
	t.Helper()
	exe := filepath.Join(filepath.Dir(filepath.Dir(path)), "check")
	data, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(exe, data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := as(exec.Command(exe), uid, gid)
	cmd.Env = []string{checkEnv + "=" + path}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// made fails the test if a refusal was not needed: a file that the user creates there has the
// database's group and can be removed by its owner.
func made(t *testing.T, path string, uid, gid, want uint32) {
	t.Helper()
	dir := filepath.Dir(path)
	name := filepath.Join(dir, "made")
	if err := as(exec.Command("/usr/bin/touch", name), uid, gid).Run(); err != nil {
		return // it cannot create a file there
	}
	var file, database, parent unix.Stat_t
	if err := errors.Join(unix.Stat(name, &file), unix.Stat(path, &database), unix.Stat(dir, &parent)); err != nil {
		t.Fatal(err)
	}
	sticky := parent.Mode&unix.S_ISVTX != 0
	if file.Gid == want && !sticky && database.Mode&0o060 == 0o060 {
		t.Errorf("a file made there has group %d, the database's: nothing had to be refused", file.Gid)
	}
}

func TestCheckOfNothing(t *testing.T) {
	t.Parallel()
	var foreign *ForeignError
	if err := Check(filepath.Join(t.TempDir(), "app.db")); !errors.Is(err, fs.ErrNotExist) || errors.As(err, &foreign) {
		t.Errorf("of a file that is not there: %v", err)
	}
}

// Root gives side files to the database's owner, if it has the capability.
func TestCanChown(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can be root")
	}
	can, err := CanChown()
	if err != nil {
		t.Fatal(err)
	}
	path := place(t, app, appGroup, 0o600, appGroup, 0o755)
	if err := Check(path); (err == nil) != can {
		t.Errorf("root may chown: %v; Check: %v", can, err)
	}
	got := withoutCapabilities(t, path)
	if !strings.Contains(got, "we are root without CAP_CHOWN") {
		t.Errorf("root without capabilities: %q", got)
	}
	for _, suffix := range []string{"-wal", "-shm"} { // they exist: none has to be created
		if err := os.WriteFile(path+suffix, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := withoutCapabilities(t, path); got != "" {
		t.Errorf("with both side files there: %q", got)
	}
}

// withoutCapabilities returns Check's error for root without CAP_CHOWN.
func withoutCapabilities(t *testing.T, path string) string {
	t.Helper()
	cmd := exec.Command("setpriv", "--bounding-set=-chown", "--inh-caps=-chown", "/proc/self/exe")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Args[len(cmd.Args)-1] = exe
	cmd.Env = append(os.Environ(), checkEnv+"="+path)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}
