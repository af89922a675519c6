package watchdog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/fault"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/internal/watchdog/ladders"
	"github.com/sqlwatch/sqlwatch/internal/watchdog/outcome"
	"github.com/sqlwatch/sqlwatch/policy"
)

// Operator is the policy name of actions that an operator asked for.
const Operator = policy.Operator

const askedFor = "asked for by an operator"

// ErrUnavailable is returned for an action that cannot be done for this database.
var ErrUnavailable = errors.New("not available for this database")

// act carries out what a decision asks for. A checkpoint runs in the turn itself, under
// the baton. Other actions may take minutes and touch nothing that a turn owns: they run
// beside the turns, which go on measuring.
func (d *database) act(ctx context.Context, action policy.Action) {
	d.options.Metrics.policyActions.WithLabelValues(d.target.Name, action.Policy, string(action.Kind)).Inc()
	d.ledger.begin(action)
	began := time.Now()
	if action.Kind == policy.ActCheckpoint {
		result := d.runner(ctx).Run(ctx, *action.Checkpoint)
		d.finish(ctx, action, result, time.Since(began))
		d.measure(ctx)
		d.pay(ctx)
		return
	}
	do := d.parts.Actions.of(action)
	d.doBeside(ctx, func() error { return do(ctx) }, func(err error) {
		d.finish(ctx, action, policy.ActionResult{Err: err}, time.Since(began))
		d.pay(ctx)
	})
}

// doBeside runs do beside the turns, and then with its error, under the baton. A panic in do is such an error.
func (d *database) doBeside(ctx context.Context, do func() error, then func(error)) {
	d.beside.Go(func() {
		err := guarded(d, do)
		// ctx is ignored: what the shutdown cut short must be recorded too.
		if d.acquire(context.WithoutCancel(ctx)) != nil {
			return
		}
		defer d.release()
		defer survive(ctx, d)
		then(err)
	})
}

// runner returns the Runner for the database's checkpoints.
func (d *database) runner(ctx context.Context) ladders.Runner {
	return ladders.Runner{Checkpointer: d.parts.Checkpointer, Look: d.measure, Counted: func(r sqlite.Result, err error) {
		if word, _ := outcomeOf(ctx, policy.ActCheckpoint, policy.ActionResult{Err: err}); !outcome.WrongMoment(word) {
			d.counted(r)
		}
	}}
}

// of returns the function that performs an action other than a checkpoint.
func (a Actions) of(action policy.Action) func(context.Context) error {
	var do func(context.Context) error
	switch action.Kind {
	case policy.ActSnapshot:
		do = a.Snapshot
	case policy.ActSync:
		do = a.Sync
	case policy.ActVerify:
		do = a.Verify
	case policy.ActNotify:
		if notify := a.Notify; notify != nil {
			do = func(ctx context.Context) error { return notify(ctx, Notice{Action: action}) }
		}
	}
	if do == nil {
		return func(context.Context) error { return fmt.Errorf("%s: %w", action.Kind, ErrUnavailable) }
	}
	return do
}

// guarded converts a panic in an action that runs beside the turns into an error, and counts it.
func guarded(d *database, do func() error) error {
	err := fault.Guard(do)
	if bug := fault.First(err); bug != nil {
		d.options.Metrics.Panicked(d.target.Name)
		d.voice.Log.Error("a panic in an action on this database", "panic", bug.Cause, "stack", bug.Stack)
	}
	return err
}

// finish records the end of an action: the policy's next state, the record, the
// counters and the log line.
func (d *database) finish(ctx context.Context, action policy.Action, result policy.ActionResult,
	took time.Duration) {
	now := d.options.Clock()
	record := ActionRecord{
		At: now, Policy: action.Policy, Action: string(action.Kind), Why: action.Why,
		Duration: took, WriterStall: result.WriterStall, Reclaimed: result.Reclaimed,
	}
	record.Outcome, record.OK = outcomeOf(ctx, action.Kind, result)
	record.LeftOut = action.LeftOut
	if result.Err != nil {
		record.Err = result.Err.Error()
	}
	if action.Kind == policy.ActCheckpoint {
		d.past.history.ObserveStall(result.WriterStall)
	}
	if outcome.WrongMoment(record.Outcome) {
		result.Outcome, result.Err = sqlite.OutcomeContended, nil // retry in a second; no failed attempt
	} else if d.parts != nil && d.parts.Actions.Notify != nil {
		d.ledger.owe(action, result)
	}
	d.ledger.finish(d.policies.Load(), action, now, result, outcome.WrongMoment(record.Outcome))
	if record.OK && action.Kind == policy.ActNotify {
		d.ledger.tell(action.Policy, now)
	}
	d.record(record, &action)
	d.refresh()
	d.keeper.save(d.saved())
}

