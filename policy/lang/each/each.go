// Package each binds the expressions of a block with for_each to one of its instances: each.key
// and each.value read the values of that instance.
package each

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Written is the name by which expressions refer to their instance.
const Written = "each"

// Name is the variable that has the values of all instances, by the instance's name. No
// expression can contain it.
const Name = " each"

// Bind makes an expression read the values of one instance: each.value becomes that instance's.
// It changes the expression, which must not be shared with another instance. If the instance is
// "", there is none, and an expression that refers to one is an error.
func Bind(x hclsyntax.Expression, instance string) hcl.Diagnostics {
	return hclsyntax.VisitAll(x, func(n hclsyntax.Node) hcl.Diagnostics {
		t, is := n.(*hclsyntax.ScopeTraversalExpr)
		if !is || t.Traversal.RootName() != Written {
			return nil
		}
		if instance == "" {
			return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "No instance", Subject: t.Range().Ptr(),
				Detail: "each.key and each.value are of a policy with for_each; this one has none."}}
		}
		at := t.Traversal.SourceRange()
		t.Traversal = append(hcl.Traversal{hcl.TraverseRoot{Name: Name, SrcRange: at},
			hcl.TraverseAttr{Name: instance, SrcRange: at}}, t.Traversal[1:]...)
		return nil
	})
}

// Of returns the instance that an expression is bound to, or "" if it does not read one.
func Of(x hcl.Expression) string {
	for _, t := range x.Variables() {
		if t.RootName() == Name && len(t) > 1 {
			if attr, is := t[1].(hcl.TraverseAttr); is {
				return attr.Name
			}
		}
	}
	return ""
}
