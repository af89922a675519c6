// Package watchdog runs the loop: it measures each database, lets the policies
// decide, acts, and publishes what it saw and did.
//
// There is no scheduler here: a database that has nothing to do is one timer in
// the Go runtime and no goroutine. When the timer fires, the runtime starts a
// goroutine for one turn; the turn's last act is to set the timer again. So there
// is at most one turn of a database at a time, a slow database delays nobody, and
// ten thousand idle ones cost ten thousand timers.
package watchdog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/plant"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/internal/watchdog/succession"
	"github.com/sqlwatch/sqlwatch/internal/watchdog/voice"
	"github.com/sqlwatch/sqlwatch/policy"
)

// Sampler measures one database. Its owner calls it from one goroutine at a time. Sample never
// fails: the sample's State says what went wrong. Poll is the cheap look between two samples.
type Sampler interface {
	Sample(ctx context.Context) collector.Sample
	Poll()
	Close() error
}

// Checkpointer runs one checkpoint within a budget. The result's Outcome is
// typed; an error is returned only beside sqlite.OutcomeFailed. It may be called
// again after any outcome. One call at a time.
type Checkpointer interface {
	Checkpoint(ctx context.Context, mode sqlite.Mode, budget sqlite.Budget) (sqlite.Result, error)
}

// Actions are what else can be done for a database. A field is nil if this database does not
// support it. All may be called from any goroutine.
type Actions struct {
	Snapshot func(ctx context.Context) error
	Sync     func(ctx context.Context) error
	Verify   func(ctx context.Context) error
	Notify   func(ctx context.Context, n Notice) error // returns when the notice was delivered or given up
	Replicas func() []collector.Replica                // how far each replica has come, for samples
	Capture  func() *collector.Capture                 // the state of capture, for samples
}

// Parts serve one database from Open to Close.
type Parts struct {
	Sampler      Sampler
	Checkpointer Checkpointer
	Actions      Actions
	LastBusy     func() *Refusal                 // the process that was last refused a lock, for operators; may be nil
	Close        func(ctx context.Context) error // final sync within ctx, then releases all, Sampler included
}

// Refusal is a process that met SQLITE_BUSY. It is shown to operators; no metric
// carries a pid or a command.
type Refusal struct {
	At      time.Time `json:"at"`
	PID     int       `json:"pid"`
	Command string    `json:"command"`
}

// Target is one database to watch. Open is called at the first turn, and again after a panic
// in one of its turns. Two targets with the same Name and Identity are the same: a reload
// does not touch such a database.
type Target struct {
	Name     string
	Path     string
	Labels   map[string]string
	Replicas []string // names of its replicas, as "s3.main"
	Identity string
	Open     func(ctx context.Context) (Parts, error)
}

// Options are what a Watchdog is made of. Clock, Interval and Poll have defaults.
type Options struct {
	Targets     []Target
	Policies    *policy.Set
	StateFile   string // where policy state survives restarts; "" keeps none
	HistoryFile string // the same for the history that policies look back to; "" keeps none
	Metrics     *Metrics
	Health      *health.Board                         // shows the databases' conditions; nil: one of its own
	Busy        *collector.Busy                       // counts the locks that others refused us; may be nil
	Measured    func(s *collector.Sample, acted bool) // called with each turn's sample; may be nil
	// called for each line of the decision log, one at a time a database; may be nil
	Decided  func(Entry)
	Recently func(string) Recent // what earlier runs logged about a database; may be nil
	// called for each notice of an earlier run whose end is still to be sent, before any is sent; may be nil
	Holds func(db, policy string, notify []string)
	// called where no end will follow a notice, because a reload removed its policy or database; may be nil
	Dropped  func(db, policy string)
	Logger   *slog.Logger
	Clock    func() time.Time
	Interval time.Duration // between two turns of a database; 0: one second
	Poll     time.Duration // between two polls of a busy database; 0: a tenth of a second
}

// Watchdog watches databases until its Run ends.
type Watchdog struct {
	shared
	started   time.Time
	databases atomic.Pointer[[]*database] // sorted by name; replaced as a whole by a reload
	left      map[string]savedDatabase    // removed from the configuration, kept for a while; only Run touches it
	kept      succession.Kept             // files that are not released yet; only Run touches it
	reloads   chan reload
	running   atomic.Bool
	ended     chan struct{}
}

// shared is the state that all databases of one Watchdog share.
type shared struct {
	options  Options
	ticks    time.Time // all intervals count from here, by the monotonic clock
	policies atomic.Pointer[policy.Set]
	saving   *voice.Saving
	leaving  sync.WaitGroup // databases that reloads removed or changed, until they are closed
	dirty    atomic.Bool    // policy state has changed since it was saved
	seq      atomic.Uint64  // of the state file written last
}

// ErrUnknownDatabase is returned for a name or path that is not watched.
var ErrUnknownDatabase = errors.New("no such database")

// ErrAway is returned by actions that found the database's files being replaced or opened.
// Nothing has failed: the action is tried again in a second.
var ErrAway = errors.New("the database is just being replaced or opened")

// ErrBadRequest is returned for a request that makes no sense.
var ErrBadRequest = errors.New("bad request")

// ErrEnded is returned by calls after Run has ended.
var ErrEnded = errors.New("the daemon is shutting down")

