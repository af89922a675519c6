package daemon

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

// Suspend stands for what SIGTSTP (Ctrl-Z) does until ctx ends: a process that is
// stopped in a freeze keeps the application waiting for as long, so it is stopped
// between two. SIGSTOP and a container's freezer cannot be stood for.
func Suspend(ctx context.Context) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTSTP)
	defer signal.Stop(asked)
	for {
		select {
		case <-ctx.Done():
			return
		case <-asked:
			resume := sqlite.HoldFreezes()
			_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP) // returns when somebody sends SIGCONT
			resume()
		}
	}
}
