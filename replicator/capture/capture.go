package capture

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/capture/pace"
	"github.com/sqlwatch/sqlwatch/replicator/capture/presence"
	"github.com/sqlwatch/sqlwatch/replicator/capture/segments"
	"github.com/sqlwatch/sqlwatch/replicator/capture/statedir"
	"github.com/sqlwatch/sqlwatch/replicator/capture/tail"
	"github.com/sqlwatch/sqlwatch/replicator/overlay"
	"github.com/sqlwatch/sqlwatch/replicator/queue"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Reason says why a segment does not come from the WAL alone.
type Reason = tail.Reason

// Reasons returns every counted reason, so that each can be exported at 0.
func Reasons() []Reason { return tail.Reasons() }

// Errors of a Capture.
var (
	// ErrReplaced says that another file is at the database's path. Close the
	// Capture, open the new file's dbfile.Files and make a new Capture over the
	// same state directory: it takes the difference.
	ErrReplaced = errors.New("another file is at the database's path")
	// ErrSpoolFull says that nothing is captured until segments are released.
	ErrSpoolFull = errors.New("spool is full: commits are not captured; when replicas have caught up, the difference is " +
		"taken")
	// ErrNoRoom says that it is ErrSpoolFull because the state directory's file system is.
	ErrNoRoom = errors.New("no room for the spool")
	// ErrQueued says that the whole database is to be read, for the first time or because it is not
	// proven that nothing was missed, and that others are read first. Nothing of it is held meanwhile.
	ErrQueued = errors.New("others are being read from end to end, and not all are at once")
	// ErrCut says that the file ends before the database does, and that what is missing is not
	// in the WAL either: somebody cut it, or copied another file over it, while it was in use.
	ErrCut = errors.New("the database's file lacks pages, and the WAL does not have them: it was cut, or another file " +
		"was copied over it, while it was in use; the application reads corrupt pages there. End the application, put " +
		"a whole file in place and remove its -wal and -shm before the next start")
)

// Options are what a Capture is made of. Zero values of the bounds mean
// their defaults.
type Options struct {
	Name        string        // of the database, for messages
	Files       *dbfile.Files // open for as long as the Capture is
	StateDir    string        // of this database alone; made if it does not exist
	RestartAt   int64         // bytes of live WAL at which it is restarted; 0: 32 MB
	StallBudget time.Duration // how long writers may wait for a soft restart; 0: 50 ms
	SpoolLimit  int64         // bytes of spool beyond which capture stops; 0: 1 GB
	StageLimit  int64         // bytes of pages beyond which a comparison makes no segment; 0: 64 MB
	BatchAge    time.Duration // how long Step without force gathers commits into one segment; 0: 1 s
	IdleAfter   time.Duration // without a commit for so long, the connections are closed; 0: 60 s
	Place       *queue.Place  // in the queue of those who are read from end to end; nil: nobody waits
	Logger      *slog.Logger
	Clock       func() time.Time // time.Now if nil

	// Recover is asked when the state directory holds nothing to start from:
	// what does the replica hold? It returns TXID 0 for an empty replica. nil: there is none.
	Recover func(ctx context.Context) (ltx.TXID, store.PageSums, error)
}

func (o *Options) setDefaults() {
	o.RestartAt = cmp.Or(o.RestartAt, 32<<20)
	o.StallBudget = cmp.Or(o.StallBudget, 50*time.Millisecond)
	o.SpoolLimit = cmp.Or(o.SpoolLimit, spool.DefaultLimit)
	o.StageLimit = cmp.Or(o.StageLimit, 64<<20) // replicas then read the database itself
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
	TXID     ltx.TXID      // of the last segment in the spool
	Commits  int           // commits read in this step
	Frames   int           // WAL frames read in this step
	Spooled  bool          // a segment was added
	Complete bool          // everything that was committed before At is in the spool
	Restart  bool          // the WAL was made to begin again at its first frame
	Stall    time.Duration // how long the write lock was ours for a restart, done or not; 0: not at all
	Reason   Reason        // of the comparison that was made, if one was
	Pending  time.Time     // when the oldest commit that is not in the spool yet was met; zero: there is none
	At       time.Time     // every commit before was met
	Next     time.Duration // when to call Step again, unless something wakes the caller
}

