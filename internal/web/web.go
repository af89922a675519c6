// Package web shows what the watchdog knows: metrics, health, a status page and
// JSON over TCP, where nothing can be changed; and over the admin socket the few
// actions an operator may ask for.
package web

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"

	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
)

// The limits of the TCP server. A scrape of a thousand databases takes a tenth
// of a second; whoever needs longer is not a scraper.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 16 << 10
	maxConnections    = 512
	maxIdle           = 256 // of these, without a request
	maxScrapes        = 40
)

// Options are what the pages are made of.
type Options struct {
	Watchdog     *watchdog.Watchdog
	Gatherer     *Gatherer     // of /metrics
	Itself       func() Itself // how the daemon itself fares; nil: well
	Faults       *Faults       // counts faults of handlers; may be nil
	Version      string
	AllowedHosts []string // host names besides localhost, IP addresses and this machine's; "*" is any
	Logger       *slog.Logger
}

// Itself is how the daemon itself fares.
type Itself struct {
	Conditions []health.Condition
	LeftOut    []health.LeftOut
}

// Handler returns the routes of the TCP side. All of them answer GET and HEAD
// only, and none of them changes anything.
func Handler(o Options) http.Handler {
	if o.Itself == nil {
		o.Itself = func() Itself { return Itself{} }
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", http.TimeoutHandler(newScrapes(o.Gatherer, o.Logger), writeTimeout-time.Second,
		"the metrics could not be gathered in time"))
	mux.HandleFunc("/-/healthy", healthy(o.Watchdog))
	mux.HandleFunc("/-/ready", ready(o.Watchdog, o.Itself))
	mux.HandleFunc("/api/v1/databases", databases(o.Watchdog))
	mux.HandleFunc("/api/v1/decisions", decisions(o.Watchdog))
	mux.HandleFunc("/api/v1/health", healthOf(o.Watchdog, o.Itself))
	page := newStatusPage(o.Watchdog, o.Itself, o.Version)
	mux.HandleFunc("/page", page.refresh)
	mux.Handle("/{$}", page)
	return guard(recovering(mux, o.Faults, o.Logger), newHosts(o.AllowedHosts), page.contentPolicy)
}

// NewServer returns a server with every timeout and limit set.
func NewServer(handler http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnState:         newIdle().track,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}

// Listen listens on a TCP address. Beyond maxConnections further clients wait, so
// that ten thousand do not cost the daemon its file descriptors.
func Listen(address string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	return limited(listener), nil
}

func limited(listener net.Listener) net.Listener {
	return netutil.LimitListener(listener, maxConnections)
}

// Shutdown ends a server; requests at work get a moment to finish.
func Shutdown(ctx context.Context, server *http.Server) {
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if server.Shutdown(last) != nil {
		server.Close()
	}
}
