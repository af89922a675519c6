package top

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/admin"
)

// terminal is a pseudo-terminal: a person's keys go in, and what the person sees comes out.
type terminal struct {
	t      *testing.T
	keys   *os.File // the person's end
	screen *os.File // the program's end

	mu   sync.Mutex
	seen bytes.Buffer
}

func newTerminal(t *testing.T, columns, rows uint16) *terminal {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(keys.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(keys.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	screen, err := os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, keys: keys, screen: screen}
	term.resize(columns, rows)
	go func() {
		buffer := make([]byte, 1<<16)
		for {
			n, err := keys.Read(buffer)
			if err != nil {
				return
			}
			term.mu.Lock()
			term.seen.Write(buffer[:n])
			term.mu.Unlock()
		}
	}()
	t.Cleanup(func() { screen.Close(); keys.Close() })
	return term
}

func (p *terminal) resize(columns, rows uint16) {
	p.t.Helper()
	size := &unix.Winsize{Col: columns, Row: rows}
	if err := unix.IoctlSetWinsize(int(p.screen.Fd()), unix.TIOCSWINSZ, size); err != nil {
		p.t.Fatal(err)
	}
	// The kernel signals only the terminal's own session, and the test is in another one.
	if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil {
		p.t.Fatal(err)
	}
}

func (p *terminal) typed(keys string) {
	p.t.Helper()
	if _, err := p.keys.WriteString(keys); err != nil {
		p.t.Fatal(err)
	}
}

// steering matches escape sequences, which move the cursor or set colours but show nothing.
var steering = regexp.MustCompile("\x1b(\\[[0-?]*[ -/]*[@-~]|[()].|[=>78])")

// shows waits until a text has appeared, and discards what came before it. The library sends only
// the cells that have changed, so a text must be a word none of whose letters was in its place
// before. The library may also take two changes of size in quick succession as one.
func (p *terminal) shows(want string) {
	p.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; <-time.After(5 * time.Millisecond) {
		p.mu.Lock()
		seen := p.seen.String()
		at := strings.Index(steering.ReplaceAllString(seen, ""), want)
		if at >= 0 {
			p.seen.Reset()
		}
		p.mu.Unlock()
		if at >= 0 {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%q does not come; what came: %q", want, seen[max(0, len(seen)-3000):])
		}
	}
}

// A terminal with a thousand databases is made narrower while somebody uses it.
func TestTerminal(t *testing.T) {
	var many []admin.Database
	for i := range 999 {
		many = append(many, database(fmt.Sprintf("tenant-%03d", i), int64(i)))
	}
	many = append(many, database("zebra", 1, bad))
	term := newTerminal(t, 120, 30)
	h := &hands{}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		ended <- Run(ctx, term.screen, term.screen, 200*time.Millisecond,
			h.of(Look{At: time.Unix(1_700_000_000, 0), From: "from the daemon", Databases: many}))
	}()
	term.shows("1000 databases, 1 in trouble")
	term.typed("\r")
	term.shows("CRITICAL")
	term.typed("\x1b")
	term.shows("tenant-000")
	term.resize(60, 20)
	term.shows("quit") // it has moved to a line of its own
	term.typed("/")
	term.shows("filter")
	term.typed("tenant-77\r")
	term.shows("(esc")
	term.typed("jc")
	term.shows("checkpoint tenant-771? y: yes")
	term.typed("y")
	term.shows("runcated") // without its first letter: there was a t in that place before
	term.typed("p")
	term.shows("pause the policies")
	term.typed("n")
	term.resize(200, 50)
	term.shows("POLICIES") // a column that did not fit before
	term.typed("q")
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
	term.shows("") // the screen is restored
	if got := strings.Join(h.did, "; "); got != "checkpoint tenant-771" {
		t.Errorf("did %s", got)
	}
}
