package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/cage"
	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
	"github.com/sqlwatch/sqlwatch/replicator/stage"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Check says how SQLite is asked about a restored database. Checksums are
// compared in any case.
type Check string

// The checks: of none, of the structure of every page, and that every index
// agrees with its table.
const (
	CheckNone  Check = "none"
	CheckQuick Check = "quick"
	CheckFull  Check = "full"
)

// Options say what Restore makes, and where.
type Options struct {
	Output      string
	Target      catalog.Target
	Force       bool     // set an existing database and its side files aside, unless somebody uses it
	IfNotExists bool     // do nothing, successfully, where Output exists
	Leave       int64    // bytes of disk that must stay free
	Keep        bool     // where the way to the store breaks, leave what is there for who asks again
	Reach       ltx.TXID // the newest state must be this one or a later one
	DryRun      bool     // plan only
	Owner       stage.Owner
	Note        bool // leave a note beside Output, by which the next sqlwatch goes on with its lineage
	Check       Check
	Drill       bool          // nobody waits for it: the check is of low priority
	Exact       bool          // a moment whose state is not known for sure is an error
	SyncEvery   time.Duration // of the replica, to judge by; 0: 1 s
	// bytes of the replica's objects, both 0 until they are known, equal from when all is there
	// and is checked; may be nil
	Progress func(done, total int64)
}

// Result says what was made.
type Result struct {
	Output      string         `json:"output,omitempty"`
	TXID        ltx.TXID       `json:"txid"`
	Timestamp   time.Time      `json:"timestamp"`       // by the clock where it is known
	Doubt       *catalog.Doubt `json:"doubt,omitempty"` // why this need not be the state of the moment asked for
	Lineage     string         `json:"lineage,omitempty"`
	Objects     []string       `json:"objects"` // keys, in the order of their application
	ObjectBytes int64          `json:"object_bytes"`
	PageSize    int            `json:"page_size_bytes,omitempty"`
	Pages       uint32         `json:"pages,omitempty"`
	Checksum    ltx.Checksum   `json:"checksum,omitempty"` // of the database, as computed
	Compared    bool           `json:"checksum_compared"`  // the replica knew the checksum, and it is this one
	Check       Check          `json:"check,omitempty"`
	Skipped     bool           `json:"skipped,omitempty"` // IfNotExists, and it does
	DryRun      bool           `json:"dry_run,omitempty"`
	Replans     int            `json:"replans,omitempty"`   // objects vanished or were corrupt, and others served
	Aside       []string       `json:"set_aside,omitempty"` // what was there, under its new names
	Removed     []string       `json:"removed,omitempty"`   // what earlier restores had set aside, or left unfinished
	Going
	Warnings []string `json:"warnings,omitempty"`
	Took
}

// Going says how a restore goes on where another one broke off.
type Going struct {
	Kept    string `json:"kept,omitempty"`          // where it is, when this one broke off
	Resumed int64  `json:"resumed_bytes,omitempty"` // bytes that an earlier one had written
}

// Took says how long the parts of a restore took.
type Took struct {
	PlanTime   time.Duration `json:"-"`
	ApplyTime  time.Duration `json:"-"`
	FinishTime time.Duration `json:"-"` // check and fsync
}

// Size returns the restored database's size in bytes.
func (r Result) Size() int64 { return int64(r.PageSize) * int64(r.Pages) }

// Run makes a database file from a replica: the target's state exactly,
// checked, durable and under its name only when all of that is done. After an
// error, or a crash at any moment, Output is as it was; only where Force
// replaces a database its side files may already be set aside.
//
// Replicas of Litestream are restored too, those of version 0.3 by snapshots
// and WAL segments.
func Run(ctx context.Context, st store.Store, o Options) (Result, error) {
	r := restorer{store: st, o: o, result: Result{DryRun: o.DryRun, Check: o.Check}}
	if err := r.run(ctx); err != nil {
		return r.result, fmt.Errorf("restore: %w", err)
	}
	return r.result, nil
}

// restorer is one restore on its way.
type restorer struct {
	store  store.Store
	o      Options
	result Result
	stage  *stage.Stage
}

