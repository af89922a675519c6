package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	toolkit "github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/sync/errgroup"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/notify"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/internal/web"
	"github.com/sqlwatch/sqlwatch/policy"
	"github.com/sqlwatch/sqlwatch/replicator"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3"
)

type daemonFlags struct {
	web   *toolkit.FlagConfig
	hosts *[]string
	busy  *bool     // count SQLITE_BUSY of all processes, in the kernel
	steps *[]string // databases whose processes' sqlite3_step is counted too
	adopt *[]string
}

// daemon is the composition of everything that `run` does.
type daemon struct {
	env      *environment
	log      *slog.Logger
	config   *config.Config
	flags    daemonFlags
	load     func() (*config.Config, error) // for a reload
	facts    buildFacts
	registry *prometheus.Registry
	gatherer prometheus.Gatherer // the registry's metrics and all others
	metrics  *watchdog.Metrics
	locks    lockCounts
	watchdog *watchdog.Watchdog
	notices  *notify.Notifiers

	replication *replicator.Metrics
	stores      s3.Shared
	reloads     chan chan error
	leftOut     string                   // what the log said last of databases that are left out
	ready       func(addresses []string) // called when the listeners are open; may be nil
}

// newDaemon puts the parts together. It opens no file.
func newDaemon(env *environment, log *slog.Logger, cfg *config.Config, flags daemonFlags) (*daemon, error) {
	if err := checkLibrary(); err != nil {
		return nil, err
	}
	d := &daemon{
		env: env, log: log, config: cfg, flags: flags,
		facts:    readBuildFacts(),
		registry: prometheus.NewRegistry(),
		metrics:  watchdog.NewMetrics(),
		locks:    openLockCounts(*flags.busy, flags.steps, log),
		reloads:  make(chan chan error),
		notices:  notify.New(log),

		replication: replicator.NewMetrics(),
	}
	if err := d.notices.Configure(notifiersOf(cfg)); err != nil {
		return nil, err
	}
	d.watchdog = watchdog.New(watchdog.Options{
		Targets:     d.targets(cfg),
		Policies:    cfg.Policies,
		StateFile:   filepath.Join(cfg.Server.StateDir, "policy-state.json"),
		HistoryFile: filepath.Join(cfg.Server.StateDir, "policy-history.json"),
		Metrics:     d.metrics,
		Busy:        d.locks.self,
		Logger:      log,
	})
	exporter := collector.NewExporter(d.watchdog.Samples)
	exporter.SetBusySource(collector.SourceSelf, d.locks.self)
	exporter.SetStepSource(d.locks.steps.Counts)
	if d.locks.kernel != nil {
		exporter.SetBusySource(collector.SourceKernel, d.locks.kernel)
	}
	for _, c := range []prometheus.Collector{d.notices, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})} {
		if err := d.registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	catalogue := slices.Concat(collector.Catalogue(), watchdog.Catalogue(), replicator.Catalogue())
	gatherer, err := web.NewGatherer(d.registry, catalogue, exporter, d.metrics, d.replication)
	if err != nil {
		return nil, err
	}
	d.gatherer = gatherer
	d.metrics.Built(d.facts.Version, d.facts.Commit, d.facts.Go, d.facts.SQLite)
	d.metrics.Reloaded(time.Now(), nil)
	return d, nil
}

// run opens the listeners first, so that a mistake there ends the start before
// any database is touched, and then serves until ctx ends.
func (d *daemon) run(ctx context.Context) error {
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
	d.log.Info("sqlwatch is starting", "version", d.facts.Version, "sqlite", d.facts.SQLite,
		"listen", addresses(listeners), "admin", d.config.Server.Admin, "state_dir", d.config.Server.StateDir)

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.watchdog.Run(ctx, shutdownGrace) })
	group.Go(func() error { return d.notices.Run(ctx) })
	group.Go(func() error { return d.locks.steps.Run(ctx) })
	group.Go(func() error { return d.serve(ctx, listeners) })
	group.Go(func() error {
		handler := web.AdminHandler(web.AdminOptions{Watchdog: d.watchdog, Reload: d.requestReload, Logger: d.log})
		return web.ServeAdmin(ctx, admin, handler, d.log)
	})
	group.Go(func() error { return d.reload(ctx) })
	d.announce("READY=1")
	if d.ready != nil {
		d.ready(addresses(listeners))
	}
	if err := group.Wait(); err != nil {
		return err
	}
	d.log.Info("sqlwatch has ended")
	return nil
}

