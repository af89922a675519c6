// Package requests counts what the store of one replica is asked, exports the
// counts, and says what the provider bills for them.
package requests

import (
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// The words that Request.Operation and Request.Reason can be, in the order in
// which they are counted.
var (
	operations = [...]string{"put", "multipart", "get", "head", "list", "delete"}
	reasons    = [...]string{"auth", "misplaced", "throttled", "timeout", "unsupported", "unavailable", "other"}
)

// answers are Request.Reasons that belong to normal work, and are no failures: a first look finds
// nothing, a conditional write finds something, sqlwatch itself has stopped asking.
var answers = []string{"not_found", "exists", "conflict", "canceled"}

// bounds are the upper bounds of the buckets of durations, in seconds.
var bounds = [...]float64{.005, .02, .1, .5, 2, 10, 60}

// The native histogram's buckets: powers of two, from 2^firstPower seconds (1 ms)
// on. What is below is in its zero bucket, what is beyond in the last.
const firstPower, powers = -10, 18

// Counts are the requests that one replica has cost so far, every operation and
// every reason of failure from zero. The zero value is ready. It is two kilobytes:
// as counters of the Prometheus library the same numbers are fifty, which a
// thousand databases feel.
type Counts struct {
	counted [len(operations)]counted
}

type counted struct {
	failures [len(reasons)]atomic.Uint64
	buckets  [len(bounds) + 1]atomic.Uint64 // each without those below it; together all requests
	powers   [powers + 1]atomic.Uint64      // of two: the first is the zero bucket
	nanos    atomic.Int64
}

// Observe counts one request. It is what stores call (s3.Config.Observe).
func (c *Counts) Observe(r store.Request) {
	i := slices.Index(operations[:], r.Operation)
	if i < 0 {
		return // no store says any other word; the test of this package counts on it
	}
	one := &c.counted[i]
	bucket, _ := slices.BinarySearch(bounds[:], r.Duration.Seconds())
	one.buckets[bucket].Add(1)
	one.powers[powerOf(r.Duration.Seconds())].Add(1)
	one.nanos.Add(int64(r.Duration))
	if r.Reason == "" || slices.Contains(answers, r.Reason) {
		return
	}
	reason := slices.Index(reasons[:], r.Reason)
	if reason < 0 {
		reason = len(reasons) - 1
	}
	one.failures[reason].Add(1)
}

// powerOf returns in which of counted.powers a duration belongs: a bucket reaches
// from above half its bound up to it.
func powerOf(seconds float64) int {
	if seconds <= 0 {
		return 0
	}
	fraction, exponent := math.Frexp(seconds) // seconds = fraction * 2^exponent, 0.5 <= fraction < 1
	if fraction == 0.5 {
		exponent--
	}
	return min(max(exponent-firstPower+1, 0), powers)
}

// Add counts what other has counted, once more.
func (c *Counts) Add(other *Counts) {
	for i := range c.counted {
		to, from := &c.counted[i], &other.counted[i]
		add(to.failures[:], from.failures[:])
		add(to.buckets[:], from.buckets[:])
		add(to.powers[:], from.powers[:])
		to.nanos.Add(from.nanos.Load())
	}
}

func add(to, from []atomic.Uint64) {
	for i := range from {
		if n := from[i].Load(); n > 0 { // to write for all processors to see costs many times a look
			to[i].Add(n)
		}
	}
}

// Total returns how many requests of these operations were sent.
func (c *Counts) Total(of ...string) (n uint64) {
	for i, operation := range operations {
		if slices.Contains(of, operation) {
			n += c.counted[i].total()
		}
	}
	return n
}

func (o *counted) total() (n uint64) {
	for i := range o.buckets {
		n += o.buckets[i].Load()
	}
	return n
}

func (o *counted) duration() time.Duration { return time.Duration(o.nanos.Load()) }
