// Package dirwatch tells at once when a file of a directory is removed, moved away or
// replaced by another that is moved to its name. It opens none of them: a process that
// opens and closes a database loses its locks on it.
//
// A Watcher needs one inotify instance, of which a user has 128, and one watch for each
// directory, whatever the number of databases in it. Only names that leave or are moved
// are asked for, so that writing, opening and making files costs nothing; those that others
// leave all the time, as rollback journals, are read in bundles.
//
// What it cannot see: another machine's work on a network file system, a directory above that
// is moved, a link on the way that comes to lead elsewhere. Whoever depends on a name
// looks at it now and then all the same.
package dirwatch

import "sync"

// Watcher watches directories. The zero value watches none and has nothing open.
type Watcher struct {
	mu   sync.Mutex
	open *instance // nil while nothing is watched
}

// want is one caller's interest in names of a directory.
type want struct{ told func() }
