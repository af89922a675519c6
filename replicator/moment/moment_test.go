package moment

import (
	"maps"
	"reflect"
	"testing"
	"time"

	"github.com/superfly/ltx"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// clocked makes batches with a clock that is set now and then.
type clocked struct {
	stamp  Stamp
	mark   Mark
	wall   time.Time
	passed time.Duration
	txid   ltx.TXID
	rising time.Time
}

func (c *clocked) reading() Reading { return Reading{Wall: c.wall, Passed: c.passed, Boot: "one"} }

func (c *clocked) pass(d time.Duration) { c.wall, c.passed = c.wall.Add(d), c.passed+d }

func (c *clocked) batch() Stamp {
	c.txid++
	c.rising = c.rising.Add(time.Millisecond)
	if c.wall.After(c.rising) {
		c.rising = c.wall
	}
	mark := c.mark
	mark.Watch(c.reading())
	c.stamp = c.stamp.Next(c.txid, c.wall, c.rising, mark)
	c.mark.Taken(c.reading())
	return c.stamp
}

func TestStamp(t *testing.T) {
	t.Parallel()
	c := &clocked{wall: noon}
	if s := c.batch(); !s.Time.Equal(noon) || !s.Since.IsZero() || len(s.Steps) != 0 {
		t.Errorf("the first batch: %+v", s)
	}
	for range 60 {
		c.pass(10 * time.Second)
		c.mark.Look(c.reading())
	}
	c.pass(time.Second)
	if s := c.batch(); !s.Since.Equal(noon.Add(10*time.Minute)) || len(s.Steps) != 0 {
		t.Errorf("a batch after ten minutes of nothing: %+v, want since 12:10", s)
	}
	c.pass(time.Hour)
	if s := c.batch(); !s.Since.Equal(noon.Add(10*time.Minute + time.Second)) {
		t.Errorf("a batch after an hour without a poll: %+v, want since the one before", s)
	}
}

// TestStamp_P8_setForward: the times that the clock skipped are in dispute.
func TestStamp_P8_setForward(t *testing.T) {
	t.Parallel()
	c := &clocked{wall: noon}
	c.batch()
	c.wall = c.wall.Add(24 * time.Hour)
	for range 5 {
		c.pass(time.Second)
		c.mark.Look(c.reading())
	}
	s := c.batch()
	if len(s.Steps) != 1 || !s.Steps[0].Forward || !s.Steps[0].Low.Equal(noon) ||
		!s.Steps[0].Holds(noon.Add(24*time.Hour)) || s.Steps[0].Holds(noon.Add(25*time.Hour)) {
		t.Errorf("%+v, want the day from 12:00 in dispute", s)
	}
}

// TestStamp_P8_setBack: the times that the clock showed twice are in dispute, until it has passed
// the time from which it was set back.
func TestStamp_P8_setBack(t *testing.T) {
	t.Parallel()
	c := &clocked{wall: noon}
	c.batch()
	c.wall = c.wall.Add(-time.Hour)
	c.mark.Look(c.reading())
	c.pass(5 * time.Minute)
	s := c.batch()
	if len(s.Steps) != 1 || s.Steps[0].TXID != 2 || s.Steps[0].Low.After(noon.Add(-time.Hour)) ||
		s.Steps[0].High.Before(noon) || s.Skew(c.rising) < 54*time.Minute {
		t.Fatalf("%+v", s)
	}
	if !s.Since.Equal(noon.Add(-time.Hour)) {
		t.Errorf("since %v, want the poll after the step", s.Since)
	}
	c.pass(time.Minute)
	if s = c.batch(); len(s.Steps) != 1 || s.Steps[0].TXID != 2 {
		t.Errorf("the same stretch: %+v", s.Steps)
	}
	c.pass(2 * time.Hour)
	if s = c.batch(); len(s.Steps) != 1 || s.Skew(c.rising) != 0 {
		t.Errorf("after it: %+v", s)
	}
	for range 3 * MaxSteps {
		c.wall = c.wall.Add(-time.Minute)
		s = c.batch()
		c.pass(time.Hour)
		c.batch()
	}
	if len(s.Steps) != MaxSteps || s.Steps[0].Low.After(noon) {
		t.Errorf("%d steps, the oldest from %v: steps that are dropped must stay in dispute", len(s.Steps), s.Steps[0].Low)
	}
}

// TestStamp_P8_unknown: the clock was set back, and it was not polled between that and the batch.
func TestStamp_P8_unknown(t *testing.T) {
	t.Parallel()
	s := Stamp{Time: noon}.Next(2, noon.Add(-time.Hour), noon.Add(time.Millisecond), Mark{Since: noon.Add(time.Minute)})
	if !s.Since.IsZero() || len(s.Steps) != 1 || !s.Steps[0].Holds(noon.Add(-time.Minute)) {
		t.Errorf("%+v", s)
	}
}

func TestStampMetadata(t *testing.T) {
	t.Parallel()
	at := noon.Add(123456789)
	s := Stamp{Time: at, Since: noon, Steps: []Step{{TXID: 0xabc, Stretch: Stretch{noon.Add(-time.Hour), noon}},
		{TXID: 1 << 60, Stretch: Stretch{noon, noon.Add(time.Hour)}, Forward: true}}}
	meta := map[string]string{}
	s.Put(meta)
	if got := Of(meta); !reflect.DeepEqual(got, s) {
		t.Errorf("%+v became %+v by %v", s, got, meta)
	}
	size := 0
	full := Stamp{Time: at, Since: at}
	for i := range MaxSteps {
		full.Steps = append(full.Steps, Step{TXID: 1<<64 - 1 - ltx.TXID(i), Stretch: Stretch{at, at}, Forward: true})
	}
	meta = map[string]string{}
	full.Put(meta)
	for k, v := range maps.All(meta) {
		size += len(k) + len(v)
	}
	if size > 1200 { // S3 allows 2 KiB
		t.Errorf("%d bytes of metadata", size)
	}
	for _, broken := range []string{"", "x", "1:2", "1:2:x,5:6:7:8", ",,,"} {
		if got := Of(map[string]string{MetaTime: broken, MetaSince: broken, MetaSteps: broken}); len(got.Steps) != 0 ||
			!got.Time.IsZero() {
			t.Errorf("%q: %+v", broken, got)
		}
	}
}
