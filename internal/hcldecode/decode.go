// Package hcldecode reads HCL attributes strictly: each as the one kind of value
// it must be, within its bounds, and with an error at its place if it is not.
package hcldecode

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/gocty"

	"github.com/sqlwatch/sqlwatch/policy/lang"
	"github.com/sqlwatch/sqlwatch/policy/lang/amounts"
	"github.com/sqlwatch/sqlwatch/policy/lang/marks"
)

// Decoder reads attributes strictly and collects what is wrong with them.
type Decoder struct {
	Scope *lang.Scope
	Extra map[string]cty.Value // variables beyond the scope's, as db in templates
	Diags hcl.Diagnostics
}

// Errorf reports an error at a place.
func (d *Decoder) Errorf(at hcl.Range, summary, format string, args ...any) {
	d.Diags = append(d.Diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary,
		Detail: fmt.Sprintf(format, args...), Subject: &at})
}

// Warnf reports a warning at a place.
func (d *Decoder) Warnf(at hcl.Range, summary, format string, args ...any) {
	d.Diags = append(d.Diags, &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: summary,
		Detail: fmt.Sprintf(format, args...), Subject: &at})
}

// Attributes returns a schema of attributes; a name that ends in "!" is required.
func Attributes(names ...string) *hcl.BodySchema {
	s := &hcl.BodySchema{}
	for _, n := range names {
		s.Attributes = append(s.Attributes, hcl.AttributeSchema{Name: strings.TrimSuffix(n, "!"),
			Required: strings.HasSuffix(n, "!")})
	}
	return s
}

// Content reads a block's body by a schema of attribute and block names.
func (d *Decoder) Content(body hcl.Body, schema *hcl.BodySchema) *hcl.BodyContent {
	content, diags := body.Content(schema)
	d.Diags = append(d.Diags, diags...)
	return content
}

// Name checks that a block's name can stand in metrics and expressions.
func (d *Decoder) Name(b *hcl.Block) {
	if !hclsyntax.ValidIdentifier(b.Labels[0]) {
		d.Errorf(b.LabelRanges[0], "Bad name", "A name consists of letters, digits, - and _, and begins with a letter; %q "+
			"does not.", b.Labels[0])
	}
}

// Single returns the only block of a type, nil if there is none.
func (d *Decoder) Single(blocks hcl.Blocks, typ string) *hcl.Block {
	var found *hcl.Block
	for _, b := range blocks.OfType(typ) {
		if found != nil {
			d.Errorf(b.DefRange, "Duplicate block", "There may be one %s block here; another stands at %s.", typ, found.DefRange)
			continue
		}
		found = b
	}
	return found
}

// TellOnce leaves out of the diagnostics after the first n what has been said before, as of
// another instance of the same block.
func (d *Decoder) TellOnce(n int) {
	said, news := d.Diags[:n], slices.Clone(d.Diags[n:])
	d.Diags = append(said, slices.DeleteFunc(news, func(new *hcl.Diagnostic) bool {
		return slices.ContainsFunc(said, func(old *hcl.Diagnostic) bool {
			return new.Summary == old.Summary && new.Detail == old.Detail && *new.Subject == *old.Subject
		})
	})...)
}

// Places returns where a block's attributes and blocks stand, and those of the attributes
// named that are in one of its blocks.
func Places(content *hcl.BodyContent, inBlocks ...string) map[string]hcl.Range {
	places := map[string]hcl.Range{}
	note := func(attrs hcl.Attributes) {
		for name, a := range attrs {
			places[name] = a.Expr.Range()
		}
	}
	note(content.Attributes)
	for _, b := range content.Blocks {
		places[b.Type] = b.DefRange
		if within, _, _ := b.Body.PartialContent(Attributes(inBlocks...)); within != nil {
			note(within.Attributes)
		}
	}
	return places
}

// Location finds a time zone.
func (d *Decoder) Location(a *hcl.Attribute, name string) *time.Location {
	loc, err := time.LoadLocation(name)
	if err != nil {
		d.Errorf(a.Expr.Range(), "Unknown time zone", "There is no time zone %q; names are as in \"Europe/Berlin\".", name)
		return time.UTC
	}
	return loc
}

