package limits

import (
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// Expressions that would overflow the stack, fill the memory or run for days are refused
// without being evaluated. What people write is accepted.
func TestLimits(t *testing.T) {
	t.Parallel()
	list := "[" + strings.Repeat("1,", 100) + "]"
	nested := "1"
	for range 4 {
		nested = "[for a in " + list + ": " + nested + "]"
	}
	for _, test := range []struct{ name, src, want string }{
		{"brackets", strings.Repeat("(", 250) + "1" + strings.Repeat(")", 250), "Nested too deep"},
		{"brackets that are allowed", strings.Repeat("(", 150) + "1" + strings.Repeat(")", 150), ""},
		{"a chain", "1" + strings.Repeat("+1", 1100), "Nested too deep"},
		{"a chain that is allowed", "1" + strings.Repeat("+1", 300), ""},
		{"templates", strings.Repeat("\"${", 220) + "1" + strings.Repeat("}\"", 220), "Nested too deep"},
		{"a huge number", "1e99999999", "Number out of range"},
		{"a number near zero", "1e-99999", "Number out of range"},
		{"a large number", "1e300", ""},
		{"for within for", nested, "Expression too costly"},
		{"one for", "[for a in " + list + ": a]", ""},
	} {
		tokens, _ := hclsyntax.LexExpression([]byte(test.src), "test.hcl", hcl.InitialPos)
		diags := CheckDepth(tokens)
		if !diags.HasErrors() {
			x, parse := hclsyntax.ParseExpression([]byte(test.src), "test.hcl", hcl.InitialPos)
			if parse.HasErrors() {
				t.Errorf("%s: %v", test.name, parse)
				continue
			}
			diags = CheckCost(x, nil)
		}
		switch {
		case test.want == "" && len(diags) > 0:
			t.Errorf("%s: refused: %v", test.name, diags)
		case test.want != "" && (len(diags) == 0 || diags[0].Summary != test.want || diags[0].Subject == nil):
			t.Errorf("%s: %v, want %q at its place", test.name, diags, test.want)
		}
	}
}

// The cost of an expression depends on the lengths of the variables in it.
func TestCostOfVariables(t *testing.T) {
	t.Parallel()
	x, diags := hclsyntax.ParseExpression([]byte(`[for a in var.x: [for b in var.x: [for c in var.x: a]]]`), "test.hcl",
		hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	for n, refused := range map[int]bool{3: false, 1000: true} {
		list := make([]cty.Value, n)
		for i := range list {
			list[i] = cty.NumberIntVal(int64(i))
		}
		vars := map[string]cty.Value{"var": cty.ObjectVal(map[string]cty.Value{"x": cty.ListVal(list)})}
		if got := CheckCost(x, vars).HasErrors(); got != refused {
			t.Errorf("over %d elements: refused %v", n, got)
		}
	}
}

func TestHugeNumber(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{"1e9999": true, "1e999": false, " 1E-0001234 ": true, "1e0000": false,
		strings.Repeat("9", 1001): true, strings.Repeat("9", 20): false, "text": false} {
		if HugeNumber(s) != want {
			t.Errorf("%.20s: %v", s, !want)
		}
	}
}
