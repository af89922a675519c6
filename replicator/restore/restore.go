package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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

// Check says how SQLite checks a restored database. Checksums are compared in any case.
type Check string

// The checks: none; the structure of every page (quick_check); also that every index agrees
// with its table (integrity_check).
const (
	CheckNone  Check = "none"
	CheckQuick Check = "quick"
	CheckFull  Check = "full"
)

// Options say what Run restores, and where to.
type Options struct {
	Output      string
	Target      catalog.Target
	Force       bool     // set an existing database and its side files aside, unless a process uses it
	IfNotExists bool     // if Output exists, succeed without doing anything
	Leave       int64    // bytes of disk that must stay free
	Keep        bool     // if the store becomes unreachable, keep the unfinished file for the next restore
	Reach       ltx.TXID // the newest state must have at least this TXID
	DryRun      bool     // plan only
	Owner       stage.Owner
	Note        bool // leave a note beside Output, by which the next sqlwatch continues the lineage
	Check       Check
	Drill       bool          // run the check at low priority, since nobody waits for it
	Exact       bool          // fail if the state of the moment is not known for sure
	SyncEvery   time.Duration // the replica's, as tolerance when judging a moment; 0: 1 s
	// called with bytes of the replica's objects: both 0 until the total is known, equal once
	// everything is fetched and being checked; may be nil
	Progress func(done, total int64)
}

// Result says what was restored.
type Result struct {
	Output      string         `json:"output,omitempty"`
	TXID        ltx.TXID       `json:"txid"`
	Timestamp   time.Time      `json:"timestamp"`       // as the clock showed it, if known
	Doubt       *catalog.Doubt `json:"doubt,omitempty"` // why this need not be the state of the moment asked for
	Lineage     string         `json:"lineage,omitempty"`
	Objects     []string       `json:"objects"` // keys, in the order in which they apply
	ObjectBytes int64          `json:"object_bytes"`
	PageSize    int            `json:"page_size_bytes,omitempty"`
	Pages       uint32         `json:"pages,omitempty"`
	Checksum    ltx.Checksum   `json:"checksum,omitempty"` // of the database, as computed
	Compared    bool           `json:"checksum_compared"`  // the replica knew the checksum, and it matches
	Check       Check          `json:"check,omitempty"`
	Skipped     bool           `json:"skipped,omitempty"` // IfNotExists, and Output exists
	DryRun      bool           `json:"dry_run,omitempty"`
	Aside       []string       `json:"set_aside,omitempty"` // the files that were there, under their new names
	Removed     []string       `json:"removed,omitempty"`   // files that earlier restores had set aside or left unfinished
	Going
	Warnings []string `json:"warnings,omitempty"`
	Took
}

// Going says what a restore did without, how it continued an interrupted one, and whether it can be continued itself.
type Going struct {
	Replans int      `json:"replans,omitempty"`         // how often objects had vanished or were corrupt
	Useless []string `json:"useless_objects,omitempty"` // keys of objects found corrupt or unreadable
	Kept    string   `json:"kept,omitempty"`            // the unfinished file, if this restore was interrupted
	Resumed int64    `json:"resumed_bytes,omitempty"`   // bytes taken over from an interrupted restore
}

// Took says how long the parts of a restore took.
type Took struct {
	PlanTime   time.Duration `json:"-"`
	ApplyTime  time.Duration `json:"-"`
	FinishTime time.Duration `json:"-"` // check and fsync
}

// Size returns the restored database's size in bytes.
func (r Result) Size() int64 { return int64(r.PageSize) * int64(r.Pages) }

// Run restores a database file from a replica: exactly the target's state. The file gets its
// name only once it is complete, checked and durable. After an error, or a crash at any
// moment, Output is unchanged; only if Force replaces a database, after a crash its side files may
// already be set aside.
//
// It also restores replicas of Litestream, those of version 0.3 from snapshots and WAL
// segments.
func Run(ctx context.Context, st store.Store, o Options) (Result, error) {
	r := restorer{store: st, o: o, result: Result{DryRun: o.DryRun, Check: o.Check}}
	if err := r.run(ctx); err != nil {
		return r.result, fmt.Errorf("restore: %w", err)
	}
	return r.result, nil
}

// restorer is one restore under way.
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
	// A file may have appeared at the output's place in the meantime.
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
	released := claim.Release()
	if err != nil {
		return errors.Join(err, released)
	}
	if released != nil { // the database is in its place
		r.result.Warnings = append(r.result.Warnings, released.Error())
	}
	if r.o.Note {
		r.leaveNote(ctx, output)
	}
	r.result.Removed, err = stage.CleanUp(output, r.result.Aside, time.Now())
	if err != nil {
		r.result.Warnings = append(r.result.Warnings, err.Error())
	}
	return nil
}

