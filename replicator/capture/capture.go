package capture

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/durable"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/pagesums"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Reason says why a segment does not come from the WAL alone.
type Reason string

// The reasons for which continuity was not proven and the database was compared
// with its page checksums. ReasonFirst is no discontinuity and is not counted.
const (
	ReasonFirst    Reason = "first"      // nothing was ever captured: the whole database
	ReasonState    Reason = "state"      // the state directory was lost or is damaged
	ReasonReplaced Reason = "replaced"   // another file is at the path
	ReasonPageSize Reason = "page_size"  // the whole database again: pages of two sizes cannot be combined
	ReasonWALReset Reason = "wal_reset"  // the WAL was reset before all of it was captured
	ReasonWALIndex Reason = "wal_index"  // the commit counter went back: the wal-index was rebuilt, or the WAL deleted
	ReasonFrames   Reason = "frames"     // frames that should be valid are not
	ReasonGrowth   Reason = "growth"     // a page by which the database grew is not in the WAL
	ReasonSpool    Reason = "spool_full" // the spool had reached its limit and commits were let go
)

// Reasons returns every counted reason, so that each can be exported at 0.
func Reasons() []Reason {
	return []Reason{ReasonState, ReasonReplaced, ReasonPageSize, ReasonWALReset, ReasonWALIndex, ReasonFrames, ReasonGrowth, ReasonSpool}
}

// Errors of a Capture.
var (
	// ErrReplaced says that another file is at the database's path. Close the
	// Capture, open the new file's dbfile.Files and make a new Capture over the
	// same state directory: it takes the difference.
	ErrReplaced = errors.New("another file is at the database's path")
	// ErrSpoolFull says that nothing is captured until segments are released.
	ErrSpoolFull = errors.New("spool is full: commits are not captured; when replicas have caught up, the difference is taken")
)

// DefaultSpoolLimit is the bound of a spool for which none is set, in bytes.
const DefaultSpoolLimit = 1 << 30

// Options are what a Capture is made of. Zero values of the bounds mean
// their defaults.
type Options struct {
	Name        string        // of the database, for messages
	Files       *dbfile.Files // open for as long as the Capture is
	StateDir    string        // of this database alone; made if it does not exist
	RestartAt   int64         // bytes of live WAL at which it is restarted; 0: 32 MB
	StallBudget time.Duration // how long a soft restart may hold writers up; 0: 50 ms
	SpoolLimit  int64         // bytes of spool beyond which capture stops; 0: 1 GB
	BatchAge    time.Duration // how long Step without force gathers commits into one segment; 0: 1 s
	IdleAfter   time.Duration // without a commit for so long, the connections are closed; 0: 60 s
	Logger      *slog.Logger
	Clock       func() time.Time // time.Now if nil

	// Recover is asked when the state directory holds nothing to start from:
	// what does the replica hold? It returns TXID 0 for an empty replica. nil: there is none.
	Recover func(ctx context.Context) (ltx.TXID, store.PageSums, error)
}

func (o *Options) setDefaults() {
	o.RestartAt = cmp.Or(o.RestartAt, 32<<20)
	o.StallBudget = cmp.Or(o.StallBudget, 50*time.Millisecond)
	o.SpoolLimit = cmp.Or(o.SpoolLimit, DefaultSpoolLimit)
	o.BatchAge = cmp.Or(o.BatchAge, time.Second)
	o.IdleAfter = cmp.Or(o.IdleAfter, time.Minute)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
}

// Progress says what one Step did and where capture stands.
type Progress struct {
	TXID    ltx.TXID      // of the last segment in the spool
	Commits int           // commits read in this step
	Frames  int           // WAL frames read in this step
	Spooled bool          // a segment was added
	Settled bool          // everything that was committed before At is in the spool
	Restart bool          // the WAL was made to begin again at its first frame
	Stall   time.Duration // how long the write lock was ours for a restart, done or not; 0: not at all
	Reason  Reason        // of the diff that was taken, if one was
	Pending time.Time     // when the oldest commit that is not in the spool yet was met; zero: there is none
	At      time.Time     // every commit before was met
	Next    time.Duration // when to call Step again, unless something wakes the caller
}

