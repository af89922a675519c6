package web

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Ten thousand clients that connect and send nothing cost a bounded number of connections, and
// the scraper that comes after them is answered.
func TestIdleConnections_H1(t *testing.T) {
	t.Parallel()
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	clients := min(10_000, int(files.Cur)-3*maxConnections)
	if clients < 4*maxConnections {
		t.Fatalf("%d descriptors are too few to show anything: raise ulimit -n", files.Cur)
	}
	server := NewServer(handler(t, start(t, twoDatabases...)), slog.New(slog.DiscardHandler))
	// Here the number of connections is the limit, not the time.
	server.ReadHeaderTimeout, server.ReadTimeout, server.IdleTimeout = time.Hour, time.Hour, time.Hour
	var open, most atomic.Int64
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := serveOn(t, server, limited(counting{listener, &open, &most}))
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := worker; i < clients; i += 8 {
				conn, err := net.DialTimeout("tcp", address, time.Minute)
				if err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				t.Cleanup(func() { conn.Close() })
			}
		})
	}
	group.Wait()
	for range 3 {
		body, err := fetch(address, "/metrics")
		if err != nil || !strings.Contains(body, `sqlite_up{db="app"} 1`) {
			t.Fatalf("a scrape beside %d idle clients: %v\n%s", clients, err, body)
		}
	}
	eventually(t, "the server has let go of the surplus", func() bool { return open.Load() <= maxIdle })
	if n := most.Load(); n > maxConnections {
		t.Errorf("%d connections at once, the limit is %d", n, maxConnections)
	}
	t.Logf("%d clients, at most %d connections", clients, most.Load())
}

// counting counts the connections that are open at the same time. It wraps the connections
// because the limit is released only after a connection is closed, and a server reports the close
// later still.
type counting struct {
	net.Listener
	open, most *atomic.Int64
}

func (c counting) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if n := c.open.Add(1); n > c.most.Load() {
		c.most.Store(n) // only one goroutine accepts
	}
	return &counted{Conn: conn, closed: sync.OnceFunc(func() { c.open.Add(-1) })}, nil
}

type counted struct {
	net.Conn
	closed func()
}

func (c *counted) Close() error {
	c.closed()
	return c.Conn.Close()
}

func fetch(address, path string) (string, error) {
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + address + path)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// endless is a request body without an end that counts the bytes read from it.
type endless struct{ taken atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) {
	e.taken.Add(int64(len(p)))
	return len(p), nil
}

func TestHugeRequests_H2(t *testing.T) {
	t.Parallel()
	server := NewServer(handler(t, start(t, twoDatabases...)), slog.New(slog.DiscardHandler))
	server.ReadHeaderTimeout, server.ReadTimeout, server.WriteTimeout = time.Minute, time.Minute, time.Minute
	address := serve(t, server)
	// Each request is sent as it stands, and the status of the answer is compared.
	for name, test := range map[string]struct {
		request string
		codes   string
	}{
		"query beyond the limit": {"GET /metrics?db=" + strings.Repeat("x", 64<<10) + " HTTP/1.1\r\nHost: localhost\r\n\r\n",
			"431"},
		"query within the limit": {"GET /api/v1/databases?db=" + strings.Repeat("x", 8<<10) +
			" HTTP/1.1\r\nHost: localhost\r\n\r\n", "404"},
		"a thousand parameters": {"GET /api/v1/decisions?" + strings.Repeat("db=x&", 1000) +
			" HTTP/1.1\r\nHost: localhost\r\n\r\n", "404"},
		"a thousand metric names": {"GET /metrics?" + strings.Repeat("name[]=x&", 1000) +
			" HTTP/1.1\r\nHost: localhost\r\n\r\n", "200"},
		"path beyond the limit": {"GET /" + strings.Repeat("a/", 32<<10) + " HTTP/1.1\r\nHost: localhost\r\n\r\n", "431"},
		"one huge header": {"GET / HTTP/1.1\r\nHost: localhost\r\nX-Huge: " + strings.Repeat("x", 64<<10) + "\r\n\r\n",
			"431"},
		"very many headers": {"GET / HTTP/1.1\r\nHost: localhost\r\n" + strings.Repeat("X-Many: x\r\n", 10_000) + "\r\n",
			"431"},
		"a huge method":      {strings.Repeat("M", 8<<10) + " / HTTP/1.1\r\nHost: localhost\r\n\r\n", "405"},
		"no HTTP":            {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "400"},
		"a length that lies": {"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n", "400"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			go io.WriteString(conn, test.request) // may be cut off while it is being sent
			line, err := bufio.NewReader(conn).ReadString('\n')
			if err != nil {
				if test.codes == "431" {
					return // the connection was closed before all was sent, which discards the answer
				}
				t.Fatal(err)
			}
			if !strings.HasPrefix(line, "HTTP/1.1 "+test.codes) {
				t.Errorf("answered %s, want %s", line, test.codes)
			}
		})
	}
	t.Run("H1_a_body_that_never_ends", func(t *testing.T) {
		t.Parallel()
		body := &endless{}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/metrics", body)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			response.Body.Close()
			if response.StatusCode != http.StatusOK {
				t.Errorf("answered %s", response.Status)
			}
		}
		if taken := body.taken.Load(); taken > 256<<20 {
			t.Errorf("the server let %d bytes come in", taken)
		}
	})
}

