package store

import "fmt"

// DeleteError says which keys a Delete could not delete; all others are gone. errors.Is
// matches it with the error of each of these keys.
type DeleteError struct {
	Asked   int
	Refused []RefusedKey // in the order of the request, or of the store's answers
}

// RefusedKey is one key that was not deleted.
type RefusedKey struct {
	Key string
	Err error
}

// Add records that key was not deleted.
func (e *DeleteError) Add(key string, err error) { e.Refused = append(e.Refused, RefusedKey{key, err}) }

// Err returns the error of a Delete of that many keys: nil if none was refused.
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

// Error says how many keys were refused, and quotes the first error.
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
