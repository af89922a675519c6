// Package selection selects the databases that a policy applies to: by name, by label, and by exclusion.
package selection

import (
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/sqlwatch/sqlwatch/internal/hcldecode"
	"github.com/sqlwatch/sqlwatch/policy/lang"
)

// Selection selects the databases that a policy applies to. The zero value selects all.
type Selection struct {
	Databases []string          // patterns of database names (path.Match); empty: all
	Exclude   []string          // patterns of names that are excluded
	Labels    map[string]string // labels that its databases must have
}

// AppliesTo reports whether the database with that name and these labels is selected:
// one of the patterns matches the name, no excluded pattern does, and every label of
// the selection has its value.
func (s *Selection) AppliesTo(db string, labels map[string]string) bool {
	for key, value := range s.Labels {
		if got, set := labels[key]; !set || got != value {
			return false
		}
	}
	return (len(s.Databases) == 0 || matchAny(s.Databases, db)) && !matchAny(s.Exclude, db)
}

// May returns the databases that may be selected: of those with a glob, only the labels are known.
func (s *Selection) May(databases []lang.Database) (selected []lang.Database) {
	for _, d := range databases {
		named := Selection{Labels: s.Labels}
		if !d.Many {
			named = *s
		}
		if named.AppliesTo(d.Name, d.Labels) {
			selected = append(selected, d)
		}
	}
	return selected
}

func matchAny(patterns []string, name string) bool {
	for _, pattern := range patterns {
		if ok, _ := path.Match(pattern, name); ok {
			return true
		}
	}
	return false
}

// Read reads the attributes databases, exclude and labels, and checks them against the labels that exist.
func Read(d *hcldecode.Decoder, a hcl.Attributes) Selection {
	s := Selection{Databases: d.Texts(a["databases"]), Exclude: d.Texts(a["exclude"]), Labels: d.TextMap(a["labels"])}
	if x := a["databases"]; x != nil && len(s.Databases) == 0 {
		d.Errorf(x.Expr.Range(), "No databases", "An empty list names no database; leave databases out for all of them.")
	}
	for attr, patterns := range map[string][]string{"databases": s.Databases, "exclude": s.Exclude} {
		for i, pattern := range patterns {
			at := a[attr].Expr.Range()
			if name, negated := strings.CutPrefix(pattern, "!"); negated {
				d.Errorf(at, "Not a pattern", "A pattern is not negated by \"!\"; write exclude = [%q].", name)
			}
			if slices.Contains(patterns[:i], pattern) {
				d.Warnf(at, "Duplicate pattern", "%q is listed twice.", pattern)
			}
			if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
				d.Errorf(at, "Bad pattern", "%q is not a pattern of names.", pattern)
			}
		}
	}
	for attr, empty := range map[string]bool{"exclude": len(s.Exclude) == 0, "labels": len(s.Labels) == 0} {
		if a[attr] != nil && empty && !d.Diags.HasErrors() {
			d.Warnf(a[attr].Range, "No effect", "An empty %s selects nothing; leave it out.", attr)
		}
	}
	if slices.Contains(s.Exclude, "*") {
		d.Errorf(a["exclude"].Expr.Range(), "Everything excluded", "This policy would watch no database.")
	}
	for name := range s.Labels {
		if !slices.Contains(d.Scope.Labels, name) {
			d.Errorf(a["labels"].Expr.Range(), "Unknown label", "No database has a label %q.%s", name,
				lang.Suggest(name, slices.Clone(d.Scope.Labels)))
		}
	}
	if d.Scope.Databases != nil && !d.Diags.HasErrors() {
		s.reach(d, a)
	}
	return s
}

// reach reports patterns and labels that select no database.
func (s *Selection) reach(d *hcldecode.Decoder, a hcl.Attributes) {
	var names []string
	for _, db := range d.Scope.Databases {
		if db.Many {
			names = nil
			break
		}
		names = append(names, db.Name)
	}
	hint := func(pattern string) string { return lang.Suggest(pattern, slices.Clone(names)) }
	for _, attr := range []string{"databases", "exclude"} {
		for _, pattern := range map[string][]string{"databases": s.Databases, "exclude": s.Exclude}[attr] {
			if one := (Selection{Databases: []string{pattern}}); len(one.May(d.Scope.Databases)) == 0 {
				d.Warnf(a[attr].Expr.Range(), "No such database", "%q is the name of no database.%s", pattern, hint(pattern))
			}
		}
	}
	for name, value := range s.Labels {
		one, values := Selection{Labels: map[string]string{name: value}}, []string{}
		for _, db := range d.Scope.Databases {
			if v, set := db.Labels[name]; set && !slices.Contains(values, v) {
				values = append(values, v)
			}
		}
		if len(one.May(d.Scope.Databases)) == 0 {
			d.Errorf(a["labels"].Expr.Range(), "No such database", "No database has the label %s = %q.%s", name, value,
				lang.Suggest(value, values))
			return
		}
	}
	if len(s.May(d.Scope.Databases)) > 0 {
		return
	}
	for _, attr := range []string{"databases", "labels", "exclude"} {
		if a[attr] != nil {
			d.Errorf(a[attr].Expr.Range(), "No database", "This policy would watch none of the databases, and never act: they "+
				"are %s.", strings.Join(names, ", "))
			return
		}
	}
}
