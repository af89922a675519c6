package cli

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal returns both ends of a terminal: what is written to tty is read from screen.
func terminal(t *testing.T) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no terminal can be made here: ", err)
	}
	t.Cleanup(func() { screen.Close() })
	number, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return screen, tty
}

// A sign of waiting ends, also on a terminal, and can be shown again; while it is shown, no other
// is.
func TestWaitingEnds(t *testing.T) {
	t.Parallel()
	_, tty := terminal(t)
	for range 2 {
		done := Waiting(tty, "asking")
		Waiting(tty, "asking within")()
		if !shown.Load() {
			t.Error("the inner one has ended the outer one")
		}
		done()
		if shown.Load() {
			t.Error("it is still shown")
		}
	}
}

// A command that waits shows so at once, not only when the store has answered.
func TestProgressBeginsAtOnce(t *testing.T) {
	t.Parallel()
	screen, tty := terminal(t)
	_, end := Progress(tty, "verifying", "looking at the replica")
	fmt.Fprintln(tty, "NOTHING YET")
	end()
	said, err := bufio.NewReader(screen).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if before, _, _ := strings.Cut(said, "NOTHING YET"); !strings.Contains(before, "verifying: looking at the replica") {
		t.Errorf("before anything was done the terminal showed %q", before)
	}
}
