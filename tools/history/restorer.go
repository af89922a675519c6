package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"time"
)

// restorer restores again and again, to a file of its own.
type restorer struct {
	c      *checker
	n      int
	target string
}

func newRestorer(c *checker, n int) *restorer {
	return &restorer{c: c, n: n, target: filepath.Join(c.s.o.dir, fmt.Sprintf("restored%d.db", n))}
}

// restored is what `sqlwatch restore --json` reports.
type restored struct {
	TXID      uint64    `json:"txid"`
	Timestamp time.Time `json:"timestamp"`
	version
}

// storeTries is how many times a restore is tried while the store does not answer.
const storeTries = 5

// restore runs one restore and judges its result. ok is false if sqlwatch itself reported that
// the restore was not possible.
func (r *restorer) restore(ctx context.Context, kind string, args ...string) (got restored, ok bool) {
	c := r.c
	for _, side := range []string{"", "-wal", "-shm", "-journal"} {
		if err := os.Remove(r.target + side); err != nil && !errors.Is(err, os.ErrNotExist) {
			c.fault("remove %s: %v", r.target, err)
			return got, false
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	for try := 1; ; try++ {
		stdout.Reset()
		stderr.Reset()
		cmd := exec.CommandContext(ctx, c.s.o.sqlwatch, append(append([]string{"restore", "--json", "-o", r.target}, args...),
			c.s.url)...)
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		if err == nil {
			break
		}
		if _, err := os.Stat(r.target); err == nil {
			c.fault("restore %v failed (%s) and left a file", args, lastLine(stderr.String()))
		}
		c.refuse(kind, lastLine(stderr.String()))
		// If the store fails all of a restore's attempts, the replica is not at fault: try again, as
		// people would.
		if try == storeTries || !strings.Contains(stderr.String(), "store unavailable") {
			return got, false
		}
	}
	if err := json.Unmarshal(stdout.Bytes(), &got); err != nil {
		c.fault("restore --json printed %q: %v", stdout.String(), err)
	}
	file, err := os.ReadFile(r.target)
	if err != nil {
		c.fault("restore %v: %v", args, err)
		return got, false
	}
	got.sum = fmt.Sprintf("%x", sha256.Sum256(file))
	if got.state, err = judge(r.target); err != nil {
		c.keep(r.target)
		c.fault("restore %v, TXID %d: state %d: %v", args, got.TXID, got.state.ID, err)
		return got, true
	}
	r.compare(kind, args, got)
	if c.s.o.verbose {
		fmt.Printf("history: restore %v: TXID %d, state %d\n", args, got.TXID, got.state.ID)
	}
	return got, true
}

// compare checks a valid database against what the application did, and against what an earlier
// restore of the same TXID returned.
func (r *restorer) compare(kind string, args []string, got restored) {
	c := r.c
	if err := c.account.read(); err != nil {
		c.fault("%v", err)
		return
	}
	if !c.account.legal(got.state) {
		c.keep(r.target)
		c.fault("restore %v, TXID %d: state %d %.8s was never committed", args, got.TXID, got.state.ID, got.state.Hash)
	}
	same, known := c.account.samePages(got.state, got.sum)
	if known && !same {
		c.keep(r.target)
		c.fault("restore %v, TXID %d: state %d is not, byte for byte, what the application saw", args, got.TXID, got.state.ID)
	}
	c.mu.Lock()
	before, seen := c.byTXID[got.TXID]
	c.byTXID[got.TXID] = got.version
	c.restores[kind]++
	if known {
		c.exact++
	}
	c.mu.Unlock()
	if seen && before != got.version {
		c.keep(r.target)
		c.fault("restore %v: TXID %d was state %d (%.8s) before, now it is %d (%.8s)", args, got.TXID, before.state.ID,
			before.sum, got.state.ID, got.sum)
	}
}

var numbers = regexp.MustCompile(`[0-9a-fA-F:.TZ-]*[0-9]{2,}[0-9a-fA-F:.TZ-]*`)

// refuse counts a refusal by its text, without the numbers in it.
func (c *checker) refuse(kind, words string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused[kind+": "+numbers.ReplaceAllString(words, "N")]++
}

// latest restores the newest state, which must have at least all that was acknowledged or
// restored before.
func (r *restorer) latest(ctx context.Context) {
	c := r.c
	floor, floorTX := c.floor()
	got, ok := r.restore(ctx, "latest")
	if !ok {
		if floor >= 0 {
			c.fault("a restore of the latest state was refused after a promise: %v", c.refused)
		}
		return
	}
	place, ok := c.account.place(got.state, floor, time.Now())
	if !ok || got.TXID < floorTX {
		c.keep(r.target)
		c.fault("latest restore has state %d %.8s, TXID %d, but %s had been promised or restored before, and TXID %d",
			got.state.ID, got.state.Hash, got.TXID, c.account.name(floor), floorTX)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.newest, c.newestTX = max(c.newest, place), max(c.newestTX, got.TXID)
}

// moment restores a random moment. The result must have nothing begun after that moment, and
// everything acknowledged before it. A refusal is correct only if the newest batch may be older
// than the moment.
func (r *restorer) moment(ctx context.Context, rng *rand.Rand) {
	c := r.c
	c.mu.Lock()
	acks := slices.Clone(c.acks)
	c.mu.Unlock()
	t := acks[0].at.Add(time.Duration(rng.Int64N(int64(time.Since(acks[0].at)) + 1)))
	when := t.UTC().Format(time.RFC3339Nano)
	got, ok := r.restore(ctx, "timestamp", "--timestamp", when)
	if c.s.o.clock != "" {
		return // the batches have the daemon's time, which differs from ours
	}
	if !ok {
		if last := acks[len(acks)-1].place; c.account.begunAfter(t, last) && !c.inHole(t, acks) {
			c.fault("restore at %s was refused, although a commit begun later, at most %s, had been promised", when,
				c.account.name(last))
		}
		return
	}
	if got.Timestamp.After(t) {
		c.fault("restore at %s says it is of %s", when, got.Timestamp)
	}
	floor := -1
	if i := sort.Search(len(acks), func(i int) bool { return acks[i].at.After(t) }); i > 0 {
		floor = acks[i-1].place
	}
	if _, ok := c.account.place(got.state, floor, t); !ok {
		c.keep(r.target)
		c.fault("restore at %s has state %d %.8s: either begun later or before %s, which had been promised by then", when,
			got.state.ID, got.state.Hash, c.account.name(floor))
	}
}

// inHole reports whether t is between the last acknowledgement before, and the first one after, a
// period in which nothing could be captured. What was committed then is in one batch with later
// commits, or between two batches that are not contiguous: in both cases no state can be given
// for a moment.
func (c *checker) inHole(t time.Time, acks []ack) bool {
	c.s.mu.Lock()
	holes := slices.Clone(c.s.holes)
	c.s.mu.Unlock()
	for _, h := range holes {
		from, to := time.Time{}, time.Now()
		for _, a := range acks {
			if a.at.Before(h.from) {
				from = a.at
			} else if a.at.After(h.to) {
				to = a.at
				break
			}
		}
		if t.After(from) && t.Before(to) {
			return true
		}
	}
	return false
}

// again restores a TXID that was restored before, and expects the same bytes. If compaction has
// removed it meanwhile, the restore may fail, but must not return another TXID.
func (r *restorer) again(ctx context.Context, rng *rand.Rand) {
	c := r.c
	c.mu.Lock()
	txids := make([]uint64, 0, len(c.byTXID))
	for txid := range c.byTXID {
		txids = append(txids, txid)
	}
	c.mu.Unlock()
	if len(txids) == 0 {
		return
	}
	slices.Sort(txids)
	txid := txids[rng.IntN(len(txids))]
	if got, ok := r.restore(ctx, "txid", "--txid", fmt.Sprint(txid)); ok && got.TXID != txid {
		c.fault("restore --txid %d says it is TXID %d", txid, got.TXID)
	}
}
