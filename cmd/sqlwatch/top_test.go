package main

import (
	"os/exec"
	"testing"
)

// inTerminal runs `sqlwatch top` in a terminal of 90 columns and 20 rows: the table, details, a
// question that is answered with no, and a clean end that restores the screen.
const inTerminal = `
import fcntl, os, pty, select, sqlite3, struct, sys, termios, time
path = sys.argv[1] + "/app.db"
db = sqlite3.connect(path, isolation_level=None)
db.execute("PRAGMA journal_mode=WAL")
db.execute("CREATE TABLE t (x)")
pid, fd = pty.fork()
if pid == 0:
    os.environ.update(TERM="xterm-256color", RUNTIME_DIRECTORY=sys.argv[1])
    os.execvp("sqlwatch", ["sqlwatch", "top", path])
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 90, 0, 0))
out = b""

def read(until):
    global out
    end = time.time() + 60
    while until not in out:
        if time.time() > end:
            sys.exit("not shown within 60 s: %r in %r" % (until, out[-2000:]))
        if select.select([fd], [], [], 0.1)[0]:
            try:
                out += os.read(fd, 65536)
            except OSError:
                return
    out = out[out.index(until) + len(until):]

read(b"\x1b[?1049h")
read(b"shrink-wal")
os.write(fd, b"\r")
read(b"checkpoint lag")
os.write(fd, b"c")
read(b"checkpoint app?")
os.write(fd, b"n")
os.write(fd, b"q")
read(b"\x1b[?1049l")
while select.select([fd], [], [], 0.1)[0]:
    try:
        if not os.read(fd, 65536):
            break
    except OSError:
        break
_, status = os.waitpid(pid, 0)
sys.exit(status and "ended with %d" % status)
`

func TestTopInATerminal(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("python3", "-c", inTerminal, t.TempDir()).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
