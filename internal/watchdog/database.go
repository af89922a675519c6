package watchdog

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/watchdog/succession"
	"github.com/sqlwatch/sqlwatch/internal/watchdog/voice"
	"github.com/sqlwatch/sqlwatch/policy"
)

const (
	restartFirst = time.Second            // wait after the first panic, doubled after each further one
	restartLast  = 5 * time.Minute        // the longest wait after a panic
	forgiveAfter = time.Minute            // of turns without a panic; after that, the next panic counts as the first
	timerSlot    = 100 * time.Millisecond // turns start on this grid, so that many share a wake-up
)

// database is one running target: its timer, and what is open for it. Other state that
// belongs to it is in separate parts.
type database struct {
	*shared
	target  Target
	display display       // read by anyone
	phase   time.Duration // offset of its turns within the interval, so that not all wake together
	timer   atomic.Pointer[time.Timer]
	turns   atomic.Uint64      // number of turns that have begun
	wanted  atomic.Bool        // the next turn shall start at once
	beside  sync.WaitGroup     // actions that run beside the turns
	cancel  context.CancelFunc // set by start
	place   *succession.Place

	// The baton guards all fields below. Its holder, which is a turn, an operator's action or
	// the final close, owns them.
	baton    chan struct{}
	closing  bool // no further action may begin
	closed   bool
	parts    *Parts // nil: not open
	nextTurn time.Time
	past     past
	ledger   ledger
	voice    voice.Voice
	keeper   keeper
	faults   faults
}

// faults counts the panics of a database's turns.
type faults struct {
	inARow int
	last   time.Time
}

// add counts one more panic and returns how long to wait before the next attempt.
func (f *faults) add() time.Duration {
	f.inARow++
	f.last = time.Now()
	return min(restartFirst<<min(f.inARow-1, 16), restartLast)
}

// forgive resets the count after some time without a panic.
func (f *faults) forgive() {
	if time.Since(f.last) > forgiveAfter {
		f.inARow = 0
	}
}

func newDatabase(c *shared, target Target, saved savedDatabase) *database {
	name := fnv.New32a()
	name.Write([]byte(target.Name))
	slots := uint32(max(1, c.options.Interval/timerSlot))
	o := &c.options
	d := &database{
		shared: c,
		target: target,
		phase:  time.Duration(name.Sum32()%slots) * timerSlot,
		baton:  make(chan struct{}, 1),
		place:  succession.New(),
		past:   past{history: &policy.History{}, changed: time.Now()},
		ledger: ledger{states: saved.Policies, told: saved.Told, owed: saved.Owed, ending: map[string]bool{},
			paying: map[string]bool{}, running: map[policy.Lane]string{}},
		voice: voice.New(o.Logger.With("db", target.Name)),
		keeper: keeper{stateFile: o.StateFile, name: target.Name, number: func() uint64 { return c.seq.Add(1) },
			report: func(err error) { c.saving.Report("state of "+target.Name, err) }},
		display: display{target: target, board: o.Health, metrics: o.Metrics, clock: o.Clock,
			changed: func() { c.dirty.Store(true) }},
	}
	if saved.history != nil {
		d.past.history = saved.history
	}
	var recent Recent
	if o.Recently != nil {
		recent = o.Recently(target.Name)
	}
	d.ledger.actions = recent.Actions
	for name := range saved.Told {
		if p := c.policies.Load().Named(name); p != nil && o.Holds != nil {
			o.Holds(target.Name, name, p.Notify)
		}
	}
	d.display.begin(saved, recent)
	return d
}

// start sets the database's timer, once; each turn sets it again. All work for the database
// ends with ctx, or when the database is closed.
func (d *database) start(ctx context.Context) {
	if d.timer.Load() != nil {
		return
	}
	ctx, d.cancel = context.WithCancel(ctx)
	d.timer.Store(time.AfterFunc(time.Hour, func() { d.wake(ctx) }))
	d.timer.Load().Reset(d.phase)
}

// acquire takes the baton. It fails if ctx ends first or if the database is closed.
func (d *database) acquire(ctx context.Context) error {
	select {
	case d.baton <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("wait for %s: %w", d.target.Name, ctx.Err())
	}
	if d.closed {
		d.release()
		return ErrEnded
	}
	return nil
}

func (d *database) release() { <-d.baton }

// borrow is acquire for callers that only read: it does not wait for a turn that hangs.
func (d *database) borrow(ctx context.Context) error {
	brief, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return d.acquire(brief)
}

