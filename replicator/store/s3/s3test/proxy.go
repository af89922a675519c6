package s3test

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Fault is one way in which a request can go wrong.
type Fault int

// The faults.
const (
	None           Fault = iota
	Unavailable          // 503 SlowDown, not forwarded
	InternalError        // 500, not forwarded
	Forbidden            // 403 AccessDenied, not forwarded
	Conflict             // 409 ConditionalRequestConflict, not forwarded
	Precondition         // 412, not forwarded
	Skewed               // 403 RequestTimeTooSkewed, not forwarded
	NotImplemented       // 501, not forwarded
	HTML                 // 200 with an HTML page, not forwarded
	Hang                 // accepted, never answered
	Reset                // connection reset, not forwarded
	LostReply            // forwarded and applied; the reply never arrives
	HalfReply            // forwarded; the reply's body breaks off halfway
	WrongByte            // forwarded; one byte of the reply's body is changed
	HalfRequest          // half of the request's body is forwarded as if it were all
	StaleList            // a listing without its newest key
	Slow                 // forwarded; the reply's body crawls at Proxy.Rate
)

// Proxy forwards requests to a server, and breaks them as its decision function says.
type Proxy struct {
	URL  string
	Rate int // bytes per second for Slow

	mu       sync.Mutex
	decide   func(r *http.Request, n int) Fault
	n        int
	requests map[string]int
	injected map[Fault]int
	forward  *httputil.ReverseProxy
	closed   chan struct{}
	end      sync.Once // closes closed
}

// NewProxy starts a proxy for target. At first it breaks nothing.
func NewProxy(tb testing.TB, target string) *Proxy {
	tb.Helper()
	u, err := url.Parse(target)
	if err != nil {
		tb.Fatal(err)
	}
	p := &Proxy{Rate: 64 << 10, requests: map[string]int{}, injected: map[Fault]int{}, closed: make(chan struct{})}
	p.forward = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = u.Scheme, u.Host
			r.Out.Host = r.In.Host // the signature covers it
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			reply(w, http.StatusBadGateway, "BadGateway", err.Error())
		},
	}
	server := httptest.NewServer(p)
	p.URL = server.URL
	tb.Cleanup(func() {
		p.LetGo()
		server.CloseClientConnections()
		server.Close()
	})
	return p
}

// LetGo ends requests that hang, and lets no request hang any more. A caller that serves a Proxy
// with its own server calls LetGo before it closes that server, because Close waits for all
// requests.
func (p *Proxy) LetGo() { p.end.Do(func() { close(p.closed) }) }

// Break sets the function that decides about each request; n counts requests from 0. If decide is
// nil, nothing is broken.
func (p *Proxy) Break(decide func(r *http.Request, n int) Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.decide, p.n = decide, 0
}

// Next breaks the next count requests of the operation op, as Operation names it; "" matches all.
func (p *Proxy) Next(fault Fault, op string, count int) {
	p.Break(func(r *http.Request, _ int) Fault {
		if count == 0 || op != "" && Operation(r) != op {
			return None
		}
		count--
		return fault
	})
}

// Requests returns how many requests arrived, by Operation.
func (p *Proxy) Requests() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.requests)
}

// Faults returns how often each fault happened.
func (p *Proxy) Faults() map[Fault]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.injected)
}

// Injected returns how often a fault happened.
func (p *Proxy) Injected(f Fault) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.injected[f]
}