// outcomeOf returns the word for how an action ended, and whether it achieved its purpose.
func outcomeOf(ctx context.Context, kind policy.ActionKind, r policy.ActionResult) (string, bool) {
	switch {
	case errors.Is(r.Err, ErrAway):
		return outcome.Away, false
	case r.Err != nil && ctx.Err() != nil:
		return outcome.Interrupted, false
	case kind == policy.ActCheckpoint:
		_, failed := failureReasons[r.Outcome]
		return r.Outcome.String(), r.Err == nil && !failed
	case r.Err != nil:
		return "failed", false
	}
	return "done", true
}

// record puts the end of an action where operators look for it: one line in the log,
// the counters, the status. action is nil if no policy asked for it.
func (d *database) record(r ActionRecord, action *policy.Action) {
	passing := outcome.WrongMoment(r.Outcome)
	if !r.OK && !passing && r.Policy != Operator {
		d.options.Metrics.policyFailures.WithLabelValues(d.target.Name, r.Policy, r.Action).Inc()
	}
	if !r.OK {
		r.Advice = outcome.Advice(r.Policy == Operator, policy.ActionKind(r.Action), r.Outcome, d.target.Name)
	}
	d.ledger.keep(r)
	if d.options.Decided != nil {
		d.options.Decided(Entry{At: r.At, DB: d.target.Name, Action: &r})
	}
	d.dirty.Store(true)

	message, level := r.Action+" "+r.Outcome, slog.LevelInfo
	attrs := []any{"policy", r.Policy}
	if action != nil && hasMessage(*action) {
		message, level = action.Message, severityLevels[action.Severity]
		attrs = append(attrs, "action", r.Action, "outcome", r.Outcome, "severity", action.Severity)
	}
	attrs = append(attrs, "why", r.Why, "took", r.Duration.Round(100*time.Microsecond))
	if r.Action == string(policy.ActCheckpoint) {
		attrs = append(attrs, "writer_stall", r.WriterStall.Round(100*time.Microsecond), "reclaimed",
			humanize.Bytes(uint64(max(r.Reclaimed, 0))))
	}
	if r.LeftOut != "" {
		attrs = append(attrs, "truncate_left_out", r.LeftOut)
	}
	if r.Err != "" {
		attrs = append(attrs, "err", r.Err)
	}
	if r.Advice != "" {
		attrs = append(attrs, "next", r.Advice)
	}
	if !r.OK && !passing {
		level = max(level, slog.LevelWarn)
	}
	topic := r.Policy + " " + r.Action
	if r.OK && r.Action == string(policy.ActCheckpoint) && r.Reclaimed == 0 && level == slog.LevelInfo &&
		r.Policy != Operator {
		d.voice.Routine(topic, message, attrs...)
		return
	}
	d.voice.Say(topic, level, !r.OK, message, attrs...)
}

var severityLevels = map[string]slog.Level{"info": slog.LevelInfo, "warning": slog.LevelWarn,
	"critical": slog.LevelError}

// hasMessage reports whether the policy configures a message of its own. Otherwise the
// message consists of the policy's name and reason, which the action's log line has anyway.
func hasMessage(a policy.Action) bool {
	return a.Message != "" && (a.Kind == policy.ActNotify || !strings.HasSuffix(a.Message, ": "+a.Why))
}

