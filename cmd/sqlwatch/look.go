package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/sqlwatch/sqlwatch/internal/admin"
	"github.com/sqlwatch/sqlwatch/internal/target"
)

// What the daemon publishes or, without a daemon, what one look of our own finds.
type databaseView = admin.Database

// lookAt returns what a running daemon knows of the databases, or of all if none is
// named. Without a daemon it looks itself. It asks for several databases one by one,
// so that each comes with its tree of values.
func lookAt(ctx context.Context, env *environment, names []string) (views []databaseView, daemon bool, err error) {
	client := newAdminClient(env)
	if len(names) == 0 {
		views, err = client.Databases(ctx, "")
		if errors.Is(err, admin.ErrNoDaemon) || errors.Is(err, admin.ErrBusy) {
			absent := err
			if views, err = lookOurselves(ctx, env, nil); err != nil {
				err = fmt.Errorf("%w; and %w", absent, err)
			}
			return views, false, err
		}
		return views, true, err
	}
	for _, name := range names {
		some, err := databases(ctx, env, name)
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

// lookOurselves samples the databases once and evaluates the policies, without a
// history and without acting.
func lookOurselves(ctx context.Context, env *environment, names []string) ([]databaseView, error) {
	targets, cfg, err := env.resolver().Targets(names, "")
	if err != nil {
		return nil, err
	}
	var views []databaseView
	for _, t := range targets {
		view, err := target.Look(ctx, t, cfg.Policies)
		if err != nil {
			return nil, err
		}
		views = append(views, view)
	}
	return views, nil
}
