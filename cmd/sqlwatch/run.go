package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/exporter-toolkit/web/kingpinflag"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/daemon"
)

// manyDatabases is the number from which on memory is worth more than the time to collect garbage
// twice as often. With few databases there is little memory to save.
const manyDatabases = 50

func registerRun(app *kingpin.Application, env *environment) {
	cmd := app.Command("run", "Run the daemon: measure, export, decide, act. With database files as arguments and no "+
		"configuration, it watches them with the built-in policies.")
	paths := cmd.Arg("db", "Database files, or names of configured databases.").Strings()
	replica := cmd.Flag("replica", "Replicate the database files given as arguments there (file:///dir or "+
		"s3://bucket/prefix?endpoint=…).").PlaceHolder("URL").String()
	listeners := kingpinflag.AddFlags(cmd, "")
	hosts := cmd.Flag("web.allowed-host", "A further host name under which this server may be asked; * is any. IP "+
		"addresses, localhost and this machine's name always are.").Strings()
	busy := cmd.Flag("collector.busy", "Have the kernel (eBPF) count the SQLITE_BUSY of all processes; needs CAP_BPF "+
		"and CAP_PERFMON.").Default("true").Bool()
	steps := cmd.Flag("collector.busy.steps",
		"Also count, in every process that has this database open, the calls of sqlite3_step that return SQLITE_BUSY: "+
			"contention between threads of one process. Costs that process a few microseconds a step. Repeatable.").PlaceHolder(
		"DB").Strings()
	detail := cmd.Flag("metrics.detail", "Export every series: also failures that never happened, all buckets of "+
		"histograms, and requests to replicas for each database. About three times as many.").Bool()
	adopt := cmd.Flag("adopt", "Continue the history that another program, such as Litestream, began in this replica "+
		"(s3.main), or in every replica of this database. Repeatable; needed once.").PlaceHolder("NAME").Strings()
	beside := cmd.Flag("exec", "Run this command beside the daemon: absent databases are restored first, signals are "+
		"its own, and the last sync comes after its end. Its exit code is this program's.").PlaceHolder("CMD").String()
	level := cmd.Flag("log.level", "Least severe messages to log: debug, info, warn or error.").Default("info").Enum(
		"debug", "info", "warn", "error")
	format := cmd.Flag("log.format", "Format of the log: logfmt or json.").Default("logfmt").Enum("logfmt", "json")
	cmd.Action(func(*kingpin.ParseContext) error {
		hangup := make(chan os.Signal, 1)
		signal.Notify(hangup, syscall.SIGHUP) // before anything that takes time: its default effect ends the process
		log, err := newLogger(env, *level, *format)
		if err != nil {
			return err
		}
		load := func() (*config.Config, error) {
			cfg, err := env.resolver().Config(*paths, *replica)
			if err == nil && *env.Admin != "" {
				cfg.Server.Admin, err = ownSocket(*env.Admin)
			}
			return cfg, err
		}
		cfg, err := load()
		if err != nil {
			return err
		}
		if err := daemon.CheckAdopt(cfg, *adopt); err != nil {
			return &exitError{code: exitFindings, err: err}
		}
		allowed, err := workAsOwner(env, cfg)
		if err != nil {
			return err
		}
		if _, chosen := env.Getenv("GOGC"); !chosen && len(cfg.Databases) >= manyDatabases {
			debug.SetGCPercent(50)
		}
		socket, _ := env.Getenv("NOTIFY_SOCKET")
		o := daemon.Options{
			Config: cfg, Load: load, Hangup: hangup, Logger: log, Build: readBuildInfo(), NotifySocket: socket,
			Web: listeners, AllowedHosts: *hosts, CountBusy: *busy, CountSteps: *steps, Adopt: *adopt, Detail: *detail,
			Allowed: allowed,
		}
		if *beside != "" {
			return runBeside(context.Background(), env, o, *beside)
		}
		// The first signal begins the shutdown. After that, a signal has its default effect and ends
		// the process immediately.
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		context.AfterFunc(ctx, stop)
		go daemon.Suspend(ctx)
		d, err := daemon.New(o)
		if err != nil {
			return err
		}
		return d.Run(ctx)
	})
}

// ownSocket returns server.admin if --admin overrides it.
func ownSocket(named string) (string, error) {
	path, err := filepath.Abs(strings.TrimPrefix(named, "unix://"))
	if err != nil {
		return "", fmt.Errorf("find the directory of --admin: %w", err)
	}
	return "unix://" + path, nil
}

func newLogger(env *environment, level, format string) (*slog.Logger, error) {
	c := &promslog.Config{Level: promslog.NewLevel(), Format: promslog.NewFormat(), Writer: env.Stderr}
	if err := errors.Join(c.Level.Set(level), c.Format.Set(format)); err != nil {
		return nil, err
	}
	return promslog.New(c), nil
}
