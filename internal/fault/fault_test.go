package fault

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestGuard_P6: a panic becomes an error that knows where it was, also where it passed from one goroutine to another.
func TestGuard_P6(t *testing.T) {
	t.Parallel()
	plain := errors.New("plain")
	for _, err := range []error{nil, plain} {
		if got := Guard(func() error { return Pass(err) }); got != err || Of(got) != nil {
			t.Errorf("got %v, want %v", got, err)
		}
	}
	inner := make(chan error)
	got := Guard(func() error {
		go func() { inner <- Guard(planted) }()
		return Pass(fmt.Errorf("store: %w", errors.Join(plain, <-inner)))
	})
	e := Of(fmt.Errorf("outer: %w", got))
	if e == nil || e.Cause != "planted" || !strings.Contains(e.Stack, "fault.planted") ||
		e.Error() != "fault of sqlwatch: planted" {
		t.Errorf("got %v", e)
	}
	if First(got) != e || First(fmt.Errorf("again: %w", got)) != nil || First(plain) != nil {
		t.Error("not counted once")
	}
}

func planted() error { panic("planted") }
