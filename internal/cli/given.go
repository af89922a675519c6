package cli

import (
	"fmt"
	"slices"

	"github.com/alecthomas/kingpin/v2"
)

// Given refuses flags with an empty value, as a script passes them where a variable is not
// set: without a moment or a place, another state or file would be meant.
func Given(parsed *kingpin.ParseContext, names ...string) error {
	for _, e := range parsed.Elements {
		flag, ok := e.Clause.(*kingpin.FlagClause)
		if ok && e.Value != nil && *e.Value == "" && slices.Contains(names, flag.Model().Name) {
			return fmt.Errorf("--%s is empty: give it a value, or leave it out", flag.Model().Name)
		}
	}
	return nil
}
