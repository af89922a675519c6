package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/admin"
	"github.com/sqlwatch/sqlwatch/internal/again"
	"github.com/sqlwatch/sqlwatch/internal/asuser"
	"github.com/sqlwatch/sqlwatch/internal/cli"
	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/lookup"
	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/internal/target"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Every command has one shape: its flags, one call into another package, and print. Where
// what was found is a matter of its own, such as a test that failed, the exit code follows.

// interruptible returns the context of a command, which SIGINT and SIGTERM end.
func interruptible() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
}

// print writes v as JSON under --json, else what text writes.
func (env *environment) print(asJSON bool, v any, text func(io.Writer) error) error {
	return printTo(env.Stdout, asJSON, v, text)
}

// printTo is print elsewhere than on standard output.
func printTo(w io.Writer, asJSON bool, v any, text func(io.Writer) error) error {
	if asJSON {
		return show.JSON(w, v)
	}
	return text(w)
}

// surroundings are what finding the configuration needs of this process.
func (env *environment) surroundings() target.Surroundings {
	s := target.Surroundings{Getenv: env.Getenv, Setenv: env.Setenv, Stderr: env.Stderr}
	if env.Config != nil {
		s.Config = *env.Config
	}
	return s
}

// resolver answers what an argument DB means.
func (env *environment) resolver() *target.Resolver {
	places := admin.Places(env.Getenv)
	return &target.Resolver{Surroundings: env.surroundings(), Daemon: newAdminClient(env),
		Admin: filepath.Join(places.RuntimeDir, "admin.sock"), State: places.StateDir}
}

// configPath returns the configuration to use.
func configPath(env *environment) (string, error) { return env.surroundings().ConfigPath() }

// loadConfigFrom reads a configuration, of which every block matters.
func loadConfigFrom(env *environment, path string) (*config.Config, error) {
	return env.surroundings().Load(path, nil)
}

// openStore returns the store that a command's DB/URL argument means. Of several replicas
// it takes the one called replica, or the one that reaches farthest.
func openStore(ctx context.Context, env *environment, arg, replica string) (store.Store, config.ReplicaTarget, error) {
	defer cli.Waiting(env.Stderr, "looking at "+arg)()
	return env.resolver().Store(ctx, arg, replica)
}

// ofDatabase asks a daemon about what an argument means: the database of that name, or else the file. A
// program or a directory here may be called as a database is.
func ofDatabase[T any](name string, ask func(name string) (T, error)) (T, error) {
	answer, err := ask(name)
	if name != "" && errors.Is(err, watchdog.ErrUnknownDatabase) {
		if path := target.Absolute(name); path != name {
			return ask(path)
		}
	}
	return answer, err
}

// databases returns what the daemon knows of one database, or of all for no name.
func databases(ctx context.Context, env *environment, name string) ([]databaseView, error) {
	client := newAdminClient(env)
	return ofDatabase(name, func(name string) ([]databaseView, error) { return client.Databases(ctx, name) })
}

// newAdminClient returns a client of the daemon that --admin, the configuration or the
// default place points to.
func newAdminClient(env *environment) *admin.Client {
	named := ""
	if env.Admin != nil {
		named = *env.Admin
	}
	client := admin.New(admin.Socket(named, env.Getenv, func() string {
		// Errors of other blocks, such as variables that only the unit's environment has,
		// do not matter here; nor that nothing is configured.
		path, err := configPath(env)
		if err != nil {
			return ""
		}
		if cfg, _ := config.Load(path, env.Getenv); cfg != nil {
			return cfg.Server.Admin
		}
		return ""
	}))
	client.Waiting = func() func() { return cli.Waiting(env.Stderr, "asking the daemon") }
	return client
}

// workAsOwner has a program that was started as root continue as the owner of the databases. Those
// on disks that do not answer have no owner yet: allowed says so once they are to be opened.
func workAsOwner(env *environment, cfg *config.Config) (allowed func(path string) error, err error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	silent, err := again.Silent(places(cfg), silentAfter)
	if err != nil {
		return nil, err
	}
	disks := lookup.New()
	for _, path := range silent {
		disks.Avoid(path)
		disks.Avoid(filepath.Dir(path))
	}
	targets, _ := cfg.ExpandAround(nil, disks) // what is left out is reported when the others are opened
	work := asuser.Work{StateDir: cfg.Server.StateDir, Stderr: env.Stderr,
		AdminDir: filepath.Dir(strings.TrimPrefix(cfg.Server.Admin, "unix://"))}
	for _, t := range targets {
		if !slices.Contains(silent, t.Path) {
			work.Databases = append(work.Databases, t.Path)
		}
		for _, r := range t.Replicas {
			if r.Type == "file" {
				work.Replicas = append(work.Replicas, r.File.Dir)
			}
		}
	}
	for name := range cfg.Files {
		work.Config = append(work.Config, name)
	}
	return func(path string) error {
		if !slices.Contains(silent, path) {
			return nil
		}
		return asuser.RootsOwn(path)
	}, asuser.Continue(work)
}

// silentAfter is how long the disks have for a look at each file by its name.
const silentAfter = 5 * time.Second

// places returns where the databases of a configuration are: their paths, and the directories
// in which globs begin.
func places(cfg *config.Config) (all []string) {
	for _, d := range cfg.Databases {
		switch i := strings.IndexAny(d.Glob, `*?[\`); {
		case d.Glob == "":
			all = append(all, d.Path)
		case i >= 0:
			all = append(all, filepath.Dir(d.Glob[:i]+"x"))
		}
	}
	return all
}
