// Package policy decides, from measurements alone, what may be done to a database and when.
// It performs no I/O, reads no clock and starts no goroutine: the same input always gives the
// same Decision. What is not known stays unknown (Kleene logic), and an unknown value never
// causes an action.
package policy

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/checkpoint"
	"github.com/sqlwatch/sqlwatch/policy/foreach"
	"github.com/sqlwatch/sqlwatch/policy/ladder"
	"github.com/sqlwatch/sqlwatch/policy/lang"
	"github.com/sqlwatch/sqlwatch/policy/selection"
	"github.com/sqlwatch/sqlwatch/policy/window"
)

// The floors: no policy can make sqlwatch act more often, or on less, than this.
const (
	MinCheckpointInterval = time.Second      // between the starts of two checkpoints of a database
	MinTruncateInterval   = 5 * time.Second  // between the starts of two ladders that truncate
	MinTruncateBytes      = 128 << 10        // a smaller WAL is never truncated: it costs writers more than it frees
	MinNotifyInterval     = 10 * time.Second // between two notifications of one policy
	MinBackupInterval     = time.Minute      // between two snapshots, or two verifications, of a database
	MaxSampleAge          = 30 * time.Second // an older sample (or one from the future) makes everything unknown
	ReaderPatience        = time.Second      // a reader that pins the WAL for longer stops a TRUNCATE
	MaxRunning            = 24 * time.Hour   // an action that has not finished by then counts as lost
)

// Set has all policies and windows of one configuration, parsed and checked. It is immutable
// and may be shared.
type Set struct {
	Policies []*Policy          // in file order
	Windows  map[string]*Window // by name
	DryRun   bool               // engine { mode = "dry_run" }: nothing acts

	scope   *Scope                           // what the expressions can read
	program *lang.Program                    // every expression
	windows *window.Set                      // the windows, as the program numbers them
	shown   atomic.Pointer[map[string]Truth] // the windows' truths in the last decision: usually the next one's too
	spare   sync.Pool                        // evaluations to be reused
}

// Types of the expression language that appear in this package's results.
type (
	Scope   = lang.Scope   // what expressions can read besides measurements
	History = lang.History // the recent past of one database
	Node    = lang.Node    // an expression with its value
	Truth   = lang.Truth   // a Kleene truth value
)

// The truth values. The zero value is Unknown.
const (
	Unknown = lang.Unknown
	False   = lang.False
	True    = lang.True
)

// Named returns the policy of that name, or nil if there is none.
func (s *Set) Named(name string) *Policy {
	if i := slices.IndexFunc(s.Policies, func(p *Policy) bool { return p.Name == name }); i >= 0 {
		return s.Policies[i]
	}
	return nil
}

// Scope returns what the set's expressions can read besides measurements.
func (s *Set) Scope() *Scope { return s.scope }

// WindowStates returns the state of every window for one database at one moment.
func (s *Set) WindowStates(in Input) map[string]lang.WindowState {
	states := make(map[string]lang.WindowState, len(s.windows.Order))
	e := s.newEvaluation(in)
	defer s.release(e)
	for i, st := range e.windows {
		states[s.windows.Order[i].Name] = st
	}
	return states
}

// NewHistory returns an empty history that keeps what the set's over-time functions read; if
// they read nothing, it keeps nothing.
func (s *Set) NewHistory() *History { return s.Retain(&History{}) }

// Retain makes h keep what this set reads, when this set replaces another, and returns h.
// Values that both read keep their past.
func (s *Set) Retain(h *History) *History { return s.program.Retain(h) }

// Policy is one policy block.
type Policy struct {
	Name                string
	selection.Selection     // the databases it applies to
	Priority            int // higher goes first; equal: file order
	DryRun              bool
	For                 time.Duration // how long When must hold before it arms
	MaxDefer            time.Duration // after being armed this long, it acts outside its window; 0: never
	Cooldown            time.Duration // rest after a success
	Severity            string        // info, warning or critical
	Kind                ActionKind
	Ladder              *Ladder // of a checkpoint action
	Notify              []string
	Tunes               []*Tune
	Range               hcl.Range
	HoldOff             time.Duration     // it does not act for this long after watching began or another policy acted
	Instance            *foreach.Instance // of a for_each; without one, the policy's own block

	expressions
	closed atomic.Pointer[closedReason]

	walLimit float64                 // it never shrinks a WAL file smaller than these bytes; 0: not known
	foretold bool                    // its window depends on the calendar alone
	opens    atomic.Pointer[opening] // of a policy that is foretold
}

// expressions are the expressions of a policy; nil: it has none.
type expressions struct {
	when, until, unless, window, message hclsyntax.Expression
}

// WindowsRead returns the names of the windows that some policy depends on.
func (s *Set) WindowsRead() (names []string) {
	for _, p := range s.Policies {
		for _, x := range []hclsyntax.Expression{p.when, p.until, p.unless, p.window, p.message} {
			if x == nil {
				continue
			}
			for _, t := range x.Variables() {
				if t.RootName() == "window" && len(t) > 1 {
					if name, is := t[1].(hcl.TraverseAttr); is {
						names = append(names, name.Name)
					}
				}
			}
		}
	}
	for _, w := range s.Windows {
		if w.Learn != nil {
			names = append(append(names, w.Learn.Except...), w.Learn.Fallback)
		}
	}
	return names
}

// Operator is the name under which actions that an operator asked for are recorded. No policy has it.
const Operator = "operator"

// ActionKind is what a policy does.
type ActionKind string

