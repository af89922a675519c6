package web

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/watchdog"
)

// AdminOptions are what the admin socket needs.
type AdminOptions struct {
	Watchdog *watchdog.Watchdog
	Reload   func(ctx context.Context) error
	Forget   func(ctx context.Context, db string) error // may be nil
	Places   func(ctx context.Context, db string) (Places, error)
	Itself   func() Itself // how the daemon itself fares; nil: well
	Faults   *Faults       // counts faults of handlers; may be nil
	Logger   *slog.Logger
}

// Places is where a database's replicas are, for commands that read them for themselves.
type Places struct {
	Database string         `json:"database"`
	Path     string         `json:"path"`
	Replicas []ReplicaPlace `json:"replicas"`
}

// ReplicaPlace is one replica's address, as commands take it. It holds no credentials.
type ReplicaPlace struct {
	Name string `json:"name"`
	URL  string `json:"url"`
}

// actionTimeout bounds an action asked for over the admin socket. A snapshot of
// a large database over a slow line is the longest.
const actionTimeout = 6 * time.Hour

// peer is who speaks at the other end of a connection to the admin socket.
type peer struct {
	uid uint32
	pid int32
}

type peerKey struct{}

// AdminHandler returns the routes of the admin socket: everything that changes
// something, and the profiler. Each request is logged with the peer's uid and pid.
func AdminHandler(o AdminOptions) http.Handler {
	if o.Itself == nil {
		o.Itself = func() Itself { return Itself{} }
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/checkpoint", func(rw http.ResponseWriter, r *http.Request) {
		record, err := o.Watchdog.Checkpoint(r.Context(), r.FormValue("db"), r.FormValue("mode"))
		answer(rw, record, err)
	})
	for _, kind := range []string{"snapshot", "sync", "verify"} {
		mux.HandleFunc("POST /v1/"+kind, func(rw http.ResponseWriter, r *http.Request) {
			record, err := o.Watchdog.Do(r.Context(), r.FormValue("db"), kind)
			answer(rw, record, err)
		})
	}
	mux.HandleFunc("POST /v1/reload", func(rw http.ResponseWriter, r *http.Request) {
		answer(rw, map[string]bool{"reloaded": true}, o.Reload(r.Context()))
	})
	mux.HandleFunc("POST /v1/forget", func(rw http.ResponseWriter, r *http.Request) {
		err := fmt.Errorf("forget: %w", watchdog.ErrUnavailable)
		if o.Forget != nil {
			err = o.Forget(r.Context(), r.FormValue("db"))
		}
		answer(rw, map[string]bool{"forgotten": true}, err)
	})
	mux.HandleFunc("GET /v1/replicas", func(rw http.ResponseWriter, r *http.Request) {
		places, err := o.Places(r.Context(), r.FormValue("db"))
		answer(rw, places, err)
	})
	mux.HandleFunc("POST /v1/pause", func(rw http.ResponseWriter, r *http.Request) {
		length, err := time.ParseDuration(r.FormValue("for"))
		if err != nil {
			err = fmt.Errorf("pause: %w: %w", watchdog.ErrBadRequest, err)
		} else {
			err = o.Watchdog.Pause(r.FormValue("db"), length)
		}
		answer(rw, map[string]float64{"paused_for_seconds": length.Seconds()}, err)
	})
	for name, revert := range map[string]bool{"revert": true, "freeze": false} {
		mux.HandleFunc("POST /v1/tune/"+name, func(rw http.ResponseWriter, r *http.Request) {
			said, err := o.Watchdog.Retune(r.Context(), r.FormValue("db"), r.FormValue("policy"), r.FormValue("tune"), revert)
			answer(rw, map[string]string{"result": said}, err)
		})
	}
	mux.HandleFunc("GET /api/v1/health", healthOf(o.Watchdog, o.Itself))
	mux.HandleFunc("GET /api/v1/databases", databases(o.Watchdog))
	mux.HandleFunc("GET /api/v1/decisions", decisions(o.Watchdog))
	mux.HandleFunc("GET /v1/quiet", func(rw http.ResponseWriter, r *http.Request) {
		windows, err := o.Watchdog.Quiet(r.Context(), r.FormValue("db"))
		answer(rw, windows, err)
	})
	mux.HandleFunc("GET /v1/remembered", func(rw http.ResponseWriter, r *http.Request) {
		remembered, err := o.Watchdog.Remembered(r.Context(), r.FormValue("db"))
		answer(rw, remembered, err)
	})
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	return audit(recovering(mux, o.Faults, o.Logger), o.Logger)
}