// Value evaluates an attribute with constants, variables and functions only.
// ok is false if there is none, it is null, or it is in error.
func (d *Decoder) Value(a *hcl.Attribute) (v cty.Value, ok bool) {
	v, ok = d.Probe(a)
	if !ok {
		return v, false
	}
	if !v.IsWhollyKnown() {
		d.Errorf(a.Expr.Range(), "Not a constant", "The value of %s must be known when the configuration is read.", a.Name)
		return cty.NilVal, false
	}
	plain, _ := v.Unmark()
	return v, !plain.IsNull()
}

// Probe evaluates an attribute whose value may turn out unknown.
func (d *Decoder) Probe(a *hcl.Attribute) (v cty.Value, ok bool) {
	if a == nil {
		return cty.NilVal, false
	}
	v, diags := d.Scope.Value(a.Expr, d.Extra)
	d.Diags = append(d.Diags, diags...)
	return v, !diags.HasErrors()
}

// Text reads a string; secret reports that it must never be shown.
func (d *Decoder) Text(a *hcl.Attribute, def string) (s string, secret bool) {
	v, ok := d.Value(a)
	if !ok {
		return def, false
	}
	secret = marks.IsSecret(v)
	v, _ = v.UnmarkDeep()
	t, err := convert.Convert(v, cty.String)
	if err != nil || t.IsNull() {
		d.Errorf(a.Expr.Range(), "Wrong kind of value", "%s must be text.", a.Name)
		return def, false
	}
	return t.AsString(), secret
}

// Plain reads a string that must not be a secret, since it will be shown.
func (d *Decoder) Plain(a *hcl.Attribute, def string) string {
	s, secret := d.Text(a, def)
	if secret {
		d.Errorf(a.Expr.Range(), "Secret out of place", "%s is shown in logs and metrics; a secret() cannot stand here.",
			a.Name)
		return def
	}
	return s
}

// Choice reads one of a few words.
func (d *Decoder) Choice(a *hcl.Attribute, def string, words ...string) string {
	s := d.Plain(a, def)
	for _, w := range words {
		if s == w {
			return s
		}
	}
	if s != def {
		d.Errorf(a.Expr.Range(), "Unknown word", "%s cannot be %q.%s", a.Name, s, lang.Suggest(s, words))
	}
	return def
}

// Flag reads a truth value.
func (d *Decoder) Flag(a *hcl.Attribute, def bool) bool {
	if v, ok := d.Value(a); ok {
		v, _ = v.Unmark()
		b, err := convert.Convert(v, cty.Bool)
		if err == nil && gocty.FromCtyValue(b, &def) == nil {
			return def
		}
		d.Errorf(a.Expr.Range(), "Wrong kind of value", "%s must be true or false.", a.Name)
	}
	return def
}

// Int reads a whole number between lo and hi.
func (d *Decoder) Int(a *hcl.Attribute, def, lo, hi int) int {
	v, ok := d.Value(a)
	if !ok {
		return def
	}
	v, _ = v.Unmark()
	var n int64
	num, err := convert.Convert(v, cty.Number)
	if err != nil || gocty.FromCtyValue(num, &n) != nil || n < int64(lo) || n > int64(hi) {
		d.Errorf(a.Expr.Range(), "Out of range", "%s must be a whole number from %d to %d.", a.Name, lo, hi)
		return def
	}
	return int(n)
}

// Number reads any number.
func (d *Decoder) Number(a *hcl.Attribute, def float64) float64 {
	if v, ok := d.Value(a); ok {
		v, _ = v.Unmark()
		if v.Type() == cty.Number {
			f, _ := v.AsBigFloat().Float64()
			return f
		}
		d.Errorf(a.Expr.Range(), "Wrong kind of value", "%s must be a number.", a.Name)
	}
	return def
}

// Duration reads a duration between lo and hi, as text ("30s", "7d") or
// seconds.
func (d *Decoder) Duration(a *hcl.Attribute, def, lo, hi time.Duration) time.Duration {
	v, ok := d.Value(a)
	if !ok {
		return def
	}
	got, err := amounts.DurationValue(v)
	switch {
	case err != nil:
		d.Errorf(a.Expr.Range(), "Not a duration", "%s: %v.", a.Name, err)
	case got < lo || got > hi:
		d.Errorf(a.Expr.Range(), "Out of range", "%s is %s; it must be from %s to %s.", a.Name, got,
			amounts.HumanSeconds(lo.Seconds()), amounts.HumanSeconds(hi.Seconds()))
	default:
		return got
	}
	return def
}