// Capture copies every commit of one database into its spool. It holds a read
// mark low in the WAL, so that nobody can reset it, and copies what comes
// behind; it restarts the WAL itself before it grows too large.
//
// All methods may be called from any goroutine; they take turns. A Capture has
// no goroutine: somebody calls Step. On the way out, and after an error, every
// lock of ours that a writer could wait for is released.
type Capture struct {
	o     Options
	files *dbfile.Files
	state *durable.Flock
	spool *spool.Spool
	sums  atomic.Pointer[pagesums.Map]
	lost  atomic.Pointer[map[Reason]uint64]
	// What Close made durable: segments up to there may still be released.
	settled atomic.Uint64
	log     *slog.Logger
	boot    string // of the system: see mainFile

	mu       sync.Mutex
	hold     hold
	pos      spool.Position // of the last segment
	head     spool.Position // of the last frame in batch; equals pos when that is empty
	batch    batch
	scanner  dbfile.FrameScanner
	commit   func(*pendingCommit) error // (*pendingCommit).run, but for tests of a slow or failing disk
	flushing *flushing                  // a segment on its way to the disk, which outlasts a freeze that it would make too long
	broken   bool                       // the page-checksum map misses a segment: apply those in the spool again
	doubt    Reason                     // why continuity from pos is not proven; "" when it is
	pending  time.Time                  // when the oldest commit that is not in the spool was met, read or not
	active   time.Time                  // when a commit was last read
	whole    time.Time                  // when the last Step began that was more than a glance; zero: it failed
	tally    Progress                   // of the Step under way
	pace     pacing
	still    levelFile    // the main file as last seen with all of the WAL in it
	views    atomic.Int32 // open SnapshotReaders: their marks keep the WAL from being restarted
}

// New returns a Capture; Open starts it.
func New(o Options) *Capture {
	o.setDefaults()
	c := &Capture{o: o, files: o.Files, log: o.Logger.With("db", o.Name), commit: (*pendingCommit).run}
	c.lost.Store(&map[Reason]uint64{})
	return c
}

// Open takes the state directory for this process alone and loads the position.
// With nothing there it asks o.Recover for the replica's. The database itself is
// read by the first Step. *durable.HeldError: another process captures it.
func (c *Capture) Open(ctx context.Context) (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := durable.MkdirAll(c.o.StateDir, 0o700); err != nil {
		return fmt.Errorf("open state of %s: %w", c.o.Name, err)
	}
	if c.state, err = durable.Lock(filepath.Join(c.o.StateDir, "capture.lock")); err != nil {
		return fmt.Errorf("open state of %s: %w", c.o.Name, err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		c.log.Warn("the system's boot id cannot be read; restarts cost a comparison of the database", "err", err)
	}
	c.boot = string(bytes.TrimSpace(boot))
	if err := c.load(ctx); err != nil {
		return errors.Join(fmt.Errorf("open state of %s: %w", c.o.Name, err), c.state.Unlock())
	}
	c.head, c.active = c.pos, c.o.Clock()
	return nil
}

// Spool returns the captured segments. It is nil before Open.
func (c *Capture) Spool() *spool.Spool { return c.spool }

// Discontinuities returns how often continuity was not proven, by reason, since
// this Capture was made.
func (c *Capture) Discontinuities() map[string]uint64 {
	out := make(map[string]uint64)
	for _, r := range Reasons() {
		out[string(r)] = (*c.lost.Load())[r]
	}
	return out
}

// distrust notes that continuity is not proven, once until the diff is taken.
func (c *Capture) distrust(r Reason, detail string) {
	if c.doubt != "" {
		return
	}
	c.doubt = r
	c.batch.reset()
	c.head, c.pending = c.pos, time.Time{}
	if r == ReasonFirst {
		return
	}
	next := maps.Clone(*c.lost.Load())
	next[r]++
	c.lost.Store(&next)
	c.log.Warn("cannot prove that every commit was captured; comparing the database with its page checksums, nothing to do", "reason", string(r), "detail", detail)
	if r == ReasonSpool || c.pos.Doubt != "" { // a full spool changes nothing about what the position proves
		return
	}
	c.pos.Doubt = string(r)
	c.head = c.pos
	if err := c.spool.Restate(c.pos); err != nil {
		c.log.Warn("the doubt could not be written down: should sqlwatch be killed before the comparison ends, run `sqlwatch verify`", "err", err)
	}
}

// Close ends the hold and closes the connections and the state directory. What
// was read and is not in the spool yet is read again after the next Open. The
// Spool goes on serving what it holds, until another Capture opens the directory.
func (c *Capture) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.settleFlush()
	if err == nil && c.hold.active() && c.hold.proven && c.batch.empty() && c.doubt == "" {
		err = c.rest()
	}
	err = errors.Join(err, c.hold.close())
	if m := c.sums.Swap(nil); m != nil {
		through, syncErr := m.Sync()
		c.settled.Store(uint64(through))
		err = errors.Join(err, syncErr, m.Close())
	}
	if c.state != nil {
		err = errors.Join(err, c.state.Unlock())
		c.state = nil
	}
	return err
}

// sumsName is the page-checksum map's file in the state directory.
const sumsName = "pages.sum"

func (c *Capture) sumsPath() string { return filepath.Join(c.o.StateDir, sumsName) }

var _ interface {
	Checkpoint(context.Context, sqlite.Mode, sqlite.Budget) (sqlite.Result, error)
} = (*Capture)(nil)
