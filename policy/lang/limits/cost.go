// Package limits rejects expressions that would take too long or need too deep a stack: an
// evaluation cannot be interrupted, and a stack overflow kills the process.
package limits

import (
	"fmt"
	"maps"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// maxCost bounds the steps and the bytes an expression may take. An
// evaluation cannot be interrupted, and six nested for expressions over a
// short list would run for days.
const maxCost = 4 << 20

// CheckCost rejects an expression that may take too long with the values it can read.
func CheckCost(x hclsyntax.Expression, variables map[string]cty.Value) hcl.Diagnostics {
	sizes := map[string]float64{}
	for name, v := range variables {
		sizes[name] = sizeOf(v)
	}
	if c := cost(x, sizes); c > maxCost {
		return hcl.Diagnostics{{
			Severity: hcl.DiagError,
			Summary:  "Expression too costly",
			Detail: fmt.Sprintf("Evaluating it could take %.0e steps; at most %d are allowed. Nest fewer for expressions.", c,
				maxCost),
			Subject: x.Range().Ptr(),
		}}
	}
	return nil
}

// sizeOf returns a value's size in bytes and elements, roughly.
func sizeOf(v cty.Value) float64 {
	v, _ = v.UnmarkDeep()
	n := 1.0
	switch t := v.Type(); {
	case !v.IsKnown() || v.IsNull():
	case t == cty.String:
		n += float64(len(v.AsString()))
	case v.CanIterateElements():
		for it := v.ElementIterator(); it.Next(); {
			k, e := it.Element()
			n += sizeOf(k) + sizeOf(e)
		}
	}
	return n
}

// cost returns an upper bound for the number of steps and the size of the result. Each node
// counts at least one; a for expression multiplies.
func cost(x hclsyntax.Expression, sizes map[string]float64) float64 {
	sum := func(parts ...hclsyntax.Expression) float64 {
		n := 1.0
		for _, p := range parts {
			if p != nil {
				n += cost(p, sizes)
			}
		}
		return n
	}
	switch x := x.(type) {
	case *hclsyntax.LiteralValueExpr:
		return sizeOf(x.Val)
	case *hclsyntax.ScopeTraversalExpr:
		return max(1, sizes[x.Traversal.RootName()])
	case *hclsyntax.AnonSymbolExpr:
		return max(1, sizes[""])
	case *hclsyntax.TemplateExpr:
		return sum(x.Parts...)
	case *hclsyntax.TupleConsExpr:
		return sum(x.Exprs...)
	case *hclsyntax.ObjectConsExpr:
		n := 1.0
		for _, item := range x.Items {
			n += sum(item.KeyExpr, item.ValueExpr)
		}
		return n
	case *hclsyntax.ForExpr:
		over := cost(x.CollExpr, sizes)
		inner := bind(sizes, over, x.KeyVar, x.ValVar)
		each := 1.0
		for _, p := range []hclsyntax.Expression{x.KeyExpr, x.ValExpr, x.CondExpr} {
			if p != nil {
				each += cost(p, inner)
			}
		}
		return over * each
	case *hclsyntax.SplatExpr:
		over := cost(x.Source, sizes)
		return over * cost(x.Each, bind(sizes, over, ""))
	case *hclsyntax.FunctionCallExpr:
		return 2 * sum(x.Args...)
	}
	return sum(Children(x)...)
}

func bind(sizes map[string]float64, size float64, names ...string) map[string]float64 {
	inner := maps.Clone(sizes)
	for _, name := range names {
		inner[name] = size
	}
	return inner
}

// Children returns the direct sub-expressions of the operators.
func Children(x hclsyntax.Expression) []hclsyntax.Expression {
	switch x := x.(type) {
	case *hclsyntax.BinaryOpExpr:
		return []hclsyntax.Expression{x.LHS, x.RHS}
	case *hclsyntax.UnaryOpExpr:
		return []hclsyntax.Expression{x.Val}
	case *hclsyntax.ConditionalExpr:
		return []hclsyntax.Expression{x.Condition, x.TrueResult, x.FalseResult}
	case *hclsyntax.ParenthesesExpr:
		return []hclsyntax.Expression{x.Expression}
	case *hclsyntax.TemplateWrapExpr:
		return []hclsyntax.Expression{x.Wrapped}
	case *hclsyntax.TemplateJoinExpr:
		return []hclsyntax.Expression{x.Tuple}
	case *hclsyntax.IndexExpr:
		return []hclsyntax.Expression{x.Collection, x.Key}
	case *hclsyntax.RelativeTraversalExpr:
		return []hclsyntax.Expression{x.Source}
	case *hclsyntax.ObjectConsKeyExpr:
		return []hclsyntax.Expression{x.Wrapped}
	}
	return nil
}
