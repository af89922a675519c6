// Package selection is which databases a policy is for: by name, by label, and by what
// it leaves out.
package selection

import (
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/sqlwatch/sqlwatch/internal/hcldecode"
	"github.com/sqlwatch/sqlwatch/policy/lang"
)

// Selection is which databases a policy is for. The zero value selects all.
type Selection struct {
	Databases []string          // patterns of database names (path.Match); empty: all
	Exclude   []string          // patterns of names that it leaves out
	Labels    map[string]string // labels that its databases carry
}

// AppliesTo reports whether the database of that name with these labels is selected:
// one of the patterns matches the name, none of those excluded does, and every label
// selected by has its value.
func (s *Selection) AppliesTo(db string, labels map[string]string) bool {
	for key, value := range s.Labels {
		if got, set := labels[key]; !set || got != value {
			return false
		}
	}
	return (len(s.Databases) == 0 || matchAny(s.Databases, db)) && !matchAny(s.Exclude, db)
}

func matchAny(patterns []string, name string) bool {
	for _, pattern := range patterns {
		if ok, _ := path.Match(pattern, name); ok {
			return true
		}
	}
	return false
}

// Read reads the attributes databases, exclude and labels, and checks them against the
// labels that there are.
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
	return s
}
