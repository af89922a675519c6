package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/version"

	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

// buildFacts says what this binary was made of.
type buildFacts struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Go      string `json:"go"`
	SQLite  string `json:"sqlite"`
}

// readBuildFacts takes version and commit from the linker (see the Makefile), or
// else from what the go command recorded, and SQLite's version from the library.
func readBuildFacts() buildFacts {
	facts := buildFacts{Version: version.Version, Commit: version.Revision, Go: runtime.Version(), SQLite: sqlite.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		facts.Version = cmp.Or(facts.Version, info.Main.Version)
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				facts.Commit = cmp.Or(facts.Commit, setting.Value)
			}
		}
	}
	facts.Version, facts.Commit = cmp.Or(facts.Version, "unknown"), cmp.Or(facts.Commit, "unknown")
	return facts
}

func registerVersion(app *kingpin.Application, env *environment) {
	cmd := app.Command("version", "Print the version, the commit, and the versions of Go and SQLite.")
	asJSON := cmd.Flag("json", "Print JSON.").Bool()
	cmd.Action(func(*kingpin.ParseContext) error {
		facts := readBuildFacts()
		if *asJSON {
			return writeJSON(env.Stdout, facts)
		}
		_, err := fmt.Fprintf(env.Stdout, "sqlwatch %s\n  commit  %s\n  go      %s\n  sqlite  %s\n",
			facts.Version, facts.Commit, facts.Go, facts.SQLite)
		return err
	})
}
