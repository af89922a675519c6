// Package daemon assembles a running sqlwatch: the databases that a configuration names,
// the watchdog and the replication of each, the listeners, and what a reload changes. It
// decides nothing; the watchdog and the policies do.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	toolkit "github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/sync/errgroup"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/decisions"
	"github.com/sqlwatch/sqlwatch/internal/dirwatch"
	"github.com/sqlwatch/sqlwatch/internal/freshness"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/lookup"
	"github.com/sqlwatch/sqlwatch/internal/notify"
	"github.com/sqlwatch/sqlwatch/internal/replay"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/internal/web"
	"github.com/sqlwatch/sqlwatch/replicator"
	"github.com/sqlwatch/sqlwatch/replicator/queue"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// ShutdownGrace is how long the last syncs may take after SIGTERM.
const ShutdownGrace = 30 * time.Second

// Options are what a Daemon is made of.
type Options struct {
	Config       *config.Config
	Load         func() (*config.Config, error) // reads the configuration again, for a reload
	Hangup       <-chan os.Signal               // asks for a reload; nil: nothing but the admin socket does
	Web          *toolkit.FlagConfig            // the listeners' flags; unset: server.listen, no TLS
	AllowedHosts []string                       // further host names by which clients may address the server
	CountBusy    bool                           // count SQLITE_BUSY of all processes, in the kernel
	Detail       bool                           // export all series, including those of events that never happened
	CountSteps   []string                       // databases whose processes' sqlite3_step is counted too
	Adopt        []string                       // replicas, or databases, whose foreign history is continued
	Build        BuildInfo
	Allowed      func(path string) error  // returns why a database must not be opened; nil: all may be
	NotifySocket string                   // systemd's notification socket; "": none
	Ready        func(addresses []string) // called when the listeners are open; may be nil
	Logger       *slog.Logger
}

// BuildInfo says what the program was built from, for its metric, page and log.
type BuildInfo struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Go      string `json:"go"`
	SQLite  string `json:"sqlite"`
}

// Daemon is everything that `run` does.
type Daemon struct {
	o        Options
	log      *slog.Logger
	config   *config.Config // in force; after a reload another one than Options.Config
	registry *prometheus.Registry
	gatherer *web.Gatherer // the registry's metrics and all others
	metrics  *watchdog.Metrics
	locks    lockCounts
	watchdog *watchdog.Watchdog
	notices  *notify.Notifiers
	names    dirwatch.Watcher

	replication *replicator.Metrics
	stores      stores
	requests    chan request
	itself      *itself
	past        *freshness.Past
	ending      func() bool // reports whether the daemon was told to end; nil before it runs

	// Used by the reload loop only.
	watched  *watched
	disks    *lookup.Disks
	expanded []config.DatabaseTarget // the databases of the configuration in force
	leftOut  string                  // the last log message about databases that are left out
}

// New assembles the parts. It opens no file.
func New(o Options) (*Daemon, error) {
	if err := sqlite.CheckVersion(); err != nil {
		return nil, fmt.Errorf("this sqlwatch was built wrongly: %w", err)
	}
	if o.Web == nil {
		o.Web = &toolkit.FlagConfig{WebConfigFile: new(string), WebSystemdSocket: new(bool)}
	}
	d := &Daemon{
		o: o, log: o.Logger, config: o.Config,
		registry: prometheus.NewRegistry(),
		metrics:  watchdog.NewMetrics(),
		locks:    openLockCounts(o.CountBusy, o.CountSteps, o.Logger),
		requests: make(chan request),
		disks:    lookup.New(),
		notices:  notify.New(o.Logger),

		past:        freshness.LoadPast(filepath.Join(o.Config.Server.StateDir, "freshness.json")),
		replication: replicator.NewMetrics(),
		stores: stores{uploads: store.NewBudget(o.Config.Uploads.AtOnce, o.Config.Uploads.Bandwidth),
			queue: queue.New(0)},
	}
	if err := d.notices.Configure(notifiersOf(d.config)); err != nil {
		return nil, err
	}
	d.itself = newItself(d.notices.Failing)
	var err error
	if d.watched, err = loadWatched(d.config.Server.StateDir); err != nil {
		return nil, err
	}
	decided := decisions.New(d.config.Server.StateDir, o.Logger)
	d.watchdog = watchdog.New(watchdog.Options{
		Measured:    replay.NewRecorder(d.config.Server.StateDir, o.Logger).Note,
		Decided:     decided.Note,
		Recently:    decided.Recently,
		Holds:       d.holds,
		Dropped:     d.notices.Drop,
		Targets:     d.targets(d.config),
		Policies:    d.config.Policies,
		StateFile:   filepath.Join(d.config.Server.StateDir, "policy-state.json"),
		HistoryFile: filepath.Join(d.config.Server.StateDir, "policy-history.json"),
		Metrics:     d.metrics,
		Busy:        d.locks.self,
		Health:      d.itself.board,
		Logger:      o.Logger,
	})
	return d, d.collect()
}

// Status returns what the watchdog knows of its databases.
func (d *Daemon) Status() *watchdog.Status { return d.watchdog.Status() }

