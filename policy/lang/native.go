package lang

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/sqlwatch/sqlwatch/policy/lang/limits"
)

// native converts the expression to native syntax, whatever file it came from: in JSON, a string
// is a template, and "${x}" alone is the expression x.
func native(x hcl.Expression) (hclsyntax.Expression, hcl.Diagnostics) {
	if e, ok := x.(hclsyntax.Expression); ok {
		limits.GuardDivision(e)
		return e, nil
	}
	if list, diags := hcl.ExprList(x); !diags.HasErrors() {
		tuple := &hclsyntax.TupleConsExpr{SrcRange: x.Range(), OpenRange: x.StartRange()}
		for _, item := range list {
			e, diags := native(item)
			if diags.HasErrors() {
				return nil, diags
			}
			tuple.Exprs = append(tuple.Exprs, e)
		}
		return tuple, nil
	}
	v, diags := x.Value(nil)
	if diags.HasErrors() {
		return nil, diags
	}
	if !v.IsKnown() || v.IsNull() || v.Type() != cty.String {
		return &hclsyntax.LiteralValueExpr{Val: v, SrcRange: x.Range()}, nil
	}
	start := x.Range().Start
	start.Column++ // the quotation mark
	start.Byte++
	tokens, _ := hclsyntax.LexTemplate([]byte(v.AsString()), x.Range().Filename, start)
	if diags := limits.CheckDepth(tokens); diags.HasErrors() {
		return nil, diags
	}
	e, diags := hclsyntax.ParseTemplate([]byte(v.AsString()), x.Range().Filename, start)
	if diags.HasErrors() {
		return nil, diags
	}
	if wrap, ok := e.(*hclsyntax.TemplateWrapExpr); ok {
		e = wrap.Wrapped
	}
	limits.GuardDivision(e)
	return e, nil
}

// References returns what an expression refers to, also in JSON.
func References(x hcl.Expression) []hcl.Traversal {
	e, diags := native(x)
	if diags.HasErrors() {
		return nil
	}
	return e.Variables()
}