// Operation returns what a request does: put, get, head, list, delete, create, part, complete or
// abort.
func Operation(r *http.Request) string {
	q := r.URL.Query()
	switch {
	case r.Method == http.MethodGet && q.Has("list-type"):
		return "list"
	case r.Method == http.MethodPost && q.Has("delete"):
		return "delete"
	case r.Method == http.MethodPost && q.Has("uploads"):
		return "create"
	case r.Method == http.MethodPost && q.Has("uploadId"):
		return "complete"
	case r.Method == http.MethodPut && q.Has("partNumber"):
		return "part"
	case r.Method == http.MethodDelete && q.Has("uploadId"):
		return "abort"
	}
	return strings.ToLower(r.Method)
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fault := p.fault(r)
	switch fault {
	case Unavailable:
		reply(w, http.StatusServiceUnavailable, "SlowDown", "Please reduce your request rate.")
	case InternalError:
		reply(w, http.StatusInternalServerError, "InternalError", "We encountered an internal error.")
	case Forbidden:
		reply(w, http.StatusForbidden, "AccessDenied", "Access Denied")
	case Conflict:
		reply(w, http.StatusConflict, "ConditionalRequestConflict", "A conflicting operation occurred.")
	case Precondition:
		reply(w, http.StatusPreconditionFailed, "PreconditionFailed",
			"At least one of the preconditions you specified did not hold.")
	case Skewed:
		reply(w, http.StatusForbidden, "RequestTimeTooSkewed",
			"The difference between the request time and the current time is too large.")
	case NotImplemented:
		reply(w, http.StatusNotImplemented, "NotImplemented",
			"A header you provided implies functionality that is not implemented.")
	case HTML:
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<html><body><h1>Welcome to the hotel's wireless network</h1></body></html>")
	case Hang:
		select {
		case <-r.Context().Done():
		case <-p.closed:
			reset(w)
		}
	case Reset:
		reset(w)
	case HalfRequest:
		halve(r)
		p.forward.ServeHTTP(w, r)
	case None:
		p.forward.ServeHTTP(w, r)
	default:
		p.spoil(w, r, fault)
	}
}

func (p *Proxy) fault(r *http.Request) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests[Operation(r)]++
	if p.decide == nil {
		return None
	}
	f := p.decide(r, p.n)
	p.n++
	if f != None {
		p.injected[f]++
	}
	return f
}

// spoil forwards the request and breaks the reply.
func (p *Proxy) spoil(w http.ResponseWriter, r *http.Request, fault Fault) {
	recorded := httptest.NewRecorder()
	p.forward.ServeHTTP(recorded, r)
	body := recorded.Body.Bytes()
	length := recorded.Header().Get("Content-Length")
	if fault == LostReply || fault == HalfReply && len(body) == 0 {
		reset(w)
		return
	}
	switch fault {
	case WrongByte:
		if len(body) > 0 {
			body[len(body)/2] ^= 0x20
		}
	case StaleList:
		body = withoutLast(body)
		length = strconv.Itoa(len(body))
	}
	for k, values := range recorded.Header() {
		w.Header()[k] = values
	}
	if length != "" {
		w.Header().Set("Content-Length", length)
	}
	w.WriteHeader(recorded.Code)
	switch fault {
	case HalfReply:
		w.Write(body[:len(body)/2])
		reset(w)
	case Slow:
		p.crawl(w, r, body)
	default:
		w.Write(body)
	}
}

// crawl writes body at Rate, twenty times a second.
func (p *Proxy) crawl(w http.ResponseWriter, r *http.Request, body []byte) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for len(body) > 0 {
		n := min(len(body), max(1, p.Rate/20))
		if _, err := w.Write(body[:n]); err != nil {
			return
		}
		http.NewResponseController(w).Flush()
		body = body[n:]
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

// withoutLast removes the last <Contents> of a listing.
func withoutLast(body []byte) []byte {
	start := bytes.LastIndex(body, []byte("<Contents>"))
	end := bytes.LastIndex(body, []byte("</Contents>"))
	if start < 0 || end < start {
		return body
	}
	return append(bytes.Clone(body[:start]), body[end+len("</Contents>"):]...)
}

func halve(r *http.Request) {
	n := r.ContentLength / 2
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(r.Body, n), r.Body}
	r.ContentLength = n
	r.Header.Set("Content-Length", strconv.FormatInt(n, 10))
}

func reply(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>%s</Message></Error>`, code,
		message)
}

// reset closes the connection so that the client sees RST.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}