func (r *restorer) run(ctx context.Context) (err error) {
	switch r.o.Check {
	case "":
		r.o.Check, r.result.Check = CheckQuick, CheckQuick
	case CheckNone, CheckQuick, CheckFull:
	default:
		return fmt.Errorf("unknown check %q: it is none, quick or full", r.o.Check)
	}
	if r.o.DryRun {
		return r.dryRun(ctx)
	}
	output, err := stage.Resolve(r.o.Output)
	if err != nil {
		return err
	}
	r.result.Output = output
	if done, err := r.lookAtOutput(output); done || err != nil {
		return err
	}
	if r.stage, err = stage.Open(output, r.o.Leave); err != nil {
		return err
	}
	defer func() { r.leave(ctx, err) }()
	if r.o.Progress != nil {
		r.o.Progress(0, 0)
	}
	if err = r.build(ctx); err != nil {
		return err
	}
	if err = r.finish(ctx); err != nil {
		return err
	}
	// What came to the output's place in the meantime was not asked about.
	if done, err := r.lookAtOutput(output); done || err != nil {
		return err
	}
	if err := r.own(); err != nil {
		return err
	}
	claim, err := r.claim(output)
	if err != nil {
		return err
	}
	r.result.Aside, err = r.stage.Publish()
	if err = errors.Join(err, claim.Release()); err != nil {
		return err
	}
	if r.o.Note {
		r.leaveNote(ctx, output)
	}
	r.result.Removed, err = stage.CleanUp(output, time.Now())
	if err != nil {
		r.result.Warnings = append(r.result.Warnings, err.Error())
	}
	return nil
}

// leave removes the stage, or keeps it where who asks again can go on from it.
func (r *restorer) leave(ctx context.Context, err error) {
	if err != nil && r.stage.Content().TXID != 0 && keeps(ctx, err) && r.stage.Keep() == nil {
		r.result.Kept = r.stage.Name()
		return
	}
	r.stage.Discard()
}

// own gives the finished file its owner and mode: those asked for, or else those of
// what it replaces.
func (r *restorer) own() error {
	err := r.stage.Inherit()
	if err != nil && r.o.Owner.User == nil {
		r.result.Warnings = append(r.result.Warnings, "the restored database keeps mode 0600 and belongs to you: "+
			err.Error())
	}
	return r.stage.Give(r.o.Owner)
}

// claim makes sure that nobody uses the database that is about to be replaced.
func (r *restorer) claim(output string) (*dbfile.Claim, error) {
	claim, err := dbfile.Replacing(output)
	if errors.Is(err, dbfile.ErrInUse) {
		return nil, &stage.OccupiedError{Path: output, Exists: true, Locked: true}
	}
	return claim, err
}

// leaveNote says beside the file what it was made of. Where the replica cannot tell its
// lineage any more there is no note: the file is there, and is what matters.
func (r *restorer) leaveNote(ctx context.Context, output string) {
	line, err := lineage.Read(ctx, r.store)
	if err == nil {
		err = lineage.Leave(output, line.ID, r.result.TXID)
	}
	if note, found := output+lineage.NoteSuffix, line.ID != ""; err == nil && found {
		err = r.stage.Share(note) // who goes on with the database reads it
	}
	if err != nil {
		r.result.Warnings = append(r.result.Warnings,
			fmt.Sprintf("the database is restored, but the note of its origin could not be written beside it: if "+
				"sqlwatch refuses to continue this replica, start it once with --adopt (%v)", err))
	}
}

func (r *restorer) dryRun(ctx context.Context) error {
	start := time.Now()
	plan, old, err := r.plan(ctx, r.o.Target, nil)
	if err != nil {
		return err
	}
	if old != nil {
		r.describeV3(old)
		return r.judgeV3(old)
	}
	r.describe(plan)
	r.result.PlanTime = time.Since(start)
	return r.judge(plan)
}

