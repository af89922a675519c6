//go:build !linux

package dirwatch

import "errors"

type instance struct{}

// Watch fails: there is no inotify here.
func (w *Watcher) Watch(string, []string, func()) (stop func(), err error) {
	return nil, errors.ErrUnsupported
}
