package lang

import (
	"fmt"
	"math"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/sqlwatch/sqlwatch/policy/lang/amounts"
	"github.com/sqlwatch/sqlwatch/policy/lang/marks"
)

// Node is one expression with its value: what `why` shows.
type Node struct {
	Label    string  `json:"label,omitempty"` // when, until, unless or window, on top
	Expr     string  `json:"expr"`            // as it is written in the file
	Value    string  `json:"value"`           // for a person: "104 MB", "true", "unknown"
	Known    bool    `json:"known"`
	Children []*Node `json:"children,omitempty"`
}

// Leaves returns the values at the leaves of the node's tree, by their expressions.
func (n *Node) Leaves() map[string]string {
	values := map[string]string{}
	if n != nil {
		n.walk(func(c *Node) {
			if len(c.Children) == 0 && c.Expr != "" && c.Expr != c.Value {
				values[c.Expr] = c.Value
			}
		})
	}
	return values
}

// Summary says the node in one line: the expression with the values of what
// it reads.
func (n *Node) Summary() string {
	if n == nil {
		return ""
	}
	var leaves []string
	seen := map[string]bool{}
	n.walk(func(c *Node) {
		if len(c.Children) == 0 && c != n && !seen[c.Expr] {
			seen[c.Expr] = true
			leaves = append(leaves, c.Expr+" = "+c.Value)
		}
	})
	if len(leaves) == 0 {
		return n.Expr + " = " + n.Value
	}
	return n.Expr + " (" + strings.Join(leaves, ", ") + ")"
}

func (n *Node) walk(f func(*Node)) {
	f(n)
	for _, c := range n.Children {
		c.walk(f)
	}
}

// String draws the tree, one expression a line, two spaces a level.
func (n *Node) String() string {
	var b strings.Builder
	n.draw(&b, "")
	return b.String()
}

func (n *Node) draw(b *strings.Builder, indent string) {
	label := ""
	if n.Label != "" {
		label = n.Label + ": "
	}
	fmt.Fprintf(b, "%s%s%s = %s\n", indent, label, n.Expr, n.Value)
	for _, c := range n.Children {
		c.draw(b, indent+"  ")
	}
}

// Tree evaluates an expression and everything it is made of.
func (e *Evaluation) Tree(x hclsyntax.Expression) *Node {
	if p, ok := x.(*hclsyntax.ParenthesesExpr); ok {
		return e.Tree(p.Expression)
	}
	v, why := e.eval(x)
	scope := e.program.scope
	n := &Node{Expr: scope.scrub(scope.source(x)), Value: why, Known: v.IsKnown()}
	if why == "" {
		n.Value = render(v, e.program.units[x])
	}
	for _, c := range parts(x) {
		if _, literal := c.(*hclsyntax.LiteralValueExpr); !literal {
			n.Children = append(n.Children, e.Tree(c))
		}
	}
	return n
}

// parts returns the sub-expressions worth showing.
func parts(x hclsyntax.Expression) []hclsyntax.Expression {
	switch x := x.(type) {
	case *hclsyntax.BinaryOpExpr:
		return []hclsyntax.Expression{x.LHS, x.RHS}
	case *hclsyntax.UnaryOpExpr:
		return []hclsyntax.Expression{x.Val}
	case *hclsyntax.ConditionalExpr:
		return []hclsyntax.Expression{x.Condition, x.TrueResult, x.FalseResult}
	case *hclsyntax.FunctionCallExpr:
		var out []hclsyntax.Expression
		for _, a := range x.Args {
			if len(a.Variables()) > 0 {
				out = append(out, a)
			}
		}
		return out
	}
	return nil
}

// secret stands where a secret would.
const secret = "(secret)"

// render writes a value for a person.
func render(v cty.Value, u Unit) string {
	if marks.Hides(v) {
		return secret
	}
	v, _ = v.UnmarkDeep()
	switch {
	case !v.IsKnown():
		return "unknown"
	case v.IsNull():
		return "null"
	}
	switch t := v.Type(); {
	case t == cty.Bool:
		return fmt.Sprint(v.True())
	case t == cty.String:
		return fmt.Sprintf("%q", v.AsString())
	case t == cty.Number:
		return renderNumber(toFloat(v), u)
	case t.Equals(windowType):
		return renderWindow(stateOf(v))
	}
	return v.Type().FriendlyName()
}

func renderNumber(f float64, u Unit) string {
	switch u {
	case Bytes:
		return amounts.HumanBytes(f)
	case Seconds:
		return amounts.HumanSeconds(f)
	case Ratio:
		return fmt.Sprintf("%.3g%%", f*100)
	}
	if f == math.Trunc(f) && math.Abs(f) < 1e15 {
		return fmt.Sprintf("%.0f", f)
	}
	return fmt.Sprintf("%.4g", f)
}

func renderWindow(st WindowState) string {
	switch {
	case st.Open == True && !math.IsNaN(st.ClosesIn):
		return "open, closes in " + amounts.HumanSeconds(st.ClosesIn)
	case st.Open == True:
		return "open"
	case st.Open == False && !math.IsNaN(st.OpensIn):
		return "closed, opens in " + amounts.HumanSeconds(st.OpensIn)
	case st.Open == False:
		return "closed"
	}
	return "unknown"
}
