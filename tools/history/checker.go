package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ack is an acknowledgement by sqlwatch at a time: everything up to a place in the application's
// log is durable.
type ack struct {
	place int
	at    time.Time
}

// version is what a TXID was restored to.
type version struct {
	state state
	sum   string // sha256 of the file
}

// checker restores and judges, in several goroutines at a time.
type checker struct {
	s         *scene
	account   *account
	startedAt time.Time

	mu       sync.Mutex
	acks     []ack
	newest   int    // furthest place in the log of a state to which a restore of the latest state returned
	newestTX uint64 // the highest TXID of these restores
	byTXID   map[uint64]version
	restores map[string]int // by kind
	exact    int            // restores that were compared with the application's own pages
	syncs    int
	refused  map[string]int // restores that ended with an error, by the last line of its text
	bad      []string
}

func newChecker(s *scene) *checker {
	return &checker{s: s, account: newAccount(s.log), byTXID: map[uint64]version{},
		newest: -1, restores: map[string]int{}, refused: map[string]int{}, startedAt: time.Now()}
}

func (c *checker) fault(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bad = append(c.bad, text)
	fmt.Printf("history: BAD at %s: %s\n", time.Now().UTC().Format(time.RFC3339Nano), text)
}

// loop requests syncs and restores until ctx ends.
func (c *checker) loop(ctx context.Context) {
	var workers sync.WaitGroup
	for n := range c.s.o.workers {
		workers.Go(func() { c.work(ctx, newRestorer(c, n)) })
	}
	workers.Wait()
}

func (c *checker) work(ctx context.Context, r *restorer) {
	rng := rand.New(rand.NewPCG(c.s.o.seed, uint64(100+r.n)))
	for ctx.Err() == nil {
		if err := c.account.read(); err != nil {
			c.fault("%v", err)
			return
		}
		switch n := rng.IntN(12); {
		case n < 2:
			c.sync(ctx, 5*time.Second)
		case n < 3 && c.s.o.clock == "":
			c.caughtUp()
		case n < 7 || !c.acknowledged():
			r.latest(ctx)
		case n < 10:
			r.moment(ctx, rng)
		default:
			r.again(ctx, rng)
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (c *checker) acknowledged() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.acks) > 0
}

// promised records that everything up to a place was acknowledged as durable.
func (c *checker) promised(place int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.acks); n > 0 {
		place = max(place, c.acks[n-1].place) // the answers that two workers wait for may arrive in either order
	}
	c.acks = append(c.acks, ack{place, time.Now()})
}

// floor returns the lowest place and TXID that a restore which begins now may return.
func (c *checker) floor() (place int, txid uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	place, txid = c.newest, c.newestTX
	if n := len(c.acks); n > 0 {
		place = max(place, c.acks[n-1].place)
	}
	return place, txid
}

// sync asks the daemon to make everything durable, and records what it acknowledged.
func (c *checker) sync(ctx context.Context, limit time.Duration) bool {
	_, before := c.account.newest()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out, err := exec.CommandContext(ctx, c.s.o.sqlwatch, "sync", "--wait", "--config", c.s.config, "app").CombinedOutput()
	if err != nil {
		if c.s.o.verbose {
			fmt.Printf("history: sync: %v: %s\n", err, bytes.TrimSpace(out))
		}
		return false
	}
	c.promised(before)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.syncs++
	return true
}

// caughtUp records what sqlwatch_replica_caught_up_timestamp_seconds promises: every commit that
// had returned by that time is durable.
func (c *checker) caughtUp() {
	client := http.Client{Timeout: 2 * time.Second}
	resp, err := client.Get("http://" + c.s.listen + "/metrics")
	if err != nil {
		return // the daemon is not running at the moment
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		return
	}
	for line := range strings.Lines(string(page)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		var seconds float64
		if !strings.HasPrefix(name, "sqlwatch_replica_caught_up_timestamp_seconds{") {
			continue
		}
		if _, err := fmt.Sscan(value, &seconds); err != nil {
			c.fault("metric %q: %v", line, err)
		}
		// A float64 cannot hold the nanoseconds of a time.
		at := time.UnixMicro(int64(seconds*1e6) - 2)
		if place := c.account.before(at); place >= 0 {
			c.promised(place)
		}
	}
}

