package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/show"
)

// Progress returns a function that shows progress where w is a terminal, and
// one that ends the line. At once it shows what comes first: the daemon is asked, and
// disks and stores are, before anything is read.
func Progress(w io.Writer, what, first string) (progress func(done, total int64), end func()) {
	terminal := Terminal(w)
	if terminal == nil {
		return nil, func() {}
	}
	w = terminal
	var last time.Time
	begin := func() { fmt.Fprintf(w, "\r%s: %s\x1b[K", what, first) }
	begin()
	progress = func(done, total int64) {
		rest := fmt.Sprintf("%d %%", done*100/max(1, total))
		switch now := time.Now(); {
		case total == 0:
			begin()
			return
		case total > 0 && done >= total:
			rest = "finishing" // checks and the disk: that may take as long again
		case now.Sub(last) < 100*time.Millisecond:
			return
		default:
			last = now
		}
		fmt.Fprintf(w, "\r%s: %s of %s, %s\x1b[K", what, show.Bytes(done), show.Bytes(total), rest)
	}
	return progress, func() { fmt.Fprint(w, "\r\x1b[K") }
}
