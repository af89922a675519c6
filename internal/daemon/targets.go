package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/fault"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/notify"
	"github.com/sqlwatch/sqlwatch/internal/notify/channel"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/internal/web"
)

// targets returns what the watchdog shall look after. A database that cannot be
// looked after is reported and left out; it does not stop the others.
func (d *Daemon) targets(cfg *config.Config) []watchdog.Target {
	expanded, leftOut := cfg.ExpandAround(d.watched.list(), d.disks)
	files := d.itself.expanded(len(expanded), leftOut)
	if text := fmt.Sprint(leftOut); text != d.leftOut && len(leftOut) > 0 {
		first := leftOut[0]
		d.log.Error("some databases are left out; the others are watched", "left_out", files, "first",
			first.Place, "err", first.Why)
		d.leftOut = text // a rescan does not say the same again
	}
	d.expanded = expanded
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
func (d *Daemon) open(ctx context.Context, t config.DatabaseTarget) (watchdog.Parts, error) {
	if d.o.Allowed != nil {
		if err := d.o.Allowed(t.Path); err != nil {
			return watchdog.Parts{}, err
		}
	}
	if len(t.Replicas) > 0 {
		return d.replicatedParts(ctx, t)
	}
	parts := plainParts(t, &d.names, d.locks, d.log)
	parts.Actions.Notify = d.notify
	return parts, nil
}

// places says where a database's replicas are.
func (d *Daemon) places(ctx context.Context, db string) (web.Places, error) {
	s, err := d.watchdog.Database(db)
	if err != nil {
		return web.Places{}, err
	}
	p := web.Places{Database: s.Name, Path: s.Path, Replicas: []web.ReplicaPlace{}}
	err = d.request(ctx, func(context.Context) error {
		for _, t := range d.expanded {
			for _, r := range t.Replicas {
				if t.Name == s.Name {
					p.Replicas = append(p.Replicas, web.ReplicaPlace{Name: r.Name, URL: r.URL()})
				}
			}
		}
		return nil
	})
	return p, err
}

// notify tells an action's notifiers what it has to say, and returns when each has
// taken it or it was given up.
func (d *Daemon) notify(ctx context.Context, n watchdog.Notice) error {
	a := n.Action
	notice := notify.Notice{DB: a.DB, Policy: a.Policy, Severity: a.Severity, Message: a.Message, Resolved: n.Resolved,
		Time: time.Now().UTC()}
	errs := make([]error, len(a.Notify))
	var telling sync.WaitGroup
	for i, name := range a.Notify {
		telling.Go(func() { errs[i] = fault.Guard(func() error { return d.notices.Send(ctx, name, notice) }) })
	}
	telling.Wait()
	return errors.Join(errs...)
}

// holds tells the notifiers of a policy what an earlier life of the daemon has told them.
func (d *Daemon) holds(db, policy string, names []string) {
	for _, name := range names {
		d.notices.Holds(name, db, policy)
	}
}

// pulse is how all fares, for heartbeats.
func (d *Daemon) pulse() notify.Pulse {
	var wrong []string
	note := func(db string, conditions []health.Condition) {
		for _, c := range conditions {
			if c.Severity == health.Critical {
				wrong = append(wrong, strings.TrimSpace(db+" "+c.String()))
			}
		}
	}
	for _, s := range d.watchdog.Status().Databases {
		note(s.Name, s.Conditions)
	}
	note("", d.itself.now().Conditions)
	return notify.Pulse{Alive: d.watchdog.Ready() && len(d.watchdog.Overdue()) == 0, Wrong: strings.Join(wrong, "\n")}
}

func notifiersOf(cfg *config.Config) []channel.Target {
	var targets []channel.Target
	for _, n := range cfg.Notifiers {
		targets = append(targets, n.Target)
	}
	return targets
}
