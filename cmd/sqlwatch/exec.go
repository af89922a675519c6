package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/sqlwatch/sqlwatch/internal/daemon"
	"github.com/sqlwatch/sqlwatch/internal/recovery"
	"github.com/sqlwatch/sqlwatch/internal/supervise"
)

// underInit is set in the program that process 1 has started.
const underInit = "SQLWATCH_UNDER_INIT=1"

// runBeside runs a command beside the daemon. First it restores databases whose file is missing
// and that have a replica. It starts the command when the daemon is ready, and ends the daemon,
// with its last sync, after the command has exited. It returns the command's exit code. If the
// daemon fails later, the command continues.
func runBeside(ctx context.Context, env *environment, o daemon.Options, line string) error {
	args, err := supervise.Fields(line)
	if err != nil {
		return fmt.Errorf("--exec: %w", err)
	}
	if os.Getpid() == 1 {
		code, err := supervise.Init(underInit)
		if err != nil {
			return err
		}
		return exitCode(code)
	}
	missing := recovery.Missing{Config: o.Config, Stderr: env.Stderr}
	if err := missing.Restore(ctx); err != nil {
		return fmt.Errorf("before %s was started: %w", args[0], err)
	}
	ready := make(chan struct{})
	o.Ready = func([]string) { close(ready) }
	d, err := daemon.New(o)
	if err != nil {
		return err
	}
	// Signals go to the command: the daemon ends after it, so that the last sync includes the
	// command's last commit.
	daemonCtx, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	ended := make(chan error, 1)
	go func() { ended <- d.Run(daemonCtx) }()
	select {
	case <-ready:
	case err := <-ended:
		return err
	}
	result := supervise.Run(context.WithoutCancel(ctx), args)
	end()
	if err := <-ended; err != nil {
		o.Logger.Error("sqlwatch did not shut down cleanly; the command's last writes may not be in every replica",
			"err", err)
	}
	var exit *supervise.ExitError
	if errors.As(result, &exit) {
		return exitCode(exit.Code)
	}
	return result
}

// exitCode returns an error that exits with another program's exit code and prints nothing.
func exitCode(code int) error {
	if code == 0 {
		return nil
	}
	return &exitError{code: code}
}
