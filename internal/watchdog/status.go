package watchdog

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/policy"
)

// Status is what the watchdog knows of all its databases, sorted by name.
type Status struct {
	At        time.Time         `json:"at"`
	Started   time.Time         `json:"started"`
	Databases []*DatabaseStatus `json:"databases"`
}

// DatabaseStatus is what one turn published. It is immutable.
type DatabaseStatus struct {
	Name        string             `json:"name"`
	Path        string             `json:"path"`
	Labels      map[string]string  `json:"labels,omitempty"`
	Err         string             `json:"error,omitempty"` // why the database could not be opened
	Found       bool               `json:"found"`           // it has been up, in this or an earlier run
	Conditions  []health.Condition `json:"conditions"`      // the worst first; empty: nothing is wrong
	Sample      *collector.Sample  `json:"sample"`          // nil until the first turn
	Decision    *policy.Decision   `json:"decision"`        // nil until the first turn
	Running     string             `json:"running,omitempty"`
	PausedUntil time.Time          `json:"paused_until,omitzero"`
	Actions     []ActionRecord     `json:"actions"` // newest first, at most KeptActions
	Changes     []ChangeRecord     `json:"changes"` // newest first, at most KeptChanges
	Panics      int                `json:"panics,omitempty"`
	LastBusy    *Refusal           `json:"last_busy,omitempty"` // last process refused a lock, if known

	published time.Time // by the monotonic clock
	turn      uint64    // the turn whose decision it has
	saved     savedDatabase
}

// ActionRecord is one action that ended.
type ActionRecord struct {
	At          time.Time     `json:"at"`
	Policy      string        `json:"policy"` // "operator" if an operator asked for it
	Action      string        `json:"action"`
	Why         string        `json:"why"`
	Outcome     string        `json:"outcome"`
	OK          bool          `json:"ok"`
	Err         string        `json:"error,omitempty"`
	LeftOut     string        `json:"left_out,omitempty"` // why a checkpoint omitted its TRUNCATE
	Advice      string        `json:"advice,omitempty"`   // what to do next, if it did not succeed
	Duration    time.Duration `json:"duration"`
	WriterStall time.Duration `json:"writer_stall"`
	Reclaimed   int64         `json:"reclaimed_bytes"`
}

// UnmarshalJSON decodes a record as the API shows it, with its times in seconds.
func (r *ActionRecord) UnmarshalJSON(data []byte) error {
	type plain ActionRecord
	in := struct {
		*plain
		Took    float64 `json:"duration_seconds"`
		Stalled float64 `json:"writer_stall_seconds"`
	}{plain: (*plain)(r)}
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	r.Duration = time.Duration(in.Took * float64(time.Second))
	r.WriterStall = time.Duration(in.Stalled * float64(time.Second))
	return nil
}

// ChangeRecord is one change of a policy's decision.
type ChangeRecord struct {
	At      time.Time `json:"at"`
	Policy  string    `json:"policy"`
	Phase   string    `json:"phase"`
	Refused string    `json:"refused,omitempty"`
	Reason  string    `json:"reason"`
}

// How many records of each kind a database shows.
const (
	KeptActions = 20
	KeptChanges = 30
)

// Status returns what every database published last. It never waits.
func (w *Watchdog) Status() *Status {
	databases := *w.databases.Load()
	status := &Status{At: w.options.Clock(), Started: w.options.Clock().Add(-time.Since(w.started)),
		Databases: make([]*DatabaseStatus, len(databases))}
	for i, d := range databases {
		status.Databases[i] = d.display.shown(w.running.Load(), w.started)
	}
	return status
}

// Database returns what the database with that name or path published last.
func (w *Watchdog) Database(nameOrPath string) (*DatabaseStatus, error) {
	d, err := w.find(nameOrPath)
	if err != nil {
		return nil, err
	}
	return d.display.shown(w.running.Load(), w.started), nil
}

// Samples returns the latest sample of every database that has one.
func (w *Watchdog) Samples() []*collector.Sample {
	databases := *w.databases.Load()
	samples := make([]*collector.Sample, 0, len(databases))
	for _, d := range databases {
		if s := d.display.status.Load().Sample; s != nil {
			samples = append(samples, s)
		}
	}
	return samples
}

// Ready reports whether every database has had its first turn.
func (w *Watchdog) Ready() bool {
	databases := *w.databases.Load()
	return w.running.Load() && !slices.ContainsFunc(databases,
		func(d *database) bool { return d.display.status.Load().published.IsZero() })
}

// overdueAfter is how long a database may publish nothing before it counts as hung, for
// instance because a read from a dead disk never returns.
const overdueAfter = health.HungAfter

// Overdue returns the names of databases that have published nothing for a minute.
func (w *Watchdog) Overdue() []string {
	var names []string
	for _, d := range *w.databases.Load() {
		last := d.display.status.Load().published
		if last.IsZero() {
			last = w.started
		}
		if time.Since(last) > overdueAfter {
			names = append(names, d.target.Name)
		}
	}
	return names
}
