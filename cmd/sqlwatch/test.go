package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/policy/policytest"
)

// registerTest adds `sqlwatch test`: plays the policy tests beside a configuration
// and exits 0 where all pass, 2 where one fails, 1 where they cannot be played.
func registerTest(app *kingpin.Application, env *environment) {
	cmd := app.Command("test", "Play policy tests (*_test.hcl) on a simulated clock and workload.")
	path := cmd.Arg("config", "File or directory; default as --config. The tests of x.hcl are in x_test.hcl, those of a "+
		"directory in every *_test.hcl.").String()
	asJSON := cmd.Flag("json", "Print the results as JSON.").Bool()
	cmd.Action(func(*kingpin.ParseContext) error {
		path, err := orConfig(*path, env)
		if err != nil {
			return err
		}
		return playTests(env, path, *asJSON)
	})
}

func playTests(env *environment, path string, asJSON bool) error {
	cfg, diags := config.Load(path, env.Getenv)
	var tests []*policytest.Test
	if !diags.HasErrors() {
		tests, diags = cfg.LoadTests(path) // warnings of the configuration are for check
	}
	if len(diags) > 0 {
		config.WriteDiagnostics(env.Stderr, cfg.Files, diags, isTerminal(env.Stderr))
	}
	if diags.HasErrors() {
		return &exitError{code: exitFailure}
	}
	if len(tests) == 0 {
		return errors.New("play the tests of " + path + ": there is none")
	}
	results := make([]policytest.TestResult, len(tests))
	failed := 0
	for i, t := range tests {
		results[i] = t.Run()
		if len(results[i].Failures) > 0 {
			failed++
		}
	}
	if asJSON {
		if err := writeJSON(env.Stdout, results); err != nil {
			return err
		}
	} else {
		for _, r := range results {
			writeTestResult(env.Stdout, r)
		}
		fmt.Fprintf(env.Stdout, "%d passed, %d failed\n", len(tests)-failed, failed)
	}
	if failed > 0 {
		return &exitError{code: exitFindings}
	}
	return nil
}

// writeTestResult writes a line for a test and, for every expectation that was
// not met, what was expected (-) and what was found (+).
func writeTestResult(w io.Writer, r policytest.TestResult) {
	word := "pass"
	if len(r.Failures) > 0 {
		word = "FAIL"
	}
	fmt.Fprintf(w, "%s  %s (%s simulated, runs = %d)\n", word, r.Name, r.Length, r.Runs)
	for _, f := range r.Failures {
		fmt.Fprintf(w, "      %s:%d:%d: expected at %s, %s after the start\n", f.Place.File, f.Place.Line, f.Place.Column,
			f.At.Format(time.RFC3339), f.After)
		for _, m := range f.Mismatches {
			fmt.Fprintf(w, "        - %s = %s\n        + %s = %s\n", m.Attribute, m.Want, m.Attribute, m.Got)
		}
		fmt.Fprintf(w, "        the policy says: %s\n", f.Reason)
	}
}