// final waits until everything is at rest, and checks that a restore has the last commit and is
// byte for byte the application's file.
func (c *checker) final(ctx context.Context) {
	c.s.endDaemon(syscall.SIGKILL)
	c.s.o.killAt = ""
	if err := c.s.startDaemon(); err != nil {
		c.fault("last start: %v", err)
		return
	}
	if err := c.s.daemonAnswers(10 * time.Second); err != nil {
		c.fault("last start: %v", err)
	}
	c.s.stopApp(false)
	deadline := time.Now().Add(30 * time.Second)
	for c.account.read() != nil || !c.sync(ctx, 30*time.Second) {
		if time.Now().After(deadline) {
			c.fault("no sync within 30 s of the last fault")
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
	r := newRestorer(c, 0)
	r.latest(ctx)
	if _, newest := c.account.newest(); c.newest != newest {
		c.fault("the last restore has %s, the application had committed %s", c.account.name(c.newest), c.account.name(newest))
	}
	c.applicationErrors()
	c.s.endDaemon(syscall.SIGTERM)
	c.sameBytes(r.target)
}

// applicationErrors checks that the application had no error that it would not have had without
// sqlwatch: only a full disk is the nemesis's doing.
func (c *checker) applicationErrors() {
	if err := c.account.read(); err != nil {
		c.fault("%v", err)
	}
	full := 0
	for _, e := range c.account.errors {
		if c.s.harms[fillDatabase] > 0 && (strings.Contains(e, "full") || strings.Contains(e, "no space left")) {
			full++
			continue
		}
		c.fault("the application had an error: %s", e)
	}
	if full > 0 {
		fmt.Printf("history: %d errors of the application while its disk was full\n", full)
	}
}

// sameBytes checkpoints the application's WAL with the system's sqlite3 and compares the
// database with the restored file.
func (c *checker) sameBytes(restored string) {
	if out, err := exec.Command("sqlite3", c.s.db, "PRAGMA wal_checkpoint(TRUNCATE)").CombinedOutput(); err != nil ||
		!strings.HasPrefix(string(out), "0|") {
		c.fault("final checkpoint: %v: %s", err, out)
		return
	}
	source, err1 := os.ReadFile(c.s.db)
	copied, err2 := os.ReadFile(restored)
	if err := errors.Join(err1, err2); err != nil {
		c.fault("%v", err)
		return
	}
	if !bytes.Equal(source, copied) {
		c.keep(restored)
		c.fault("the restored file (%d bytes) is not the application's (%d bytes)", len(copied), len(source))
	}
}

// keep saves a restored file that was judged bad, together with the replica and the state
// directory as they are now.
func (c *checker) keep(target string) {
	c.mu.Lock()
	dir := filepath.Join(c.s.o.dir, fmt.Sprintf("bad%d", len(c.bad)))
	c.mu.Unlock()
	_ = os.MkdirAll(dir, 0o700)
	for _, from := range []string{target, filepath.Join(c.s.o.dir, "replica"), filepath.Join(c.s.o.dir, "state")} {
		_ = exec.Command("cp", "-a", from, dir).Run()
	}
}

func (c *checker) report() {
	for _, d := range c.s.deaths {
		c.fault("sqlwatch ended by itself: %s", d)
	}
	all := 0
	for _, n := range c.restores {
		all += n
	}
	var took []time.Duration
	for _, e := range c.account.entries {
		if e.took > 0 {
			took = append(took, e.took)
		}
	}
	fmt.Printf("history: seed %d: %s, %d commits, %d kills of sqlwatch, harm %v, %d syncs, %d promises, %d restores %v, "+
		"%d of them compared with the application's own pages, %d bad\n",
		c.s.o.seed, time.Since(c.startedAt).Round(time.Second), len(took), c.s.kills, c.s.harms, c.syncs,
		len(c.acks), all, c.restores, c.exact, len(c.bad))
	fmt.Printf("history: lives of the application: %v; it did: %v\n", c.s.lives, c.account.operations)
	if n := c.s.slow.Load(); n > 0 {
		fmt.Printf("history: %d snapshots over a line of %s\n", n, c.s.o.uplink)
	}
	if slices.Sort(took); len(took) > 0 {
		fmt.Printf("history: transactions, waiting included: p50 %s, p99 %s, longest %s\n", took[len(took)/2],
			took[len(took)*99/100], took[len(took)-1])
	}
	for what, n := range c.refused {
		fmt.Printf("history: refused %d times: %s\n", n, what)
	}
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
