package selection

import (
	"testing"

	"github.com/sqlwatch/sqlwatch/policy/lang"
)

// A policy applies if the name and all labels match and the name is not excluded.
func TestAppliesTo(t *testing.T) {
	t.Parallel()
	gold, iron := map[string]string{"tier": "gold", "at": "x"}, map[string]string{"tier": "iron"}
	for _, test := range []struct {
		name   string
		s      Selection
		db     string
		labels map[string]string
		want   bool
	}{
		{"all", Selection{}, "app", nil, true},
		{"name", Selection{Databases: []string{"app"}}, "app", nil, true},
		{"other name", Selection{Databases: []string{"app"}}, "app2", nil, false},
		{"pattern", Selection{Databases: []string{"x", "tenant-*"}}, "tenant-7", nil, true},
		{"excluded", Selection{Databases: []string{"tenant-*"}, Exclude: []string{"tenant-7"}}, "tenant-7", nil, false},
		{"excluded of all", Selection{Exclude: []string{"t*"}}, "tenant-7", nil, false},
		{"not excluded", Selection{Exclude: []string{"t*"}}, "app", nil, true},
		{"label", Selection{Labels: map[string]string{"tier": "gold"}}, "app", gold, true},
		{"other value", Selection{Labels: map[string]string{"tier": "gold"}}, "app", iron, false},
		{"no label", Selection{Labels: map[string]string{"tier": ""}}, "app", nil, false},
		{"one of two labels", Selection{Labels: map[string]string{"tier": "gold", "at": "y"}}, "app", gold, false},
		{"label and exclude", Selection{Labels: map[string]string{"tier": "gold"}, Exclude: []string{"app"}}, "app", gold,
			false},
	} {
		if got := test.s.AppliesTo(test.db, test.labels); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

// Of the databases that a glob will find, only the labels are known.
func TestMay(t *testing.T) {
	t.Parallel()
	all := []lang.Database{{Name: "app", Labels: map[string]string{"tier": "gold"}}, {Name: "tenants", Many: true}}
	for _, test := range []struct {
		name string
		s    Selection
		want int
	}{
		{"all", Selection{}, 2},
		{"a name that the glob may find", Selection{Databases: []string{"tenant-1"}}, 1},
		{"a label that its databases lack", Selection{Labels: map[string]string{"tier": "gold"}}, 1},
		{"both", Selection{Labels: map[string]string{"tier": "gold"}, Databases: []string{"x"}}, 0},
	} {
		if got := test.s.May(all); len(got) != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}