// No parameter of a request causes a panic, or reaches the file system or anything beyond the
// configured names, on either listener.
func FuzzParameters_H3(f *testing.F) {
	secret := filepath.Join(f.TempDir(), "secret")
	const canary = "c4n4ry of a file"
	if err := os.WriteFile(secret, []byte(canary), 0o600); err != nil {
		f.Fatal(err)
	}
	for _, path := range []string{"/", "/metrics", "/api/v1/databases", "/api/v1/decisions", "/-/ready", "/v1/checkpoint",
		"/v1/pause", "/v1/sync", "/debug/pprof/"} {
		for _, query := range []string{"", "db=app", "db=app&db=..", "db=" + url.QueryEscape(secret), "db=%00&mode=truncate",
			"db=%zz", "name[]=sqlite_up", "db=app&for=1h", "db=app&for=-1e400h", "db=app&mode=passive;x", "seconds=1"} {
			f.Add(path, query)
			f.Add(path+"../.."+secret, query)
		}
	}
	w := start(f, twoDatabases...)
	tcp := handler(f, w)
	admin := AdminHandler(AdminOptions{Watchdog: w, Reload: func(context.Context) error { return nil },
		Logger: slog.New(slog.DiscardHandler)})
	// the names, and the paths of the databases
	known := map[string]bool{"": true, "app": true, "bad <b>": true, "/srv/app": true, "/srv/bad <b>": true}
	f.Fuzz(func(t *testing.T, path, query string) {
		if strings.HasPrefix(path, "/debug/pprof/") && path != "/debug/pprof/" {
			return // profiles take as long as the request says
		}
		for name, h := range map[string]http.Handler{"tcp": tcp, "admin": admin} {
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				r := (&http.Request{
					Method: method, URL: &url.URL{Path: path, RawQuery: query}, Host: "localhost", Header: http.Header{},
					Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody, RemoteAddr: "127.0.0.1:1",
				}).WithContext(context.WithValue(t.Context(), peerKey{}, peer{uid: uint32(os.Geteuid())}))
				rw := httptest.NewRecorder()
				h.ServeHTTP(rw, r)
				if strings.Contains(rw.Body.String(), canary) {
					t.Errorf("%s %s %q?%q shows a file", name, method, path, query)
				}
				if name == "tcp" && method == http.MethodPost && rw.Code != http.StatusMethodNotAllowed {
					t.Errorf("POST %q?%q: %d", path, query, rw.Code)
				}
				if db := r.URL.Query().Get("db"); strings.HasPrefix(path, "/api/v1/") && rw.Code == http.StatusOK && !known[db] {
					t.Errorf("%s answered of a database %q that nobody configured", name, db)
				}
				if rw.Code >= 500 && rw.Code != http.StatusServiceUnavailable {
					t.Errorf("%s %s %q?%q: %d %s", name, method, path, query, rw.Code, rw.Body)
				}
			}
		}
	})
}
