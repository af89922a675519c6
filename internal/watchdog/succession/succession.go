// Package succession has those who work on one file come one after the other, though the one
// before may take as long to end as a disk takes to answer.
package succession

import "maps"

// Place is who works on a file. New makes one.
type Place struct {
	left   chan struct{}   // closed when this one has released the file
	before <-chan struct{} // that of the one before; nil: there was none
}

// New returns a Place that nobody had before.
func New() *Place { return &Place{left: make(chan struct{})} }

// Taken reports whether the one before is still at work.
func (p *Place) Taken() bool { return p.before != nil && isOpen(p.before) }

// Vacate tells the next one that the file is released. It is called once.
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

// Kept are the places, by path, of those who were told to go.
type Kept map[string]*Place

// Leave notes that the one at a path was told to go.
func (k Kept) Leave(path string, p *Place) { k[path] = p }

// Follow has a newcomer at a path wait for who was told to go, if that is still at work.
func (k Kept) Follow(path string, p *Place) {
	maps.DeleteFunc(k, func(_ string, old *Place) bool { return !isOpen(old.left) })
	if old := k[path]; old != nil {
		p.before = old.left
	}
}
