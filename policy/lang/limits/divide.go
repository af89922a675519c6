package limits

import (
	"errors"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// Divide and Modulo are the operators' functions, but a divisor of zero is an error. The operators
// return an infinity, which would make "x / y > limit" true if y is 0.
var (
	Divide = guarded(hclsyntax.OpDivide, stdlib.DivideFunc)
	Modulo = guarded(hclsyntax.OpModulo, stdlib.ModuloFunc)
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

// GuardDivision makes all divisions of an expression use Divide or Modulo.
func GuardDivision(x hclsyntax.Expression) {
	_ = hclsyntax.VisitAll(x, func(n hclsyntax.Node) hcl.Diagnostics {
		if b, ok := n.(*hclsyntax.BinaryOpExpr); ok {
			switch b.Op {
			case hclsyntax.OpDivide:
				b.Op = Divide
			case hclsyntax.OpModulo:
				b.Op = Modulo
			}
		}
		return nil
	})
}
