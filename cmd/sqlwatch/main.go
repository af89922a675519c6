// Command sqlwatch runs beside an application that uses SQLite in WAL mode. It measures the
// database from outside, exports the measurements to Prometheus, decides by policies written
// in HCL, and acts: checkpoints off-peak, continuous replication, notifications. The
// application is never changed.
//
// From start to loop in three files: run.go reads the flags, daemon/daemon.go assembles the
// parts, watchdog/watchdog.go is the loop.
//
// Exit codes of all commands: 0 is success, 1 is an error, 2 means that there are findings or
// differences, so that a build can depend on it. A second SIGTERM or SIGINT ends a running
// daemon immediately.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	_ "time/tzdata" // windows name time zones; a container may have none

	"github.com/alecthomas/kingpin/v2"
	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/again"
	"github.com/sqlwatch/sqlwatch/internal/cage"
	"github.com/sqlwatch/sqlwatch/internal/cli"
	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/internal/target"
)

// The exit codes of every command.
const (
	exitOK       = 0
	exitFailure  = 1
	exitFindings = 2
)

// environment is what a command may use of the process it runs in.
type environment struct {
	Stdout, Stderr io.Writer
	Getenv         func(string) (string, bool)
	Setenv         func(name, value string) error // sets a variable from the unit's environment file; may be nil
	Config         *string                        // the value of --config; see configPath
	Admin          *string                        // the value of --admin; see adminSocket
}

// exitError makes the process exit with its code. If err is nil, everything has been printed already.
type exitError struct {
	code int
	err  error
}

// Error returns the message of the wrapped error.
func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

// Unwrap returns the wrapped error.
func (e *exitError) Unwrap() error { return e.err }

func main() {
	// Memory holds keys: no core dump may be written. A limit of 0 would still let the kernel pipe a core to a
	// program; 1 prevents that too, and is smaller than any core.
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1, Max: 1})
	cage.Enter()
	exit := again.Enter()
	// Names that others chose, of files and processes, must not control the terminal.
	env := &environment{Stdout: show.NewPrinter(os.Stdout), Stderr: show.NewPrinter(os.Stderr), Getenv: os.LookupEnv,
		Setenv: os.Setenv}
	exit(execute(env, os.Args[1:]))
}

// lookers are the commands that look at every configured database, if only to see whether two are the
// same file. They run in a child process that can be abandoned, because a disk that does not answer
// would block them.
var lookers = []string{"doctor", "status", "why", "plan", "blockers", "writers", "check", "replicas", "snapshots",
	"wal", "verify", "checkpoint", "restore"}

// execute runs one command line and returns the process's exit code.
func execute(env *environment, args []string) int {
	args = dashed(args)
	if len(args) > 1 && args[0] == "help" {
		args = append(args[1:len(args):len(args)], "--help") // an unknown command is then explained
	}
	app := newApplication(env)
	_, err := app.ParseContext(args)
	if err == nil || slices.Contains(args, "--completion-bash") {
		_, err = app.Parse(args)
	} else {
		err = cli.Explain(app, args, err)
	}
	if err == nil {
		return exitOK
	}
	exit := &exitError{code: exitFailure, err: err}
	var bad *target.ConfigError
	if errors.As(err, &bad) {
		exit.code = exitFindings
	}
	errors.As(err, &exit)
	if exit.err != nil {
		fmt.Fprintf(env.Stderr, "sqlwatch: %v\n", err)
	}
	return exit.code
}

// dashed joins "-o -" into one argument, because kingpin treats a "-" on its own as no value.
func dashed(args []string) []string {
	var out []string
	for i := 0; i < len(args); i++ {
		if (args[i] == "-o" || args[i] == "--output") && i+1 < len(args) && args[i+1] == "-" {
			out = append(out, "--output=-")
			i++
			continue
		}
		out = append(out, args[i])
	}
	return out
}

// newApplication registers every command. Each file of this package with commands has one
// register function.
func newApplication(env *environment) *kingpin.Application {
	app := kingpin.New("sqlwatch", "Measures, exports, checkpoints and replicates SQLite databases in WAL mode, from "+
		"outside the application.")
	app.UsageWriter(env.Stdout).ErrorWriter(env.Stderr)
	app.HelpFlag.Short('h')
	app.PreAction(func(parsed *kingpin.ParseContext) error {
		if parsed.SelectedCommand == nil {
			return nil
		}
		command := parsed.SelectedCommand.FullCommand()
		if err := cli.Possible(command, sqlite.Linked); err != nil || !slices.Contains(lookers, command) {
			return err
		}
		if code, ran, err := again.Run(); ran {
			return &exitError{code: code, err: err}
		}
		return nil
	})
	env.Config = app.Flag("config", "Configuration: a file or a directory of *.hcl. Default: $SQLWATCH_CONFIG, then "+
		"/etc/sqlwatch.").
		PlaceHolder("PATH").String()
	env.Admin = app.Flag("admin", "Admin socket: of run the one to make, of other commands the daemon's. Default: the "+
		"configuration's.").
		PlaceHolder("SOCKET").String()

	app.Flag("version", "Print the version, as the command does.").PreAction(func(*kingpin.ParseContext) error {
		if err := writeVersion(env, false); err != nil {
			return err
		}
		return &exitError{code: exitOK}
	}).Bool()

	for _, register := range []func(*kingpin.Application, *environment){
		registerRun, registerDemo,
		registerStatus, registerTop, registerWhy, registerPlan, registerBlockers, registerQuiet, registerTune, registerReplay,
		registerWriters,
		registerCheckpoint, registerAdmin, registerNotify,
		registerCheck, registerFmt, registerTest,
		registerReplicas, registerRestore, registerSnapshots, registerVerify,
		registerDoctor,
		registerBench,
		registerImport,
		registerVersion, registerHelp,
	} {
		register(app, env)
	}
	return app
}
