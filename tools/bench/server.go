package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// The bucket and the key that the server accepts.
const (
	bucket    = "bench"
	accessKey = "bench-key-id"
	secretKey = "bench-secret-key"
)

// server is a versitygw on loopback that keeps its objects in a directory.
type server struct {
	url, objects string // objects is the bucket's directory
	cmd          *exec.Cmd
}

func startServer(dir string) (*server, error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	find := exec.Command("go", "tool", "-n", "versitygw")
	find.Dir, find.Stderr = filepath.Join(root, "tools"), os.Stderr
	path, err := find.Output()
	if err != nil {
		return nil, fmt.Errorf("build versitygw: %w", err)
	}
	objects := filepath.Join(dir, "objects")
	if err := os.MkdirAll(filepath.Join(objects, bucket), 0o700); err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	s := &server{url: "http://" + address, objects: filepath.Join(objects, bucket)}
	s.cmd = exec.Command(strings.TrimSpace(string(path)), "--port", address, "--access", accessKey, "--secret", secretKey,
		"--quiet", "--keep-alive", "posix", objects)
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start versitygw: %w", err)
	}
	return s, within(20*time.Second, "the S3 server listens", func() (bool, error) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil, nil
	})
}

func (s *server) stop() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// freeAddress returns an address of the loopback interface that was free a moment ago.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// within polls until check returns true.
func within(limit time.Duration, what string, check func() (bool, error)) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		done, err := check()
		if err != nil || done {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not within %s", what, limit)
		}
	}
}

// traffic is what went through a proxy.
type traffic struct {
	requests, puts int
	uploaded       int64 // bytes of request bodies
}

func (t traffic) since(before traffic) traffic {
	return traffic{t.requests - before.requests, t.puts - before.puts, t.uploaded - before.uploaded}
}

// proxy counts the requests of one program.
type proxy struct {
	url    string
	server *http.Server

	mu   sync.Mutex
	seen traffic
	last time.Time
}

func newProxy(target string) (*proxy, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{url: "http://" + l.Addr().String(), last: time.Now()}
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = u.Scheme, u.Host
			r.Out.Host = r.In.Host // the signature covers it
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
		BufferPool:   &buffers{},
	}
	p.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.count(r)
		r.Body = &counted{r.Body, p}
		forward.ServeHTTP(w, r)
	})}
	go p.server.Serve(l)
	return p, nil
}

func (p *proxy) close() { p.server.Close() }

func (p *proxy) count(r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = time.Now()
	p.seen.requests++
	// S3 bills PUTs, and the POSTs of multipart uploads, as writes.
	if r.Method == http.MethodPut || r.Method == http.MethodPost && !r.URL.Query().Has("delete") {
		p.seen.puts++
	}
}

func (p *proxy) traffic() traffic {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen
}

// quiet returns how long ago the last request came.
func (p *proxy) quiet() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Since(p.last)
}

// counted adds the bytes of a body to the traffic of its proxy.
type counted struct {
	io.ReadCloser
	p *proxy
}

// Read implements io.Reader.
func (c *counted) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	c.p.seen.uploaded += int64(n)
	c.p.last = time.Now()
	return n, err
}

// buffers implements httputil.BufferPool.
type buffers struct{ pool sync.Pool }

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte {
	if have, ok := b.pool.Get().(*[]byte); ok {
		return *have
	}
	return make([]byte, 128<<10)
}

// Put implements httputil.BufferPool.
func (b *buffers) Put(buffer []byte) { b.pool.Put(&buffer) }
