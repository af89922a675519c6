package examples_test

import (
	"os"
	"strings"
	"testing"

	"github.com/sqlwatch/sqlwatch/policy"
)

// The quickstart's policies are the built-in ones, word for word.
func TestQuickstartIsTheDefault(t *testing.T) {
	t.Parallel()
	quickstart, err := os.ReadFile("quickstart.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if _, rules, _ := strings.Cut(policy.DefaultSource(), "\n\n"); !strings.HasSuffix(string(quickstart), rules) {
		t.Error("quickstart.hcl does not end with what policy/default.hcl holds")
	}
}
