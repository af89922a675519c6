package admin

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sqlwatch/sqlwatch/internal/unit"
)

// Socket returns the path of the admin socket: the one named by --admin, $SQLWATCH_ADMIN,
// the configuration's, the user's own or the service's, that of the only unit that runs.
func Socket(named string, getenv func(string) (string, bool), configured func() string) string {
	socket := named
	if socket == "" {
		socket, _ = getenv("SQLWATCH_ADMIN")
	}
	if socket == "" {
		socket = configured()
	}
	if socket != "" {
		return strings.TrimPrefix(socket, "unix://")
	}
	own := filepath.Join(Places(getenv).RuntimeDir, "admin.sock")
	if _, err := os.Stat(own); err == nil {
		return own
	}
	if dir, _ := getenv("RUNTIME_DIRECTORY"); dir != "" { // within a service no other one is meant
		return own
	}
	if running := unit.Sockets("/run"); len(running) == 1 {
		return running[0]
	}
	return own
}

// Directories are where a daemon keeps its things when no configuration says so.
type Directories struct{ RuntimeDir, StateDir string }

// Places returns systemd's directories where it made them, else the system's for root,
// else the user's own.
func Places(getenv func(string) (string, bool)) Directories {
	return Directories{RuntimeDir: runtimeDir(getenv), StateDir: stateDir(getenv)}
}

func runtimeDir(getenv func(string) (string, bool)) string {
	if dir, ok := getenv("RUNTIME_DIRECTORY"); ok && dir != "" {
		return dir
	}
	if os.Geteuid() == 0 {
		return "/run/sqlwatch"
	}
	if dir, ok := getenv("XDG_RUNTIME_DIR"); ok && dir != "" {
		return filepath.Join(dir, "sqlwatch")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("sqlwatch-%d", os.Geteuid()))
}

func stateDir(getenv func(string) (string, bool)) string {
	const system = "/var/lib/sqlwatch"
	if dir, ok := getenv("STATE_DIRECTORY"); ok && dir != "" {
		return dir
	}
	if os.Geteuid() == 0 {
		return system
	}
	if dir, ok := getenv("XDG_STATE_HOME"); ok && filepath.IsAbs(dir) {
		return filepath.Join(dir, "sqlwatch")
	}
	if home, ok := getenv("HOME"); ok && filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state", "sqlwatch")
	}
	return system
}
