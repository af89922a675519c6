package policy_test

import (
	"fmt"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/policy"
)

// The built-in policy waits until a WAL has been large for half a minute, then asks for a
// checkpoint. The time is an argument: nothing here waits.
func ExampleSet_Evaluate() {
	set := policy.Defaults()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	states := map[string]policy.PolicyState(nil)
	for range 3 {
		sample := collector.Sample{At: now, State: collector.StateUp}
		sample.WAL.Known, sample.WAL.SizeBytes, sample.WAL.Frames = true, 80e6, 20000
		decision := set.Evaluate(policy.Input{Now: now, Sample: &sample}, states)
		fmt.Println(now.Format(time.TimeOnly), decision.Policies[0].Phase, decision.Action != nil)
		states, now = decision.Next, now.Add(20*time.Second)
	}
	// Output:
	// 12:00:00 pending false
	// 12:00:20 pending false
	// 12:00:40 running true
}
