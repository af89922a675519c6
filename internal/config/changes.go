package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Changes says which databases, policies, windows, replicas and notifiers a
// configuration adds to the one before it (+) and takes away (-), and which blocks it
// changes (~) in what, one a line. Values are not shown.
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
	old, now := before.blocks(), after.blocks()
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if was, known := old[name]; known {
			if names := differing(was, now[name]); len(names) > 0 {
				changes = append(changes, fmt.Sprintf("~ %s: %s", name, strings.Join(names, ", ")))
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

// listed are the kinds of block that are compared by name.
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
