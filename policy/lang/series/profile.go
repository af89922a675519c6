package series

import (
	"math"
	"slices"
	"time"
)

// A learned window divides the week into quarters of an hour. Thinned samples would not suffice:
// a nightly batch of ten minutes could fall between two of them.
const (
	bucketLength = 15 * time.Minute
	bucketsOfDay = int(24 * time.Hour / bucketLength)
)

// BucketsOfWeek is how many quarters of an hour a week has.
const BucketsOfWeek = 7 * bucketsOfDay

var unknown = math.NaN()

// Profile has a signal's usual value in each quarter of an hour of the week, by the clock of a
// time zone: the mean over the last such quarter, averaged half and half with the value from
// the weeks before.
type Profile struct {
	began  time.Time // of the first value
	values [BucketsOfWeek]float64
	seen   [BucketsOfWeek]uint8 // in how many weeks; at most 255

	index   int   // the quarter under way
	ends    int64 // when it ends, in nanoseconds
	starts  int64
	sum     float64
	count   int
	level   float64 // see quietLevel; NaN: to be computed
	levelOf float64 // the quantile that level was computed for
}

// at returns the value of a quarter, or NaN if it has never been seen.
func (p *Profile) at(i int) float64 {
	if p.seen[i] == 0 {
		return unknown
	}
	return p.values[i]
}

// bucketOf returns the quarter of the week at t in the time zone, and when that quarter began and ends.
func bucketOf(t time.Time, location *time.Location) (index int, starts, ends int64) {
	l := t.In(location)
	day := (int(l.Weekday()) + 6) % 7 // from Monday
	minute := l.Hour()*60 + l.Minute()
	into := time.Duration(minute%15)*time.Minute + time.Duration(l.Second())*time.Second + time.Duration(l.Nanosecond())
	starts = t.UnixNano() - int64(into)
	return day*bucketsOfDay + minute/15, starts, starts + int64(bucketLength)
}

// Add takes one value of the signal in.
func (p *Profile) Add(at time.Time, v float64, location *time.Location) {
	ns := at.UnixNano()
	if ns < p.starts || ns >= p.ends {
		p.close()
		p.index, p.starts, p.ends = bucketOf(at, location)
	}
	if v-v != 0 {
		return // not known
	}
	if p.began.IsZero() || at.Before(p.began) {
		p.began = at
	}
	p.sum, p.count = p.sum+v, p.count+1
}

// close takes the quarter that has ended into the week.
func (p *Profile) close() {
	if p.count > 0 {
		mean := p.sum / float64(p.count)
		if p.seen[p.index] > 0 {
			mean = (mean + p.values[p.index]) / 2
		}
		p.values[p.index], p.seen[p.index] = mean, max(p.seen[p.index], p.seen[p.index]+1)
	}
	p.sum, p.count, p.level = 0, 0, unknown
}

// Expected returns what the signal is like in a quarter of the week: as it was then,
// or, where that has not been seen, the worst of the same quarter on other days.
func (p *Profile) Expected(i int) float64 {
	if p.seen[i] > 0 {
		return p.values[i]
	}
	worst := unknown
	for k := i % bucketsOfDay; k < BucketsOfWeek; k += bucketsOfDay {
		if p.seen[k] > 0 && !(p.values[k] <= worst) {
			worst = p.values[k]
		}
	}
	return worst
}

// Twice the quantile is quiet too, and so is a hundredth of the mean above it: the
// lowest fifth of a night's noise is no boundary, and where nothing is written at
// night, a single commit is no peak.
const (
	quietFactor = 2
	quietShare  = 0.01
	liveFactor  = 2 // what a single moment may exceed the level by
)

// Level returns up to which value the signal counts as quiet.
func (p *Profile) Level(q float64) float64 {
	if p.level == p.level && p.levelOf == q {
		return p.level
	}
	var values []float64
	sum := 0.0
	for i, v := range p.values {
		if p.seen[i] > 0 {
			values = append(values, v)
			sum += math.Abs(v)
		}
	}
	if len(values) == 0 {
		return unknown
	}
	slices.Sort(values)
	low := values[int(q*float64(len(values)-1))]
	p.level, p.levelOf = low+math.Abs(low)*(quietFactor-1)+quietShare*sum/float64(len(values)), q
	return p.level
}

// Learned reports whether the profile may be trusted: for so long it has been made,
// and of that time (a week at most) three quarters have been seen.
func (p *Profile) Learned(now time.Time, minHistory time.Duration) bool {
	if p.began.IsZero() || now.Sub(p.began) < minHistory {
		return false
	}
	return p.Covered() >= min(minHistory, 7*24*time.Hour)*3/4
}

// Covered returns how much of the week has been seen.
func (p *Profile) Covered() (d time.Duration) {
	for _, seen := range p.seen {
		if seen > 0 {
			d += bucketLength
		}
	}
	return d
}

// State tells of a moment: whether the profile expects quiet, whether the signal is
// quiet now too, and in how many seconds the profile changes its mind; NaN: never. ok
// is false where something of it is not known.
func (p *Profile) State(now time.Time, location *time.Location, q, live float64) (expected, quiet bool, change float64,
	ok bool) {
	level := p.Level(q)
	i, _, ends := bucketOf(now, location)
	value := p.Expected(i)
	if level != level || value != value || live != live {
		return false, false, unknown, false
	}
	expected, change = value <= level, unknown
	for k := 1; k < BucketsOfWeek; k++ {
		if next := p.Expected((i + k) % BucketsOfWeek); next == next && (next <= level) != expected {
			change = float64(ends-now.UnixNano())/1e9 + float64(k-1)*bucketLength.Seconds()
			break
		}
	}
	return expected, expected && live <= liveFactor*level, change, true
}

// Now returns what the profile expects at a moment.
func (p *Profile) Now(now time.Time, location *time.Location) float64 {
	i, _, _ := bucketOf(now, location)
	return p.Expected(i)
}

// Began returns the time of the first value, zero if there is none.
func (p *Profile) Began() time.Time { return p.began }

// Weeks returns in how many weeks each quarter has been seen.
func (p *Profile) Weeks() []int {
	weeks := make([]int, BucketsOfWeek)
	for i, n := range p.seen {
		weeks[i] = int(n)
	}
	return weeks
}

// Week returns what the profile expects of each quarter of an hour from Monday 00:00,
// NaN where that is not known.
func (p *Profile) Week() []float64 {
	values := make([]float64, BucketsOfWeek)
	for i := range values {
		values[i] = p.Expected(i)
	}
	return values
}
