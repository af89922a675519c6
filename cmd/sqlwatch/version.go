package main

import (
	"cmp"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/version"

	"github.com/sqlwatch/sqlwatch/internal/cli"
	"github.com/sqlwatch/sqlwatch/internal/daemon"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

// readBuildInfo takes version and commit from the linker (see the Makefile) or, without those, from
// what the go command recorded, and SQLite's version from the library.
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
	cmd.Action(func(*kingpin.ParseContext) error { return writeVersion(env, *asJSON) })
}

func writeVersion(env *environment, asJSON bool) error {
	facts := readBuildInfo()
	return env.print(asJSON, facts, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "sqlwatch %s\n  commit  %s\n  go      %s\n  sqlite  %s\n",
			facts.Version, facts.Commit, facts.Go, facts.SQLite)
		return err
	})
}

func registerHelp(app *kingpin.Application, env *environment) {
	cmd := app.Command("completion", "Print the completion script for a shell; in bash: source <(sqlwatch "+
		"completion bash).")
	shell := cmd.Arg("shell", "bash, zsh or fish.").Required().Enum("bash", "zsh", "fish")
	cmd.Action(func(*kingpin.ParseContext) error { return cli.Completion(app, env.Stdout, *shell) })

	man := app.Command("man", "Print the manual page: sqlwatch man | man -l -")
	man.Action(func(*kingpin.ParseContext) error { return cli.Man(app, env.Stdout) })
}
