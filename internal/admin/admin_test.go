package admin

import (
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/watchdog"
)

// socketDir returns a directory whose name is short enough for a socket.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "a")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Each cause of a failed call is reported as what it is: no daemon, one that is gone, another
// program, one that is busy, a refusal.
func TestCall_causes(t *testing.T) {
	t.Parallel()
	dir := socketDir(t)
	listen := func(name string) net.Listener {
		l, err := net.Listen("unix", filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	left := listen("left")
	left.(*net.UnixListener).SetUnlinkOnClose(false)
	left.Close()
	stranger := listen("stranger")
	go func() {
		for {
			conn, err := stranger.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	server := listen("daemon")
	go http.Serve(server, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.WriteHeader(http.StatusNotFound)
		rw.Write([]byte(`{"error": "no database is called nobody"}`))
	}))
	full(t, filepath.Join(dir, "full"))
	listen("stopped") // accepts connections, as the kernel does for a stopped process
	for name, want := range map[string]struct {
		text string
		is   error
	}{
		"none":     {"there is no socket", ErrNoDaemon},
		"left":     {"nobody listens", ErrNoDaemon},
		"stranger": {"no sqlwatch, or it is ending", nil},
		"full":     {"too busy to answer", ErrBusy},
		"stopped":  {"has not answered for", ErrBusy},
		"daemon":   {"no database is called nobody", watchdog.ErrUnknownDatabase},
	} {
		client := New(filepath.Join(dir, name))
		waits := 0 // counts the waits that were shown and have ended
		client.Waiting = func() func() { waits -= 10; return func() { waits += 11 } }
		if name == "stopped" {
			client.within = 100 * time.Millisecond
		}
		err := client.Call(t.Context(), http.MethodGet, "/", nil, &struct{}{})
		if waits != 1 {
			t.Errorf("%s: somebody who waits is not told so (%d)", name, waits)
		}
		if err == nil || !strings.Contains(err.Error(), want.text) || want.is != nil && !errors.Is(err, want.is) {
			t.Errorf("%s: %v; want %q", name, err, want.text)
		}
		if name != "none" && name != "left" && errors.Is(err, ErrNoDaemon) {
			t.Errorf("%s is taken for no daemon: %v", name, err)
		}
		if errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// full creates a socket that nobody serves and whose queue of connections is full.
func full(t *testing.T, path string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
}

// The socket is that of --admin, then of the environment, then of the configuration, then the
// user's own.
func TestSocket(t *testing.T) {
	t.Parallel()
	env := map[string]string{"RUNTIME_DIRECTORY": "/nowhere"}
	getenv := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	configured := ""
	want := func(named, want string) {
		t.Helper()
		if got := Socket(named, getenv, func() string { return configured }); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	want("", "/nowhere/admin.sock") // even if another daemon runs on this machine
	configured = "unix:///run/configured.sock"
	want("", "/run/configured.sock")
	env["SQLWATCH_ADMIN"] = "/run/environment.sock"
	want("", "/run/environment.sock")
	want("unix:///run/flag.sock", "/run/flag.sock")
}

// A socket that another user created is not trusted.
func TestStrangersAreNotBelieved(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		peer, self int
		want       bool
	}{{0, 1000, true}, {1000, 1000, true}, {1001, 1000, false}, {1001, 0, true}} {
		if got := believed(test.peer, test.self); got != test.want {
			t.Errorf("uid %d asks what uid %d runs: believed %v", test.self, test.peer, got)
		}
	}
}
