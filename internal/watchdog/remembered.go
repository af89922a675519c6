package watchdog

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/policy"
)

// Remembered is what the policies know of a database. With it, a command can ask what another
// configuration would do now.
type Remembered struct {
	Name        string                        `json:"name"`
	At          time.Time                     `json:"at"`
	Sample      *collector.Sample             `json:"sample"`
	Policies    map[string]policy.PolicyState `json:"policies"`
	History     json.RawMessage               `json:"history"` // a policy.History
	PausedUntil time.Time                     `json:"paused_until,omitzero"`
}

// Remembered returns what the policies know of a database.
func (w *Watchdog) Remembered(ctx context.Context, nameOrPath string) (Remembered, error) {
	d, err := w.find(nameOrPath)
	if err != nil {
		return Remembered{}, err
	}
	if err := d.borrow(ctx); err != nil {
		return Remembered{}, err
	}
	defer d.release()
	in := d.input(d.past.last)
	history, err := json.Marshal(in.History)
	if err != nil {
		return Remembered{}, fmt.Errorf("encode the history of %s: %w", d.target.Name, err)
	}
	return Remembered{Name: d.target.Name, At: in.Now, Sample: in.Sample, Policies: d.ledger.states, History: history,
		PausedUntil: in.PausedUntil}, nil
}

// Quiet returns what the configuration's learned windows know of a database.
func (w *Watchdog) Quiet(ctx context.Context, nameOrPath string) ([]policy.Quiet, error) {
	d, err := w.find(nameOrPath)
	if err != nil {
		return nil, err
	}
	if err := d.borrow(ctx); err != nil {
		return nil, err
	}
	defer d.release()
	if d.past.last.At.IsZero() {
		return nil, fmt.Errorf("%s was not measured yet: %w", d.target.Name, ErrUnavailable)
	}
	set, all := d.policies.Load(), []policy.Quiet{}
	for _, window := range set.Learned() {
		if q, ok := set.Quiet(window, d.input(d.past.last)); ok {
			all = append(all, q)
		}
	}
	return all, nil
}
