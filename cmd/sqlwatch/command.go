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

// Every command has the same shape: its flags, one call into another package, and print. If the
// command ran but its result is negative, such as a failed test, the exit code says so.

// interruptible returns a command's context, which SIGINT, SIGTERM and the end of its terminal cancel: who is ended
// without a context leaves files behind. Under nohup the terminal may end.
func interruptible() (context.Context, context.CancelFunc) {
	ending := []os.Signal{syscall.SIGTERM, syscall.SIGINT}
	if !signal.Ignored(syscall.SIGHUP) {
		ending = append(ending, syscall.SIGHUP)
	}
	return signal.NotifyContext(context.Background(), ending...)
}

// print writes v as JSON under --json; otherwise it calls text.
func (env *environment) print(asJSON bool, v any, text func(io.Writer) error) error {
	return printTo(env.Stdout, asJSON, v, text)
}

// printTo is print to another writer.
func printTo(w io.Writer, asJSON bool, v any, text func(io.Writer) error) error {
	if asJSON {
		return show.JSON(w, v)
	}
	return text(w)
}

// surroundings are what finding the configuration needs from this process.
func (env *environment) surroundings() target.Surroundings {
	s := target.Surroundings{Getenv: env.Getenv, Setenv: env.Setenv, Stderr: env.Stderr}
	if env.Config != nil {
		s.Config = *env.Config
	}
	return s
}

// resolver returns what resolves a DB argument.
func (env *environment) resolver() *target.Resolver {
	places := admin.Places(env.Getenv)
	return &target.Resolver{Surroundings: env.surroundings(), Daemon: newAdminClient(env),
		Admin: filepath.Join(places.RuntimeDir, "admin.sock"), State: places.StateDir}
}

// configPath returns the configuration to use.
func configPath(env *environment) (string, error) { return env.surroundings().ConfigPath() }

// loadConfigFrom reads a configuration and requires all of its blocks to be valid.
func loadConfigFrom(env *environment, path string) (*config.Config, error) {
	return env.surroundings().Load(path, nil)
}

// openStore returns the store for a command's DB/URL argument. If the database has several replicas,
// it takes the one called replica, or else the one that reaches farthest.
func openStore(ctx context.Context, env *environment, arg, replica string) (store.Store, config.ReplicaTarget, error) {
	defer cli.Waiting(env.Stderr, "looking at "+arg)()
	return env.resolver().Store(ctx, arg, replica)
}

// ofDatabase asks a daemon about an argument: first as a database's name, then as a file, because a
// program or a directory here may have the same name as a database.
func ofDatabase[T any](name string, ask func(name string) (T, error)) (T, error) {
	answer, err := ask(name)
	if name != "" && errors.Is(err, watchdog.ErrUnknownDatabase) {
		if path := target.Absolute(name); path != name {
			return ask(path)
		}
	}
	return answer, err
}

// databases returns what the daemon knows of the named database, or of all if the name is empty.
func databases(ctx context.Context, env *environment, name string) ([]databaseView, error) {
	client := newAdminClient(env)
	return ofDatabase(name, func(name string) ([]databaseView, error) { return client.Databases(ctx, name) })
}

// newAdminClient returns a client of the daemon at the address from --admin, the
// configuration or the default.
func newAdminClient(env *environment) *admin.Client {
	named := ""
	if env.Admin != nil {
		named = *env.Admin
	}
	client := admin.New(admin.Socket(named, env.Getenv, func() string {
		// Errors in other blocks do not matter here, for instance about variables that only the
		// unit's environment has, nor does an empty configuration.
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

// workAsOwner makes a process that root started continue as the owner of the databases. The owner of
// databases on disks that do not answer is not known yet: allowed checks them when they are opened.
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

// silentAfter is how long the disks may take to look up each file by its name.
const silentAfter = 5 * time.Second

// places returns where the databases of a configuration are: their paths, and the
// directories in which globs begin.
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