// judge says, or refuses, where the planned state need not be that of the moment.
func (r *restorer) judge(p *catalog.Plan) error {
	if r.o.Target == (catalog.Target{}) && p.TXID < r.o.Reach {
		return &catalog.GapError{From: p.TXID + 1, To: r.o.Reach, Reached: p.TXID}
	}
	d := p.Doubt(3*cmp.Or(r.o.SyncEvery, time.Second), time.Now())
	if d == nil {
		return nil
	}
	if r.o.Exact {
		return d
	}
	if r.result.Doubt == nil {
		r.result.Warnings = append(r.result.Warnings, d.Error())
	}
	r.result.Doubt = d
	return nil
}

// lookAtOutput decides about what is at the output's place.
func (r *restorer) lookAtOutput(output string) (skip bool, err error) {
	o, err := stage.Occupied(output)
	switch {
	case err != nil || o == nil:
		return false, err
	case r.o.IfNotExists && o.Exists:
		r.result.Skipped = true
		return true, nil
	case !r.o.Force:
		return false, o
	case len(o.Users) > 0:
		return false, o
	}
	claim, err := r.claim(output)
	return false, errors.Join(err, claim.Release())
}

func (r *restorer) describe(p *catalog.Plan) {
	r.result.TXID, r.result.Timestamp, r.result.Lineage, r.result.ObjectBytes = p.TXID, p.Time(), p.Lineage, p.Bytes
	r.result.Objects = nil
	for _, f := range p.Files {
		r.result.Objects = append(r.result.Objects, f.Object.Key)
	}
}

const (
	maxReplans = 16 // how often objects may vanish or prove corrupt under us
	maxRefused = 3  // objects that cannot be read: after as many it is the store, not the object
)

// build fills the stage. An object that vanished, because retention went by, is
// a reason to plan again; so is a corrupt one, without it.
func (r *restorer) build(ctx context.Context) error {
	o := oracle{target: r.o.Target, excluded: make(map[string]bool), suspects: make(map[string]bool)}
	for {
		start := time.Now()
		plan, old, err := r.plan(ctx, o.target, o.excluded)
		if old != nil && o.corrupt == nil {
			return r.buildGenerations(ctx, old)
		}
		r.result.PlanTime += time.Since(start)
		if err == nil {
			r.describe(plan)
			if err := r.judge(plan); err != nil {
				return err
			}
			start = time.Now()
			err = r.apply(ctx, plan, o.inFull)
			r.result.ApplyTime += time.Since(start)
		} else {
			err = o.explain(err)
		}
		if err == nil {
			return nil
		}
		if errors.Is(err, errUnfit) {
			if err := r.stage.Forget(); err != nil {
				return err
			}
			continue
		}
		if r.result.Replans == maxReplans || !o.learn(err, plan) {
			return err
		}
		r.result.Replans++
	}
}

// errUnfit says that what an earlier restore left does not add up: a machine that went
// down may have lost some of it. Then it is all made again.
var errUnfit = errors.New("what an earlier restore left is not what it was to be")

// oracle decides what a failed attempt means for the next one.
type oracle struct {
	target   catalog.Target
	inFull   bool
	excluded map[string]bool // corrupt: plan without
	suspects map[string]bool // read corrupt once: perhaps it changed on the way here
	corrupt  error
	refused  int // objects that could not be read
}

// learn reports whether another attempt makes sense. Once anything is corrupt
// the TXID is fixed: without the newest file the newest state would be an older one.
// Plan is nil when it is planning that failed.
func (o *oracle) learn(err error, plan *catalog.Plan) bool {
	var corrupt *store.CorruptError
	var refused *store.UnreadableError
	var sum *ChecksumError
	switch {
	case errors.Is(err, store.ErrNotFound):
		return true
	case errors.As(err, &refused):
		return o.without(refused, plan)
	case plan == nil:
		return false
	case errors.As(err, &corrupt):
		o.target, o.corrupt = catalog.Target{TXID: plan.TXID}, err
		if o.suspects[corrupt.Key] {
			o.excluded[corrupt.Key] = true
		}
		o.suspects[corrupt.Key] = true
		return true
	case errors.As(err, &sum), errors.Is(err, ErrIncomplete):
		again := !o.inFull
		o.target, o.corrupt, o.inFull = catalog.Target{TXID: plan.TXID}, err, true
		return again
	}
	return false
}

