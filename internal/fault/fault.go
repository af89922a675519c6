// Package fault makes an error of a panic, so that a bug of sqlwatch in one piece of work costs that work and nothing
// else.
package fault

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
)

// Error is a panic in some work: the work is retried, and everything else goes on.
type Error struct {
	Cause any
	Stack string

	told atomic.Bool // see First
}

// Error names the fault.
func (e *Error) Error() string { return fmt.Sprintf("fault of sqlwatch: %v", e.Cause) }

// Guard calls f, and returns a panic as an *Error. Every goroutine needs its own: a panic in one that has none ends
// the program, whoever waits for it.
func Guard(f func() error) (err error) {
	defer func() {
		switch cause := recover().(type) {
		case nil:
		case *Error: // from Pass: where it came from counts
			err = cause
		default:
			err = &Error{Cause: cause, Stack: string(debug.Stack())}
		}
	}()
	return f()
}

// Of returns the *Error that err is or wraps, nil where there is none.
func Of(err error) *Error {
	var e *Error
	errors.As(err, &e)
	return e
}

// First is Of, but returns each *Error once only, so that it is counted once: its error may be returned to several.
func First(err error) *Error {
	if e := Of(err); e != nil && e.told.CompareAndSwap(false, true) {
		return e
	}
	return nil
}

// Pass returns err, but panics where it is or wraps an *Error: a fault in a goroutine is one of whoever waits for it.
func Pass(err error) error {
	if e := Of(err); e != nil {
		panic(e)
	}
	return err
}
