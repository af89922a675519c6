// Package succession makes successive users of one file take turns, although a predecessor may
// need as long to end as a disk needs to answer.
package succession

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/sqlwatch/sqlwatch/internal/fault"
)

// Place is one user's place in the succession of a file. New makes one.
type Place struct {
	left   chan struct{}   // closed when this user has released the file
	before <-chan struct{} // left of the predecessor; nil: there was none
}

// New returns a Place without a predecessor.
func New() *Place { return &Place{left: make(chan struct{})} }

// Taken reports whether the predecessor still uses the file.
func (p *Place) Taken() bool { return p.before != nil && isOpen(p.before) }

// Vacate tells the successor that the file is released. Call it once.
func (p *Place) Vacate() {
	if !p.Taken() {
		close(p.left)
		return
	}
	go func() {
		<-p.before
		close(p.left)
	}()
}

func isOpen(c <-chan struct{}) bool {
	select {
	case <-c:
		return false
	default:
		return true
	}
}

// Kept has, by path, the places of users that were told to leave.
type Kept map[string]*Place

// Leave notes that the user at a path was told to leave.
func (k Kept) Leave(path string, p *Place) { k[path] = p }

// Follow makes a new user at a path wait for the one that was told to leave, if that is still there.
func (k Kept) Follow(path string, p *Place) {
	maps.DeleteFunc(k, func(_ string, old *Place) bool { return !isOpen(old.left) })
	if old := k[path]; old != nil {
		p.before = old.left
	}
}

// CloseAll closes users concurrently, so that one that hangs does not delay the others,
// and returns the errors of all that did not close. The error already says that another call has closed one.
func CloseAll[U any](users []U, already error, closeOne func(U) error) error {
	failed := make([]error, len(users))
	var closing sync.WaitGroup
	for i, u := range users {
		closing.Go(func() {
			if err := fault.Guard(func() error { return closeOne(u) }); !errors.Is(err, already) {
				failed[i] = err
			}
		})
	}
	closing.Wait()
	return errors.Join(failed...)
}

// Await waits until nothing of the group is under way, or until ctx ends.
func Await(ctx context.Context, group *sync.WaitGroup) error {
	ended := make(chan struct{})
	go func() { group.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for what is under way: %w", ctx.Err())
	}
}
