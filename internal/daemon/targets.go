package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/notify"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/policy"
)

// targets returns what the watchdog shall look after. A database that cannot be
// looked after is reported and left out; it does not stop the others.
func (d *Daemon) targets(cfg *config.Config) []watchdog.Target {
	expanded, leftOut := cfg.ExpandAround(d.watched.list())
	if text := fmt.Sprint(leftOut); text != d.leftOut && len(leftOut) > 0 {
		first := leftOut[0]
		d.log.Error("some databases are left out; the others go on", "left_out", len(leftOut), "first", first.Place, "err",
			first.Why)
		d.leftOut = text // a rescan does not say the same again
	}
	d.expanded = expanded
	d.itself.expanded(len(expanded), leftOut)
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
	if len(t.Replicas) > 0 {
		return d.replicatedParts(ctx, t)
	}
	parts := plainParts(t, d.locks, d.log)
	parts.Actions.Notify = d.notify
	return parts, nil
}

// notify queues an action's message for its notifiers.
func (d *Daemon) notify(_ context.Context, action policy.Action) error {
	m := notify.Message{DB: action.DB, Policy: action.Policy, Severity: action.Severity, Message: action.Message,
		Time: time.Now().UTC()}
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
