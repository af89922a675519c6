// Command sqlwatch stands beside an application that uses SQLite in WAL mode. It
// measures the database from outside, exports what it measured to Prometheus,
// decides by policies written in HCL, and acts: checkpoints off-peak, continuous
// replication, notifications. The application is never changed.
//
// From start to loop in three opens: run.go reads the flags, internal/daemon/daemon.go
// puts the parts together, internal/watchdog/watchdog.go is the loop.
//
// Exit codes of all commands: 0 is success, 1 is an error, 2 means that there are
// findings or differences, so that a build can be gated on it. A second SIGTERM
// or SIGINT ends a running daemon at once.
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

// environment is what a command may touch of the process it runs in.
type environment struct {
	Stdout, Stderr io.Writer
	Getenv         func(string) (string, bool)
	Setenv         func(name, value string) error // for what the unit's environment adds; may be nil
	Config         *string                        // the value of --config; see configPath
	Admin          *string                        // the value of --admin; see adminSocket
}

// exitError ends the process with a code of its own choice. A nil err says that
// everything there is to say has been printed already.
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
	// Memory holds keys: nothing of it stays, however this ends. 1 stops also the programs that a kernel
	// may pipe a core to, which 0 does not; it is less than any core.
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1, Max: 1})
	cage.Enter()
	exit := again.Enter()
	// Names that others chose, of files and of processes, must not steer the terminal.
	env := &environment{Stdout: show.NewPrinter(os.Stdout), Stderr: show.NewPrinter(os.Stderr), Getenv: os.LookupEnv,
		Setenv: os.Setenv}
	exit(execute(env, os.Args[1:]))
}

// lookers are the commands that look at every configured database, if only at whether two are
// the same file. They run in a process that can be left behind: a disk that does not answer
// keeps it.
var lookers = []string{"doctor", "status", "why", "plan", "blockers", "writers", "check", "replicas", "snapshots",
	"wal", "verify", "checkpoint", "restore"}

// execute runs one command line and returns the process's exit code.
func execute(env *environment, args []string) int {
	args = dashed(args)
	if len(args) > 1 && args[0] == "help" {
		args = append(args[1:len(args):len(args)], "--help") // what is no command is explained then
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

// dashed joins "-o -" to one argument: kingpin takes a "-" on its own for no text at all.
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

// newApplication registers every command. Each file of this package that brings
// commands has one register function.
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
