// Package plan says what policies would do now, and what another configuration would
// change: in itself, and in what its policies do on the same measurements, states and past.
package plan

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/admin"
	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/policy"
)

// Policy is what one policy would do to one database now.
type Policy struct {
	DB     string `json:"db"`
	Policy string `json:"policy"`
	Phase  string `json:"phase"`
	Would  string `json:"would,omitempty"` // the action that would begin now
	Reason string `json:"reason"`
	Change string `json:"change,omitempty"` // against another configuration: "added", "removed", or what was before
}

// Changes is what another configuration would change: in itself, and in what the
// policies do now.
type Changes struct {
	Configuration []string `json:"configuration"` // + added, - removed, ~ changed in what
	Policies      []Policy `json:"policies"`
	Daemon        bool     `json:"daemon"` // what a running daemon remembers went into it
}

// Compare finds what the configuration after would change. A daemon is asked for what it
// remembers; where none answers, one look at the file must do.
func Compare(ctx context.Context, client *admin.Client, before, after *config.Config) (Changes, error) {
	changes := Changes{Configuration: append([]string{}, config.Changes(before, after)...), Policies: []Policy{}}
	old, err := before.Expand()
	if err != nil {
		return changes, err
	}
	now, err := after.Expand()
	if err != nil {
		return changes, err
	}
	known := map[string]recalled{}
	for _, t := range append(append([]config.DatabaseTarget{}, old...), now...) {
		if _, done := known[t.Name]; done {
			continue
		}
		r, err := recall(ctx, client, t)
		if err != nil {
			return changes, err
		}
		changes.Daemon = changes.Daemon || r.daemon
		known[t.Name] = r
	}
	changes.Policies = differences(evaluateAll(old, before.Policies, known), evaluateAll(now, after.Policies, known))
	return changes, nil
}

// recalled is what is known of a database: by a daemon, or by one look.
type recalled struct {
	daemon  bool
	at      time.Time
	sample  *collector.Sample
	states  map[string]policy.PolicyState
	history []byte
	paused  time.Time
}

// recall asks the daemon what it remembers of a database, and looks at the file where
// no daemon knows it.
func recall(ctx context.Context, client *admin.Client, t config.DatabaseTarget) (recalled, error) {
	var answer struct {
		watchdog.Remembered
		Policies json.RawMessage `json:"policies"`
	}
	err := client.Call(ctx, "GET", "/v1/remembered", url.Values{"db": {t.Name}}, &answer)
	switch {
	case err == nil && answer.Sample != nil:
		states, err := policy.DecodeStates(answer.Policies)
		return recalled{daemon: true, at: answer.At, sample: answer.Sample, states: states, history: answer.History,
			paused: answer.PausedUntil}, err
	case err != nil && !errors.Is(err, admin.ErrNoDaemon) && !errors.Is(err, watchdog.ErrUnknownDatabase):
		return recalled{}, err
	}
	reader := collector.NewSampler(t.Name, t.Path, collector.SamplerOptions{})
	defer reader.Close()
	sample := reader.Sample(ctx)
	return recalled{at: sample.At, sample: &sample}, nil
}

// evaluateAll asks the policies of one configuration about its databases.
func evaluateAll(targets []config.DatabaseTarget, set *policy.Set, known map[string]recalled) []Policy {
	var views []admin.Database
	for _, t := range targets {
		r := known[t.Name]
		history := &policy.History{}
		if len(r.history) > 0 {
			if err := json.Unmarshal(r.history, history); err != nil {
				history = &policy.History{} // of another release: over-time functions are unknown
			}
		}
		var replicas []string
		for _, replica := range t.Replicas {
			replicas = append(replicas, replica.Name)
		}
		d := set.Evaluate(policy.Input{Now: r.at, Sample: r.sample, History: set.Retain(history), Labels: t.Labels,
			Replicas: replicas, SkipTree: true, PausedUntil: r.paused}, r.states)
		view := admin.Database{Decision: &admin.Decision{Decision: d}}
		view.Name = t.Name
		for _, p := range d.Policies {
			view.Decision.Policies = append(view.Decision.Policies, admin.Policy{PolicyDecision: p})
		}
		views = append(views, view)
	}
	return Of(views)
}

// Of returns what each policy would do, as the decisions say.
func Of(views []admin.Database) []Policy {
	plans := []Policy{}
	for _, v := range views {
		if v.Decision == nil {
			continue
		}
		for _, p := range v.Decision.Policies {
			plan := Policy{DB: v.Name, Policy: p.Policy, Phase: string(p.Phase), Reason: p.Reason}
			for _, a := range v.Decision.Actions {
				if a.Policy == p.Policy {
					plan.Would = string(a.Kind)
				}
			}
			plans = append(plans, plan)
		}
	}
	return plans
}

// differences returns the plans that are not the same under both configurations.
func differences(before, after []Policy) []Policy {
	type key struct{ db, policy string }
	old := make(map[key]Policy)
	for _, p := range before {
		old[key{p.DB, p.Policy}] = p
	}
	changed := []Policy{}
	for _, p := range after {
		was, known := old[key{p.DB, p.Policy}]
		delete(old, key{p.DB, p.Policy})
		switch {
		case !known:
			p.Change = "added"
		case was.Phase != p.Phase || was.Would != p.Would:
			p.Change = "was " + was.Phase + ": " + was.Reason
		default:
			continue
		}
		changed = append(changed, p)
	}
	for _, p := range before {
		if _, gone := old[key{p.DB, p.Policy}]; gone {
			p.Change = "removed"
			changed = append(changed, p)
		}
	}
	return changed
}
