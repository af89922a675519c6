package main

import (
	"errors"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/quote"
	"github.com/sqlwatch/sqlwatch/policy/policytest"
)

// registerTest adds `sqlwatch test`: it runs the policy tests beside a configuration and exits
// with 0 if all pass, 2 if one fails, 1 if they cannot be run.
func registerTest(app *kingpin.Application, env *environment) {
	cmd := app.Command("test", "Play policy tests (*_test.hcl) on a simulated clock and workload.")
	path := cmd.Arg("config", "File or directory; default as --config. The tests of x.hcl are in x_test.hcl, those of a "+
		"directory in every *_test.hcl.").String()
	asJSON := cmd.Flag("json", "Print the results as JSON.").Bool()
	covered := cmd.Flag("coverage", "List the policies, guards and conditions that no test exercises.").Bool()
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
		tests, diags = cfg.LoadTests(path) // check reports warnings of the configuration
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
	report := policytest.RunAll(tests, coverage)
	err := env.print(asJSON, report, report.Write)
	if err == nil && report.Failed() > 0 {
		return &exitError{code: exitFindings}
	}
	return err
}
