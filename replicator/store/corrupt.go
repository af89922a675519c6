package store

import (
	"context"
	"errors"
	"fmt"
)

// CorruptError says that an object of the replica is not what it should be.
type CorruptError struct {
	Key string
	Err error
}

// Error names the object.
func (e *CorruptError) Error() string { return fmt.Sprintf("object %s is corrupt: %v", e.Key, e.Err) }

// Unwrap returns what is wrong with it.
func (e *CorruptError) Unwrap() error { return e.Err }

// UnreadableError says that an object that the store lists cannot be read: a bad sector, a
// missing permission, a body that always breaks off.
type UnreadableError struct {
	Key   string
	Tries int
	Err   error // of the last try
}

// Error names the object and what was done.
func (e *UnreadableError) Error() string {
	tried := "tried once"
	if e.Tries > 1 {
		tried = fmt.Sprintf("tried %d times", e.Tries)
	}
	return fmt.Sprintf("object %s cannot be read (%s): %v", e.Key, tried, e.Err)
}

// Unwrap returns the store's error.
func (e *UnreadableError) Unwrap() error { return e.Err }

// Unreadable wraps err, an error of reading an object, in an *UnreadableError, unless err says
// something more exact: the object is gone or corrupt, the bucket or directory is missing, or
// ctx has ended.
func Unreadable(ctx context.Context, key string, tries int, err error) error {
	var corrupt *CorruptError
	if err == nil || ctx.Err() != nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrMisplaced) ||
		errors.As(err, &corrupt) {
		return err
	}
	return &UnreadableError{Key: key, Tries: tries, Err: err}
}
