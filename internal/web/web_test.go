package web

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/policy"
)

// fixed is a database that always has the same measurements.
type fixed struct{ sample collector.Sample }

func (f fixed) Sample(context.Context) collector.Sample { s := f.sample; s.At = time.Now(); return s }
func (f fixed) Poll()                                   {}
func (f fixed) Close() error                            { return nil }

// start runs a watchdog over databases with these samples until the test ends.
func start(t testing.TB, samples ...collector.Sample) *watchdog.Watchdog {
	t.Helper()
	policies, diags := policy.Parse(nil, &policy.Scope{})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	var targets []watchdog.Target
	for _, s := range samples {
		targets = append(targets, watchdog.Target{Name: s.DB, Path: "/srv/" + s.DB, Open: opens(s)})
	}
	return run(t, watchdog.Options{Targets: targets, Policies: policies, Interval: 20 * time.Millisecond})
}

func opens(s collector.Sample) func(context.Context) (watchdog.Parts, error) {
	return func(context.Context) (watchdog.Parts, error) { return watchdog.Parts{Sampler: fixed{s}}, nil }
}

// run runs a watchdog until the test ends, and returns it when it is ready.
func run(t testing.TB, o watchdog.Options) *watchdog.Watchdog {
	t.Helper()
	w := watchdog.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx, time.Second) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(time.Minute); !w.Ready(); <-time.After(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not ready after a minute")
		}
	}
	return w
}

var twoDatabases = []collector.Sample{
	{DB: "app", State: collector.StateUp, WAL: collector.WAL{Known: true, SizeBytes: 8 << 20, PageSize: 4096, Frames: 512},
		Readers: collector.Readers{Active: 1, OldestFrame: 7, PinnedSince: time.Now().Add(-time.Minute), OldestPID: 4711,
			OldestCommand: "<python3>"}},
	{DB: "bad <b>", State: collector.StateMissing, Err: "no file & no hope"},
}

func handler(t testing.TB, w *watchdog.Watchdog) http.Handler {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector.NewExporter(w.Samples))
	return Handler(Options{Watchdog: w, Gatherer: &Gatherer{rest: registry}, Version: "v1.2.3",
		AllowedHosts: []string{"db1.example.org"}, Logger: slog.New(slog.DiscardHandler)})
}

func ask(h http.Handler, method, target string, change func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	r.Host = "127.0.0.1:9942"
	if change != nil {
		change(r)
	}
	rw := httptest.NewRecorder()
	h.ServeHTTP(rw, r)
	return rw
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	h := handler(t, start(t, twoDatabases...))
	for _, test := range []struct {
		name, target string
		code         int
		contains     []string
		lacks        []string
	}{
		{"metrics", "/metrics", 200, []string{`sqlite_up{db="app"} 1`, `sqlite_up{db="bad <b>"} 0`}, nil},
		{"one metric by name", "/metrics?name[]=sqlite_up", 200, []string{`sqlite_up{db="app"} 1`}, []string{"sqlite_wal"}},
		{"healthy", "/-/healthy", 200, []string{"healthy"}, nil},
		{"ready", "/-/ready", 200, []string{"ready"}, nil},
		{"status page", "/?open=app", 200, []string{"<title>▲ sqlwatch: bad &lt;b&gt; is worth a look</title>",
			"No file &amp; no hope.", "bad &lt;b&gt;", "Process 4711 (&lt;python3&gt;)",
			`<rect class="backlog" x="0" width="25" height="10"/>`, "id=\"db-app\"", "prefers-color-scheme: dark", "v1.2.3"},
			[]string{"<python3>", "<b>bad"}},
		{"one database", "/?db=app", 200, []string{"app"}, []string{"no hope"}},
		{"H3_unknown_database", "/?db=../../etc/passwd", 404, []string{"no such database"}, []string{"root:"}},
		{"H3_traversal_is_cleaned", "/../../etc/passwd", 307, nil, []string{"root:"}},
		{"databases", "/api/v1/databases", 200, []string{`"name":"app"`, `"state":"missing"`}, nil},
		{"one database as JSON", "/api/v1/databases?db=app", 200, []string{`"oldest_pid":4711`}, []string{"missing"}},
		{"H3_unknown_database_as_JSON", "/api/v1/databases?db=%2Fetc%2Fpasswd", 404, []string{`"error":`}, nil},
		{"decisions", "/api/v1/decisions?db=app", 200, []string{`"decisions":[{"db":"app"`}, nil},
		{"H11_no_profiler", "/debug/pprof/", 404, nil, nil},
		{"H4_no_actions", "/v1/checkpoint?db=app", 404, nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			rw := ask(h, "GET", test.target, nil)
			if rw.Code != test.code {
				t.Fatalf("status %d, want %d: %s", rw.Code, test.code, rw.Body)
			}
			for _, want := range test.contains {
				if !strings.Contains(rw.Body.String(), want) {
					t.Errorf("lacks %s:\n%s", want, rw.Body)
				}
			}
			for _, bad := range test.lacks {
				if strings.Contains(rw.Body.String(), bad) {
					t.Errorf("contains %s", bad)
				}
			}
		})
	}
	t.Run("OpenMetrics", func(t *testing.T) {
		rw := ask(h, "GET", "/metrics", func(r *http.Request) { r.Header.Set("Accept", "application/openmetrics-text") })
		if !strings.HasSuffix(rw.Body.String(), "# EOF\n") {
			t.Errorf("no OpenMetrics: %q", rw.Header())
		}
	})
}

