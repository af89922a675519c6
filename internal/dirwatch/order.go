package dirwatch

import "sync"

// Order tells in what order two things happened to files of a directory, however close they came:
// the times of files have the kernel's tick, four milliseconds on most, and within one of them
// all that happens has the same time. All that ask one Order share one inotify instance. The zero
// value watches nothing and has nothing open.
type Order struct {
	mu   sync.Mutex
	open *queue // nil while nothing is followed
}
