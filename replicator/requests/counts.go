// Package requests counts what the store of one replica is asked, exports the
// counts, and says what the provider bills for them.
package requests

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// The words that Request.Operation and Request.Reason can be, in the order in
// which they are counted.
var (
	operations = [...]string{"put", "multipart", "get", "head", "list", "delete"}
	reasons    = [...]string{"not_found", "exists", "conflict", "auth", "misplaced", "throttled", "timeout", "canceled",
		"unsupported", "unavailable", "other"}
)

// bounds are the upper bounds of the buckets of durations, in seconds.
var bounds = [...]float64{.005, .02, .1, .5, 2, 10, 60}

// Counts are the requests that one replica has cost so far, every operation and
// every reason of failure from zero. The zero value is ready. It is one kilobyte:
// as counters of the Prometheus library the same numbers are fifty, which a
// thousand databases feel.
type Counts struct {
	counted [len(operations)]counted
}

type counted struct {
	failures [len(reasons)]atomic.Uint64
	buckets  [len(bounds) + 1]atomic.Uint64 // each without those below it; together all requests
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
	one.nanos.Add(int64(r.Duration))
	if r.Reason == "" {
		return
	}
	reason := slices.Index(reasons[:], r.Reason)
	if reason < 0 {
		reason = len(reasons) - 1
	}
	one.failures[reason].Add(1)
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