func TestGuard(t *testing.T) {
	t.Parallel()
	h := handler(t, start(t, twoDatabases...))
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "BREW"} {
		t.Run("H4_method_"+method, func(t *testing.T) {
			for _, path := range []string{"/", "/metrics", "/api/v1/databases", "/v1/checkpoint", "/-/reload"} {
				rw := ask(h, method, path, nil)
				if rw.Code != http.StatusMethodNotAllowed || rw.Header().Get("Allow") != "GET, HEAD" {
					t.Errorf("%s %s: %d", method, path, rw.Code)
				}
			}
		})
	}
	for name, test := range map[string]struct {
		change func(*http.Request)
		code   int
	}{
		"by IP address":            {func(r *http.Request) { r.Host = "192.0.2.7:9942" }, 200},
		"by IPv6 address":          {func(r *http.Request) { r.Host = "[2001:db8::1]:9942" }, 200},
		"localhost":                {func(r *http.Request) { r.Host = "localhost" }, 200},
		"configured name":          {func(r *http.Request) { r.Host = "DB1.example.org:9942" }, 200},
		"H5_rebinding":             {func(r *http.Request) { r.Host = "evil.example" }, 421},
		"H5_rebinding_of_a_prefix": {func(r *http.Request) { r.Host = "localhost.evil.example" }, 421},
		"H5_no_host":               {func(r *http.Request) { r.Host = "" }, 421},
		"H5_foreign_origin":        {func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, 403},
		"H5_null_origin":           {func(r *http.Request) { r.Header.Set("Origin", "null") }, 403},
		"own origin":               {func(r *http.Request) { r.Header.Set("Origin", "http://"+r.Host) }, 200},
		"H5_foreign_fetch": {func(r *http.Request) {
			r.Header.Set("Sec-Fetch-Site", "cross-site")
			r.Header.Set("Sec-Fetch-Mode", "no-cors")
		}, 403},
		"a link from another site": {func(r *http.Request) {
			r.Header.Set("Sec-Fetch-Site", "cross-site")
			r.Header.Set("Sec-Fetch-Mode", "navigate")
		}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			rw := ask(h, "GET", "/", test.change)
			if rw.Code != test.code {
				t.Errorf("status %d, want %d", rw.Code, test.code)
			}
			if got := rw.Header().Get("X-Content-Type-Options"); got != "nosniff" {
				t.Errorf("nosniff: %q", got)
			}
			csp := rw.Header().Get("Content-Security-Policy")
			if !strings.HasPrefix(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") ||
				strings.Count(csp, "sha256-") != 2 {
				t.Errorf("content security policy %q", csp)
			}
			if rw.Header().Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("CORS is open")
			}
		})
	}
}

// serve serves until the test ends, and returns the address.
func serve(t *testing.T, server *http.Server) string {
	t.Helper()
	listener, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, server, listener)
}

func serveOn(t *testing.T, server *http.Server, listener net.Listener) string {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return listener.Addr().String()
}

