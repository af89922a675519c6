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
	"github.com/sqlwatch/sqlwatch/internal/fault"
	"github.com/sqlwatch/sqlwatch/replicator/capture/claim"
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
	// ErrReplaced says that another file is at the database's path. The caller closes the Capture,
	// opens the dbfile.Files of the new file and makes a new Capture over the same state directory,
	// which captures the difference.
	ErrReplaced = errors.New("another file is at the database's path")
	// ErrSpoolFull says that nothing is captured until segments are released.
	ErrSpoolFull = errors.New("spool is full: commits are not captured; when replicas have caught up, the difference is " +
		"taken")
	// ErrNoRoom accompanies ErrSpoolFull where the state directory's file system is short of space.
	ErrNoRoom = errors.New("no room for the spool")
	// ErrQueued says that the whole database has to be read, for the first time or because continuity
	// is not proven, and that other databases are read first. Nothing is held meanwhile.
	ErrQueued = errors.New("others are being read from end to end, and not all are at once")
	// ErrCut says that the file is shorter than the database and that the WAL does not have the missing
	// pages either: while it was in use, somebody truncated it or copied another file over it.
	ErrCut = errors.New("the database's file lacks pages, and the WAL does not have them: it was cut, or another file " +
		"was copied over it, while it was in use; the application reads corrupt pages there. End the application, put " +
		"a whole file in place and remove its -wal and -shm before the next start")
)

// Options are what a Capture is made of. Zero values of the bounds mean
// their defaults.
type Options struct {
	Name        string        // of the database, for messages
	Files       *dbfile.Files // open for as long as the Capture is
	StateDir    string        // used by this database alone; created if it does not exist
	RestartAt   int64         // bytes of live WAL at which it is restarted; 0: 32 MB
	StallBudget time.Duration // how long writers may wait for a soft restart; 0: 50 ms
	SpoolLimit  int64         // bytes of spool beyond which capture stops; 0: 1 GB
	StageLimit  int64         // bytes of pages beyond which a comparison makes no segment; 0: 64 MB
	BatchAge    time.Duration // how long Step without force gathers commits into one segment; 0: 1 s
	IdleAfter   time.Duration // after this time without a commit the connections are closed; 0: 60 s
	Place       *queue.Place  // in the queue of databases to be read in full; nil: there is no queue
	Logger      *slog.Logger
	Clock       func() time.Time // time.Now if nil

	// Faulted is told of a panic in a goroutine of the Capture, which is an error of its database; in a replicator, of
	// the replicas' too. nil: nobody is.
	Faulted func(*fault.Error)

	// Recover returns what the replica holds; it is called when the state directory holds nothing to
	// start from. It returns TXID 0 for an empty replica. nil: there is no replica.
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
	Complete bool          // everything committed before At is in the spool
	Restart  bool          // the WAL was restarted
	Stall    time.Duration // how long a freeze for a restart kept transactions waiting, done or not; 0: no freeze
	Reason   Reason        // of the comparison that was made, if one was
	Pending  time.Time     // when the oldest commit that is not in the spool yet was first seen; zero: there is none
	At       time.Time     // every commit before At was seen
	Next     time.Duration // when to call Step again, unless something wakes the caller
}

// Capture copies every commit of one database into its spool. It holds a read mark low in the WAL, so
// that nobody can reset it, and copies the frames after it; it restarts the WAL itself before it
// grows too large.
//
// It consists of a mutex, the order of a step, and parts, each of which owns what it is named after and
// knows only the parts listed before it:
//
//	tail        what was read from the WAL and is not in the spool yet
//	state       the state directory: spool, page-checksum map, position
//	continuity  whether nothing was missed: proven, or lost for a Reason
//	flusher     makes segments of the tail
//	copies      the open snapshots, which keep pages before they change
//	hold        the connections and the read mark
//	comparer    compares the database where continuity is not proven
//	restarter   keeps the WAL bounded
//	truncater   runs the TRUNCATE that loses nothing
//	presence    which other processes use the database
//	claim       whether the WAL is the work of an application that uses it
//	pace        when to take the next step
//	departure   leaves the database as SQLite's last close does
//
// The order of a step:
//
//  1. The fast path: a few system calls find out that there is nothing to do yet.
//  2. Check that the files are still at their paths, and finish what an earlier step left behind.
//  3. Find out who else uses the database: while others use another wal-index than the one beside
//     the file, nothing in it is trusted and no connection is open. Stop if the spool has no room.
//     If there are no connections and nothing was written since, the step is done.
//  4. Hold the WAL, and prove continuity or compare the database.
//  5. Read to the head of the WAL.
//  6. When it is time, put what was read into the spool.
//  7. Move the hold to where it costs the application least: make way for the application's own
//     checkpoint, leave READ0, restart the WAL, backfill it, or close. Stand back (see hold.shed)
//     while other processes stay; leave as the last connection when there are none.
//
// All methods may be called from any goroutine; the mutex serialises them. A Capture has no goroutine
// of its own: its owner calls Step. When a method returns, also with an error, it has released every
// lock that a writer could wait for.
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
	claim      *claim.Claim
	departure  *departure
	pace       *pace.Pace
	whole      time.Time // when the last Step began that went beyond the fast path; zero: it failed
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
	if o.Faulted != nil {
		c.flusher.Faulted = o.Faulted
	}
	c.copies = overlay.NewCopies(o.Files)
	c.hold = &hold{files: o.Files, flusher: c.flusher, copies: c.copies}
	c.comparer = &comparer{
		files: o.Files, tail: c.tail, state: c.state, continuity: c.continuity, flusher: c.flusher, hold: c.hold,
		between: c.keepBounded, stage: o.StageLimit, portion: comparePortion, place: o.Place,
	}
	c.restarter = &restarter{
		files: o.Files, hold: c.hold, flusher: c.flusher, tail: c.tail,
		pace: pace.NewRestart(o.RestartAt), stallBudget: o.StallBudget, clock: o.Clock, log: c.log,
	}
	c.truncater = &truncater{files: o.Files, hold: c.hold, flusher: c.flusher}
	c.presence, c.pace = presence.New(o.Files), &pace.Pace{}
	c.claim = claim.New(o.Files, c.continuity.main, c.presence, c.state.Position)
	c.departure = &departure{
		files: o.Files, tail: c.tail, state: c.state, continuity: c.continuity, flusher: c.flusher, copies: c.copies,
		hold: c.hold, truncater: c.truncater, presence: c.presence, claim: c.claim, pace: c.pace,
		idleAfter: o.IdleAfter, clock: o.Clock, log: c.log, again: c.ready,
	}
	return c
}

// Open locks the state directory for this process and loads the position; where there is none, it takes
// the replica's from Options.Recover. The first Step reads the database itself. *durable.HeldError:
// another process has the directory.
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

// Close ends the hold and closes the connections and the state directory. What was read and is not in
// the spool yet is read again after the next Open. The Spool continues to serve what it holds, until
// another Capture opens the directory.
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

// Discard removes the state in a directory, because it cannot be trusted or is no longer wanted. No
// other Capture than the caller's may have the directory open.
func Discard(stateDir string) error { return statedir.Discard(stateDir) }
