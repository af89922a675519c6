package store

import (
	"context"
	"errors"
	"time"
)

// Request is one request to a store, as it is counted for metrics.
type Request struct {
	Operation string // put, multipart, get, head, list, delete
	Reason    string // "" when it succeeded, otherwise a word of FailureReason
	Duration  time.Duration
}

// FailureReason is the label value for a store's error, "" for nil.
func FailureReason(err error) string {
	var absent interface{ Early() bool }
	switch {
	case err == nil:
		return ""
	case errors.Is(err, ErrNotFound), errors.As(err, &absent) && absent.Early():
		return "not_found"
	case errors.Is(err, ErrExists):
		return "exists"
	case errors.Is(err, ErrConflict):
		return "conflict"
	case errors.Is(err, ErrAuth):
		return "auth"
	case errors.Is(err, ErrMisplaced):
		return "misplaced"
	case errors.Is(err, errors.ErrUnsupported):
		return "unsupported"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, ErrUnavailable):
		return "unavailable"
	}
	return "other"
}