func TestServerLimits(t *testing.T) {
	t.Parallel()
	server := NewServer(handler(t, start(t, twoDatabases...)), slog.New(slog.DiscardHandler))
	if server.ReadHeaderTimeout <= 0 || server.ReadTimeout <= 0 || server.WriteTimeout <= 0 || server.IdleTimeout <= 0 {
		t.Errorf("a timeout is missing: %+v", server)
	}
	address := serve(t, server)
	t.Run("H1_slowloris_is_cut_off", func(t *testing.T) {
		impatient := NewServer(server.Handler, slog.New(slog.DiscardHandler))
		impatient.ReadHeaderTimeout = 100 * time.Millisecond
		conn, err := net.Dial("tcp", serve(t, impatient))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := io.ReadAll(conn); err != nil {
			t.Errorf("the connection was not closed: %v", err)
		}
	})
	t.Run("H2_huge_header_is_refused", func(t *testing.T) {
		request, err := http.NewRequest("GET", "http://"+address+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-Huge", strings.Repeat("x", 64<<10))
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return // to be cut off while sending is as good
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("status %d", response.StatusCode)
		}
	})
	t.Run("H8_a_hundred_scrapes_at_once", func(t *testing.T) {
		patient := NewServer(server.Handler, slog.New(slog.DiscardHandler))
		patient.ReadHeaderTimeout, patient.ReadTimeout, patient.WriteTimeout = time.Minute, time.Minute, time.Minute
		address := serve(t, patient)
		var scrapes sync.WaitGroup
		var mu sync.Mutex
		codes := map[int]int{}
		for range 100 {
			scrapes.Go(func() {
				response, err := http.Get("http://" + address + "/metrics")
				if err != nil {
					t.Error(err)
					return
				}
				io.Copy(io.Discard, response.Body)
				response.Body.Close()
				mu.Lock()
				codes[response.StatusCode]++
				mu.Unlock()
			})
		}
		scrapes.Wait()
		if codes[200] == 0 || codes[200]+codes[503] != 100 {
			t.Errorf("answers %v: want 200, or 503 beyond the limit", codes)
		}
	})
}

func admin(t *testing.T, w *watchdog.Watchdog, log io.Writer) (socket string, client *http.Client) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "run", "admin.sock")
	listener, err := ListenAdmin(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	logger := slog.New(slog.NewTextHandler(log, nil))
	h := AdminHandler(AdminOptions{Watchdog: w, Reload: func(context.Context) error {
		return fmt.Errorf("bad.hcl:3: no such block")
	}, Logger: logger})
	go func() { done <- ServeAdmin(ctx, listener, h, logger) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return socket, &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn,
		error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
}

// shared is a log that the server writes and the test reads.
type shared struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}
func (s *shared) String() string { s.mu.Lock(); defer s.mu.Unlock(); return s.text.String() }

func TestAdmin(t *testing.T) {
	t.Parallel()
	var log shared
	w := start(t, twoDatabases...)
	socket, client := admin(t, w, &log)
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("H13: mode %v (%v), want 0600", info.Mode(), err)
	}
	for _, test := range []struct {
		method, path string
		code         int
		contains     string
	}{
		{"POST", "/v1/pause?db=app&for=1m", 200, `"paused_for_seconds":60`},
		{"POST", "/v1/pause?db=app&for=soon", 400, "soon"},
		{"POST", "/v1/pause?db=nobody&for=1m", 404, "no such database"},
		{"POST", "/v1/checkpoint?db=app&mode=full", 400, "passive or truncate"},
		{"POST", "/v1/snapshot?db=app", 400, "not available"},
		{"POST", "/v1/reload", 500, "bad.hcl:3"},
		{"GET", "/v1/reload", 405, ""},
		{"GET", "/api/v1/databases", 200, `"app"`},
		{"GET", "/debug/pprof/", 200, "goroutine"},
		{"GET", "/metrics", 404, ""},
	} {
		request, err := http.NewRequest(test.method, "http://localhost"+test.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != test.code || !strings.Contains(string(body), test.contains) {
			t.Errorf("%s %s: %d, want %d with %q: %s", test.method, test.path, response.StatusCode, test.code, test.contains,
				body)
		}
		if response.StatusCode >= 400 && response.StatusCode != 404 && response.StatusCode != 405 && !json.Valid(body) {
			t.Errorf("%s: the refusal is no JSON: %s", test.path, body)
		}
	}
	// H14: the log records who requested what.
	want := fmt.Sprintf("peer_uid=%d peer_pid=%d allowed=true", os.Geteuid(), os.Getpid())
	if got := log.String(); !strings.Contains(got, "path=/v1/pause") || !strings.Contains(got, want) {
		t.Errorf("the log lacks %q:\n%s", want, got)
	}
}

