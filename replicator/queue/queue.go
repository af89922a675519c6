// Package queue limits how many databases a process reads from end to end at a time.
package queue

import (
	"runtime"
	"slices"
	"sync"
	"time"
)

const (
	large     = 64 << 20         // bytes; what is larger never has the last place
	turnOfAny = 4                // every so many places the one that has waited longest is next
	silence   = 10 * time.Second // who has read nothing for so long waits for its disk, and others need not
)

// Queue is shared by all databases of a process. Sixty that are found at once would
// otherwise be read all at once, and what is committed to others meanwhile would be read
// late, because processors and disk are busy.
//
// Who was captured before has as many places for himself: nobody reads his commits until it is
// proven that none was missed, and the first capture of a terabyte may take hours. Small ones come
// before large ones, but so that none waits for ever. A disk that does not answer keeps nobody
// else's place.
type Queue struct {
	most  int // of those who are read for the first time, and of the others
	clock func() time.Time

	mu      sync.Mutex // guards what follows, and the places; held over nothing
	granted int
	waiting []*Place // in order
	reading []*Place
}

// New returns a queue for so many of either kind at a time; 0 is half of the processors, and at least two.
func New(most int) *Queue {
	if most <= 0 {
		most = max(2, runtime.GOMAXPROCS(0)/2)
	}
	return &Queue{most: most, clock: time.Now}
}

// Place is one database's in a queue. A nil Place is always granted.
type Place struct {
	queue *Queue
	ready func() // called when it is granted to one who waits; must not block

	size  int64
	first bool
	begun bool
	seen  time.Time // when it was granted, or something was last read
}

// Place returns the place of a database, which is in no queue yet.
func (q *Queue) Place(ready func()) *Place {
	if q == nil {
		return nil
	}
	return &Place{queue: q, ready: ready}
}

// Begin reports whether the database, of so many bytes, may be read now. Where not it is in
// the queue from now on, until End; first says that it was never captured. It may be asked again.
func (p *Place) Begin(size int64, first bool) bool {
	if p == nil {
		return true
	}
	q := p.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	p.size, p.first = size, first
	if !slices.Contains(q.reading, p) && !slices.Contains(q.waiting, p) {
		q.waiting = append(q.waiting, p)
	}
	q.grant(p)
	if !slices.Contains(q.reading, p) {
		return false
	}
	p.begun, p.seen = true, q.clock()
	return true
}

// Advance says that some of it was read.
func (p *Place) Advance() {
	if p == nil {
		return
	}
	p.queue.mu.Lock()
	defer p.queue.mu.Unlock()
	p.seen = p.queue.clock()
}

// End gives the place back, or leaves the queue. Without either it does nothing.
func (p *Place) End() {
	if p == nil {
		return
	}
	q := p.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	is := func(o *Place) bool { return o == p }
	q.waiting, q.reading = slices.DeleteFunc(q.waiting, is), slices.DeleteFunc(q.reading, is)
	p.begun = false
	q.grant(nil)
}

// grant gives free places away, and tells all who get one but asking. The caller holds mu.
func (q *Queue) grant(asking *Place) {
	now := q.clock()
	q.reading = slices.DeleteFunc(q.reading, func(p *Place) bool { // it did not come
		return !p.begun && p != asking && now.Sub(p.seen) >= silence
	})
	for {
		next := q.next(now)
		if next == nil {
			return
		}
		q.waiting = slices.DeleteFunc(q.waiting, func(p *Place) bool { return p == next })
		q.reading = append(q.reading, next)
		q.granted++
		if next.seen = now; next != asking && next.ready != nil {
			next.ready()
		}
	}
}

// next returns who has the next place, nil where none is free or nobody waits for it.
func (q *Queue) next(now time.Time) (best *Place) {
	busy, bulky := map[bool]int{}, map[bool]int{} // of those who are read for the first time, and of the others
	for _, p := range q.reading {
		if now.Sub(p.seen) >= silence {
			continue
		}
		if busy[p.first]++; p.size > large {
			bulky[p.first]++
		}
	}
	for _, p := range q.waiting {
		if busy[p.first] >= q.most || p.size > large && bulky[p.first] >= q.most-1 && q.most > 1 {
			continue
		}
		if best == nil || q.granted%turnOfAny != turnOfAny-1 && p.size <= large && best.size > large {
			best = p
		}
	}
	return best
}
