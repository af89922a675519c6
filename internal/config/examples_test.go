package config

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// testEnv is an environment for the examples.
func testEnv(name string) (string, bool) {
	v, ok := map[string]string{"B2_KEY_ID": "key-id", "B2_APP_KEY": canary,
		"OPS_WEBHOOK": "https://hooks.example.com/x", "SLACK_WEBHOOK": "https://hooks.example.com/x"}[name]
	return v, ok
}

// canary is a secret that must not appear anywhere.
const canary = "canary-5f1b7e"

func TestExamples(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob("../../examples/*.hcl")
	recipes, _ := filepath.Glob("../../examples/recipes/*.hcl")
	if names = append(names, recipes...); err != nil || len(names) < 24 {
		t.Fatalf("examples: %v %v", names, err)
	}
	names = slices.DeleteFunc(names, func(n string) bool { return strings.HasSuffix(n, testSuffix) })
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			cfg, diags := Load(name, testEnv)
			if len(diags) > 0 {
				t.Fatalf("%v", diags)
			}
			if _, err := cfg.Expand(); err != nil {
				t.Error(err)
			}
			if len(cfg.Databases) == 0 || len(cfg.Policies.Policies) == 0 {
				t.Error("an example without a database or a policy")
			}
		})
	}
}

// playTests runs the tests of a configuration; all must pass.
func playTests(t *testing.T, cfg *Config, path string) {
	t.Helper()
	tests, diags := cfg.LoadTests(path)
	if len(diags) > 0 || len(tests) == 0 {
		t.Fatalf("%d tests: %s", len(tests), show(cfg, diags))
	}
	for _, test := range tests {
		for _, f := range test.Run().Failures {
			t.Errorf("%s: %+v", test.Name, f)
		}
	}
}

// The tests of the examples pass, and each recipe has some.
func TestExampleTests(t *testing.T) {
	t.Parallel()
	recipes, err := filepath.Glob("../../examples/recipes/*" + testSuffix)
	if err != nil || len(recipes) != 10 {
		t.Fatalf("%d recipes with tests: %v", len(recipes), err)
	}
	tests, err := filepath.Glob("../../examples/*" + testSuffix)
	if err != nil || len(tests) < 2 {
		t.Fatalf("tests of examples: %v %v", tests, err)
	}
	for _, name := range append(recipes, tests...) {
		path := strings.TrimSuffix(name, testSuffix) + ".hcl"
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			cfg, diags := Load(path, testEnv)
			if len(diags) > 0 {
				t.Fatal(diags)
			}
			playTests(t, cfg, path)
		})
	}
}

func TestLoadTestsRefuses(t *testing.T) {
	t.Parallel()
	const policies = "policy \"p\" {\n  when = true\n  sync {}\n}\n"
	for name, test := range map[string]struct{ src, want string }{
		"F1_syntax":      {"test \"t\" {", "x_test.hcl:1"},
		"F1_other_block": {"policy \"q\" {}", "Unsupported block type"},
		"F2_deep":        {"test \"t\" {\n  start = " + strings.Repeat("[", 1000) + "\n}", "Nested too deep"},
		"F5_secret": {"test \"t\" {\n  policy = env(\"B2_APP_KEY\")\n  start = \"2026-05-05T00:00:00Z\"\n}",
			"There is no policy \"(secret)\""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cfg, diags := loadIn(t, dir, map[string]string{"a": policies, "x_test.hcl": test.src})
			if len(diags) > 0 {
				t.Fatal(diags)
			}
			_, diags = cfg.LoadTests(dir)
			if got := show(cfg, diags); !diags.HasErrors() || !strings.Contains(got, test.want) ||
				strings.Contains(got, canary) {
				t.Errorf("got %s, want %q", got, test.want)
			}
		})
	}
}
