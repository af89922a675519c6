package config

import (
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/sqlwatch/sqlwatch/internal/hcldecode"
	"github.com/sqlwatch/sqlwatch/policy/lang"
	"github.com/sqlwatch/sqlwatch/policy/lang/marks"
)

// variablePrefix is the prefix of environment variables that set a variable block.
const variablePrefix = "SQLWATCH_VAR_"

// variables evaluates the variable blocks: from the environment, or else the default.
func (l *loading) variables(blocks hcl.Blocks) {
	values := map[string]cty.Value{}
	for _, b := range blocks {
		name := b.Labels[0]
		if !l.define(b, "variable "+name) {
			continue
		}
		schema := hcldecode.Attributes("type", "default", "description")
		schema.Blocks = []hcl.BlockHeaderSchema{{Type: "validation"}}
		content := l.Content(b.Body, schema)
		a := content.Attributes
		for _, v := range content.Blocks.OfType("validation") {
			l.validations = append(l.validations, validation{variable: name, block: v})
		}
		typ := cty.DynamicPseudoType
		if t := a["type"]; t != nil {
			var diags hcl.Diagnostics
			typ, diags = typeexpr.TypeConstraint(t.Expr)
			l.Diags = append(l.Diags, diags...)
		}
		v, ok := l.Value(a["default"])
		if ok {
			l.Scope.Units["var."+name] = lang.UnitOf(a["default"].Expr, l.Scope)
		}
		if s, set := l.env.lookup(variablePrefix + name); set {
			if err := bounded(s); err != nil {
				l.Errorf(b.DefRange, "Out of range", "The environment variable %s%s: %v.", variablePrefix, name, err)
			} else {
				l.env.conceal(s)
				v, ok = cty.StringVal(s).Mark(marks.Environment), true
			}
		}
		if !ok {
			values[name] = cty.DynamicVal
			if a["default"] == nil {
				l.Errorf(b.DefRange, "Variable without a value",
					"Give variable %q a default, or set the environment variable %s%s.", name, variablePrefix, name)
			}
			continue
		}
		got, err := convert.Convert(v, typ)
		if err != nil {
			l.Errorf(b.DefRange, "Wrong kind of value", "The value of variable %q does not fit its type: %v.", name, err)
			got = cty.UnknownVal(typ)
		}
		values[name] = got
	}
	l.Scope.Variables["var"] = object(values)
}

// validation is a condition that a variable must meet.
type validation struct {
	variable string
	block    *hcl.Block
}

// validate checks the values of variables against their validations. The conditions may read every
// variable and local.
func (l *loading) validate() {
	for _, v := range l.validations {
		a := l.Content(v.block.Body, hcldecode.Attributes("condition!", "error_message!")).Attributes
		condition, message := a["condition"], a["error_message"]
		if condition == nil || message == nil {
			continue
		}
		if !slices.ContainsFunc(lang.References(condition.Expr), func(t hcl.Traversal) bool {
			attr, is := hcl.TraverseAttr{}, false
			if t.RootName() == "var" && len(t) > 1 {
				attr, is = t[1].(hcl.TraverseAttr)
			}
			return is && attr.Name == v.variable
		}) {
			l.Errorf(condition.Expr.Range(), "Nothing validated", "The condition does not read var.%s, which it is to validate.",
				v.variable)
			continue
		}
		got, ok := l.Probe(condition)
		if !ok {
			continue
		}
		got, _ = got.Unmark()
		switch {
		case got.Type() != cty.Bool && got.IsKnown():
			l.Errorf(condition.Expr.Range(), "Wrong kind of value", "A condition is true or false.")
		case got.IsNull() || !got.IsKnown():
			if !l.Diags.HasErrors() {
				l.Errorf(condition.Expr.Range(), "Never known", "The condition has no value.")
			}
		case got.False():
			l.Errorf(condition.Expr.Range(), "Invalid value for variable", "%s", l.Plain(message, "")+l.comesFrom(v.variable))
		}
	}
}

// comesFrom says where the value of a variable comes from, if that is not the file.
func (l *loading) comesFrom(variable string) string {
	if _, set := l.env.lookup(variablePrefix + variable); set {
		return " (The value is that of the environment variable " + variablePrefix + variable + ".)"
	}
	return ""
}

func object(values map[string]cty.Value) cty.Value {
	if len(values) == 0 {
		return cty.EmptyObjectVal
	}
	return cty.ObjectVal(values)
}

// locals evaluates the attributes of all locals blocks, each after those that it refers to. It reports
// a cycle with its path.
func (l *loading) locals(blocks hcl.Blocks) {
	o := &ordering{loading: l, attrs: map[string]*hcl.Attribute{}, done: map[string]bool{}, values: map[string]cty.Value{}}
	var names []string
	for _, b := range blocks {
		attrs, diags := b.Body.JustAttributes()
		l.Diags = append(l.Diags, diags...)
		for name, a := range attrs {
			if first, dup := o.attrs[name]; dup {
				l.Errorf(a.NameRange, "Duplicate local", "local.%s is already defined at %s:%d.", name, first.NameRange.Filename,
					first.NameRange.Start.Line)
				continue
			}
			o.attrs[name] = a
			names = append(names, name)
		}
	}
	slices.Sort(names)
	l.Scope.Variables["local"] = cty.EmptyObjectVal
	for _, name := range names {
		o.resolve(name, nil)
	}
}

// ordering evaluates locals depth-first.
type ordering struct {
	*loading
	attrs  map[string]*hcl.Attribute
	done   map[string]bool
	values map[string]cty.Value
}

func (o *ordering) resolve(name string, path []string) {
	a := o.attrs[name]
	if a == nil || o.done[name] {
		return
	}
	if i := slices.Index(path, name); i >= 0 {
		o.Errorf(a.NameRange, "Cycle of locals", "A local cannot depend on itself: local.%s.",
			strings.Join(append(path[i:], name), " → local."))
		o.done[name] = true
		o.values[name] = cty.DynamicVal
		return
	}
	for _, t := range lang.References(a.Expr) {
		if t.RootName() == "local" && len(t) > 1 {
			if next, ok := t[1].(hcl.TraverseAttr); ok {
				o.resolve(next.Name, append(slices.Clone(path), name))
			}
		}
	}
	if o.done[name] {
		return // it was part of a cycle that has been reported
	}
	o.done[name] = true
	v, ok := o.Probe(a)
	if !ok {
		v = cty.DynamicVal
	}
	o.values[name] = v
	o.Scope.Units["local."+name] = lang.UnitOf(a.Expr, o.Scope)
	o.Scope.Variables["local"] = object(o.values)
}
