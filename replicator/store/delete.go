package store

import "fmt"

// DeleteError says which keys a Delete has left, of how many. All others are gone.
// It matches every error of its keys with errors.Is.
type DeleteError struct {
	Asked   int
	Refused []RefusedKey // in the order in which they were asked for, or answered
}

// RefusedKey is one key that was not deleted.
type RefusedKey struct {
	Key string
	Err error
}

// Add notes that key was not deleted.
func (e *DeleteError) Add(key string, err error) { e.Refused = append(e.Refused, RefusedKey{key, err}) }

// Err returns the error of a Delete of asked keys: nil where nothing was refused.
func (e *DeleteError) Err(asked int) error {
	if len(e.Refused) == 0 {
		return nil
	}
	e.Asked = asked
	return e
}

// Has reports whether key was refused.
func (e *DeleteError) Has(key string) bool {
	for _, r := range e.Refused {
		if r.Key == key {
			return true
		}
	}
	return false
}

// Error counts, and quotes the first.
func (e *DeleteError) Error() string {
	first := e.Refused[0].Err
	if e.Asked == 1 {
		return first.Error()
	}
	return fmt.Sprintf("%d of %d files were not deleted, among them %s: %v", len(e.Refused), e.Asked, e.Refused[0].Key,
		first)
}

// Unwrap returns the errors of the keys.
func (e *DeleteError) Unwrap() []error {
	errs := make([]error, len(e.Refused))
	for i, r := range e.Refused {
		errs[i] = r.Err
	}
	return errs
}