// collect creates the gatherer of all metrics.
func (d *Daemon) collect() error {
	d.replication.Detail, d.metrics.Detail = d.o.Detail, d.o.Detail
	exporter := collector.NewExporter(d.watchdog.Samples)
	exporter.SetBusySource(collector.SourceSelf, d.locks.self)
	exporter.SetStepSource(d.locks.steps.Counts)
	if d.locks.kernel != nil {
		exporter.SetBusySource(collector.SourceKernel, d.locks.kernel)
	}
	process := collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})
	for _, c := range []prometheus.Collector{d.notices, collectors.NewGoCollector(), process} {
		if err := d.registry.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	catalogue := slices.Concat(collector.Catalogue(), watchdog.Catalogue(), replicator.Catalogue(), health.Catalogue())
	gatherer, err := web.NewGatherer(d.registry, catalogue, exporter, d.metrics, d.replication, d.itself)
	if err != nil {
		return err
	}
	gatherer.Detail = d.o.Detail
	d.gatherer = gatherer
	d.metrics.Built(d.o.Build.Version, d.o.Build.Commit, d.o.Build.Go, d.o.Build.SQLite)
	d.metrics.Reloaded(time.Now(), nil)
	return nil
}

// Run opens the listeners first, so that a mistake there ends the start before any database
// is touched. Then it serves until ctx ends.
func (d *Daemon) Run(ctx context.Context) error {
	defer d.locks.close()
	lock, err := lockState(d.config.Server.StateDir)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	listeners, err := d.listen()
	if err != nil {
		return err
	}
	admin, err := web.ListenAdmin(strings.TrimPrefix(d.config.Server.Admin, "unix://"))
	if err != nil {
		closeListeners(listeners)
		return err
	}
	d.log.Info("sqlwatch is starting", "version", d.o.Build.Version, "sqlite", d.o.Build.SQLite,
		"listen", addresses(listeners), "admin", d.config.Server.Admin, "state_dir", d.config.Server.StateDir)

	group, ctx := errgroup.WithContext(ctx)
	d.ending = func() bool { return ctx.Err() != nil }
	group.Go(func() error { return d.watchdog.Run(ctx, ShutdownGrace) })
	group.Go(func() error { return d.notices.Run(ctx) })
	group.Go(func() error { return d.notices.Beat(ctx, d.pulse) })
	group.Go(func() error { return d.locks.steps.Run(ctx) })
	group.Go(func() error { d.locks.pace(ctx, d.log); return nil })
	group.Go(func() error { return d.serve(ctx, listeners) })
	group.Go(func() error {
		handler := web.AdminHandler(web.AdminOptions{
			Watchdog: d.watchdog, Reload: d.requestReload, Forget: d.requestForget, Places: d.places, Itself: d.itself.now,
			Faults: d.itself.faults, Logger: d.log,
		})
		return web.ServeAdmin(ctx, admin, handler, d.log)
	})
	group.Go(func() error { return d.reload(ctx) })
	group.Go(func() error { d.past.Keep(ctx, nil); return nil }) // an error is reported once, at the end
	group.Go(func() error { return d.itself.look(ctx, d.config.Server.StateDir) })
	d.announce("READY=1")
	group.Go(func() error { return d.tell(ctx) })
	if d.o.Ready != nil {
		d.o.Ready(addresses(listeners))
	}
	err = group.Wait()
	if err := d.past.Save(); err != nil { // only for display
		d.log.Warn("the page will not show the past hour of the replicas after the next start", "err", err)
	}
	if err != nil {
		return err
	}
	d.log.Info("sqlwatch has stopped")
	return nil
}

// listen opens the TCP listeners. With socket activation there is nothing to open.
func (d *Daemon) listen() ([]net.Listener, error) {
	if d.o.Web.WebSystemdSocket != nil && *d.o.Web.WebSystemdSocket {
		return nil, nil
	}
	var listeners []net.Listener
	for _, address := range d.listenAddresses() {
		listener, err := web.Listen(address)
		if err != nil {
			closeListeners(listeners)
			return nil, fmt.Errorf("listen on %s: %w; choose another address with --web.listen-address or server.listen",
				address, err)
		}
		listeners = append(listeners, listener)
	}
	return listeners, nil
}

func (d *Daemon) listenAddresses() []string {
	var chosen []string
	if d.o.Web.WebListenAddresses != nil {
		for _, address := range *d.o.Web.WebListenAddresses {
			if address != "" {
				chosen = append(chosen, address)
			}
		}
	}
	if len(chosen) == 0 {
		chosen = []string{d.config.Server.Listen}
	}
	return chosen
}

func addresses(listeners []net.Listener) []string {
	var all []string
	for _, l := range listeners {
		all = append(all, l.Addr().String())
	}
	return all
}

func closeListeners(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}

// serve serves TCP, with the TLS and the passwords of --web.config.file.
func (d *Daemon) serve(ctx context.Context, listeners []net.Listener) error {
	server := web.NewServer(web.Handler(web.Options{
		Watchdog:     d.watchdog,
		Gatherer:     d.gatherer,
		Itself:       d.itself.now,
		Faults:       d.itself.faults,
		Version:      d.o.Build.Version,
		AllowedHosts: d.o.AllowedHosts,
		Logger:       d.log,
	}), d.log)
	stop := context.AfterFunc(ctx, func() { web.Shutdown(ctx, server) })
	defer stop()
	var err error
	if len(listeners) > 0 {
		err = toolkit.ServeMultiple(listeners, server, d.o.Web, d.log)
	} else {
		err = toolkit.ListenAndServe(server, d.o.Web, d.log)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve: %w", err)
}

// announce tells systemd the daemon's state, if it asked for that.
func (d *Daemon) announce(state string) {
	if d.o.NotifySocket == "" {
		return
	}
	conn, err := net.Dial("unixgram", d.o.NotifySocket)
	if err != nil {
		d.log.Warn("systemd could not be notified", "state", state, "err", err)
		return
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		d.log.Warn("systemd could not be notified", "state", state, "err", err)
	}
}
