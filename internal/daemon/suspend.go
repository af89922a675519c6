package daemon

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/sqlwatch/sqlwatch/internal/sqlite"
)

// Suspend replaces the default effect of SIGTSTP (Ctrl-Z) until ctx ends. A process that is
// stopped in a freeze keeps the application waiting until it continues, so this stops it between
// two freezes. SIGSTOP and a container's freezer cannot be handled like that.
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
