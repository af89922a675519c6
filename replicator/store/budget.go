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
	largeUpload = 64 << 20 // bytes; a larger upload never takes the last free place
	turnOfLarge = 4        // of every so many places granted, one goes to a large upload
)

// Budget limits the uploads of a process: how many run at a time to one endpoint, and how
// many bytes a second they send to all. Without it, sixty databases that begin their first
// snapshots at once would share the line until every part times out and all start over. An
// endpoint that hangs blocks only its own places: see At.
//
// Small notes such as the lease never wait. Files of level 0, which hold the newest commits,
// wait for a place only if a limited bandwidth has no room for another sender; they get the
// larger share of it. All others wait in two queues, small before large, but so that none
// waits for ever. A nil Budget limits nothing.
type Budget struct {
	*limits
	*places // of one endpoint
}

// limits are shared by all endpoints.
type limits struct {
	mu        sync.Mutex // also guards the places of all endpoints
	atOnce    int        // places for small and large uploads together, for each endpoint
	meter     meter
	endpoints map[string]*places
}

// places are the uploads to one endpoint that run or wait.
type places struct {
	granted int
	urgent  queue
	small   queue
	large   queue
}

func (p *places) bulky() int { return p.small.active + p.large.active }

// queue holds the uploads of one kind.
type queue struct {
	waiting []chan struct{} // in order
	active  int
}

func (q *queue) next() {
	close(q.waiting[0])
	q.waiting = q.waiting[1:]
	q.active++
}

// drop removes an upload that gives up waiting; false: it was granted its place at the same moment.
func (q *queue) drop(ready chan struct{}) bool {
	i := slices.Index(q.waiting, ready)
	if i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
	}
	return i >= 0
}

// NewBudget returns a budget of so many uploads at a time (0: DefaultUploads) and so many bytes
// a second (0: no limit).
func NewBudget(uploads int, bytesPerSecond int64) *Budget {
	b := (&Budget{limits: &limits{endpoints: map[string]*places{}}}).At("")
	b.Change(uploads, bytesPerSecond)
	return b
}

// At returns the budget for uploads to an endpoint, whose places are separate from those of
// other endpoints. All calls with the same name share the places.
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

// Change sets new limits. Uploads under way continue at the new speed.
func (b *Budget) Change(uploads int, bytesPerSecond int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.atOnce = uploads; uploads <= 0 {
		b.atOnce = DefaultUploads
	}
	b.meter.change(bytesPerSecond)
	b.grant()
}

// admitted is the context key that marks an upload as having its place already.
type admitted struct{}

// Admit waits for a place for one upload of about size bytes (0: unknown), before the work
// that prepares it begins; a Put with the returned context does not wait again. done gives the
// place back. With a store without a Budget, Admit does not wait.
func Admit(ctx context.Context, st Store, size int64) (in context.Context, done func(), err error) {
	seam, ok := As[*Seam](st)
	if !ok || seam.budget == nil {
		return ctx, func() {}, nil
	}
	done, err = seam.budget.place(ctx, seam.budget.bulk(size))
	return context.WithValue(ctx, admitted{}, true), done, err
}

// Admitted calls upload with the context and the place that Admit gives.
func Admitted(ctx context.Context, st Store, size int64, upload func(context.Context) error) error {
	ctx, done, err := Admit(ctx, st, size)
	if err != nil {
		return err
	}
	defer done()
	return upload(ctx)
}

// admit waits until the upload may begin, and returns how fast it may send.
func (b *Budget) admit(ctx context.Context, key string, body Body) (pace Pace, done func(), err error) {
	done = func() {}
	if b == nil {
		return pace, done, nil
	}
	level, _, _, note := ParseLTXKey(key)
	if strings.HasPrefix(key, sumsPrefix) {
		level, note = 1, nil // not urgent, and large for a large database
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

// bulk returns the queue for a non-urgent upload of about size bytes.
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

// grant gives free places to waiting uploads, at all endpoints, since they share the number of
// senders that a limited bandwidth has room for. The caller holds mu.
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

// grantBulk gives free places to waiting uploads until most are taken.
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
