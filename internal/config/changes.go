package config

import (
	"fmt"
	"maps"
	"slices"
)

// Changes says which databases, policies, windows, replicas and notifiers a
// configuration adds to the one before it (+) and takes away (-), one a line.
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
	return changes
}

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