// leave removes the stage, or keeps it if another restore can continue from it.
func (r *restorer) leave(ctx context.Context, err error) {
	if err != nil && r.stage.Content().TXID != 0 && keeps(ctx, err) && r.stage.Keep() == nil {
		r.result.Kept = r.stage.Name()
		return
	}
	r.stage.Discard()
}

// own gives the finished file the owner and mode that were asked for, or else those of the
// file that it replaces.
func (r *restorer) own() error {
	err := r.stage.Inherit()
	if err != nil && r.o.Owner.User == nil {
		r.result.Warnings = append(r.result.Warnings, "the restored database keeps mode 0600 and belongs to you: "+
			err.Error())
	}
	return r.stage.Give(r.o.Owner)
}

// claim makes sure that no process uses the database that is about to be replaced.
func (r *restorer) claim(output string) (*dbfile.Claim, error) {
	claim, err := dbfile.Replacing(output)
	if errors.Is(err, dbfile.ErrInUse) {
		return nil, &stage.OccupiedError{Path: output, Exists: true, Locked: true}
	}
	return claim, err
}

// leaveNote leaves a note beside the file that says what it was restored from. If that fails
// there is only a warning: the restored file is what matters.
func (r *restorer) leaveNote(ctx context.Context, output string) {
	line, err := lineage.Read(ctx, r.store)
	if err == nil {
		err = lineage.Leave(output, line.ID, r.result.TXID)
	}
	if note, found := output+lineage.NoteSuffix, line.ID != ""; err == nil && found {
		err = r.stage.Share(note) // the user who will run sqlwatch must be able to read it
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

// judge adds a warning, or with Exact returns an error, if the planned state need not be that
// of the moment asked for.
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

// lookAtOutput decides what to do if something is at the output's place already.
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
	maxReplans = 16 // how often objects may vanish or prove corrupt during one restore
	maxRefused = 3  // unreadable objects after which the store is at fault, not the objects
)

// build fills the stage. If an object has vanished, because retention deleted it meanwhile,
// build plans again; if one is corrupt, it plans again without it.
func (r *restorer) build(ctx context.Context) error {
	o := oracle{target: r.o.Target, excluded: make(map[string]bool), suspects: make(map[string]bool)}
	defer func() { r.result.Useless = slices.Sorted(maps.Keys(o.excluded)) }()
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
		// What was listed as the newest state and is gone was stored: an older one is not the newest.
		if gone := (*catalog.GoneError)(nil); plan != nil {
			r.o.Reach = max(r.o.Reach, plan.TXID)
		} else if errors.As(err, &gone) {
			r.o.Reach = max(r.o.Reach, gone.TXID)
		}
		r.result.Replans++
	}
}

// errUnfit says that the pages an earlier restore left do not match the checksum: a machine
// crash may have lost some of them. Then the restore starts over.
var errUnfit = errors.New("what an earlier restore left is not what it was to be")

// oracle decides what a failed attempt means for the next one.
type oracle struct {
	target   catalog.Target
	inFull   bool
	excluded map[string]bool // corrupt or unreadable: plan without them
	suspects map[string]bool // read corrupt once: perhaps changed in transit
	corrupt  error
	refused  int // objects that could not be read
}

// learn reports whether another attempt makes sense. Once an object is corrupt, the TXID is
// fixed: otherwise, without the newest file, an older state would pass as the newest. plan is
// nil if planning itself failed.
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

// without excludes an object that cannot be read. Other objects may hold the same TXIDs; if
// none do, the next plan's error says what can be restored.
func (o *oracle) without(e *store.UnreadableError, plan *catalog.Plan) bool {
	_, _, end, err := store.ParseLTXKey(e.Key)
	if o.refused++; o.refused == maxRefused || err != nil {
		return false
	}
	switch {
	case plan != nil:
		o.target = catalog.Target{TXID: plan.TXID}
	case o.target == catalog.Target{} || o.target == catalog.Target{TXID: end}:
		o.target = catalog.Target{TXID: end} // planning reads its last file
	default:
		return false
	}
	o.excluded[e.Key] = true
	if o.corrupt == nil {
		o.corrupt = e
	}
	return true
}

// explain adds the corrupt or unreadable object that is the reason why there is no plan.
func (o *oracle) explain(err error) error {
	if o.corrupt == nil {
		return err
	}
	return fmt.Errorf("%w; without it: %w", o.corrupt, err)
}

// apply executes a plan into the stage.
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

// progress adds up the bytes done; any goroutine may add.
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

// finish checks the file and makes it durable at the same time: SQLite reads from memory what
// the disk is still writing.
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