// The kinds of action.
const (
	ActCheckpoint ActionKind = "checkpoint"
	ActSnapshot   ActionKind = "snapshot"
	ActSync       ActionKind = "sync"
	ActVerify     ActionKind = "verify"
	ActNotify     ActionKind = "notify"
)

// Lane is a set of actions that exclude each other: in each lane of a database, one runs at a
// time. A notice is in none, so nothing delays it.
type Lane string

// The lanes. A checkpoint may run beside an upload.
const (
	LaneNone       Lane = ""
	LaneCheckpoint Lane = "checkpoint"
	LaneReplica    Lane = "replica" // snapshots, syncs and drills
)

// Lane returns the lane of an action of this kind.
func (k ActionKind) Lane() Lane {
	switch k {
	case ActCheckpoint:
		return LaneCheckpoint
	case ActNotify:
		return LaneNone
	}
	return LaneReplica
}

// A checkpoint in the words of policies.
type (
	Ladder  = ladder.Ladder  // steps under one stall budget
	Step    = ladder.Step    // one stage
	Backoff = ladder.Backoff // the pause after a fruitless run
)

// Input is everything that one evaluation may depend on.
type Input struct {
	Now      time.Time
	Sample   *collector.Sample
	History  *History          // nil: over-time functions are unknown
	Labels   map[string]string // of the database
	Replicas []string          // names of the database's replicas, as "s3.main"; one missing from Sample is unknown
	SkipTree bool              // leave PolicyDecision.Tree nil

	// Leave Action.Why and Message empty, for callers that do not read them: the texts take longer than the decision.
	SkipWords bool

	Gap         time.Duration // longest distance of two samples over which a condition counts as held; 0: a minute
	PausedUntil time.Time     // no action begins before then, because an operator paused them; notices continue
}

// Guard names a reason that keeps an armed policy from acting.
type Guard string

// The guards, in the order in which they are checked.
const (
	GuardNone     Guard = ""
	GuardMode     Guard = "mode"     // dry run
	GuardPause    Guard = "paused"   // an operator has paused the database's actions
	GuardUnless   Guard = "unless"   // the unless expression is true or unknown
	GuardWindow   Guard = "window"   // outside its window
	GuardCooldown Guard = "cooldown" // resting after a success
	GuardBackoff  Guard = "backoff"  // resting after a fruitless run
	GuardHoldOff  Guard = "hold_off" // watching has just begun, or another policy has just acted
	GuardReader   Guard = "reader"   // a reader pins the WAL
	GuardStall    Guard = "stall"    // it would probably stall writers beyond the budget
	GuardFloor    Guard = "floor"    // below the floors in the code: too soon, or too little
	GuardTurn     Guard = "turn"     // another policy acts on this database, in the same lane
)

// Guards lists every guard in order, for metrics.
func Guards() []Guard {
	return []Guard{GuardMode, GuardPause, GuardUnless, GuardWindow, GuardCooldown, GuardBackoff, GuardHoldOff, GuardReader,
		GuardStall, GuardFloor, GuardTurn}
}

// Decision is the result of an evaluation for one database.
type Decision struct {
	DB       string           `json:"db"`
	At       time.Time        `json:"at"`
	Policies []PolicyDecision `json:"policies"`
	// the first of Actions other than a notice, or else the first; nil: none
	Action  *Action                `json:"action,omitempty"`
	Actions []*Action              `json:"actions,omitempty"` // to be run now: at most one per lane, and every notice
	Next    map[string]PolicyState `json:"-"`                 // the new states, by policy
	Windows map[string]Truth       `json:"windows,omitempty"`
	Tunes   []TuneDecision         `json:"tunes,omitempty"`
	// the size of the WAL's file at which the first of the policies begins to make it smaller; 0: cannot be told
	WALLimit float64 `json:"wal_limit_bytes,omitempty"`
}

// PolicyDecision is the result of an evaluation for one policy.
type PolicyDecision struct {
	Policy  string `json:"policy"`
	Phase   Phase  `json:"phase"`
	When    Truth  `json:"when"` // of `when`, or of "until is not reached" once it has acted
	Refused Guard  `json:"refused,omitempty"`
	Reason  string `json:"reason"` // one sentence for an operator
	// when it could act if the measurements stay, once no guard refuses any more; zero: unknown
	Earliest time.Time `json:"earliest,omitzero"`
	Guards   []Refusal `json:"guards,omitempty"`   // every guard that refuses now, first first
	Severity string    `json:"severity,omitempty"` // of the policy
	Hindered string    `json:"hindered,omitempty"` // why it does not reach what it is for, and will not by waiting
	Tree     *Node     `json:"tree,omitempty"`
}

// Refusal is one guard's answer.
type Refusal struct {
	Guard  Guard  `json:"guard"`
	Reason string `json:"reason"`

	until time.Time // when it no longer refuses; zero: unknown
}

// Action is something to do to a database.
type Action struct {
	Policy     string     `json:"policy"`
	DB         string     `json:"db"`
	Kind       ActionKind `json:"kind"`
	Checkpoint *Ladder    `json:"checkpoint,omitempty"`
	Notify     []string   `json:"notify,omitempty"` // notifiers to tell, as "webhook.ops"; any kind may have some
	Severity   string     `json:"severity"`
	Message    string     `json:"message,omitempty"` // rendered
	Why        string     `json:"why"`
	LeftOut    string     `json:"left_out,omitempty"` // why Checkpoint is without the TRUNCATE that the policy asks for
}

// ActionResult is how an action ended.
type ActionResult struct {
	Outcome     checkpoint.Outcome // of the last checkpoint step; OutcomeNone for other actions
	WriterStall time.Duration      // longest of the steps
	Reclaimed   int64              // bytes by which the WAL file shrank
	Err         error
}
