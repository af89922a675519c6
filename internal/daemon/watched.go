package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/durable"
	"github.com/sqlwatch/sqlwatch/internal/lookup"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
)

// watched is the databases that globs found and that were up once. They stay, by
// their names, until an operator has them forgotten: a database that is deleted
// must not take its alert with it. The reload loop owns it.
type watched struct {
	path  string // of the file that survives restarts
	known map[string]config.Known
}

// loadWatched reads what earlier lives have found. A corrupt file is as good as none.
func loadWatched(stateDir string) (*watched, error) {
	w := &watched{path: filepath.Join(stateDir, "watched.json"), known: map[string]config.Known{}}
	data, err := os.ReadFile(w.path)
	if errors.Is(err, fs.ErrNotExist) {
		return w, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read which databases were watched: %w", err)
	}
	var all []config.Known
	if json.Unmarshal(data, &all) == nil {
		for _, k := range all {
			w.known[k.Name] = k
		}
	}
	return w, nil
}

// Watched returns the databases that globs have found for the daemon of a state directory,
// as far as that can be read.
func Watched(stateDir string) []config.Known {
	w, err := loadWatched(stateDir)
	if err != nil {
		return nil
	}
	return w.list()
}

// list returns what is known, by name.
func (w *watched) list() []config.Known {
	all := make([]config.Known, 0, len(w.known))
	for _, k := range w.known {
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b config.Known) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func (w *watched) save() error {
	data, err := json.MarshalIndent(w.list(), "", "  ")
	if err != nil {
		return err
	}
	if err := durable.WriteFile(w.path, data, 0o600); err != nil {
		return fmt.Errorf("save which databases are watched: %w", err)
	}
	return nil
}

// learn takes in the databases that are found to be up.
func (d *Daemon) learn() {
	blocks := map[string]string{}
	for _, c := range d.expanded {
		if c.Glob {
			blocks[c.Name] = c.Block
		}
	}
	grown := false
	for _, s := range d.watchdog.Status().Databases {
		block, globbed := blocks[s.Name]
		if _, known := d.watched.known[s.Name]; globbed && s.Found && !known {
			d.watched.known[s.Name] = config.Known{Name: s.Name, Path: s.Path, Block: block}
			grown = true
		}
	}
	if grown {
		if err := d.watched.save(); err != nil {
			d.log.Warn("the list of known databases could not be saved; one that goes missing may be forgotten at the next "+
				"start", "err", err)
		}
	}
}

// forget stops watching a database that a glob found once and whose file is gone. Its
// replica and its directory in the state directory stay.
func (d *Daemon) forget(ctx context.Context, name string) error {
	s, err := d.watchdog.Database(name)
	if err != nil {
		return err
	}
	if _, err := d.disks.Lstat(s.Path); errors.Is(err, lookup.ErrHung) {
		return fmt.Errorf("forget %s: whether its file is there is not known: %w", s.Name, err)
	} else if err == nil {
		return fmt.Errorf("forget %s: its file %s is there: move it away, or take it out of the configuration: %w", s.Name,
			s.Path, watchdog.ErrBadRequest)
	}
	i := slices.IndexFunc(d.expanded, func(t config.DatabaseTarget) bool { return t.Name == s.Name })
	if i < 0 || !d.expanded[i].Glob {
		return fmt.Errorf("forget %s: a block of the configuration names it: remove that, then reload: %w", s.Name,
			watchdog.ErrBadRequest)
	}
	delete(d.watched.known, s.Name)
	if err := d.watched.save(); err != nil {
		return err
	}
	d.log.Info("forgotten at an operator's request; its replica stays", "db", s.Name, "path", s.Path)
	return d.watchdog.Reload(ctx, d.targets(d.config), d.config.Policies)
}

// requestForget has the reload loop forget a database.
func (d *Daemon) requestForget(ctx context.Context, name string) error {
	return d.request(ctx, func(ctx context.Context) error { return d.forget(ctx, name) })
}

// requestReload has the reload loop read the configuration again.
func (d *Daemon) requestReload(ctx context.Context) error { return d.request(ctx, d.reloadNow) }

// request has the reload loop do something, which owns what that touches.
func (d *Daemon) request(ctx context.Context, do func(context.Context) error) error {
	r := request{do: do, done: make(chan error, 1)}
	select {
	case d.requests <- r:
		return <-r.done
	case <-ctx.Done():
		return ctx.Err()
	}
}

type request struct {
	do   func(context.Context) error
	done chan error
}
