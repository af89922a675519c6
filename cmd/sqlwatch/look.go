package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/policy"
)

// lookAt returns what a running daemon knows of the databases, or of all for
// none; without a daemon it looks for itself. Several databases are asked for one
// by one, so that each comes with its tree of values.
func lookAt(ctx context.Context, env *environment, names []string) (views []databaseView, daemon bool, err error) {
	client := newAdminClient(env)
	if len(names) == 0 {
		views, err = askDaemon(ctx, client, "")
		if errors.Is(err, errNoDaemon) {
			views, err = lookOurselves(ctx, env, nil)
			return views, false, err
		}
		return views, true, err
	}
	for _, name := range names {
		some, err := askDaemon(ctx, client, absolute(name))
		if errors.Is(err, fs.ErrPermission) {
			return nil, false, err
		}
		if err != nil {
			// The daemon does not know it, or there is none.
			views, err = lookOurselves(ctx, env, names)
			return views, false, err
		}
		views = append(views, some...)
	}
	return views, true, nil
}

// askDaemon asks for one database, or all for "".
func askDaemon(ctx context.Context, client *adminClient, name string) ([]databaseView, error) {
	query := url.Values{}
	if name != "" {
		query.Set("db", name)
	}
	var databases struct{ Databases []databaseView }
	if err := client.call(ctx, "GET", "/api/v1/databases", query, &databases); err != nil {
		return nil, err
	}
	if name != "" {
		var decisions struct {
			Decisions []struct{ Decision *decisionView }
		}
		if err := client.call(ctx, "GET", "/api/v1/decisions", query, &decisions); err != nil {
			return nil, err
		}
		for i := range min(len(databases.Databases), len(decisions.Decisions)) {
			databases.Databases[i].Decision = decisions.Decisions[i].Decision
		}
	}
	return databases.Databases, nil
}

// absolute makes a file's name absolute, as the daemon knows it, and leaves the
// name of a configured database alone.
func absolute(name string) string {
	if _, err := os.Stat(name); err != nil {
		return name
	}
	path, err := filepath.Abs(name)
	if err != nil {
		return name
	}
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		return resolved
	}
	return path
}

// targetsOf returns the databases that the arguments name: configured ones, or
// files. Without arguments all configured ones.
func targetsOf(env *environment, names []string) ([]config.DatabaseTarget, *policy.Set, error) {
	if _, err := configPath(env); errors.Is(err, errNoConfig) {
		for _, name := range names {
			if _, err := os.Stat(name); err != nil {
				return nil, nil, fmt.Errorf("%q is no file, and there is no configuration that could name it: %w", name, err)
			}
		}
	}
	cfg, err := runConfig(env, names, "")
	if err != nil {
		return nil, nil, err
	}
	targets, err := cfg.Expand()
	if err != nil || len(names) == 0 {
		return targets, cfg.Policies, err
	}
	var chosen []config.DatabaseTarget
	for _, name := range names {
		found := false
		for _, t := range targets {
			if t.Name == name || absolute(t.Path) == absolute(name) {
				chosen, found = append(chosen, t), true
			}
		}
		if !found {
			return nil, nil, fmt.Errorf("%q is neither a configured database nor a file", name)
		}
	}
	return chosen, cfg.Policies, nil
}

// lookOurselves samples the databases once and asks the policies, without a past
// and without doing anything.
func lookOurselves(ctx context.Context, env *environment, names []string) ([]databaseView, error) {
	targets, policies, err := targetsOf(env, names)
	if err != nil {
		return nil, err
	}
	var views []databaseView
	for _, t := range targets {
		view, err := lookOnce(ctx, t, policies)
		if err != nil {
			return nil, err
		}
		views = append(views, view)
	}
	return views, nil
}

func lookOnce(ctx context.Context, t config.DatabaseTarget, policies *policy.Set) (databaseView, error) {
	reader := collector.NewReader(t.Name, t.Path, collector.ReaderOptions{})
	defer reader.Close()
	sample := reader.Sample(ctx)
	decision := policies.Evaluate(policy.Input{Now: sample.At, Sample: &sample, Labels: t.Labels}, nil)
	// Through JSON, so that the commands see the same whoever looked.
	conditions := health.OfDatabase(health.Database{Name: t.Name, Path: sample.Path, Now: sample.At,
		Replicated: len(t.Replicas) > 0, Sample: &sample})
	text, err := json.Marshal(watchdog.DatabaseStatus{
		Name: t.Name, Path: sample.Path, Labels: t.Labels, Sample: &sample, Decision: &decision, Conditions: conditions,
		Actions: []watchdog.ActionRecord{}, Changes: []watchdog.ChangeRecord{},
	})
	if err != nil {
		return databaseView{}, err
	}
	var view databaseView
	return view, json.Unmarshal(text, &view)
}
