// Package admin asks a running daemon over its admin socket, as every command of an
// operator does before it looks for itself.
package admin

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
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/unit"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/internal/web"
	"github.com/sqlwatch/sqlwatch/policy"
)

// ErrNoDaemon is returned where nothing answers at the socket.
var ErrNoDaemon = errors.New("no sqlwatch daemon answers")

// ErrBusy is returned where a daemon is there and does not answer.
var ErrBusy = errors.New("busy")

// answersWithin is how long a daemon may take for what waits for nobody there.
const answersWithin = 10 * time.Second

// Client speaks to a running daemon.
type Client struct {
	Waiting func() (done func()) // shows that an answer is waited for; may be nil

	socket string
	http   *http.Client
	within time.Duration
}

// New returns a client of the daemon at a socket.
func New(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "unix", socket)
		if err != nil {
			return nil, err
		}
		if uid, err := web.PeerUID(conn); err != nil || !believed(uid, os.Geteuid()) {
			conn.Close()
			return nil, &strangerError{socket, uid}
		}
		return conn, nil
	}
	return &Client{socket: socket, within: answersWithin,
		http: &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// believed reports whether a user is told the truth by what another one runs: root's, his
// own, and to root everybody's, who chose the socket.
func believed(peer, self int) bool { return peer == 0 || peer == self || self == 0 }

// strangerError is what answers at a socket and is neither root's nor the asker's.
type strangerError struct {
	socket string
	uid    int
}

// Error says who it is.
func (e *strangerError) Error() string {
	return fmt.Sprintf("what answers at %s runs as uid %d, who is neither root nor you: it is not asked", e.socket, e.uid)
}

// Databases returns what the daemon knows of one database, with its tree of values, or
// of all of them for "".
func (c *Client) Databases(ctx context.Context, name string) ([]Database, error) {
	query := url.Values{}
	if name != "" {
		query.Set("db", name)
	}
	var databases struct{ Databases []Database }
	if err := c.Call(ctx, http.MethodGet, "/api/v1/databases", query, &databases); err != nil {
		return nil, err
	}
	if name != "" {
		var decisions struct {
			Decisions []struct{ Decision *Decision }
		}
		if err := c.Call(ctx, http.MethodGet, "/api/v1/decisions", query, &decisions); err != nil {
			return nil, err
		}
		for i := range min(len(databases.Databases), len(decisions.Decisions)) {
			databases.Databases[i].Decision = decisions.Decisions[i].Decision
		}
	}
	return databases.Databases, nil
}

// Health returns how the daemon itself fares. No answer is a condition of its own.
func (c *Client) Health(ctx context.Context) web.Health {
	var h web.Health
	if err := c.Call(ctx, http.MethodGet, "/api/v1/health", nil, &h); err != nil {
		return web.Health{Conditions: health.Unreachable(err.Error(), time.Now())}
	}
	return h
}

// Checkpoint asks for a checkpoint, in the mode passive or truncate.
func (c *Client) Checkpoint(ctx context.Context, db, mode string) (record watchdog.ActionRecord, err error) {
	err = c.Call(ctx, http.MethodPost, "/v1/checkpoint", url.Values{"db": {db}, "mode": {mode}}, &record)
	return record, err
}

// Replicas returns where the replicas of a database are that a daemon watches.
func (c *Client) Replicas(ctx context.Context, db string) (places web.Places, err error) {
	err = c.Call(ctx, http.MethodGet, "/v1/replicas", url.Values{"db": {db}}, &places)
	return places, err
}

// Pause keeps the policies of one database, or of all for "", from acting; 0 ends that.
func (c *Client) Pause(ctx context.Context, db string, length time.Duration) error {
	return c.Call(ctx, http.MethodPost, "/v1/pause", url.Values{"db": {db}, "for": {length.String()}}, &struct{}{})
}

// Retune takes a tuned value back ("revert") or keeps it as it is ("freeze"), and returns
// what came of that.
func (c *Client) Retune(ctx context.Context, do, db, policy, tune string) (string, error) {
	var said struct{ Result string }
	err := c.Call(ctx, http.MethodPost, "/v1/tune/"+do, url.Values{"db": {db}, "policy": {policy}, "tune": {tune}}, &said)
	return said.Result, err
}

// Call sends one request and decodes the answer into out. ErrNoDaemon means that
// nothing listens there, ErrBusy that somebody does who does not answer; any other error is
// the daemon's own answer.
func (c *Client) Call(ctx context.Context, method, path string, query url.Values, out any) error {
	if method != http.MethodGet && path != "/v1/pause" {
		return c.ask(ctx, method, path, query, out) // lasts as long as it takes
	}
	brief, cancel := context.WithTimeout(ctx, c.within)
	defer cancel()
	if c.Waiting != nil {
		defer c.Waiting()()
	}
	err := c.ask(brief, method, path, query, out)
	if errors.Is(brief.Err(), context.DeadlineExceeded) && ctx.Err() == nil && err != nil {
		return fmt.Errorf("%w: the daemon at %s is there and has not answered for %s: it is stopped, or has no processor "+
			"time", ErrBusy, c.socket, c.within)
	}
	return err
}

func (c *Client) ask(ctx context.Context, method, path string, query url.Values, out any) error {
	target := url.URL{Scheme: "http", Host: "localhost", Path: path, RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(ctx, method, target.String(), nil)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	var dial *net.OpError
	var stranger *strangerError
	switch {
	case errors.As(err, &stranger):
		return stranger
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("uid %d may not use %s: ask as root or as the daemon's user: %w", os.Geteuid(), c.socket,
			fs.ErrPermission)
	case errors.As(err, &dial) && dial.Op == "dial" && errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: there is no socket %s%s", ErrNoDaemon, c.socket, others(c.socket))
	case errors.As(err, &dial) && dial.Op == "dial" && errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: nobody listens at %s any more", ErrNoDaemon, c.socket)
	case errors.Is(err, syscall.EAGAIN), errors.As(err, &dial) && dial.Op == "dial" && dial.Timeout():
		return fmt.Errorf("%w: the daemon at %s is there and too busy to answer: ask again", ErrBusy, c.socket)
	case errors.As(err, &dial) && dial.Op == "dial":
		return fmt.Errorf("%w: %v", ErrNoDaemon, err)
	}
	var timeout net.Error
	switch {
	case err == nil:
	case ctx.Err() != nil, errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("ask the daemon at %s: %w", c.socket, err)
	default: // closed before or instead of an answer, for which net/http has errors without a name, or no HTTP
		return fmt.Errorf("what answers at %s is no sqlwatch, or it is ending: %w", c.socket, err)
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

// others names the sockets of services that do run, where somebody asks at another one.
func others(socket string) string {
	running := slices.DeleteFunc(unit.Sockets("/run"), func(name string) bool { return name == socket })
	if len(running) == 0 {
		return ""
	}
	return "; there is " + strings.Join(running, " and ") + ": name it with --admin"
}

// remoteError is an error that the daemon told, with its kind.
type remoteError struct {
	text string
	kind error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.kind }

// Database is what a daemon publishes of a database, as it comes back from JSON, where
// truth values are names.
type Database struct {
	watchdog.DatabaseStatus
	Decision *Decision `json:"decision"`
}

// Decision is what the policies say of a database.
type Decision struct {
	policy.Decision
	Policies []Policy          `json:"policies"`
	Windows  map[string]string `json:"windows"`
	Tunes    []Tune            `json:"tunes"`
}

// Policy is what one policy says.
type Policy struct {
	policy.PolicyDecision
	When string `json:"when"`
}

// Tune is what one tune block says.
type Tune struct {
	policy.TuneDecision
	Goal string `json:"goal"`
}

// Quiet is what a learned window knows of a database.
type Quiet struct {
	policy.Quiet
	Open  string `json:"open"`
	Hours []Hour `json:"hours"`
}

// Hour is one hour of its week.
type Hour struct {
	policy.Hour
	Quiet string `json:"quiet"`
}

// Quiet returns what the learned windows know of a database.
func (c *Client) Quiet(ctx context.Context, db string) (windows []Quiet, err error) {
	err = c.Call(ctx, "GET", "/v1/quiet", url.Values{"db": {db}}, &windows)
	return windows, err
}

// Tunes returns what the tune blocks say of the databases; never nil.
func Tunes(views []Database) []Tune {
	all := []Tune{}
	for _, v := range views {
		if v.Decision != nil {
			all = append(all, v.Decision.Tunes...)
		}
	}
	return all
}
