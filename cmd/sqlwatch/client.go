package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/policy"
)

// errNoDaemon is returned by the admin client when nothing answers at the socket.
var errNoDaemon = errors.New("no sqlwatch daemon answers")

// adminClient speaks to a running daemon over its admin socket.
type adminClient struct {
	socket string
	http   *http.Client
}

// newAdminClient returns a client of the daemon that --admin, the configuration
// or the default place points to.
func newAdminClient(env *environment) *adminClient {
	socket := adminSocket(env)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "unix", socket)
	}
	return &adminClient{socket: socket, http: &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// adminSocket returns the path of the admin socket: --admin, $SQLWATCH_ADMIN, the
// configuration's, the default. A configuration that does not load is no reason to
// fail here: the daemon may still run with an older one.
func adminSocket(env *environment) string {
	if env.Admin != nil && *env.Admin != "" {
		return strings.TrimPrefix(*env.Admin, "unix://")
	}
	if socket, ok := env.Getenv("SQLWATCH_ADMIN"); ok && socket != "" {
		return strings.TrimPrefix(socket, "unix://")
	}
	// Errors of other blocks, such as variables that only the unit's environment has,
	// do not matter here.
	if path, err := configPath(env); err == nil {
		if cfg, _ := config.Load(path, env.Getenv); cfg != nil && cfg.Server.Admin != "" {
			return strings.TrimPrefix(cfg.Server.Admin, "unix://")
		}
	}
	return filepath.Join(runtimeDir(env), "admin.sock")
}

// runtimeDir returns where the admin socket goes when no configuration says so:
// /run/sqlwatch for root, else the user's own runtime directory.
func runtimeDir(env *environment) string {
	if dir, ok := env.Getenv("RUNTIME_DIRECTORY"); ok && dir != "" {
		return dir // systemd made it
	}
	if os.Geteuid() == 0 {
		return "/run/sqlwatch"
	}
	if dir, ok := env.Getenv("XDG_RUNTIME_DIR"); ok && dir != "" {
		return filepath.Join(dir, "sqlwatch")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("sqlwatch-%d", os.Geteuid()))
}

// call sends one request and decodes the answer into out. errNoDaemon means that
// nothing listens there; any other error is the daemon's own answer.
func (c *adminClient) call(ctx context.Context, method, path string, query url.Values, out any) error {
	target := url.URL{Scheme: "http", Host: "localhost", Path: path, RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(ctx, method, target.String(), nil)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	var dial *net.OpError
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("uid %d may not use %s: ask as root or as the daemon's user: %w", os.Geteuid(), c.socket,
			fs.ErrPermission)
	case errors.As(err, &dial) && dial.Op == "dial" && errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: there is no socket %s", errNoDaemon, c.socket)
	case errors.As(err, &dial) && dial.Op == "dial" && errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: nobody listens at %s any more", errNoDaemon, c.socket)
	case errors.As(err, &dial) && dial.Op == "dial":
		return fmt.Errorf("%w: %v", errNoDaemon, err)
	}
	if err != nil {
		return fmt.Errorf("ask the daemon at %s: %w", c.socket, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		var refusal struct{ Error string }
		if err := json.NewDecoder(response.Body).Decode(&refusal); err != nil || refusal.Error == "" {
			return fmt.Errorf("the daemon at %s answers %s", c.socket, response.Status)
		}
		if response.StatusCode == http.StatusNotFound {
			return &remoteError{refusal.Error, watchdog.ErrUnknownDatabase}
		}
		return errors.New(refusal.Error)
	}
	if err := json.NewDecoder(response.Body).Decode(out); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil
}

// remoteError is an error that the daemon told, with its kind.
type remoteError struct {
	text string
	kind error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.kind }

// The views are the published types as they come back from JSON, where truth
// values are names.
type databaseView struct {
	watchdog.DatabaseStatus
	Decision *decisionView `json:"decision"`
}

type decisionView struct {
	policy.Decision
	Policies []policyView      `json:"policies"`
	Windows  map[string]string `json:"windows"`
	Tunes    []tuneView        `json:"tunes"`
}

type policyView struct {
	policy.PolicyDecision
	When string `json:"when"`
}

type tuneView struct {
	policy.TuneDecision
	Goal string `json:"goal"`
}
