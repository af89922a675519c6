package main

import (
	"io"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/replay"
)

func registerReplay(app *kingpin.Application, env *environment) {
	cmd := app.Command("replay", "Play what was recorded of the last days under this configuration and another: actions, "+
		"peak of the WAL, stalls of writers.")
	names := cmd.Arg("db", "Names of databases; none is all.").Strings()
	next := cmd.Flag("new", "The other configuration.").PlaceHolder("PATH").String()
	back := cmd.Flag("since", "How far to go back.").Default("168h").Duration()
	asJSON := cmd.Flag("json", "Print JSON.").Bool()
	cmd.Action(func(*kingpin.ParseContext) error {
		before, after, err := twoConfigs(env, *next)
		if err != nil {
			return err
		}
		all, err := replay.Run(before.Server.StateDir, time.Now().Add(-*back), *names, before, after)
		if err != nil {
			return err
		}
		return env.print(*asJSON, all, func(w io.Writer) error { return replay.Write(w, all) })
	})
}
