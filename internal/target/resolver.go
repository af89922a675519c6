package target

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/sqlwatch/sqlwatch/internal/admin"
	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/lookup"
	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/policy"
)

// Resolver answers what arguments mean: by asking the daemon, or else from the
// configuration.
type Resolver struct {
	Surroundings
	Daemon *admin.Client
	Admin  string // the admin socket for files without a configuration
	State  string // and their state directory
}

// Config returns what to look after. Arguments are names of the configuration where there
// is one, and files where there is none, or where all of them are files and no --config
// was given.
func (r *Resolver) Config(args []string, replicaURL string) (*config.Config, error) {
	return r.configFor(args, replicaURL, nil)
}

func (r *Resolver) configFor(args []string, replicaURL string, only []string) (*config.Config, error) {
	path, err := r.ConfigPath()
	if errors.Is(err, ErrNoConfig) && len(args) > 0 {
		return r.bare(args, replicaURL)
	}
	if err != nil {
		return nil, err
	}
	if r.Surroundings.Config == "" && len(args) > 0 && allFiles(args) {
		return r.bare(args, replicaURL)
	}
	if replicaURL != "" {
		return nil, fmt.Errorf("--replica goes with database files as arguments; %s names its replicas itself", path)
	}
	return r.Load(path, only)
}

func allFiles(args []string) bool {
	disks := lookup.New()
	for _, arg := range args {
		if _, err := disks.Stat(arg); err != nil {
			return false
		}
	}
	return true
}

// bare is the configuration for database files without one.
func (r *Resolver) bare(paths []string, replicaURL string) (*config.Config, error) {
	cfg, err := config.Default(paths, replicaURL)
	if err != nil {
		return nil, err
	}
	cfg.Server.Admin, cfg.Server.StateDir = "unix://"+r.Admin, r.State
	return cfg, nil
}

// Path returns the file of a database: what the daemon knows by that name, else what the
// configuration does, else the argument itself where it is a file. A program beside the database
// may be called as that is.
func (r *Resolver) Path(ctx context.Context, name string) (string, error) {
	if strings.Contains(name, "/") {
		return Absolute(name), nil
	}
	if known, err := r.Daemon.Databases(ctx, name); err == nil && len(known) > 0 {
		return known[0].Path, nil
	}
	targets, _, err := r.Targets([]string{name}, "")
	if err == nil {
		return targets[0].Path, nil
	}
	if path := Absolute(name); path != name {
		return path, nil
	}
	return "", err
}

// Watched returns the names of the databases that a running daemon watches, none where
// there is no daemon.
func (r *Resolver) Watched(ctx context.Context) (names []string) {
	known, _ := r.Daemon.Databases(ctx, "") // without a daemon nothing is watched
	for _, v := range known {
		names = append(names, v.Name)
	}
	return names
}

// Targets returns the databases that the arguments name: configured ones, or files.
// Without arguments all configured ones; an error then comes beside those that are good.
func (r *Resolver) Targets(names []string, replicaURL string) ([]config.DatabaseTarget, *config.Config, error) {
	if _, err := r.ConfigPath(); errors.Is(err, ErrNoConfig) {
		disks := lookup.New()
		for _, name := range names {
			switch _, err := disks.Stat(name); {
			case errors.Is(err, fs.ErrNotExist):
				return nil, nil, fmt.Errorf("%q is no file: %w", name, ErrNoConfig)
			case err != nil:
				return nil, nil, fmt.Errorf("look for %q: %w", name, err)
			}
		}
	}
	asked := names
	if len(asked) == 0 {
		asked = EveryDatabase
	}
	cfg, err := r.configFor(names, replicaURL, asked)
	if err != nil {
		return nil, nil, err
	}
	if cfg.Policies == nil { // those have errors, which do not matter here
		cfg.Policies, _ = policy.Parse(nil, &policy.Scope{})
	}
	targets, err := cfg.Expand()
	if len(names) == 0 {
		return targets, cfg, err
	}
	chosen, err := Choose(targets, names, err)
	return chosen, cfg, err
}

// Choose returns the targets that are named. leftOut is why others are missing.
func Choose(targets []config.DatabaseTarget, names []string, leftOut error) ([]config.DatabaseTarget, error) {
	var chosen []config.DatabaseTarget
	disks := lookup.New()
	for _, name := range names {
		found := false
		for _, t := range targets {
			if t.Name == name || sameFile(disks, t.Path, name) {
				chosen, found = append(chosen, t), true
			}
		}
		if found {
			continue
		}
		var known []string
		for _, t := range targets {
			known = append(known, t.Name)
		}
		err := fmt.Errorf("%q is neither a configured database nor a file%s", name, show.Suggest(name, known))
		if _, unseen := disks.Stat(name); unseen != nil && !errors.Is(unseen, fs.ErrNotExist) {
			err = fmt.Errorf("%q is no configured database, and as a file: %w", name, unseen)
		}
		return nil, errors.Join(err, leftOut)
	}
	return chosen, nil
}

// sameFile reports whether a database's path is what an argument means, there or not.
func sameFile(disks *lookup.Disks, path, arg string) bool {
	if abs, err := filepath.Abs(arg); err == nil && abs == path {
		return true
	}
	return absolute(disks, path) == absolute(disks, arg)
}

// StateOf returns the directory where the daemon keeps a database's state.
func StateOf(cfg *config.Config, name string) string {
	return filepath.Join(cfg.Server.StateDir, "databases", name)
}
