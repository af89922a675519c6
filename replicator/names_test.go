package replicator

import (
	"context"
	"errors"
	"log/slog"
	"testing"
)

// TestNamesThatChangeOneByOne: a last close removes the -wal and the -shm. They arrive as two
// events, the second while the call that the first one caused is still running. Neither makes an
// operation that an operator asked for fail.
func TestNamesThatChangeOneByOne(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for what, c := range map[string]struct {
		changes int
		err     error
		calls   int
		want    error
	}{
		"none":                 {0, nil, 1, nil},
		"one":                  {1, nil, 2, nil},
		"both side files":      {2, nil, 3, nil},
		"replaced, then ended": {4, nil, 5, nil},
		"another error":        {0, broken, 1, broken},
		"an error afterwards":  {2, broken, 3, broken},
		"all the time":         {1 << 20, nil, 1 + lookAgain, errMoved},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			told := 0
			n := &names{changed: func() { told++ }, log: slog.New(slog.DiscardHandler)}
			calls := 0
			err := n.during(t.Context(), func(ctx context.Context) error {
				if calls++; calls > c.changes {
					return c.err
				}
				n.moved()
				return context.Cause(ctx)
			})
			if !errors.Is(err, c.want) || calls != c.calls || told != calls-1 && what != "all the time" {
				t.Errorf("%d calls, told %d times, %v; want %d calls and %v", calls, told, err, c.calls, c.want)
			}
		})
	}
}
