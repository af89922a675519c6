package store

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

const (
	urgentChunk = 64 << 10               // bytes at a time of what is urgent, so that
	bulkShare   = 4                      // a bulk upload, of whose chunks it has so many, has a fraction of its share
	leastChunk  = 4 << 10                // what a connection's buffer holds: less moves nothing
	longestTurn = 2 * time.Second        // in which all who send chunks come round: servers give up where nothing moves
	burst       = 100 * time.Millisecond // of unused bandwidth that may be made up for
)

// meter gives bandwidth out. Whoever sends waits for one chunk at a time, in order, and
// the chunks are the smaller the more wait, so that no connection stands still for long.
// What fits in one chunk goes out whole, and waits before its request is begun: such
// files have half of the bandwidth between them, however many large ones there are.
type meter struct {
	mu     sync.Mutex
	rate   float64   // bytes a second; 0: as fast as the line
	free   time.Time // when the bandwidth that was given out is used up
	whole  []*turn   // waiting, in order
	chunks []*turn
	lead   int  // bytes that whole files are ahead of chunks, while both wait
	armed  bool // a timer looks again when there is bandwidth
}

// turn is one who waits.
type turn struct {
	bytes int
	ready chan struct{}
}

// change sets another rate, which those who wait already see.
func (m *meter) change(bytesPerSecond int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rate = float64(max(0, bytesPerSecond))
	m.give()
}

// fits is how many may send at a time: each needs a chunk in its turn.
func (m *meter) fits(n int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rate == 0 {
		return n
	}
	return min(n, max(1, int(m.rate*longestTurn.Seconds()/leastChunk)))
}

// chunk is how much of what is urgent to send at a time: half of what a turn has left
// beside those who wait.
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

// charge takes bytes off that wait for nothing.
func (m *meter) charge(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.take(float64(bytes))
}

// wait returns when it is the turn of so many bytes. Whoever gives up waiting is not
// counted.
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

// give lets go ahead whose turn it is. The caller holds mu.
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

// next is whose turn it is, of those who wait. The caller holds mu.
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

// take takes bytes off the bandwidth. The caller holds mu.
func (m *meter) take(bytes float64) {
	if m.rate > 0 {
		m.free = m.free.Add(time.Duration(bytes / m.rate * float64(time.Second)))
	}
}

// Pace is how fast a body goes out. A store calls Chunk and Spend around each read of
// what it is about to send. The zero value is as fast as it goes.
type Pace struct {
	meter *meter
	share int // of an urgent chunk, one in so many
	sent  func(n int)
}

// whenSent returns what is told of each piece that goes out, and calls done when size bytes
// have: a place that is there for the bandwidth alone is not kept until a late answer.
func whenSent(size int64, done func()) func(n int) {
	var out atomic.Int64
	return func(n int) {
		if size >= 0 && out.Add(int64(n)) >= size {
			done()
		}
	}
}

// Chunk is how much to send at a time, of n bytes.
func (p Pace) Chunk(n int) int {
	if p.meter == nil {
		return n
	}
	return min(n, max(leastChunk, p.meter.chunk()/p.share))
}

// Spend takes n bytes off the bandwidth, and returns when it is their turn.
func (p Pace) Spend(n int) {
	if p.meter != nil && n > 0 {
		_ = p.meter.wait(context.Background(), n, false) // a turn comes within seconds
	}
	if p.sent != nil {
		p.sent(n)
	}
}
