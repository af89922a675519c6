package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
)

// rescanEvery is how often globs are searched for databases that came or went.
const rescanEvery = 15 * time.Second

// reload waits for SIGHUP and for requests on the admin socket, and follows what the globs
// match. A configuration with errors changes nothing.
func (d *Daemon) reload(ctx context.Context) error {
	rescan := time.NewTicker(rescanEvery)
	defer rescan.Stop()
	for {
		select {
		case <-d.o.Hangup:
			d.reloadNow(ctx) // it logs and counts its own error
		case r := <-d.requests:
			r.done <- r.do(ctx)
		case <-rescan.C:
			if err := d.rescan(ctx); err != nil && ctx.Err() == nil {
				d.log.Error("the globs could not be expanded; databases found earlier are still watched", "err", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// rescan adds new databases. Those that disappeared stay, in the state missing.
func (d *Daemon) rescan(ctx context.Context) error {
	if !slices.ContainsFunc(d.config.Databases, func(c config.Database) bool { return c.Glob != "" }) {
		return nil
	}
	d.learn()
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

func (d *Daemon) reloadNow(ctx context.Context) error {
	d.announce("RELOADING=1")
	defer d.announce("READY=1")
	err := d.swap(ctx)
	d.metrics.Reloaded(time.Now(), err)
	d.itself.reloaded(err)
	if err != nil {
		d.log.Error("the new configuration was rejected; the previous one stays in force", "err", err)
		return err
	}
	d.log.Info("the configuration was reloaded", "databases", len(d.watchdog.Status().Databases), "policies",
		len(d.config.Policies.Policies))
	return nil
}

func (d *Daemon) swap(ctx context.Context) error {
	cfg, err := d.o.Load()
	if err != nil {
		return err
	}
	if err := emptied(d.config, cfg); err != nil {
		return err
	}
	server := d.config.Server
	if server.AllowEmpty = cfg.Server.AllowEmpty; cfg.Server != server {
		d.log.Warn("changes to the server block take effect only after a restart")
	}
	cfg.Server = server
	if err := d.notices.Configure(notifiersOf(cfg)); err != nil {
		return err
	}
	d.learn()
	if err := d.watchdog.Reload(ctx, d.targets(cfg), cfg.Policies); err != nil {
		return err
	}
	if changes := config.Changes(d.config, cfg); len(changes) > 0 {
		d.log.Info("the configuration has changed", "changes", changes)
	}
	d.stores.uploads.Change(cfg.Uploads.AtOnce, cfg.Uploads.Bandwidth)
	d.config = cfg
	return nil
}

// errEmptied is returned for a configuration that would remove every database.
var errEmptied = errors.New("the new configuration names no database; where that is meant, write server { " +
	"allow_empty = true }")

// emptied refuses a configuration without any of the watched databases. A file that is empty,
// half written or not mounted yet looks like that, and what a reload stopped then could not
// be resumed where it was.
func emptied(before, after *config.Config) error {
	if len(after.Databases) > 0 || len(before.Databases) == 0 || after.Server.AllowEmpty {
		return nil
	}
	return fmt.Errorf("%d databases are watched: %w", len(before.Databases), errEmptied)
}
