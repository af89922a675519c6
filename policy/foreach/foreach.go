// Package foreach makes several blocks of one that says for_each, as Terraform does: an
// instance for each element of a list or set of texts, or for each key of an object.
package foreach

import (
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/sqlwatch/sqlwatch/internal/hcldecode"
	"github.com/sqlwatch/sqlwatch/policy/lang"
)

// Attribute is what a block says that has instances.
const Attribute = "for_each"

// maxInstances bounds those of one block.
const maxInstances = 1000

// Instance is one of the blocks that one block stands for.
type Instance struct {
	Block *hcl.Block // its own, with expressions that no other instance shares
	Name  string     // the block's label, and the key
	Of    string     // the block's label
	Key   string     // "" of a block without for_each
	Value cty.Value

	units map[string]lang.Unit // of Value, and of what is in it: "" and "limit"
}

// Expand returns what a block stands for: itself, or its instances.
func Expand(d *hcldecode.Decoder, b *hcl.Block) []*Instance {
	attrs, _, _ := b.Body.PartialContent(hcldecode.Attributes(Attribute))
	if attrs == nil || attrs.Attributes[Attribute] == nil {
		return []*Instance{{Block: b, Name: b.Labels[0], Of: b.Labels[0]}}
	}
	a := attrs.Attributes[Attribute]
	v, ok := d.Value(a)
	if !ok {
		if !d.Diags.HasErrors() {
			d.Errorf(a.Expr.Range(), "No instances", "for_each is null: write a list of texts, or an object, with one element "+
				"for each policy.")
		}
		return nil
	}
	keys, values := elements(d, a, v)
	if len(keys) > maxInstances {
		d.Errorf(a.Expr.Range(), "Too many instances", "for_each has %d elements; at most %d are made into policies.",
			len(keys), maxInstances)
		return nil
	}
	written := items(a.Expr)
	var instances []*Instance
	for i, key := range keys {
		name := b.Labels[0] + "-" + key
		if key == "" || !hclsyntax.ValidIdentifier(name) {
			d.Errorf(a.Expr.Range(), "Bad name", "The policy for %q would be called %q: a key consists of letters, digits, "+
				"- and _. Write an object, as for_each = { NAME = %q }, and take what cannot be a name from each.value.",
				key, name, key)
			continue
		}
		one := &Instance{Name: name, Of: b.Labels[0], Key: key, Value: values[i],
			units: unitsOf(written[key], d.Scope)}
		if one.Block, ok = own(d, b, i); !ok {
			return nil
		}
		instances = append(instances, one)
	}
	return instances
}

// elements returns the keys of for_each with their values.
func elements(d *hcldecode.Decoder, a *hcl.Attribute, v cty.Value) (keys []string, values []cty.Value) {
	bad := func(format string, args ...any) {
		d.Errorf(a.Expr.Range(), "Bad for_each", format, args...)
	}
	v, marked := v.Unmark()
	object := v.Type().IsObjectType() || v.Type().IsMapType()
	if !object && len(marked) > 0 {
		bad("Its elements become names, which are shown everywhere: what is secret, or comes out of the environment, " +
			"cannot stand here. Make it the value of an object: { NAME = … }.")
		return nil, nil
	}
	if !object && !v.Type().IsTupleType() && !v.Type().IsListType() && !v.Type().IsSetType() {
		bad("for_each is a list of texts, as [\"a\", \"b\"], or an object, as { a = \"32MB\" }; this is %s.",
			v.Type().FriendlyName())
		return nil, nil
	}
	if v.LengthInt() == 0 {
		d.Warnf(a.Expr.Range(), "No instances", "for_each is empty: this block makes no policy.")
		return nil, nil
	}
	for it := v.ElementIterator(); it.Next(); {
		key, value := it.Element()
		if !object {
			if value.IsMarked() {
				bad("Its elements become names, which are shown everywhere: a secret, or what comes out of the environment, " +
					"cannot stand here. Make it the value of an object: { NAME = … }.")
				return nil, nil
			}
			if value.Type() != cty.String || value.IsNull() {
				bad("Each element is text that becomes a part of the policy's name; one is %s.", value.Type().FriendlyName())
				return nil, nil
			}
			key = value
		}
		if text := key.AsString(); slices.Contains(keys, text) {
			bad("%q stands in it twice.", text)
		} else {
			keys, values = append(keys, text), append(values, value)
		}
	}
	return keys, values
}

// own returns the block for one instance. The expressions of native syntax are parsed
// again: each instance changes its own.
func own(d *hcldecode.Decoder, b *hcl.Block, n int) (*hcl.Block, bool) {
	body, native := b.Body.(*hclsyntax.Body)
	if !native || n == 0 {
		return b, true
	}
	file := d.Scope.Files[b.TypeRange.Filename]
	from, to := b.TypeRange.Start, body.SrcRange.End
	if file == nil || from.Byte < 0 || to.Byte > len(file.Bytes) || from.Byte >= to.Byte {
		d.Errorf(b.DefRange, "No source", "The text of this block is not at hand.")
		return nil, false
	}
	parsed, diags := hclsyntax.ParseConfig(file.Bytes[from.Byte:to.Byte], b.TypeRange.Filename, from)
	again, is := parsed.Body.(*hclsyntax.Body)
	if diags.HasErrors() || !is || len(again.Blocks) != 1 {
		d.Errorf(b.DefRange, "No source", "This block cannot be read a second time.")
		return nil, false
	}
	block := *b
	block.Body = again.Blocks[0].Body
	return &block, true
}

// items returns the expressions of an object that is written out, by key.
func items(x hcl.Expression) map[string]hclsyntax.Expression {
	found := map[string]hclsyntax.Expression{}
	object, is := x.(*hclsyntax.ObjectConsExpr)
	if !is {
		return found
	}
	for _, item := range object.Items {
		if key := hcl.ExprAsKeyword(item.KeyExpr); key != "" {
			found[key] = item.ValueExpr
		} else if v, diags := item.KeyExpr.Value(nil); !diags.HasErrors() && v.Type() == cty.String && v.IsKnown() &&
			!v.IsNull() {
			found[v.AsString()] = item.ValueExpr
		}
	}
	return found
}

// unitsOf returns the unit of what one key was given, and of what is in it.
func unitsOf(x hclsyntax.Expression, sc *lang.Scope) map[string]lang.Unit {
	units := map[string]lang.Unit{}
	if x == nil {
		return units
	}
	units[""] = lang.UnitOf(x, sc)
	for key, within := range items(x) {
		units[key] = lang.UnitOf(within, sc)
	}
	return units
}

// Given returns what the instances were given as the variable each.Name, and the units
// of it.
func Given(instances []*Instance) (cty.Value, map[string]lang.Unit) {
	all, units := map[string]cty.Value{}, map[string]lang.Unit{}
	for _, one := range instances {
		if one.Key == "" {
			continue
		}
		all[one.Name] = one.Each()
		for within, unit := range one.units {
			path := one.Name + ".value"
			if within != "" {
				path += "." + within
			}
			units[path] = unit
		}
	}
	if len(all) == 0 {
		return cty.EmptyObjectVal, units
	}
	return cty.ObjectVal(all), units
}

// Each returns each of the instance: an object with key and value.
func (i *Instance) Each() cty.Value {
	return cty.ObjectVal(map[string]cty.Value{"key": cty.StringVal(i.Key), "value": i.Value})
}

// Differs reports whether an instance was given something else than another of its name.
func (i *Instance) Differs(other *Instance) bool {
	a, _ := i.Value.UnmarkDeep()
	b, _ := other.Value.UnmarkDeep()
	return !a.RawEquals(b)
}
