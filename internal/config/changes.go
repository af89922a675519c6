package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sqlwatch/sqlwatch/policy/foreach"
)

// Changes lists, one per line, the databases, policies, windows, replicas and notifiers that a
// configuration adds to the one before it (+) and removes (-), and the parts of blocks that it
// changes (~). It shows no values.
func Changes(before, after *Config) []string {
	var changes []string
	compare := func(what string, old, now []string) {
		for _, name := range now {
			if !slices.Contains(old, name) {
				changes = append(changes, fmt.Sprintf("+ %s %s", what, name))
			}
		}
		for _, name := range old {
			if !slices.Contains(now, name) {
				changes = append(changes, fmt.Sprintf("- %s %s", what, name))
			}
		}
	}
	compare("database", before.databaseNames(), after.databaseNames())
	compare("policy", before.policyNames(), after.policyNames())
	compare("window", slices.Sorted(maps.Keys(before.Policies.Windows)), slices.Sorted(maps.Keys(after.Policies.Windows)))
	compare("replica", slices.Sorted(maps.Keys(before.Replicas)), slices.Sorted(maps.Keys(after.Replicas)))
	compare("notifier", slices.Sorted(maps.Keys(before.Notifiers)), slices.Sorted(maps.Keys(after.Notifiers)))
	changes = append(changes, changedInstances(before, after)...)
	old, now := before.blocks(), after.blocks()
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if was, known := old[name]; known {
			if names := differing(was, now[name]); len(names) > 0 {
				changes = append(changes, fmt.Sprintf("~ %s%s: %s", name, after.madeOf(name), strings.Join(names, ", ")))
			}
		} else if kind, _, _ := strings.Cut(name, " "); !slices.Contains(listed, kind) {
			changes = append(changes, "+ "+name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(old)) {
		kind, _, _ := strings.Cut(name, " ")
		if _, known := now[name]; !known && !slices.Contains(listed, kind) {
			changes = append(changes, "- "+name)
		}
	}
	return changes
}

// changedInstances names the policies of a for_each whose values have changed.
func changedInstances(before, after *Config) (changes []string) {
	old := map[string]*foreach.Instance{}
	for _, p := range before.Policies.Policies {
		old[p.Name] = p.Instance
	}
	for _, p := range after.Policies.Policies {
		if was := old[p.Name]; was != nil && p.Instance.Key != "" && was.Key != "" && p.Instance.Differs(was) {
			changes = append(changes, fmt.Sprintf("~ policy %s: each.value", p.Name))
		}
	}
	return changes
}

// madeOf says which policies a block with for_each expands to.
func (c *Config) madeOf(block string) string {
	var names []string
	for _, p := range c.Policies.Policies {
		if p.Instance != nil && p.Instance.Key != "" && "policy "+p.Instance.Of == block {
			names = append(names, p.Name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return " (" + strings.Join(names, ", ") + ")"
}

// listed has the kinds of block that are compared by name.
var listed = []string{"database", "policy", "window", "replica", "notifier"}

func (c *Config) databaseNames() (names []string) {
	for _, d := range c.Databases {
		names = append(names, d.Name)
	}
	return names
}

func (c *Config) policyNames() (names []string) {
	for _, p := range c.Policies.Policies {
		names = append(names, p.Name)
	}
	return names
}