// without excludes an object that cannot be read. Others may hold the same TXIDs;
// where none do, planning tells what can be had.
func (o *oracle) without(e *store.UnreadableError, plan *catalog.Plan) bool {
	_, _, end, err := store.ParseLTXKey(e.Key)
	if o.refused++; o.refused == maxRefused || err != nil {
		return false
	}
	switch {
	case plan != nil:
		o.target = catalog.Target{TXID: plan.TXID}
	case o.target == catalog.Target{} || o.target == catalog.Target{TXID: end}:
		o.target = catalog.Target{TXID: end} // a plan looks into its last file
	default:
		return false
	}
	o.excluded[e.Key] = true
	if o.corrupt == nil {
		o.corrupt = e
	}
	return true
}

// explain says why there is no plan: what was found corrupt comes first.
func (o *oracle) explain(err error) error {
	if o.corrupt == nil {
		return err
	}
	return fmt.Errorf("%w; without it: %w", o.corrupt, err)
}

// apply carries a plan out into the stage.
func (r *restorer) apply(ctx context.Context, plan *catalog.Plan, inFull bool) error {
	var done progress
	a := &application{store: r.store, plan: plan, out: r.stage, inFull: inFull}
	note := func() error {
		if c, worth := content(plan, a.pageSize, a.pages); worth && r.o.Keep {
			return r.stage.Note(c)
		}
		return nil
	}
	if c := r.stage.Content(); serves(c, plan) && !inFull {
		a.kept = &kept{Content: c, file: r.stage, taken: note}
	} else if err := r.stage.Forget(); err != nil {
		return err
	}
	a.prepare = func(pageSize int, pages uint32) error {
		err := r.stage.Reserve(int64(pageSize)*int64(pages), a.kept != nil)
		if err == nil && a.kept == nil {
			err = note()
		}
		return err
	}
	a.progress = func(n int64) { done.add(n, plan.Bytes, r.o.Progress) }
	err := a.apply(ctx)
	if a.kept != nil && (errors.As(err, new(*ChecksumError)) || errors.Is(err, ErrIncomplete)) {
		return errUnfit
	}
	if err != nil {
		return err
	}
	if a.kept != nil {
		r.result.Resumed = int64(a.kept.pages) * int64(a.pageSize)
	}
	r.result.PageSize, r.result.Pages = a.pageSize, a.pages
	r.result.Checksum = ltx.Checksum(a.checksum.Load()) | ltx.ChecksumFlag
	r.result.Compared = plan.Checksum != 0 || a.announced != 0
	return nil
}

// progress adds up what is done, for any goroutine.
type progress struct {
	mu   sync.Mutex
	done int64
}

func (p *progress) add(n, total int64, show func(done, total int64)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done = min(p.done+n, total); show != nil {
		show(p.done, total)
	}
}

// finish checks the file and makes it durable, both at once: SQLite reads from
// memory what the disk is still writing.
func (r *restorer) finish(ctx context.Context) error {
	start := time.Now()
	defer func() { r.result.FinishTime = time.Since(start) }()
	if r.o.Progress != nil {
		r.o.Progress(r.result.ObjectBytes, r.result.ObjectBytes)
	}
	synced := make(chan error, 1)
	go func() { synced <- r.stage.Sync() }()
	err := r.check(ctx)
	if serr := <-synced; serr != nil {
		return fmt.Errorf("sync %s: %w", r.stage.Name(), serr)
	}
	return err
}

func (r *restorer) check(ctx context.Context) error {
	if r.result.Size() == 0 || r.o.Check == CheckNone {
		return nil
	}
	err := cage.Check{Path: r.stage.Name(), Full: r.o.Check == CheckFull, Last: r.o.Drill}.Run(ctx)
	switch {
	case err == nil || ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, sqlite.ErrCorrupt):
		return fmt.Errorf("every page is as it was replicated, but SQLite finds the database corrupt (--check none "+
			"restores it nevertheless): %w", err)
	}
	return fmt.Errorf("every page is as it was replicated, but whether SQLite finds the database sound is not known "+
		"(--check none restores it nevertheless): %w", err)
}