// Checkpoint runs one checkpoint now, for an operator, in the same safe way as a policy:
// look first, PASSIVE for the bulk, TRUNCATE for the tail.
func (w *Watchdog) Checkpoint(ctx context.Context, nameOrPath, mode string) (ActionRecord, error) {
	ladder, known := ladders.OfOperator(mode)
	if !known {
		return ActionRecord{}, fmt.Errorf("checkpoint mode %q: it is passive or truncate: %w", mode, ErrBadRequest)
	}
	d, err := w.find(nameOrPath)
	if err != nil {
		return ActionRecord{}, err
	}
	defer w.show(ctx, d)
	if err := d.acquire(ctx); err != nil {
		return ActionRecord{}, err
	}
	defer d.release()
	if err := d.open(ctx); err != nil {
		return ActionRecord{}, err
	}
	if sample := d.measure(ctx); sample.State != collector.StateUp {
		return ActionRecord{}, fmt.Errorf("%s is %s: %s: %w", d.target.Name, sample.State, sample.Err, ErrUnavailable)
	}
	began := time.Now()
	result := d.runner(ctx).Run(ctx, ladder)
	took := time.Since(began)
	d.measure(ctx)
	d.finish(ctx, policy.Action{Policy: Operator, Kind: policy.ActCheckpoint, Why: askedFor}, result, took)
	return d.ledger.actions[0], nil
}

// Do runs one action other than a checkpoint (snapshot, sync, verify) now, for an
// operator, and returns when it has ended.
func (w *Watchdog) Do(ctx context.Context, nameOrPath, kind string) (ActionRecord, error) {
	d, err := w.find(nameOrPath)
	if err != nil {
		return ActionRecord{}, err
	}
	if err := d.acquire(ctx); err != nil {
		return ActionRecord{}, err
	}
	err = d.open(ctx)
	var do func(context.Context) error
	if err == nil {
		do = d.parts.Actions.of(policy.Action{Kind: policy.ActionKind(kind)})
	}
	d.release()
	if err != nil {
		return ActionRecord{}, err
	}
	began := time.Now()
	err = guarded(d, func() error { return do(ctx) })
	if errors.Is(err, ErrUnavailable) {
		return ActionRecord{}, err
	}
	defer w.show(ctx, d)
	if lost := d.acquire(context.WithoutCancel(ctx)); lost != nil {
		return ActionRecord{}, errors.Join(err, lost)
	}
	defer d.release()
	record := ActionRecord{At: w.options.Clock(), Policy: Operator, Action: kind, Why: askedFor,
		Duration: time.Since(began)}
	record.Outcome, record.OK = outcomeOf(ctx, policy.ActionKind(kind), policy.ActionResult{Err: err})
	if err != nil {
		record.Err = err.Error()
	}
	d.record(record, nil)
	d.refresh()
	return record, nil
}

// Retune undoes the last step of a policy's tuned value, or freezes the value, and returns
// a description of the result.
func (w *Watchdog) Retune(ctx context.Context, nameOrPath, policyName, tune string, revert bool) (string, error) {
	d, err := w.find(nameOrPath)
	if err != nil {
		return "", err
	}
	defer w.show(ctx, d)
	if err := d.acquire(ctx); err != nil {
		return "", err
	}
	defer d.release()
	p := w.policies.Load().Named(policyName)
	if p == nil || !p.AppliesTo(d.target.Name, d.target.Labels) {
		return "", fmt.Errorf("%s has no policy %q: %w", d.target.Name, policyName, ErrBadRequest)
	}
	st, reason, err := p.Retune(d.ledger.states[policyName], tune, revert, w.options.Clock())
	if err != nil {
		return "", fmt.Errorf("%w: %w", err, ErrBadRequest)
	}
	st.Version = policy.StateVersion
	d.ledger.states = maps.Clone(d.ledger.states)
	if d.ledger.states == nil {
		d.ledger.states = map[string]policy.PolicyState{}
	}
	d.ledger.states[policyName] = st
	d.refresh()
	d.keeper.save(d.saved())
	d.voice.Log.Info("a tuned value was set", "policy", policyName, "tune", tune, "why", reason)
	return reason, nil
}

// MaxPause is the longest pause: a pause that somebody forgets must end on its own.
const MaxPause = 30 * 24 * time.Hour

// Pause keeps the policies from acting on a database, or on all databases for "", for the
// given time. Measuring continues. Zero ends a pause.
func (w *Watchdog) Pause(nameOrPath string, length time.Duration) error {
	if length < 0 || length > MaxPause {
		return fmt.Errorf("pause for %s: it is at most %s: %w", length, MaxPause, ErrBadRequest)
	}
	databases := *w.databases.Load()
	if nameOrPath != "" {
		d, err := w.find(nameOrPath)
		if err != nil {
			return err
		}
		databases = []*database{d}
	}
	until := w.options.Clock().Add(length)
	for _, d := range databases {
		d.display.pauseUntil(until)
	}
	w.show(context.Background(), databases...)
	return nil
}
