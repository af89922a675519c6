package watchdog

import (
	"context"
	"fmt"

	"github.com/sqlwatch/sqlwatch/policy"
)

// Quiet returns what the learned windows of the configuration know of a database.
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
