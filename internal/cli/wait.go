package cli

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mattn/go-isatty"

	"github.com/sqlwatch/sqlwatch/internal/show"
)

// patience is how long a command may be silent on a terminal.
const patience = 700 * time.Millisecond

// Terminal returns the terminal that w leads to, nil where it is none.
func Terminal(w io.Writer) *os.File {
	f, ok := show.Unwrap(w).(*os.File)
	if !ok || !isatty.IsTerminal(f.Fd()) {
		return nil
	}
	return f
}

// shown is whether something is: what is waited for within that is part of it.
var shown atomic.Bool

// Waiting shows on a terminal what is waited for, and for how long already, until the
// function that it returns is called. Elsewhere it shows nothing.
func Waiting(w io.Writer, what string) (done func()) {
	terminal := Terminal(w)
	if terminal == nil {
		return func() {}
	}
	if !shown.CompareAndSwap(false, true) {
		return func() {}
	}
	stop := waiting(terminal, show.Text(what))
	return func() { // which is done from here on
		stop()
		shown.Store(false)
	}
}

func waiting(w io.Writer, what string) (done func()) {
	stop := make(chan struct{})
	var showing sync.WaitGroup
	showing.Go(func() {
		begun := time.Now()
		timer := time.NewTimer(patience)
		defer timer.Stop()
		said := false
		for {
			select {
			case <-stop:
				if said {
					fmt.Fprint(w, "\r\x1b[K")
				}
				return
			case <-timer.C:
				said = true
				fmt.Fprintf(w, "\r%s … %s\x1b[K", what, show.Span(time.Since(begun).Round(time.Second)))
				timer.Reset(time.Second)
			}
		}
	})
	return sync.OnceFunc(func() {
		close(stop)
		showing.Wait()
	})
}