// New returns a Watchdog that does nothing until Run.
func New(o Options) *Watchdog {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Interval == 0 {
		o.Interval = time.Second
	}
	if o.Poll == 0 {
		o.Poll = o.Interval / 10
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics()
	}
	if o.Health == nil {
		o.Health = health.NewBoard()
	}
	now := time.Now()
	// Begin at a whole second, as replication does: timers that fire together wake the machine once.
	ticks := now.Add(-now.Sub(now.Truncate(time.Second)))
	w := &Watchdog{shared: shared{options: o, ticks: ticks, saving: voice.NewSaving(o.Logger)}, started: now,
		left: map[string]savedDatabase{}, kept: succession.Kept{}, reloads: make(chan reload), ended: make(chan struct{})}
	w.databases.Store(&[]*database{})
	w.policies.Store(&policy.Set{}) // until Run
	return w
}

// Run watches the databases until ctx ends. Then it closes them, which may take as
// long as grace for the last syncs, and saves the policies' state. It returns nil if
// nothing was lost on the way.
func (w *Watchdog) Run(ctx context.Context, grace time.Duration) error {
	defer close(w.ended)
	saved, err := w.load()
	if err != nil {
		return err
	}
	if err := w.swap(ctx, w.options.Targets, w.options.Policies, saved); err != nil {
		return err
	}
	w.running.Store(true)
	defer w.running.Store(false)
	tick, history := time.NewTicker(saveInterval), time.NewTicker(historyInterval)
	defer tick.Stop()
	defer history.Stop()
	for {
		select {
		case r := <-w.reloads:
			r.done <- w.swap(ctx, r.targets, r.policies, nil)
		case <-tick.C:
			w.watchSilent()
			w.saving.Report("state", w.save())
		case <-history.C:
			brief, cancel := context.WithTimeout(ctx, time.Second)
			w.saving.Report("history", w.saveHistory(brief))
			cancel()
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
			defer cancel()
			closed := succession.CloseAll(*w.databases.Load(), ErrEnded, func(d *database) error { return d.close(last) })
			return errors.Join(closed, succession.Await(last, &w.leaving), w.save(), w.saveHistory(last))
		}
	}
}

// wake is called by a database's timer. It runs a turn, or only a poll between two turns, and
// sets the timer again. A panic makes this database restart and does not affect the others.
func (d *database) wake(ctx context.Context) {
	if d.acquire(ctx) != nil {
		return
	}
	defer d.release()
	defer survive(ctx, d)
	if wanted := d.wanted.Swap(false); d.parts != nil && !wanted && time.Now().Before(d.nextTurn) {
		d.parts.Sampler.Poll()
	} else {
		d.turn(ctx)
		d.nextTurn = time.Now().Add(d.until(d.options.Interval * d.pace()))
	}
	next := time.Until(d.nextTurn)
	if !d.past.rests() {
		next = min(next, d.until(d.options.Poll))
	}
	if d.wanted.Load() {
		next = 0
	}
	d.timer.Load().Reset(next)
}

// turn is the body of the loop. A turn of a database has these steps:
//
//  1. open its parts, if they are not open;
//  2. measure, and keep what the policies look back to of the sample;
//  3. let the policies decide;
//  4. drop the actions whose lane is busy, and store the new states;
//  5. if an action is due, publish and save before it begins, so that a crash cannot
//     make it happen twice; save a step of a tuned value as well;
//  6. act: a checkpoint within the turn, other actions beside the turns;
//  7. send what an earlier run had no time to send, and the end of notices that
//     no longer hold;
//  8. publish.
func (d *database) turn(ctx context.Context) {
	d.turns.Add(1)
	if err := d.open(ctx); err != nil {
		d.voice.Say(topicOpen, slog.LevelWarn, true, "the database could not be opened; it is retried every few seconds",
			"err", err)
		d.display.failed(err.Error(), d.view())
		return
	}
	plant.Panic("turn", d.target.Name)
	sample := d.measure(ctx)
	if d.options.Measured != nil {
		d.options.Measured(&sample, d.ledger.checkpointed)
		d.ledger.checkpointed = false
	}
	policies := d.past.follow(d.policies.Load())
	d.past.history.Add(&sample)
	decision := policies.Evaluate(d.input(sample), d.ledger.states)
	actions := d.ledger.due(&decision, d.closing)
	atWork, moved := d.ledger.remember(decision.Next)
	if atWork {
		d.dirty.Store(true)
	}
	for _, p := range decision.Policies {
		d.hindered(p)
	}
	if len(actions) > 0 || moved {
		d.logChanges(d.display.publish(sample, decision, d.view()))
		d.keeper.save(d.saved())
	}
	for _, action := range actions {
		d.act(ctx, *action)
	}
	d.pay(ctx)
	d.resolve(ctx, policies, &decision)
	d.faults.forgive()
	d.logChanges(d.display.publish(d.past.last, decision, d.view()))
}

// Look starts a database's next turn at once, because somebody noticed that its files have
// changed. It does not wait.
func (w *Watchdog) Look(nameOrPath string) {
	if d, err := w.find(nameOrPath); err == nil {
		d.look()
	}
}

func (d *database) look() {
	d.wanted.Store(true)
	if timer := d.timer.Load(); timer != nil {
		timer.Reset(0) // if a turn is under way, its end sees d.wanted
	}
}

// find returns the database with the name, or the one at the path.
func (w *Watchdog) find(nameOrPath string) (*database, error) {
	for _, d := range *w.databases.Load() {
		if d.target.Name == nameOrPath || d.target.Path == nameOrPath {
			return d, nil
		}
	}
	return nil, fmt.Errorf("%q: %w", nameOrPath, ErrUnknownDatabase)
}