func answer(rw http.ResponseWriter, v any, err error) {
	if err != nil {
		refuse(rw, err)
		return
	}
	reply(rw, v)
}

// audit lets root and our own user through, and logs who asked for what.
func audit(next http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		who, known := r.Context().Value(peerKey{}).(peer)
		allowed := known && (who.uid == 0 || int(who.uid) == os.Geteuid())
		if r.Method != http.MethodGet || !allowed {
			log.Info("admin request", "method", r.Method, "path", r.URL.Path, "query", r.URL.RawQuery,
				"peer_uid", who.uid, "peer_pid", who.pid, "allowed", allowed)
		}
		if !allowed {
			refuse(rw, errPeer)
			return
		}
		r.Body = http.MaxBytesReader(rw, r.Body, maxHeaderBytes)
		next.ServeHTTP(rw, r)
	})
}

var errPeer = errors.New("the admin socket serves root and sqlwatch's own user only")

// ServeAdmin serves handler on a unix socket until ctx ends.
func ServeAdmin(ctx context.Context, listener net.Listener, handler http.Handler, logger *slog.Logger) error {
	server := NewServer(handler, logger)
	server.WriteTimeout = actionTimeout
	server.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		if who, err := peerOf(conn); err == nil {
			return context.WithValue(ctx, peerKey{}, who)
		}
		return ctx
	}
	stop := context.AfterFunc(ctx, func() { Shutdown(ctx, server) })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the admin socket: %w", err)
	}
	return nil
}

func peerOf(conn net.Conn) (peer, error) {
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return peer{}, errPeer
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return peer{}, err
	}
	var who peer
	var failed error
	if err := raw.Control(func(fd uintptr) { who, failed = credentials(int(fd)) }); err != nil {
		return peer{}, err
	}
	return who, failed
}

// ErrSocketInUse is returned by ListenAdmin when a daemon answers at the path.
var ErrSocketInUse = errors.New("another sqlwatch answers there")

// ListenAdmin listens on a unix socket that only its owner can connect to. A
// socket that a killed daemon left behind is replaced; anything else in its place
// is not touched.
func ListenAdmin(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("make the directory of the admin socket: %w", err)
	}
	if err := ownDirectory(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("admin socket %s: %w", path, err)
	}
	if err := clearSocket(path); err != nil {
		return nil, fmt.Errorf("admin socket %s: %w", path, err)
	}
	fd, err := unconnected()
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close()
	// Between bind and listen nobody can connect, whatever the umask made of the mode.
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err == nil {
		err = unix.Listen(fd, 16)
	}
	if err != nil {
		return nil, fmt.Errorf("admin socket %s: %w", path, err)
	}
	listener, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("admin socket %s: %w", path, err)
	}
	if socket, ok := listener.(*net.UnixListener); ok {
		socket.SetUnlinkOnClose(true)
	}
	return listener, nil
}

// ownDirectory says why a directory is no place for a socket: whoever may replace what is
// in it can answer in our place.
func ownDirectory(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	switch {
	case owner != 0 && int(owner) != os.Geteuid():
		return fmt.Errorf("its directory %s belongs to uid %d, who could answer in place of sqlwatch: name another with "+
			"server.admin", dir, owner)
	case info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0:
		return fmt.Errorf("everybody may replace what is in its directory %s (mode %04o): chmod o-w %[1]s", dir,
			info.Mode().Perm())
	}
	return nil
}

// PeerUID returns the user at the other end of a unix connection.
func PeerUID(conn net.Conn) (int, error) {
	who, err := peerOf(conn)
	return int(who.uid), err
}

func clearSocket(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("a %s is in its place; move it away", kindOf(info.Mode()))
	}
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return ErrSocketInUse
	}
	return os.Remove(path)
}

func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return "file"
	case mode.IsDir():
		return "directory"
	case mode.Type() == fs.ModeSymlink:
		return "symbolic link"
	}
	return "special file"
}
