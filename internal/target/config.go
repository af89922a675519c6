// Package target finds out what the argument DB of a command means: a configured name, a
// file, a symbolic link to one, or a replica's URL. It reads the configuration for what
// needs it only, and of its errors it minds those of the blocks that are asked for.
//
// Reading order: config.go (which configuration, and which of its errors matter),
// resolver.go (from an argument to databases), store.go and farthest.go (to a replica).
package target

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/lookup"
	"github.com/sqlwatch/sqlwatch/internal/quote"
	"github.com/sqlwatch/sqlwatch/internal/unit"
)

// ErrNoConfig is returned where no configuration was named and none is installed.
var ErrNoConfig = errors.New("no configuration: name one with --config, set $SQLWATCH_CONFIG, or give database files " +
	"as arguments")

// ConfigError is a configuration that has errors, as `sqlwatch check` prints them.
type ConfigError struct {
	Path, Text string
	hint       string // what may be missing, such as the unit's environment
}

// Error returns everything there is to say.
func (e *ConfigError) Error() string {
	return fmt.Sprintf("the configuration %s has errors:\n%s%s", e.Path, e.Text, e.hint)
}

// EveryDatabase are names for Load: errors in all databases and replicas matter, and in
// nothing else.
var EveryDatabase = []string{"*"}

// Surroundings are what a command may read of the process it runs in.
type Surroundings struct {
	Getenv func(string) (string, bool)
	Setenv func(name, value string) error // what the unit's file adds; nil: nothing is added
	Config string                         // the value of --config
	Stderr io.Writer                      // warnings
}

// ConfigPath returns the configuration to use: --config, then $SQLWATCH_CONFIG, then
// /etc/sqlwatch if it exists.
func (s Surroundings) ConfigPath() (string, error) {
	if s.Config != "" {
		return s.Config, nil
	}
	if path, ok := s.Getenv("SQLWATCH_CONFIG"); ok && path != "" {
		return path, nil
	}
	if _, err := os.Stat(unit.ConfigDir); errors.Is(err, fs.ErrNotExist) {
		return "", ErrNoConfig
	} else if err != nil {
		return "", err
	}
	return unit.ConfigDir, nil
}

// Load reads and checks the configuration at path. Its errors are one *ConfigError;
// warnings go to standard error. With names, errors in blocks that have nothing to do with
// those databases do not matter: one line tells of them.
func (s Surroundings) Load(path string, names []string) (*config.Config, error) {
	hint := s.joinUnit(path)
	cfg, diags := config.Load(path, s.Getenv)
	errs, rest := split(diags)
	if len(names) > 0 && cfg != nil {
		kept := slices.DeleteFunc(slices.Clone(errs), func(d *hcl.Diagnostic) bool { return elsewhere(cfg, d, names) })
		if len(kept) < len(errs) && len(kept) == 0 {
			fmt.Fprintf(s.Stderr, "sqlwatch: the configuration %s has errors that do not matter here: sqlwatch check\n", path)
			return cfg, nil
		}
		errs = kept
	}
	if len(errs) == 0 {
		if len(rest) > 0 {
			quote.Diagnostics(s.Stderr, cfg.Files, rest, false)
		}
		return cfg, nil
	}
	var text bytes.Buffer
	var files map[string]*hcl.File
	if cfg != nil {
		files = cfg.Files
	}
	quote.Diagnostics(&text, files, append(errs, rest...), false)
	return nil, &ConfigError{Path: path, Text: text.String(), hint: hint}
}

// joinUnit adds what systemd gives the unit of this configuration to the environment, as
// far as it is not set. It returns what to do where that may not be read.
func (s Surroundings) joinUnit(path string) (hint string) {
	if s.Setenv == nil {
		return ""
	}
	name := unit.EnvironmentFile(path)
	values, err := unit.Environment(name)
	if err != nil {
		return fmt.Sprintf("The service has variables from %s, which this user may not read: run this as root, or set "+
			"them here.\n", name)
	}
	for key, value := range values {
		if _, set := s.Getenv(key); !set {
			s.Setenv(key, value) // an impossible name has no reader
		}
	}
	return ""
}

func split(diags hcl.Diagnostics) (errs, rest hcl.Diagnostics) {
	for _, d := range diags {
		if d.Severity == hcl.DiagError {
			errs = append(errs, d)
		} else {
			rest = append(rest, d)
		}
	}
	return errs, rest
}

// elsewhere reports whether an error lies in a block that none of the named databases
// needs: a policy, a notifier, another database or its replicas.
func elsewhere(cfg *config.Config, d *hcl.Diagnostic, names []string) bool {
	if d.Subject == nil || cfg.Files[d.Subject.Filename] == nil {
		return false
	}
	body, ok := cfg.Files[d.Subject.Filename].Body.(*hclsyntax.Body)
	if !ok {
		return false
	}
	i := slices.IndexFunc(body.Blocks, func(b *hclsyntax.Block) bool {
		r := b.Range()
		return r.Start.Byte <= d.Subject.Start.Byte && d.Subject.Start.Byte <= b.CloseBraceRange.End.Byte
	})
	if i < 0 {
		return false
	}
	block := body.Blocks[i]
	switch block.Type {
	case "policy", "window", "notifier", "engine", "uploads":
		return true
	case "database":
		return names[0] != EveryDatabase[0] && len(block.Labels) == 1 && !slices.ContainsFunc(cfg.Databases,
			func(d config.Database) bool {
				return d.Name == block.Labels[0] && wanted(d, names)
			}) && !slices.Contains(names, block.Labels[0])
	case "replica":
		return !slices.ContainsFunc(cfg.Databases, func(d config.Database) bool {
			return wanted(d, names) && slices.Contains(d.ReplicateTo, strings.Join(block.Labels, "."))
		})
	}
	return false
}

// wanted reports whether one of the names may mean a database of this block.
func wanted(d config.Database, names []string) bool {
	return d.Glob != "" || len(names) == 1 && names[0] == EveryDatabase[0] ||
		slices.ContainsFunc(names, func(name string) bool {
			return d.Name == name || sameFile(lookup.New(), d.Path, name)
		})
}

// Absolute makes a file's name absolute and free of symbolic links, as the daemon knows
// it, and leaves the name of a configured database alone, as it does a directory's, and one on
// a disk that does not answer.
func Absolute(name string) string { return absolute(lookup.New(), name) }

func absolute(disks *lookup.Disks, name string) string {
	path, err := filepath.Abs(name)
	if err != nil {
		return name
	}
	if info, err := disks.Stat(path); err != nil || info.IsDir() {
		return name
	}
	if resolved, err := disks.Resolve(path); err == nil {
		return resolved
	}
	return path
}