// survive is deferred by whoever works on the database with its baton: a panic makes it restart.
func survive(ctx context.Context, d *database) {
	if cause := recover(); cause != nil {
		d.timer.Load().Reset(d.restart(ctx, cause))
	}
}

// restart closes what the panicking turn left open and returns how long to wait before the
// database is opened again.
func (d *database) restart(ctx context.Context, cause any) time.Duration {
	wait := d.faults.add()
	d.options.Metrics.Panicked(d.target.Name)
	d.voice.Log.Error("a panic while working on this database: it is closed and will be opened again; others are not "+
		"affected",
		"panic", cause, "restart_in", wait, "stack", string(debug.Stack()))
	if err := d.shut(ctx); err != nil {
		d.voice.Log.Error("the database did not close cleanly after the panic", "err", err)
	}
	cut := d.ledger.cutShort(d.policies.Load(), d.options.Clock())
	d.display.failed(fmt.Sprintf("restarting after a fault of sqlwatch: %v", cause), d.view())
	if cut {
		d.keeper.save(d.saved())
	}
	return wait
}

// saved returns what must survive a restart.
func (d *database) saved() savedDatabase {
	return savedDatabase{Policies: d.ledger.states, Told: d.ledger.told, Owed: d.ledger.owed, Found: d.display.found,
		PausedUntil: *d.display.pause.Load()}
}

// view returns what is shown beside the last sample and decision.
func (d *database) view() view {
	v := view{actions: d.ledger.actions, running: d.ledger.atWork(), panics: d.faults.inARow,
		turn: d.turns.Load(), saved: d.saved()}
	if d.parts != nil && d.parts.LastBusy != nil {
		v.lastBusy = d.parts.LastBusy()
	}
	return v
}

// refresh shows what has changed since the last turn's publish.
func (d *database) refresh() {
	if d.parts == nil {
		d.display.refresh(nil, d.view())
		return
	}
	last := d.past.last
	d.display.refresh(&last, d.view())
}

// topicOpen is the log topic of opening the database.
const topicOpen = "open"

// open opens the parts if they are not open. After an error the next turn tries again.
func (d *database) open(ctx context.Context) error {
	if d.parts != nil {
		return nil
	}
	if d.place.Taken() {
		return errLingers
	}
	parts, err := d.target.Open(ctx)
	if err != nil {
		return err
	}
	d.parts = &parts
	if d.voice.Failing(topicOpen) {
		d.voice.Say(topicOpen, slog.LevelInfo, false, "the database was opened")
	}
	return nil
}

// shut closes the parts if they are open.
func (d *database) shut(ctx context.Context) error {
	if d.parts == nil {
		return nil
	}
	parts := d.parts
	d.parts = nil
	if parts.Close == nil {
		return parts.Sampler.Close()
	}
	return parts.Close(ctx)
}

// close closes the database permanently: no turn follows. It tells running actions to stop
// and waits for them until ctx ends. It returns ErrEnded, in the end, if another call closes the database.
func (d *database) close(ctx context.Context) error {
	d.timer.Load().Stop()
	d.cancel()
	if err := d.acquire(ctx); err != nil {
		return err
	}
	d.closing = true // no action begins after this
	d.release()
	if err := succession.Await(ctx, &d.beside); err != nil {
		return fmt.Errorf("close %s: an action does not end: %w", d.target.Name, err)
	}
	if err := d.acquire(ctx); err != nil {
		return err
	}
	defer d.release()
	d.closed = true
	if err := d.shut(ctx); err != nil {
		return fmt.Errorf("close %s: %w", d.target.Name, err)
	}
	return nil
}

// errLingers is why a database is not opened while its predecessor has not released the file.
var errLingers = errors.New("what was configured before the reload is still at it: its disk does not answer")

// leave closes the database permanently. If its turn hangs, because the disk does not answer,
// leave does not wait: the database is closed when the turn has ended, and late is called with its name.
func (d *database) leave(ctx context.Context, late func(name string)) error {
	d.timer.Load().Stop()
	d.cancel()
	brief, cancel := context.WithTimeout(ctx, turnGrace)
	defer cancel()
	if err := d.acquire(brief); err != nil {
		d.leaving.Go(func() {
			defer d.place.Vacate()
			if err := guarded(d, func() error { return d.close(context.WithoutCancel(ctx)) }); err != nil {
				d.voice.Log.Error("a database that a reload removed or changed did not close cleanly", "err", err)
			}
			late(d.target.Name)
		})
		return fmt.Errorf("its disk does not answer, it is closed when it does: %w", err)
	}
	d.release()
	defer d.place.Vacate()
	return d.close(ctx)
}
