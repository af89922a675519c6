package watchdog

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/policy"
)

const (
	restartFirst = time.Second            // wait after the first panic, doubled after each further one
	restartLast  = 5 * time.Minute        // the longest wait after a panic
	forgiveAfter = time.Minute            // of turns without a panic, and the next one counts as the first
	timerSlot    = 100 * time.Millisecond // the grid on which turns fall, so that many share a wake-up
)

// database is one target at work. Whoever holds the baton owns the fields below
// it: a turn, an operator's action, or the final close. The status is published
// through an atomic pointer and read by anyone.
type database struct {
	watchdog   *Watchdog
	target     Target
	phase      time.Duration // where in the interval its turns fall, so that not all wake together
	status     atomic.Pointer[DatabaseStatus]
	timer      atomic.Pointer[time.Timer]
	pauseUntil atomic.Pointer[time.Time] // policies do not act before then
	wanted     atomic.Bool               // the next turn shall come at once
	beside     sync.WaitGroup            // actions that run beside the turns
	cancel     context.CancelFunc        // set by start

	baton    chan struct{}
	closing  bool // no action begins any more
	closed   bool
	parts    *Parts // nil: not open
	nextTurn time.Time
	last     collector.Sample // of the last turn or look
	changed  time.Time        // when the database was last seen to change
	found    bool             // it was up once, in this life or an earlier one
	history  *policy.History
	reads    *policy.Set // whose variables the history keeps
	states   map[string]policy.PolicyState
	running  map[policy.Lane]string // the actions at work
	actions  []ActionRecord
	panics   int                 // in a row
	panicked time.Time           // when the last was
	said     map[string]repeated // by matter: a policy's action, or the opening
}

func newDatabase(w *Watchdog, target Target, saved savedDatabase) *database {
	name := fnv.New32a()
	name.Write([]byte(target.Name))
	slots := uint32(max(1, w.options.Interval/timerSlot))
	d := &database{
		watchdog: w,
		target:   target,
		phase:    time.Duration(name.Sum32()%slots) * timerSlot,
		baton:    make(chan struct{}, 1),
		history:  &policy.History{},
		states:   saved.Policies,
		changed:  time.Now(),
		found:    saved.Found,
		said:     map[string]repeated{},
		running:  map[policy.Lane]string{},
	}
	if saved.history != nil {
		d.history = saved.history
	}
	d.pauseUntil.Store(&time.Time{})
	d.status.Store(&DatabaseStatus{Name: target.Name, Path: target.Path, Labels: target.Labels, Found: saved.Found,
		Conditions: []health.Condition{}, saved: saved})
	return d
}

// start sets the database's timer, once. Each turn sets it again. Everything that
// is done for the database ends with ctx, or when the database is closed.
func (d *database) start(ctx context.Context) {
	if d.timer.Load() != nil {
		return
	}
	ctx, d.cancel = context.WithCancel(ctx)
	d.timer.Store(time.AfterFunc(time.Hour, func() { d.wake(ctx) }))
	d.timer.Load().Reset(d.phase)
}

// acquire takes the baton. It fails when ctx ends first or the database is closed.
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

// restart closes what the panicking turn left behind and returns how long to
// wait before the database is opened anew.
func (d *database) restart(ctx context.Context, cause any) time.Duration {
	d.panics++
	d.panicked = time.Now()
	d.watchdog.options.Metrics.Panicked(d.target.Name)
	wait := min(restartFirst<<min(d.panics-1, 16), restartLast)
	d.log().Error("a turn of this database panicked; it is closed and will be opened again, the others go on",
		"panic", cause, "restart_in", wait, "stack", string(debug.Stack()))
	if err := d.shut(ctx); err != nil {
		d.log().Error("the database did not close cleanly after the panic", "err", err)
	}
	d.interrupted()
	d.publishError(fmt.Sprintf("restarting after a fault of sqlwatch: %v", cause))
	return wait
}

// interrupted books the checkpoint that a panic cut short: nobody else will. What
// runs beside the turns ends on its own.
func (d *database) interrupted() {
	if d.running[policy.LaneCheckpoint] == "" {
		return
	}
	delete(d.running, policy.LaneCheckpoint)
	set := d.watchdog.policies.Load()
	states := maps.Clone(d.states)
	for _, p := range set.Policies {
		if st := states[p.Name]; p.Kind == policy.ActCheckpoint && st.Phase == policy.Running {
			states[p.Name] = set.Finished(st, p, d.watchdog.options.Clock(), policy.ActionResult{Outcome: sqlite.OutcomeFailed,
				Err: errFault})
		}
	}
	d.states = states
	d.saveNow()
}

// errFault ends an action that a panic cut short.
var errFault = errors.New("fault of sqlwatch")

// matterOpen is what the log's lines about opening are about.
const matterOpen = "open"

// open opens the parts if they are not. On an error the database is tried again
// at its next turn.
func (d *database) open(ctx context.Context) error {
	if d.parts != nil {
		return nil
	}
	parts, err := d.target.Open(ctx)
	if err != nil {
		return err
	}
	d.parts = &parts
	if d.said[matterOpen].failures > 0 {
		d.say(matterOpen, slog.LevelInfo, false, "the database was opened")
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

// close ends the database for good: no turn comes after it. What is at work is
// told to stop and waited for as long as ctx lasts.
func (d *database) close(ctx context.Context) error {
	d.timer.Load().Stop()
	d.cancel()
	if err := d.acquire(ctx); err != nil {
		return err
	}
	d.closing = true // from here on no action begins
	d.release()
	ended := make(chan struct{})
	go func() { d.beside.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-ctx.Done():
		return fmt.Errorf("close %s: an action does not end: %w", d.target.Name, ctx.Err())
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

// closeAll closes databases side by side, so that a hung one costs the others
// nothing, and reports all that did not close.
func closeAll(ctx context.Context, databases []*database) error {
	failed := make([]error, len(databases))
	var closing sync.WaitGroup
	for i, d := range databases {
		closing.Go(func() { failed[i] = d.close(ctx) })
	}
	closing.Wait()
	return errors.Join(failed...)
}

func (d *database) log() *slog.Logger {
	return d.watchdog.options.Logger.With("db", d.target.Name)
}
