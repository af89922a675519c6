package main

import (
	"context"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/demo"
)

func registerDemo(app *kingpin.Application, env *environment) {
	cmd := app.Command("demo", "See it work: a database, an application that writes to it, and the daemon beside it, "+
		"all in a temporary directory.")
	length := cmd.Flag("duration", "Stop after this time; 0 runs until Ctrl-C.").Duration()
	listen := cmd.Flag("listen", "Address of the status page; if it is taken, the demo takes any other.").Default(
		"127.0.0.1:9942").String()
	cmd.Action(func(*kingpin.ParseContext) error {
		ctx, stop := interruptible()
		defer stop()
		context.AfterFunc(ctx, stop)
		log, err := newLogger(env, "info", "logfmt")
		if err != nil {
			return err
		}
		return demo.Run(ctx, demo.Options{
			Stdout: env.Stdout, Logger: log, Build: readBuildInfo(), Listen: *listen, Length: *length,
			Load: func(path string) (*config.Config, error) { return loadConfigFrom(env, path) },
		})
	})
}