// listen opens the TCP listeners. With socket activation there are none to open.
func (d *daemon) listen() ([]net.Listener, error) {
	if d.flags.web.WebSystemdSocket != nil && *d.flags.web.WebSystemdSocket {
		return nil, nil
	}
	var listeners []net.Listener
	for _, address := range d.listenAddresses() {
		listener, err := web.Listen(address)
		if err != nil {
			closeListeners(listeners)
			return nil, fmt.Errorf("listen on %s: %w; choose another address with --web.listen-address or server.listen", address, err)
		}
		listeners = append(listeners, listener)
	}
	return listeners, nil
}

func (d *daemon) listenAddresses() []string {
	var chosen []string
	for _, address := range *d.flags.web.WebListenAddresses {
		if address != "" {
			chosen = append(chosen, address)
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

// serve answers on TCP, with the TLS and the passwords of --web.config.file.
func (d *daemon) serve(ctx context.Context, listeners []net.Listener) error {
	server := web.NewServer(web.Handler(web.Options{
		Watchdog:     d.watchdog,
		Gatherer:     d.gatherer,
		Version:      d.facts.Version,
		AllowedHosts: *d.flags.hosts,
		Logger:       d.log,
	}), d.log)
	stop := context.AfterFunc(ctx, func() { web.Shutdown(ctx, server) })
	defer stop()
	var err error
	if len(listeners) > 0 {
		err = toolkit.ServeMultiple(listeners, server, d.flags.web, d.log)
	} else {
		err = toolkit.ListenAndServe(server, d.flags.web, d.log)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve: %w", err)
}

// rescanEvery is how often globs are looked through for databases that came or went.
const rescanEvery = 15 * time.Second

// reload waits for SIGHUP and for requests on the admin socket, and follows what
// the globs match. A configuration with errors changes nothing.
func (d *daemon) reload(ctx context.Context) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	rescan := time.NewTicker(rescanEvery)
	defer rescan.Stop()
	for {
		select {
		case <-hangup:
			d.reloadNow(ctx) // has logged and counted its own error
		case reply := <-d.reloads:
			reply <- d.reloadNow(ctx)
		case <-rescan.C:
			if err := d.rescan(ctx); err != nil && ctx.Err() == nil {
				d.log.Error("the globs could not be looked through; the databases found before go on", "err", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// rescan takes in the databases that came and lets go of those that went.
func (d *daemon) rescan(ctx context.Context) error {
	if !slices.ContainsFunc(d.config.Databases, func(c config.Database) bool { return c.Glob != "" }) {
		return nil
	}
	targets := d.targets(d.config)
	if sameTargets(targets, d.watchdog.Targets()) {
		return nil
	}
	return d.watchdog.Reload(ctx, targets, d.config.Policies)
}

func sameTargets(a, b []watchdog.Target) bool {
	key := func(t watchdog.Target) string { return t.Name + "\x00" + t.Identity }
	keys := make(map[string]bool, len(a))
	for _, t := range a {
		keys[key(t)] = true
	}
	return len(a) == len(b) && !slices.ContainsFunc(b, func(t watchdog.Target) bool { return !keys[key(t)] })
}

func (d *daemon) requestReload(ctx context.Context) error {
	reply := make(chan error, 1)
	select {
	case d.reloads <- reply:
		return <-reply
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *daemon) reloadNow(ctx context.Context) error {
	d.announce("RELOADING=1")
	defer d.announce("READY=1")
	err := d.swap(ctx)
	d.metrics.Reloaded(time.Now(), err)
	if err != nil {
		d.log.Error("the new configuration was not taken over; the one before stays in force", "err", err)
		return err
	}
	d.log.Info("the configuration was reloaded", "databases", len(d.watchdog.Status().Databases), "policies", len(d.config.Policies.Policies))
	return nil
}

func (d *daemon) swap(ctx context.Context) error {
	cfg, err := d.load()
	if err != nil {
		return err
	}
	if cfg.Server != d.config.Server {
		d.log.Warn("changes in the server block take effect at the next start only")
	}
	if err := d.notices.Configure(notifiersOf(cfg)); err != nil {
		return err
	}
	if err := d.watchdog.Reload(ctx, d.targets(cfg), cfg.Policies); err != nil {
		return err
	}
	d.config = cfg
	return nil
}

// targets returns what the watchdog shall look after. A database that cannot be
// looked after is reported and left out; it does not stop the others.
func (d *daemon) targets(cfg *config.Config) []watchdog.Target {
	expanded, err := cfg.Expand()
	if err != nil && err.Error() != d.leftOut {
		d.log.Error("some databases are left out; the others go on", "err", err)
		d.leftOut = err.Error() // a rescan does not say the same again
	}
	targets := make([]watchdog.Target, len(expanded))
	for i, t := range expanded {
		targets[i] = watchdog.Target{
			Name: t.Name, Path: t.Path, Labels: t.Labels, Identity: identityOf(t),
			Open: func(ctx context.Context) (watchdog.Parts, error) { return d.open(ctx, t) },
		}
		for _, r := range t.Replicas {
			targets[i].Replicas = append(targets[i].Replicas, r.Name)
		}
	}
	return targets
}

// identityOf condenses a target, so that a reload can tell whether it has changed.
// Secrets do not print; a rotated credential is a change nevertheless.
func identityOf(t config.DatabaseTarget) string {
	sum := sha256.New()
	t.Range = hcl.Range{} // where it stands in the file makes no difference
	fmt.Fprintf(sum, "%+v", t)
	for _, r := range t.Replicas {
		for _, secret := range []config.Secret{r.S3.AccessKey, r.S3.SecretKey, r.S3.SessionToken} {
			fmt.Fprintf(sum, "%q", secret.Reveal())
		}
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// open returns what serves one database.
func (d *daemon) open(ctx context.Context, t config.DatabaseTarget) (watchdog.Parts, error) {
	if len(t.Replicas) > 0 {
		return d.replicatedParts(ctx, t)
	}
	parts := plainParts(t, d.locks, d.log)
	parts.Actions.Notify = d.notify
	return parts, nil
}

// notify queues an action's message for its notifiers.
func (d *daemon) notify(_ context.Context, action policy.Action) error {
	m := notify.Message{DB: action.DB, Policy: action.Policy, Severity: action.Severity, Message: action.Message, Time: time.Now().UTC()}
	var errs []error
	for _, name := range action.Notify {
		errs = append(errs, d.notices.Send(name, m))
	}
	return errors.Join(errs...)
}

func notifiersOf(cfg *config.Config) []notify.Target {
	var targets []notify.Target
	for _, n := range cfg.Notifiers {
		targets = append(targets, notify.Target{Name: n.Name, URL: n.URL.Reveal(), AllowHTTP: n.AllowHTTP})
	}
	return targets
}

// announce tells systemd how the daemon fares, when it asked to be told.
func (d *daemon) announce(state string) {
	socket, ok := d.env.Getenv("NOTIFY_SOCKET")
	if !ok || socket == "" {
		return
	}
	conn, err := net.Dial("unixgram", socket)
	if err != nil {
		d.log.Warn("systemd cannot be told", "state", state, "err", err)
		return
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		d.log.Warn("systemd cannot be told", "state", state, "err", err)
	}
}
