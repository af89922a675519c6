package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sqlwatch/sqlwatch/internal/durable"
)

// lockState creates the state directory and locks it, so that no two daemons use the same state.
func lockState(dir string) (*durable.Flock, error) {
	err := durable.MkdirAll(dir, 0o700)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("the state directory %s cannot be made by uid %d: set server.state_dir, or make it and give "+
			"it to this user: %w", dir, os.Geteuid(), err)
	}
	if err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	lock, err := durable.Lock(filepath.Join(dir, "lock"))
	var held *durable.HeldError
	if errors.As(err, &held) {
		return nil, fmt.Errorf("another sqlwatch, pid %d, uses the state directory %s: stop it, or give this one its own "+
			"server.state_dir: %w", held.PID, dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	return lock, nil
}