// Size reads an amount of bytes between lo and hi, as text ("32MB") or a number.
func (d *Decoder) Size(a *hcl.Attribute, def, lo, hi int64) int64 {
	s := d.Plain(a, "")
	if s == "" {
		return def
	}
	n, err := amounts.ParseBytes(s)
	switch {
	case err != nil:
		d.Errorf(a.Expr.Range(), "Not an amount of bytes", "%s: %v.", a.Name, err)
	case n < float64(lo) || n > float64(hi):
		d.Errorf(a.Expr.Range(), "Out of range", "%s is %s; it must be from %s to %s.", a.Name, amounts.HumanBytes(n),
			amounts.HumanBytes(float64(lo)), amounts.HumanBytes(float64(hi)))
	default:
		return int64(n)
	}
	return def
}

// Texts reads a list of strings.
func (d *Decoder) Texts(a *hcl.Attribute) []string {
	return several[[]string](d, a, cty.List(cty.String), false, "a list of text")
}

// SecretTexts reads a list of strings that are never shown.
func (d *Decoder) SecretTexts(a *hcl.Attribute) []string {
	return several[[]string](d, a, cty.List(cty.String), true, "a list of text")
}

// TextMap reads an object whose values are strings.
func (d *Decoder) TextMap(a *hcl.Attribute) map[string]string {
	return several[map[string]string](d, a, cty.Map(cty.String), false, "an object of text, without secrets")
}

// SecretMap reads an object whose values are strings that are never shown.
func (d *Decoder) SecretMap(a *hcl.Attribute) map[string]string {
	return several[map[string]string](d, a, cty.Map(cty.String), true, "an object of text")
}

// several reads a list or an object. A secret is refused unless secrets are allowed.
func several[T any](d *Decoder, a *hcl.Attribute, kind cty.Type, secrets bool, what string) (out T) {
	v, ok := d.Value(a)
	if !ok {
		return out
	}
	hidden := marks.IsSecret(v)
	v, _ = v.UnmarkDeep()
	all, err := convert.Convert(v, kind)
	if err != nil || hidden && !secrets || gocty.FromCtyValue(all, &out) != nil {
		d.Errorf(a.Expr.Range(), "Wrong kind of value", "%s must be %s.", a.Name, what)
	}
	return out
}

// Refs reads a list of references such as [replica.s3.main] and returns what
// follows the root name: "s3.main". Every one must be among the known.
func (d *Decoder) Refs(a *hcl.Attribute, root string, known []string) []string {
	if a == nil {
		return nil
	}
	list, diags := hcl.ExprList(a.Expr)
	if diags.HasErrors() {
		d.Errorf(a.Expr.Range(), "Not a list", "%s must be a list such as [%s.TYPE.NAME].", a.Name, root)
		return nil
	}
	var out []string
	for _, x := range list {
		name := d.Ref(a.Name, x, root, known)
		if slices.Contains(out, name) {
			d.Errorf(x.Range(), "Duplicate reference", "%s.%s is listed twice.", root, name)
			continue
		}
		if name != "" {
			out = append(out, name)
		}
	}
	return out
}

// unquoted tells whoever wrote a reference as text to leave the quotes away.
func unquoted(x hcl.Expression, root string) string {
	v, diags := x.Value(nil)
	if diags.HasErrors() || v.IsNull() || !v.IsKnown() || v.Type() != cty.String {
		return ""
	}
	if text := v.AsString(); strings.HasPrefix(text, root+".") {
		return fmt.Sprintf(" Write it without quotes: %s.", text)
	}
	return ""
}

// Ref reads one reference and returns what follows the root name, "" in error.
func (d *Decoder) Ref(attr string, x hcl.Expression, root string, known []string) string {
	t, diags := hcl.AbsTraversalForExpr(x)
	var names []string
	if !diags.HasErrors() && t.RootName() == root {
		for _, s := range t[1:] {
			if a, ok := s.(hcl.TraverseAttr); ok {
				names = append(names, a.Name)
			}
		}
	}
	name := strings.Join(names, ".")
	switch {
	case name == "":
		like := "NAME"
		if len(known) > 0 {
			like = known[0]
		}
		d.Errorf(x.Range(), "Not a reference", "%s takes references that begin with %s, such as %s.%s.%s", attr, root, root,
			like, unquoted(x, root))
		return ""
	case !slices.Contains(known, name):
		var full []string // as it is to be written
		for _, k := range known {
			full = append(full, root+"."+k)
		}
		d.Errorf(x.Range(), "Unknown "+root, "There is no %s.%s.%s", root, name, lang.Suggest(root+"."+name, full))
		return ""
	}
	return name
}
