package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/version"

	"github.com/sqlwatch/sqlwatch/internal/daemon"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

// readBuildInfo takes version and commit from the linker (see the Makefile), or
// else from what the go command recorded, and SQLite's version from the library.
func readBuildInfo() daemon.BuildInfo {
	facts := daemon.BuildInfo{Version: version.Version, Commit: version.Revision, Go: runtime.Version(),
		SQLite: sqlite.Version()}
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
		facts := readBuildInfo()
		if *asJSON {
			return writeJSON(env.Stdout, facts)
		}
		_, err := fmt.Fprintf(env.Stdout, "sqlwatch %s\n  commit  %s\n  go      %s\n  sqlite  %s\n",
			facts.Version, facts.Commit, facts.Go, facts.SQLite)
		return err
	})
}