func TestAdminRefusesStrangers(t *testing.T) {
	t.Parallel()
	var log shared
	h := AdminHandler(AdminOptions{Watchdog: start(t), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for name, ctx := range map[string]context.Context{
		"H14_another_user": context.WithValue(context.Background(), peerKey{}, peer{uid: 12345678, pid: 1}),
		"H14_unknown":      context.Background(),
	} {
		rw := httptest.NewRecorder()
		h.ServeHTTP(rw, httptest.NewRequest("POST", "/v1/reload", nil).WithContext(ctx))
		if rw.Code != http.StatusForbidden || !strings.Contains(log.String(), "allowed=false") {
			t.Errorf("%s: status %d, log %s", name, rw.Code, log.String())
		}
	}
}

// Another user who can reach the socket, because its mode was opened to all, is recognised by the
// uid from the kernel and refused.
func TestAdminRefusesAnotherUser_H14(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	var log shared
	socket, _ := admin(t, start(t), &log)
	for path := socket; path != "/" && path != os.TempDir(); path = filepath.Dir(path) {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-S", "-c",
		`import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
s.sendall(b"POST /v1/reload HTTP/1.0\r\nHost: localhost\r\n\r\n")
print(s.makefile().readline())`, socket).CombinedOutput()
	if err != nil || !strings.Contains(string(out), " 403 ") {
		t.Errorf("nobody asks: %v, %s", err, out)
	}
	if got := log.String(); !strings.Contains(got, "peer_uid=65534") || !strings.Contains(got, "allowed=false") {
		t.Errorf("the log does not say who asked: %s", got)
	}
}

func TestListenAdmin(t *testing.T) {
	t.Parallel()
	t.Run("H13_a_file_is_left_alone", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "admin.sock")
		if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ListenAdmin(path); err == nil || !strings.Contains(err.Error(), "a file is in its place") {
			t.Errorf("got %v", err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != "precious" {
			t.Errorf("the file is now %q (%v)", got, err)
		}
	})
	t.Run("in_a_directory_of_others", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		_, err := ListenAdmin(filepath.Join(dir, "admin.sock"))
		if err == nil || !strings.Contains(err.Error(), "chmod o-w") {
			t.Errorf("where everybody may replace it: %v", err)
		}
		if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
			t.Fatal(err)
		}
		sticky, err := ListenAdmin(filepath.Join(dir, "admin.sock"))
		if err != nil {
			t.Fatalf("in a directory as /tmp: %v", err)
		}
		sticky.Close()
		if os.Geteuid() != 0 {
			return
		}
		if err := os.Chown(dir, 4711, -1); err != nil {
			t.Fatal(err)
		}
		if _, err := ListenAdmin(filepath.Join(dir, "admin.sock")); err == nil || !strings.Contains(err.Error(), "uid 4711") {
			t.Errorf("in another user's: %v", err)
		}
	})
	t.Run("H13_a_symbolic_link_is_left_alone", func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "admin.sock")
		if err := os.Symlink(filepath.Join(dir, "elsewhere"), path); err != nil {
			t.Fatal(err)
		}
		if _, err := ListenAdmin(path); err == nil || !strings.Contains(err.Error(), "symbolic link") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("H13_a_dead_socket_is_replaced_and_a_live_one_is_not", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "admin.sock")
		dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
		if err != nil {
			t.Fatal(err)
		}
		dead.SetUnlinkOnClose(false)
		dead.Close()
		// A child that another test is just starting has the socket until it executes its program.
		for range 1000 {
			conn, err := net.Dial("unix", path)
			if err != nil {
				break
			}
			conn.Close()
			time.Sleep(time.Millisecond)
		}
		live, err := ListenAdmin(path)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := ListenAdmin(path); err == nil {
			second.Close()
			t.Errorf("a live socket was replaced")
		}
		live.Close()
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("the socket remains after the end: %v", err)
		}
	})
}
