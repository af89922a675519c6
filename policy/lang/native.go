package lang

import (
	"errors"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// native returns the expression as native syntax, whatever file it came from:
// in JSON a string is a template, and "${x}" alone is the expression x.
func native(x hcl.Expression) (hclsyntax.Expression, hcl.Diagnostics) {
	if e, ok := x.(hclsyntax.Expression); ok {
		guardDivision(e)
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
	if diags := CheckDepth(tokens); diags.HasErrors() {
		return nil, diags
	}
	e, diags := hclsyntax.ParseTemplate([]byte(v.AsString()), x.Range().Filename, start)
	if diags.HasErrors() {
		return nil, diags
	}
	if wrap, ok := e.(*hclsyntax.TemplateWrapExpr); ok {
		e = wrap.Wrapped
	}
	guardDivision(e)
	return e, nil
}

// divide and modulo are the operators' own, but for a divisor of zero: that
// gives an infinity there, and would make "x / y > limit" true for want of a y.
var (
	divide = guarded(hclsyntax.OpDivide, stdlib.DivideFunc)
	modulo = guarded(hclsyntax.OpModulo, stdlib.ModuloFunc)
)

func guarded(op *hclsyntax.Operation, f function.Function) *hclsyntax.Operation {
	return &hclsyntax.Operation{Type: op.Type, Impl: function.New(&function.Spec{
		Params: f.Params(),
		Type:   function.StaticReturnType(cty.Number),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if args[1].RawEquals(cty.Zero) {
				return cty.NilVal, errors.New("division by zero")
			}
			return f.Call(args)
		},
	})}
}

func guardDivision(x hclsyntax.Expression) {
	_ = hclsyntax.VisitAll(x, func(n hclsyntax.Node) hcl.Diagnostics {
		if b, ok := n.(*hclsyntax.BinaryOpExpr); ok {
			switch b.Op {
			case hclsyntax.OpDivide:
				b.Op = divide
			case hclsyntax.OpModulo:
				b.Op = modulo
			}
		}
		return nil
	})
}

// References returns what an expression refers to, in JSON too.
func References(x hcl.Expression) []hcl.Traversal {
	e, diags := native(x)
	if diags.HasErrors() {
		return nil
	}
	return e.Variables()
}
