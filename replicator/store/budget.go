package store

import (
	"context"
	"slices"
	"sync"
	"time"
)

// DefaultUploads is how many large objects a process uploads at a time.
const DefaultUploads = 4

const (
	largeUpload = 64 << 20               // bytes; what is larger never has the last place
	turnOfLarge = 4                      // every so many places the longest waiting large one is next
	urgentChunk = 64 << 10               // bytes at a time of what is urgent, so that
	bulkChunk   = 16 << 10               // beside each bulk upload it has four times the share
	burst       = 100 * time.Millisecond // of unused bandwidth that may be made up for
)

// Budget is what all uploads of a process share: how many go on at a time, and how
// many bytes a second. Sixty databases that begin their first snapshots at once would
// otherwise share the line until each part is too late and all begin anew.
//
// What is urgent (files of level 0, which are what a restore lacks, and notes such as
// the lease) waits for no place, and has the larger share of the bandwidth. The others
// wait in two queues, small before large, but so that none waits for ever. A nil
// Budget limits nothing.
type Budget struct {
	mu      sync.Mutex
	places  int
	active  int
	large   int // of the active
	granted int
	small   []chan struct{} // waiting, in order
	big     []chan struct{}

	rate float64   // bytes a second; 0: as fast as the line
	free time.Time // when the bandwidth that was given out is used up
}

// NewBudget allows so many uploads at a time, and so many bytes a second; 0 is
// DefaultUploads, and no limit.
func NewBudget(uploads int, bytesPerSecond int64) *Budget {
	b := &Budget{}
	b.Change(uploads, bytesPerSecond)
	return b
}

// Change sets other limits. Uploads under way go on.
func (b *Budget) Change(uploads int, bytesPerSecond int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.places = uploads; uploads <= 0 {
		b.places = DefaultUploads
	}
	b.rate = float64(max(0, bytesPerSecond))
	b.grant()
}

// urgent tells what waits for nothing.
func urgent(key string) bool {
	level, _, _, err := ParseLTXKey(key)
	return err != nil || level == 0
}

// admitted is the context key of an upload that has its place already.
type admitted struct{}

// Admit waits for the place of one upload of about size bytes (0: not known) before
// the work that leads to it begins; the Put that is given the context then waits no
// more. The place is given back by done. A store without a Budget has room for all.
func Admit(ctx context.Context, st Store, size int64) (in context.Context, done func(), err error) {
	seam, ok := As[*Seam](st)
	if !ok || seam.budget == nil {
		return ctx, func() {}, nil
	}
	done, err = seam.budget.place(ctx, size)
	return context.WithValue(ctx, admitted{}, true), done, err
}

// Admitted calls upload when it has its place, as Admit gives it.
func Admitted(ctx context.Context, st Store, size int64, upload func(context.Context) error) error {
	ctx, done, err := Admit(ctx, st, size)
	if err != nil {
		return err
	}
	defer done()
	return upload(ctx)
}

func (b *Budget) admit(ctx context.Context, key string, size int64) (done func(), err error) {
	if b == nil || urgent(key) || ctx.Value(admitted{}) != nil {
		return func() {}, nil
	}
	return b.place(ctx, size)
}

// place waits until the upload may begin.
func (b *Budget) place(ctx context.Context, size int64) (done func(), err error) {
	isLarge := size > largeUpload
	ready := make(chan struct{})
	b.mu.Lock()
	if isLarge {
		b.big = append(b.big, ready)
	} else {
		b.small = append(b.small, ready)
	}
	b.grant()
	b.mu.Unlock()
	done = sync.OnceFunc(func() { b.leave(isLarge) })
	select {
	case <-ready:
		return done, nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	waiting := len(b.small) + len(b.big)
	is := func(c chan struct{}) bool { return c == ready }
	b.small, b.big = slices.DeleteFunc(b.small, is), slices.DeleteFunc(b.big, is)
	gone := len(b.small)+len(b.big) < waiting
	b.mu.Unlock()
	if !gone { // the place came at the same moment
		done()
	}
	return func() {}, ctx.Err()
}

func (b *Budget) leave(isLarge bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.active--
	if isLarge {
		b.large--
	}
	b.grant()
}

// grant gives free places away. The caller holds mu.
func (b *Budget) grant() {
	for b.active < b.places {
		bigMay := len(b.big) > 0 && (b.large < b.places-1 || b.places == 1)
		queue := &b.small
		switch {
		case bigMay && (len(b.small) == 0 || b.granted%turnOfLarge == turnOfLarge-1):
			queue = &b.big
			b.large++
		case len(b.small) == 0:
			return
		}
		close((*queue)[0])
		*queue = (*queue)[1:]
		b.active++
		b.granted++
	}
}

// Pace is how fast a body goes out. A store calls Chunk and Spend around each read of
// what it is about to send. The zero value is as fast as it goes.
type Pace struct {
	budget *Budget
	urgent bool
}

func (b *Budget) pace(key string) Pace { return Pace{b, urgent(key)} }

// Chunk is how much to send at a time, of n bytes.
func (p Pace) Chunk(n int) int {
	switch {
	case p.budget == nil:
		return n
	case p.urgent:
		return min(n, urgentChunk)
	}
	return min(n, bulkChunk)
}

// Spend takes n bytes off the bandwidth, and returns when it is their turn.
func (p Pace) Spend(n int) {
	if p.budget != nil && n > 0 {
		time.Sleep(p.budget.spend(n, time.Now()))
	}
}

// spend returns how long n more bytes must wait. Whoever comes waits for those before
// it, each of whom waits for one chunk only.
func (b *Budget) spend(n int, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rate == 0 {
		return 0
	}
	if earliest := now.Add(-burst); b.free.Before(earliest) {
		b.free = earliest
	}
	b.free = b.free.Add(time.Duration(float64(n) / b.rate * float64(time.Second)))
	return max(0, b.free.Sub(now))
}
