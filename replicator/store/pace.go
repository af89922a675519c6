package store

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

const (
	urgentChunk = 64 << 10               // the most bytes that an urgent upload sends at a time
	bulkShare   = 4                      // a bulk upload's chunk is this fraction of an urgent one
	leastChunk  = 4 << 10                // a connection buffers as much: smaller chunks move nothing
	longestTurn = 2 * time.Second        // each sender gets a chunk within this: servers drop idle connections
	burst       = 100 * time.Millisecond // the unused bandwidth that may be made up for
)

// meter distributes the bandwidth. Senders wait for one chunk at a time, in order; the more
// of them wait, the smaller the chunks are, so that no connection is idle for long. A file
// that fits in one chunk is sent whole, and waits before its request begins: while both kinds
// wait, such files get half of the bandwidth, however many large ones there are.
type meter struct {
	mu     sync.Mutex
	rate   float64   // bytes a second; 0: no limit
	free   time.Time // when the bandwidth granted so far is used up
	whole  []*turn   // waiting, in order
	chunks []*turn
	lead   int  // bytes that whole files are ahead of chunks, while both wait
	armed  bool // a timer is set for the time when there is bandwidth again
}

// turn is one waiting sender.
type turn struct {
	bytes int
	ready chan struct{}
}

// change sets a new rate, also for those who wait already.
func (m *meter) change(bytesPerSecond int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rate = float64(max(0, bytesPerSecond))
	m.give()
}

// fits returns how many may send at a time, at most n: so many that each gets a chunk within
// longestTurn.
func (m *meter) fits(n int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rate == 0 {
		return n
	}
	return min(n, max(1, int(m.rate*longestTurn.Seconds()/leastChunk)))
}

// chunk returns how many bytes an urgent upload sends at a time: half of what longestTurn has
// left beside the waiting chunks.
func (m *meter) chunk() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rate == 0 {
		return urgentChunk
	}
	left := int(m.rate * longestTurn.Seconds())
	for _, t := range m.chunks {
		left -= t.bytes
	}
	return min(urgentChunk, max(leastChunk, left/2))
}

// charge uses up bandwidth for bytes that are sent without waiting.
func (m *meter) charge(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.take(float64(bytes))
}

// wait returns when so many bytes may be sent. If ctx ends first, they use up no
// bandwidth.
func (m *meter) wait(ctx context.Context, bytes int, whole bool) error {
	m.mu.Lock()
	if m.rate == 0 {
		m.mu.Unlock()
		return nil
	}
	t := &turn{bytes, make(chan struct{})}
	if whole {
		m.whole = append(m.whole, t)
	} else {
		m.chunks = append(m.chunks, t)
	}
	m.give()
	m.mu.Unlock()
	select {
	case <-t.ready:
		return nil
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t.bytes = 0
	return ctx.Err()
}

// give releases waiting senders as long as there is bandwidth. The caller holds mu.
func (m *meter) give() {
	now := time.Now()
	if earliest := now.Add(-burst); m.free.Before(earliest) {
		m.free = earliest
	}
	for len(m.whole)+len(m.chunks) > 0 && (m.rate == 0 || !m.free.After(now)) {
		next := m.next()
		m.take(float64(next.bytes))
		close(next.ready)
	}
	if len(m.whole)+len(m.chunks) > 0 && !m.armed {
		m.armed = true
		time.AfterFunc(m.free.Sub(now), func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.armed = false
			m.give()
		})
	}
}

// next removes and returns the waiting sender whose turn it is. The caller holds mu.
func (m *meter) next() (next *turn) {
	if len(m.whole) == 0 || len(m.chunks) == 0 {
		m.lead = 0
	}
	if len(m.chunks) == 0 || len(m.whole) > 0 && m.lead <= 0 {
		next, m.whole = m.whole[0], m.whole[1:]
		m.lead += next.bytes
		return next
	}
	next, m.chunks = m.chunks[0], m.chunks[1:]
	m.lead -= next.bytes
	return next
}

// take uses up bandwidth. The caller holds mu.
func (m *meter) take(bytes float64) {
	if m.rate > 0 {
		m.free = m.free.Add(time.Duration(bytes / m.rate * float64(time.Second)))
	}
}

// Pace limits how fast a body is sent. A store calls Chunk before and Spend after each read of
// bytes that it is about to send. The zero value sets no limit.
type Pace struct {
	meter *meter
	share int         // a chunk is this fraction of an urgent one
	sent  func(n int) // called by Spend; may be nil
}

// whenSent returns a function to call with the bytes of each piece that is sent; it calls done
// once they add up to size. A place that only limits bandwidth is free then, even if the
// store's answer is late.
func whenSent(size int64, done func()) func(n int) {
	var out atomic.Int64
	return func(n int) {
		if size >= 0 && out.Add(int64(n)) >= size {
			done()
		}
	}
}

// Chunk returns how many of n bytes to send at a time.
func (p Pace) Chunk(n int) int {
	if p.meter == nil {
		return n
	}
	return min(n, max(leastChunk, p.meter.chunk()/p.share))
}

// Spend uses up bandwidth for n bytes, and returns when they may be sent.
func (p Pace) Spend(n int) {
	if p.meter != nil && n > 0 {
		_ = p.meter.wait(context.Background(), n, false) // a turn comes within seconds
	}
	if p.sent != nil {
		p.sent(n)
	}
}