// Capture copies every commit of one database into its spool. It holds a read
// mark low in the WAL, so that nobody can reset it, and copies what comes
// behind; it restarts the WAL itself before it grows too large.
//
// It is a mutex and the order of a step; each of its parts owns what it is named
// for, and knows only those before it:
//
//	tail        what was read from the WAL and is not in the spool yet
//	state       the state directory: spool, page-checksum map, position
//	continuity  whether nothing was missed: proven, or lost for a Reason
//	flusher     makes segments of the tail
//	copies      the snapshots that are being read, which keep pages before they change
//	hold        the connections and the read mark
//	comparer    makes good what was missed
//	restarter   keeps the WAL bounded
//	truncater   runs the TRUNCATE that loses nothing
//	presence    who else uses the database
//	departure   leaves as the last of all
//	pace        when to look again
//
// The order of a step:
//
//  1. The fast path: a few system calls find that nothing is to be done yet.
//  2. Look at the files' names, at room for the spool, and at what an earlier step
//     left behind.
//  3. Look who else is there: while the wal-index is not theirs, nothing is believed and
//     no connection exists. Without connections, and nothing written since: done.
//  4. Hold the WAL, and prove continuity or compare the database.
//  5. Read to the head of the WAL.
//  6. When it is time, put what was read into the spool.
//  7. Move the hold to where it costs the application least: make way for a
//     checkpoint of its own, leave READ0, restart the WAL, backfill it, or close; and
//     stand back from those who stay, or leave as the last of all.
//
// All methods may be called from any goroutine; they take turns. A Capture has
// no goroutine: somebody calls Step. On the way out, and after an error, every
// lock of ours that a writer could wait for is released.
type Capture struct {
	o     Options
	files *dbfile.Files
	log   *slog.Logger

	mu         sync.Mutex // guards all below and what the parts own; the Spool's locks come after it
	tail       *tail.Tail
	state      *statedir.Dir
	continuity *continuity
	flusher    *segments.Flusher
	copies     *overlay.Copies
	hold       *hold
	comparer   *comparer
	restarter  *restarter
	truncater  *truncater
	presence   *presence.Presence
	departure  *departure
	pace       *pace.Pace
	whole      time.Time // when the last Step began that was more than the fast path; zero: it failed
	tally      Progress  // of the Step under way
}

// New returns a Capture; Open starts it.
func New(o Options) *Capture {
	o.setDefaults()
	c := &Capture{o: o, files: o.Files, log: o.Logger.With("db", o.Name)}
	c.tail = tail.New(o.Files, o.Clock)
	c.state = &statedir.Dir{Path: o.StateDir, Clock: o.Clock, Log: c.log, Recover: o.Recover}
	c.continuity = newContinuity(o.Files, c.tail, c.state, c.log)
	c.flusher = segments.New(o.Files, c.tail, c.state)
	c.copies = overlay.NewCopies(o.Files)
	c.hold = &hold{files: o.Files, flusher: c.flusher, copies: c.copies}
	c.comparer = &comparer{
		files: o.Files, tail: c.tail, state: c.state, continuity: c.continuity, flusher: c.flusher, hold: c.hold,
		between: c.keepBounded, stage: o.StageLimit, portion: comparePortion, place: o.Place,
	}
	c.restarter = &restarter{
		files: o.Files, hold: c.hold, flusher: c.flusher, tail: c.tail,
		restartAt: o.RestartAt, stallBudget: o.StallBudget, clock: o.Clock, log: c.log,
	}
	c.truncater = &truncater{files: o.Files, hold: c.hold, flusher: c.flusher}
	c.presence, c.pace = presence.New(o.Files), &pace.Pace{}
	c.departure = &departure{
		files: o.Files, tail: c.tail, state: c.state, continuity: c.continuity, flusher: c.flusher, copies: c.copies,
		hold: c.hold, truncater: c.truncater, presence: c.presence, pace: c.pace,
		idleAfter: o.IdleAfter, clock: o.Clock, log: c.log, again: c.ready,
	}
	return c
}

// Open takes the state directory for this process alone and loads the position.
// With nothing there it asks o.Recover for the replica's. The database itself is
// read by the first Step. *durable.HeldError: another process captures it.
func (c *Capture) Open(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	from, err := c.state.Open(ctx)
	if err != nil {
		return fmt.Errorf("open state of %s: %w", c.o.Name, err)
	}
	c.continuity.main.ReadBoot(c.log)
	pos := c.state.Position()
	c.tail.Restart(pos)
	switch {
	case from == statedir.FromNothing:
		c.continuity.lose(tail.ReasonFirst, "")
	case from == statedir.FromReplica:
		c.continuity.lose(tail.ReasonState, "position taken from the replica: "+pos.TXID.String())
	case pos.Doubt != "":
		c.continuity.lose(Reason(pos.Doubt), "the comparison had not ended when sqlwatch did")
	}
	c.pace.Read = c.o.Clock()
	return nil
}

// Spool returns the captured segments. It is nil before Open.
func (c *Capture) Spool() *spool.Spool { return c.state.Spool() }

// Discontinuities returns how often continuity was not proven, by reason, since
// this Capture was made.
func (c *Capture) Discontinuities() map[string]uint64 { return c.continuity.discontinuities() }

// Close ends the hold and closes the connections and the state directory. What
// was read and is not in the spool yet is read again after the next Open. The
// Spool goes on serving what it holds, until another Capture opens the directory.
func (c *Capture) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.continuity.main.Unfollow()
	err := c.flusher.Wait()
	if err == nil {
		err = errors.Join(c.lastNames(), c.departure.part())
	}
	return errors.Join(err, c.hold.close(), c.state.Close())
}

// Discard removes a state that cannot be believed, or shall not be. No Capture may
// have it open but the one that asks.
func Discard(stateDir string) error { return statedir.Discard(stateDir) }
