package lang

import (
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/sqlwatch/sqlwatch/policy/lang/each"
	"github.com/sqlwatch/sqlwatch/policy/lang/measured"
)

// members returns the names that may follow a root name, with their units, or nil for a root
// that does not exist.
func (c *checker) members(root string) map[string]Unit {
	out := map[string]Unit{}
	for _, v := range measured.Names {
		if v.Group == root {
			out[v.Name] = v.Unit
		}
	}
	for _, t := range measured.Texts {
		if t.Group == root {
			out[t.Name] = Text
		}
	}
	switch root {
	case "db":
		out["labels"] = AnyUnit
	case "window":
		for _, name := range c.Windows {
			out[name] = WindowUnit
		}
		return out
	case "tune":
		for name, u := range c.Tunes {
			out[name] = u
		}
		return out
	case "var", "local":
		v, ok := c.scope.Variables[root]
		if !ok {
			return out
		}
		v, _ = v.Unmark()
		for name, t := range v.Type().AttributeTypes() {
			out[name] = unitOfType(t, Plain)
			if u, ok := c.scope.Units[root+"."+name]; ok {
				out[name] = u
			}
		}
		return out
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

func roots() []string {
	out := []string{"window", "tune", "var", "local"}
	for _, v := range measured.Names {
		if !slices.Contains(out, v.Group) {
			out = append(out, v.Group)
		}
	}
	return out
}

// name checks a dotted name and returns its unit.
func (c *checker) name(x *hclsyntax.ScopeTraversalExpr) Unit {
	t := x.Traversal
	root := t.RootName()
	if slices.Contains(c.bound, root) {
		return AnyUnit
	}
	c.uses[root] = true
	if root == each.Name {
		return c.given(x)
	}
	members := c.members(root)
	if members == nil {
		if before, after, ok := strings.Cut(root, "-"); ok && c.members(before) != nil {
			c.dash(x, before, after)
			return AnyUnit
		}
		c.errorf(x, "Unknown name", "There is no %q here.%s", root, Suggest(root, roots()))
		return AnyUnit
	}
	if len(t) == 1 {
		if root != "var" && root != "local" && root != "db" {
			c.errorf(x, "Incomplete name", "%s is a group of names; it needs one of %s.", root, strings.Join(slices.Sorted(
				maps.Keys(members)), ", "))
		}
		return AnyUnit
	}
	key, isIndex := step1(t[1])
	if root == "replica" && isIndex {
		return c.oneReplica(x, key)
	}
	u, ok := members[key]
	if !ok {
		if before, after, dash := strings.Cut(key, "-"); dash {
			if _, known := members[before]; known {
				c.dash(x, root+"."+before, after)
				return AnyUnit
			}
		}
		c.errorf(x, "Unknown name", "There is no %s.%s.%s", root, key, Suggest(key, keys(members)))
		return AnyUnit
	}
	return c.deeper(x, root+"."+key, t[2:], u)
}

// given checks a value of a for_each instance: it must exist, and it returns its unit.
func (c *checker) given(x *hclsyntax.ScopeTraversalExpr) Unit {
	v, diags := x.Value(&hcl.EvalContext{Variables: c.scope.Variables})
	if diags.HasErrors() {
		c.errorf(x, "Unknown name", "each has key and value; this instance was given no such thing: %s", diags[0].Detail)
		return AnyUnit
	}
	path := []string{}
	for _, s := range x.Traversal[1:] {
		key, _ := step1(s)
		path = append(path, key)
	}
	if u, known := c.scope.Units[each.Name+"."+strings.Join(path, ".")]; known {
		return u
	}
	v, _ = v.Unmark()
	return unitOfType(v.Type(), Plain)
}

// step1 returns the name that a step of a traversal selects.
func step1(s hcl.Traverser) (key string, index bool) {
	switch s := s.(type) {
	case hcl.TraverseAttr:
		return s.Name, false
	case hcl.TraverseIndex:
		if s.Key.Type() == cty.String && s.Key.IsKnown() && !s.Key.IsNull() {
			return s.Key.AsString(), true
		}
	}
	return "", true
}

// deeper checks what follows a known name.
func (c *checker) deeper(x *hclsyntax.ScopeTraversalExpr, name string, rest hcl.Traversal, u Unit) Unit {
	switch {
	case len(rest) == 0:
		return u
	case u == WindowUnit:
		units := map[string]Unit{"open": Bool, "opens_in": Seconds, "closes_in": Seconds}
		key, _ := step1(rest[0])
		got, ok := units[key]
		if !ok {
			c.errorf(x, "Unknown name", "A window has no %q.%s", key, Suggest(key, keys(units)))
		}
		return got
	case name == "db.labels":
		if key, _ := step1(rest[0]); !slices.Contains(c.scope.Labels, key) {
			c.errorf(x, "Unknown label", "No database has a label %q.%s", key, Suggest(key, slices.Clone(c.scope.Labels)))
		}
		return Text
	case u != AnyUnit:
		c.errorf(x, "Unknown name", "%s is %s; nothing can follow it.", name, u)
	}
	return AnyUnit
}

func (c *checker) oneReplica(x *hclsyntax.ScopeTraversalExpr, name string) Unit {
	if !slices.Contains(c.scope.Replicas, name) {
		c.errorf(x, "Unknown replica", "There is no replica %q.%s", name, Suggest(name, slices.Clone(c.scope.Replicas)))
		return AnyUnit
	}
	if len(x.Traversal) < 3 {
		return AnyUnit
	}
	key, _ := step1(x.Traversal[2])
	u, ok := c.members("replica")[key]
	if !ok {
		c.errorf(x, "Unknown name", "A replica has no %q.%s", key, Suggest(key, keys(c.members("replica"))))
	}
	return u
}

func (c *checker) dash(x hcl.Expression, before, after string) {
	c.errorf(x, "Unknown name", "A minus sign is part of a name where no space stands before it: this reads as one "+
		"name. For a subtraction write `%s - %s`.", before, after)
}
