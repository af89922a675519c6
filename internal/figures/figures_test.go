package figures

import (
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
)

// A replica is current only if commits would be seen: not beside a foreign WAL, and not while
// capture fails, from the first moment on.
func TestFreshness(t *testing.T) {
	stored := collector.Replica{CaughtUp: time.Unix(1, 0), ObjectiveSeconds: 1, LagSeconds: 1}
	for name, c := range map[string]struct {
		sample  collector.Sample
		replica collector.Replica
		want    string
		late    bool
	}{
		"all is stored":        {collector.Sample{State: collector.StateUp}, stored, "current", false},
		"another WAL is used":  {collector.Sample{State: collector.StateForeignWAL}, stored, "not known to be current", true},
		"capture fails":        {sampleOf("failing"), stored, "not known to be current", true},
		"the spool is full":    {sampleOf(collector.CaptureSpoolFull), stored, "not known to be current", true},
		"capture works":        {sampleOf(""), stored, "current", false},
		"there is no database": {sampleOf(collector.CaptureWaiting), stored, "current", false},
		"nothing is stored":    {collector.Sample{}, collector.Replica{}, "not complete yet", false},
		"the objective is missed": {sampleOf("failing"), collector.Replica{CaughtUp: time.Unix(1, 0), ObjectiveSeconds: 1,
			LagSeconds: 6}, "6.0 s behind", true},
	} {
		if got, late := Freshness(&c.sample, &c.replica); got != c.want || late != c.late {
			t.Errorf("%s: %q, late %v; want %q, %v", name, got, late, c.want, c.late)
		}
	}
}

func sampleOf(reason string) collector.Sample {
	return collector.Sample{State: collector.StateUp, Capture: &collector.Capture{Reason: reason}}
}
