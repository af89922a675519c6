//go:build !linux

package dirwatch

import "errors"

type queue struct{}

// Following knows nothing here.
type Following struct{}

// Follow fails: there is no inotify here.
func (o *Order) Follow(string, string) (*Following, error) { return nil, errors.ErrUnsupported }

// Untouched is not known here.
func (f *Following) Untouched() bool { return false }

// Touched is not known here.
func (f *Following) Touched() bool { return false }

// Stop ends nothing.
func (f *Following) Stop() {}
