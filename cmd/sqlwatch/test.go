package main

import (
	"errors"
	"fmt"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/quote"
	"github.com/sqlwatch/sqlwatch/policy/policytest"
)

// registerTest adds `sqlwatch test`: plays the policy tests beside a configuration
// and exits 0 where all pass, 2 where one fails, 1 where they cannot be played.
func registerTest(app *kingpin.Application, env *environment) {
	cmd := app.Command("test", "Play policy tests (*_test.hcl) on a simulated clock and workload.")
	path := cmd.Arg("config", "File or directory; default as --config. The tests of x.hcl are in x_test.hcl, those of a "+
		"directory in every *_test.hcl.").String()
	asJSON := cmd.Flag("json", "Print the results as JSON.").Bool()
	covered := cmd.Flag("coverage", "Say which policies, guards and conditions the tests have not seen at work.").Bool()
	cmd.Action(func(*kingpin.ParseContext) error {
		path, err := orConfig(*path, env)
		if err != nil {
			return err
		}
		return playTests(env, path, *asJSON, *covered)
	})
}

func playTests(env *environment, path string, asJSON, covered bool) error {
	cfg, diags := config.Load(path, env.Getenv)
	var tests []*policytest.Test
	if !diags.HasErrors() {
		tests, diags = cfg.LoadTests(path) // warnings of the configuration are for check
	}
	if len(diags) > 0 {
		quote.Diagnostics(env.Stderr, cfg.Files, diags, isTerminal(env.Stderr))
	}
	if diags.HasErrors() {
		return &exitError{code: exitFailure}
	}
	if len(tests) == 0 {
		return errors.New("play the tests of " + path + ": there is none")
	}
	var coverage *policytest.Coverage
	if covered {
		coverage = policytest.NewCoverage(cfg.Policies)
	}
	results := make([]policytest.TestResult, len(tests))
	failed := 0
	for i, t := range tests {
		results[i] = t.RunCovered(coverage)
		if len(results[i].Failures) > 0 {
			failed++
		}
	}
	switch {
	case asJSON && covered:
		err := writeJSON(env.Stdout, struct {
			Tests    []policytest.TestResult `json:"tests"`
			Coverage *policytest.Coverage    `json:"coverage"`
		}{results, coverage})
		if err != nil {
			return err
		}
	case asJSON:
		if err := writeJSON(env.Stdout, results); err != nil {
			return err
		}
	default:
		for _, r := range results {
			r.Write(env.Stdout)
		}
		fmt.Fprintf(env.Stdout, "%d passed, %d failed\n", len(tests)-failed, failed)
		coverage.Write(env.Stdout)
	}
	if failed > 0 {
		return &exitError{code: exitFindings}
	}
	return nil
}
