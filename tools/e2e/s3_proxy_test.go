package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// s3Fault is one way for a request to go wrong.
type s3Fault string

const (
	slowDown      s3Fault = "503 SlowDown"
	internalError s3Fault = "500"
	conflict      s3Fault = "409"
	skewed        s3Fault = "403 clock"
	html          s3Fault = "HTML page"
	hang          s3Fault = "no answer"
	resetBefore   s3Fault = "reset"
	lostReply     s3Fault = "lost reply" // forwarded and applied; nothing comes back
	halfReply     s3Fault = "half a body"
	wrongByte     s3Fault = "wrong byte"
	halfRequest   s3Fault = "half an upload" // forwarded as if it were all
	slowReply     s3Fault = "slow"
)

// s3Proxy stands before an S3 server, counts requests, and breaks those that
// decide names.
type s3Proxy struct {
	url     string
	forward *httputil.ReverseProxy
	closed  chan struct{}

	mu       sync.Mutex
	decide   func(r *http.Request) s3Fault
	requests map[string]int // by operation
	injected map[s3Fault]int
}

func startS3Proxy(t *testing.T, target string) *s3Proxy {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	p := &s3Proxy{requests: map[string]int{}, injected: map[s3Fault]int{}, closed: make(chan struct{})}
	p.forward = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = u.Scheme, u.Host
			r.Out.Host = r.In.Host // the signature covers it
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { reset(w) },
	}
	server := httptest.NewServer(p)
	p.url = server.URL
	t.Cleanup(func() {
		close(p.closed)
		server.CloseClientConnections()
		server.Close()
	})
	return p
}

// breakWith sets what decides over each request; nil breaks nothing.
func (p *s3Proxy) breakWith(decide func(*http.Request) s3Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.decide = decide
}

// chaos breaks a share of all requests, by the seed, but never the same request
// twice running: whoever tries again gets through.
func (p *s3Proxy) chaos(seed uint64, share float64, faults ...s3Fault) {
	rng, last := rand.New(rand.NewPCG(seed, 7)), map[string]bool{}
	p.breakWith(func(r *http.Request) s3Fault {
		key := r.Method + r.URL.String() + r.Header.Get("Range")
		if last[key] || rng.Float64() >= share {
			delete(last, key)
			return ""
		}
		last[key] = true
		fault := faults[rng.IntN(len(faults))]
		if fault == wrongByte && s3Operation(r) == "LIST" {
			fault = halfReply // nothing but TLS can tell a listing with another key in it
		}
		return fault
	})
}

// counts returns how many requests came, by operation, and how many in all.
func (p *s3Proxy) counts() (all int, by map[string]int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	by = map[string]int{}
	for op, n := range p.requests {
		by[op], all = n, all+n
	}
	return all, by
}

// faults returns how often requests were broken, by fault, and how often in all.
func (p *s3Proxy) faults() (all int, by map[s3Fault]int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	by = map[s3Fault]int{}
	for f, n := range p.injected {
		by[f], all = n, all+n
	}
	return all, by
}

// s3Operation names a request.
func s3Operation(r *http.Request) string {
	q := r.URL.Query()
	switch {
	case q.Has("list-type"):
		return "LIST"
	case q.Has("uploads"), q.Has("uploadId"):
		return "MULTIPART"
	case q.Has("delete"), r.Method == http.MethodDelete:
		return "DELETE"
	}
	return r.Method
}

// ServeHTTP implements http.Handler.
func (p *s3Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.requests[s3Operation(r)]++
	fault := s3Fault("")
	if p.decide != nil {
		fault = p.decide(r)
	}
	if fault != "" {
		p.injected[fault]++
	}
	p.mu.Unlock()
	switch fault {
	case "":
		p.forward.ServeHTTP(w, r)
	case slowDown:
		refuse(w, http.StatusServiceUnavailable, "SlowDown")
	case internalError:
		refuse(w, http.StatusInternalServerError, "InternalError")
	case conflict:
		refuse(w, http.StatusConflict, "ConditionalRequestConflict")
	case skewed:
		refuse(w, http.StatusForbidden, "RequestTimeTooSkewed")
	case html:
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<html><body>Please log in</body></html>")
	case hang:
		select {
		case <-r.Context().Done():
		case <-p.closed:
		}
	case resetBefore:
		reset(w)
	case halfRequest:
		r.ContentLength /= 2
		r.Body = io.NopCloser(io.LimitReader(r.Body, r.ContentLength))
		p.forward.ServeHTTP(w, r)
	default:
		p.spoil(w, r, fault)
	}
}

// spoil forwards the request and breaks the reply.
func (p *s3Proxy) spoil(w http.ResponseWriter, r *http.Request, fault s3Fault) {
	reply := httptest.NewRecorder()
	p.forward.ServeHTTP(reply, r)
	body := reply.Body.Bytes()
	if fault == lostReply || fault == halfReply && len(body) == 0 {
		reset(w)
		return
	}
	if fault == wrongByte && len(body) > 0 {
		body[len(body)/2] ^= 0x20
	}
	for k, values := range reply.Header() {
		w.Header()[k] = values
	}
	w.WriteHeader(reply.Code)
	switch fault {
	case halfReply:
		w.Write(body[:len(body)/2])
		reset(w)
	case slowReply:
		p.crawl(w, r, body)
	default:
		w.Write(body)
	}
}

// crawl writes body in twenty pieces, one every 50 ms.
func (p *s3Proxy) crawl(w http.ResponseWriter, r *http.Request, body []byte) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for piece := len(body)/20 + 1; len(body) > 0; body = body[min(piece, len(body)):] {
		if _, err := w.Write(body[:min(piece, len(body))]); err != nil {
			return
		}
		http.NewResponseController(w).Flush()
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>%s</Message></Error>`, code, code)
}

// reset closes the connection so that the client sees RST.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return // a recorder: the caller resets
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}

// putSubresource sends one signed request (AWS Signature Version 4) for what
// sqlwatch never does itself: setting a bucket's policy.
func (s *s3Server) putSubresource(bucket, subresource, body string) error {
	now := time.Now().UTC()
	day, stamp, host := now.Format("20060102"), now.Format("20060102T150405Z"), "127.0.0.1:"+s.port
	sum := func(text string) string { h := sha256.Sum256([]byte(text)); return hex.EncodeToString(h[:]) }
	mac := func(key []byte, text string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	const signed = "host;x-amz-content-sha256;x-amz-date"
	request := strings.Join([]string{"PUT", "/" + bucket, subresource + "=",
		"host:" + host, "x-amz-content-sha256:" + sum(body), "x-amz-date:" + stamp, "", signed, sum(body)}, "\n")
	scope := day + "/us-east-1/s3/aws4_request"
	key := []byte("AWS4" + s3Secret)
	for _, part := range strings.Split(scope, "/") {
		key = mac(key, part)
	}
	signature := hex.EncodeToString(mac(key, strings.Join([]string{"AWS4-HMAC-SHA256", stamp, scope, sum(request)}, "\n")))
	r, err := http.NewRequest(http.MethodPut, s.url()+"/"+bucket+"?"+subresource+"=", strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("X-Amz-Content-Sha256", sum(body))
	r.Header.Set("X-Amz-Date", stamp)
	r.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s,SignedHeaders=%s,Signature=%s", s3KeyID,
		scope, signed, signature))
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 300 {
		text, _ := io.ReadAll(answer.Body)
		return fmt.Errorf("set the %s of %s: %s: %s", subresource, bucket, answer.Status, text)
	}
	return nil
}
