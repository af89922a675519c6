package store

import (
	"context"
	"math"
	"slices"
	"strings"
	"sync"
)

// DefaultUploads is how many large objects a process uploads at a time.
const DefaultUploads = 4

const (
	largeUpload = 64 << 20 // bytes; what is larger never has the last place
	turnOfLarge = 4        // every so many places the longest waiting large one is next
)

// Budget is what all uploads of a process share: how many go on at a time to one
// endpoint, and how many bytes a second to all. Sixty databases that begin their first
// snapshots at once would otherwise share the line until each part is too late and all
// start over. An endpoint that hangs holds its own places only: see At.
//
// Notes such as the lease wait for nothing. Files of level 0, which are what a restore
// lacks, wait for no place but where the bandwidth is limited and has room for no more
// senders; they have the larger share of it. The others wait in two queues, small before
// large, but so that none waits for ever. A nil Budget limits nothing.
type Budget struct {
	*limits
	*places // of one endpoint
}

// limits are what the endpoints have in common.
type limits struct {
	mu        sync.Mutex // guards the places of all, too
	atOnce    int        // of small and large together, of an endpoint
	meter     meter
	endpoints map[string]*places
}

// places are who uploads to one endpoint, and who waits for that.
type places struct {
	granted int
	urgent  queue
	small   queue
	large   queue
}

func (p *places) bulky() int { return p.small.active + p.large.active }

// queue is of uploads of one kind.
type queue struct {
	waiting []chan struct{} // in order
	active  int
}

func (q *queue) next() {
	close(q.waiting[0])
	q.waiting = q.waiting[1:]
	q.active++
}

// drop takes one out that gives up waiting, false where its place came at the same moment.
func (q *queue) drop(ready chan struct{}) bool {
	i := slices.Index(q.waiting, ready)
	if i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
	}
	return i >= 0
}

// NewBudget allows so many uploads at a time, and so many bytes a second; 0 is
// DefaultUploads, and no limit.
func NewBudget(uploads int, bytesPerSecond int64) *Budget {
	b := (&Budget{limits: &limits{endpoints: map[string]*places{}}}).At("")
	b.Change(uploads, bytesPerSecond)
	return b
}

// At returns the budget of uploads to an endpoint, which wait for no place that uploads to
// another one have. All calls with the same name share the places.
func (b *Budget) At(endpoint string) *Budget {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	of := b.endpoints[endpoint]
	if of == nil {
		of = &places{}
		b.endpoints[endpoint] = of
	}
	return &Budget{b.limits, of}
}

// Change sets other limits. Uploads under way go on, at the new speed.
func (b *Budget) Change(uploads int, bytesPerSecond int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.atOnce = uploads; uploads <= 0 {
		b.atOnce = DefaultUploads
	}
	b.meter.change(bytesPerSecond)
	b.grant()
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
	done, err = seam.budget.place(ctx, seam.budget.bulk(size))
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

// admit waits until the upload may begin, and says how fast it may go.
func (b *Budget) admit(ctx context.Context, key string, body Body) (pace Pace, done func(), err error) {
	done = func() {}
	if b == nil {
		return pace, done, nil
	}
	level, _, _, note := ParseLTXKey(key)
	if strings.HasPrefix(key, sumsPrefix) {
		level, note = 1, nil // not urgent, and as large as what it tells of
	}
	switch {
	case note != nil:
		b.meter.charge(max(0, body.Size))
	case level == 0 && 0 <= body.Size && body.Size <= urgentChunk:
		err = b.meter.wait(ctx, int(body.Size), true)
	case level == 0:
		done, err = b.place(ctx, &b.urgent)
		pace = Pace{meter: &b.meter, share: 1, sent: whenSent(body.Size, done)}
	default:
		pace = Pace{meter: &b.meter, share: bulkShare}
		if ctx.Value(admitted{}) == nil {
			done, err = b.place(ctx, b.bulk(max(body.Size, body.AtMost)))
		}
	}
	return pace, done, err
}

// bulk is the queue of an upload of about size bytes that is not urgent.
func (b *Budget) bulk(size int64) *queue {
	if size > largeUpload {
		return &b.large
	}
	return &b.small
}

// place waits until the upload may begin.
func (b *Budget) place(ctx context.Context, q *queue) (done func(), err error) {
	ready := make(chan struct{})
	b.mu.Lock()
	q.waiting = append(q.waiting, ready)
	b.grant()
	b.mu.Unlock()
	done = sync.OnceFunc(func() { b.leave(q) })
	select {
	case <-ready:
		return done, nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	waited := q.drop(ready)
	b.mu.Unlock()
	if !waited {
		done()
	}
	return func() {}, ctx.Err()
}

func (b *Budget) leave(q *queue) {
	b.mu.Lock()
	defer b.mu.Unlock()
	q.active--
	b.grant()
}

// grant gives free places away, at all endpoints: what a limited bandwidth has room for is
// theirs together. The caller holds mu.
func (l *limits) grant() {
	urgent, bulky := 0, 0
	for _, p := range l.endpoints {
		urgent, bulky = urgent+p.urgent.active, bulky+p.bulky()
	}
	for _, p := range l.endpoints {
		urgent -= p.urgent.active
		p.grantUrgent(max(1, l.meter.fits(math.MaxInt)-urgent))
		urgent += p.urgent.active
		bulky -= p.bulky()
		p.grantBulk(min(l.atOnce, max(1, l.meter.fits(math.MaxInt)-bulky)))
		bulky += p.bulky()
	}
}

func (p *places) grantUrgent(most int) {
	for len(p.urgent.waiting) > 0 && p.urgent.active < most {
		p.urgent.next()
	}
}

// grantBulk gives away what is free of that many places.
func (p *places) grantBulk(most int) {
	for p.bulky() < most {
		largeMay := len(p.large.waiting) > 0 && (p.large.active < most-1 || most == 1)
		next := &p.small
		switch {
		case largeMay && (len(p.small.waiting) == 0 || p.granted%turnOfLarge == turnOfLarge-1):
			next = &p.large
		case len(p.small.waiting) == 0:
			return
		}
		next.next()
		p.granted++
	}
}
