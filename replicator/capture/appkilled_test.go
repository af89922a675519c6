package capture

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

// TestApplicationKilled_D30 kills an application while it commits beside sqlwatch. The application
// comes back at once or never, or sqlwatch is restarted as well. Only whole commits are captured,
// and no comparison is needed.
func TestApplicationKilled_D30(t *testing.T) {
	t.Parallel()
	rounds := 6
	if n, err := strconv.Atoi(os.Getenv(envRounds)); err == nil {
		rounds = n
	}
	for round := range rounds {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			var a *app
			if stood := round%2 == 0; stood {
				a = s.live()
			} else {
				a = startApp(t, s.path)
				a.do("schema()")
				s.open()
				s.settle()
			}
			a.send(flat(60))
			for until := time.Now().Add(time.Duration(50+7*(round%29)) * time.Millisecond); time.Now().Before(until); {
				time.Sleep(min(s.step(false).Next, 5*time.Millisecond))
			}
			a.kill()
			switch round / 2 % 3 {
			case 0:
				startApp(t, s.path).do("commit(3)")
			case 1:
				s.close()
				s.open()
			}
			s.settle()
			if round/2%3 > 0 { // the WAL may or may not hold a commit that was under way
				s.steps("nobody is there", func() bool { return s.sides() == "" || s.capture.hold.blank })
			}
			s.checkEqual()
			s.wantLost(nil)
		})
	}
}

// TestApplicationKilled_D30_inTheHeader: an application killed between writing the two copies of
// the wal-index header leaves copies that differ. The next process to connect, sqlwatch included,
// rebuilds the wal-index, and no error is reported.
func TestApplicationKilled_D30_inTheHeader(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(s *scene) *app{
		"trusted to stay": (*scene).live,
		"just come": func(s *scene) *app {
			a := startApp(s.t, s.path)
			a.do("schema()")
			s.open()
			s.settle()
			return a
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			a := start(s)
			a.do("commit(5)")
			s.settle()
			a.kill()
			output(t, "/usr/bin/python3", "-c",
				"import os, sys; os.pwrite(os.open(sys.argv[1], os.O_RDWR), b'written', 48 + 20)", s.path+"-shm")
			s.checkEqual()
			s.wantLost(nil)
		})
	}
}
