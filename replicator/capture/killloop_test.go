package capture

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
)

// Environment variables of a capture process that is there to be killed.
const (
	envVictim  = "SQLWATCH_TEST_VICTIM" // the scene's directory
	envRelease = "SQLWATCH_TEST_RELEASE"
	envRounds  = "SQLWATCH_TEST_KILL_ROUNDS"
)

// TestVictim is not a test: TestKillLoop runs it in a process of its own.
func TestVictim(t *testing.T) {
	dir := os.Getenv(envVictim)
	if dir == "" {
		t.Skip("runs only as the victim of TestKillLoop")
	}
	release, err := strconv.ParseUint(os.Getenv(envRelease), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	files, err := dbfile.Open(filepath.Join(dir, "app.db"))
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(dir, "victim.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	c := New(Options{Name: "app", Logger: slog.New(slog.NewTextHandler(log, nil)), Files: files,
		StateDir: filepath.Join(dir, "state"), RestartAt: 1 << 20, BatchAge: 5 * time.Millisecond})
	ctx := context.Background()
	if err := c.Open(ctx); err != nil {
		t.Fatal(err)
	}
	os.Stdout.WriteString("open\n")
	tick := time.NewTicker(time.Millisecond)
	for n := 0; ; n++ {
		if _, err := c.Step(ctx, n%7 == 0); err != nil && !errors.Is(err, sqlite.ErrBusy) {
			t.Fatal(err)
		}
		if n == 3 {
			if err := c.Spool().Release(ltx.TXID(release)); err != nil {
				t.Fatal(err)
			}
		}
		if n%10 == 9 {
			if _, err := c.Checkpoint(ctx, sqlite.Truncate, sqlite.Budget{}); err != nil {
				t.Fatal(err)
			}
		}
		<-tick.C
	}
}

// TestKillLoop: a capture that is killed at any moment, beside an application at full speed,
// continues with proven continuity or with a comparison that states its reason. The copy is checked
// after every round.
func TestKillLoop(t *testing.T) {
	t.Parallel()
	rounds := 20
	if s := os.Getenv(envRounds); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		rounds = n
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	s := newScene(t)
	s.ctx = context.Background()
	dir := filepath.Dir(s.path)
	a := startApp(t, s.path)
	a.do("schema()")
	reasons := make(map[Reason]int)
	for round := range rounds {
		a.send(flat(0.2 + 0.4*rnd.Float64()))
		killVictim(t, dir, s.copies.last, round%3 == 0, time.Duration(10+rnd.IntN(400))*time.Millisecond)
		a.answer()
		before := s.copies.last
		spooled, _, err := spool.Open(s.options.StateDir)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for _, segment := range spooled.After(before) {
			if segment.Reason != "" {
				reasons[Reason(segment.Reason)]++
			}
		}
		if last := spooled.Last(); last < before {
			t.Fatalf("round %d: position went back from %s to %s", round, before, last)
		}
		s.copies.apply(spooled.List())
	}
	s.open()
	s.checkEqual()
	t.Logf("%d rounds, %s segments, comparisons: %v", rounds, s.copies.last, reasons)
	for reason := range reasons {
		if reason != tail.ReasonFirst && reason != tail.ReasonWALReset {
			log, _ := os.ReadFile(filepath.Join(dir, "victim.log"))
			t.Errorf("%d comparisons for %s; killing the capture explains only wal_reset\n%s", reasons[reason], reason, log)
		}
	}
	if reasons[tail.ReasonFirst] > 1 {
		t.Errorf("the whole database was captured %d times", reasons[tail.ReasonFirst])
	}
}

// killVictim runs a capture in a process of its own and kills it that long after it has opened the
// database or, if blindly is set, after the process was started.
func killVictim(t *testing.T, dir string, release ltx.TXID, blindly bool, after time.Duration) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestVictim$")
	cmd.Env = append(os.Environ(), envVictim+"="+dir, envRelease+"="+strconv.FormatUint(uint64(release), 10))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 5)
	if !blindly {
		if _, err := io.ReadFull(out, first); err != nil || string(first) != "open\n" {
			rest, _ := io.ReadAll(out)
			t.Fatalf("capture process said %q, %v\n%s%s", first, err, first, rest)
		}
	}
	timer := time.AfterFunc(after, func() { cmd.Process.Kill() })
	defer timer.Stop()
	rest, _ := io.ReadAll(out)
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("capture process ended by itself: %v\n%s", err, rest)
	}
}
