package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/hashicorp/hcl/v2"
	"github.com/mattn/go-isatty"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/quote"
	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/internal/views"
)

// registerCheck adds `sqlwatch check`: exit code 0 if the configuration is good, 2 if it is not
// (or, with --strict, has warnings), 1 if it cannot be read.
func registerCheck(app *kingpin.Application, env *environment) {
	cmd := app.Command("check", "Validate a configuration: syntax, names, units, ranges and contradictions.")
	path := cmd.Arg("config", "File or directory; default as --config.").String()
	asJSON := cmd.Flag("json", "Print the findings as JSON.").Bool()
	strict := cmd.Flag("strict", "Make every warning an error.").Bool()
	cmd.Action(func(*kingpin.ParseContext) error {
		path, err := orConfig(*path, env)
		if err != nil {
			return err
		}
		c := checkRun{env: env, path: path, json: *asJSON, strict: *strict}
		return c.run()
	})
}

// orConfig returns the argument, or else the value from --config, the environment or the default.
func orConfig(arg string, env *environment) (string, error) {
	if arg != "" {
		return arg, nil
	}
	return configPath(env)
}

// checkRun is one run of check.
type checkRun struct {
	env          *environment
	path         string
	json, strict bool
}

func (c checkRun) run() error {
	cfg, diags := config.Load(c.path, c.env.Getenv)
	if of, tests := testsOf(c.path); tests && diags.HasErrors() && !config.Unreadable(diags) {
		diags = hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Policy tests, not a configuration",
			Detail: fmt.Sprintf("sqlwatch test %s plays what is in %s, and says where it is wrong.", show.Quote(of),
				show.Text(c.path))}}
	}
	databases := 0
	if !diags.HasErrors() {
		targets, more := c.expand(cfg)
		databases = targets
		diags = append(diags, more...)
	}
	if c.strict {
		for _, d := range diags {
			d.Severity = hcl.DiagError
		}
	}
	err := c.env.print(c.json, quote.Findings(diags), func(w io.Writer) error {
		quote.Diagnostics(c.env.Stderr, cfg.Files, diags, isTerminal(c.env.Stderr))
		if diags.HasErrors() {
			return nil
		}
		return c.sum(w, cfg, databases)
	})
	if err != nil {
		return err
	}
	return exitOf(diags)
}

// testsOf returns the configuration whose policy tests a file holds, derived from its name.
func testsOf(path string) (of string, tests bool) {
	name, tests := strings.CutSuffix(path, "_test.hcl")
	if of = name + ".hcl"; tests {
		if _, err := os.Stat(of); err != nil { // then the tests belong to the directory
			of = filepath.Dir(path)
		}
	}
	return of, tests
}

// sum prints a summary of a good configuration.
func (c checkRun) sum(w io.Writer, cfg *config.Config, databases int) error {
	_, err := fmt.Fprintf(w, "%s is good: %s, %s, %s, %s\n", c.path, show.Count(databases, "database"),
		show.Count(len(cfg.Replicas), "replica"), show.Count(len(cfg.Policies.Policies), "policy"),
		show.Count(len(cfg.Policies.Windows), "window"))
	if databases > 0 && len(cfg.Policies.Policies) == 0 {
		fmt.Fprintln(w, "no policy: nothing is checkpointed; examples/quickstart.hcl has the built-in ones")
	}
	views.Openings(w, cfg.Policies.Windows, time.Now())
	return err
}

// exitOf returns the exit code for a configuration with these diagnostics, which were printed.
func exitOf(diags hcl.Diagnostics) error {
	switch {
	case config.Unreadable(diags):
		return &exitError{code: exitFailure}
	case diags.HasErrors():
		return &exitError{code: exitFindings}
	}
	return nil
}

// expand looks for contradictions that only show with the databases that exist: duplicate names
// and files, replicas that would overwrite each other.
func (c checkRun) expand(cfg *config.Config) (databases int, diags hcl.Diagnostics) {
	targets, err := cfg.Expand()
	if err != nil {
		for _, e := range unjoin(err) {
			diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Databases in contradiction",
				Detail: show.Text(e.Error()) + "."})
		}
	}
	for _, d := range cfg.Unmatched() {
		diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: "No database yet",
			Detail:  fmt.Sprintf("The glob %s matches no file now; files that appear later are picked up.", d.Glob),
			Subject: d.Range.Ptr()})
	}
	if len(cfg.Databases) == 0 && !cfg.Server.AllowEmpty {
		diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: "No database",
			Detail: "Nothing would be watched, and a reload refuses a configuration without a database block. If that is " +
				"meant: server { allow_empty = true }."})
	}
	return len(targets), diags
}

// unjoin returns the errors that errors.Join has joined.
func unjoin(err error) []error {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		return joined.Unwrap()
	}
	return []error{err}
}

func isTerminal(w io.Writer) bool {
	f, ok := show.Unwrap(w).(*os.File)
	return ok && isatty.IsTerminal(f.Fd()) && os.Getenv("NO_COLOR") == ""
}
