package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
)

// twenty writes twenty policies of five kinds.
func twenty() string {
	var b strings.Builder
	b.WriteString("window \"night\" {\n cron = \"0 2 * * *\"\n duration = \"3h\"\n timezone = \"Europe/Berlin\"\n}\n")
	kinds := []string{
		"when = wal.bytes > bytes(\"64MB\") && replica.lag < duration(\"2m\")\n unless = readers.oldest_age > " +
			"duration(\"5m\")\n window = window.night\n checkpoint {}",
		"when = rate(wal.frames_written, \"1m\") > 5000 && max_over(wal.bytes, \"10m\") > bytes(\"32MB\")\n checkpoint {}",
		"when = predict(disk.free_bytes, \"1h\", \"4h\") < bytes(\"1GB\")\n checkpoint {}",
		"when = replica.lag > duration(\"30s\")\n for = \"1m\"\n notify = [notifier.webhook.ops]\n message = \"${db.name}\"",
		"when = coalesce(replica.last_verified_age, 1e9) > duration(\"7d\")\n window = window.night\n verify {}",
	}
	for i := range 20 {
		fmt.Fprintf(&b, "policy \"p%d\" {\n %s\n}\n", i, kinds[i%len(kinds)])
	}
	return b.String()
}

// BenchmarkThousandDatabases measures one tick of 1,000 databases: for each, a sample is
// added and 20 policies are evaluated. With large WALs, policies are armed and refused.
func BenchmarkThousandDatabases(b *testing.B) {
	for name, size := range map[string]int64{"quiet": 1e6, "armed": 300e6} {
		b.Run(name, func(b *testing.B) {
			tick := fleet(b, 1000, size)
			b.ReportAllocs()
			for b.Loop() {
				tick()
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/1000, "ms/tick")
		})
	}
}

// fleet returns a function that adds a sample of each database and evaluates 20 policies.
func fleet(t testing.TB, databases int, size int64) (tick func()) {
	set := mustParse(t, twenty())
	past, states := make([]*History, databases), make([]map[string]PolicyState, databases)
	samples := make([]*collector.Sample, databases)
	now := start
	for i := range past {
		past[i], samples[i] = set.NewHistory(), sample(now, size)
	}
	tick = func() {
		now = now.Add(5 * time.Second)
		for i := range past {
			s := samples[i]
			s.At = now
			s.WAL.FramesWrittenTotal += 10
			past[i].Add(s)
			states[i] = set.Evaluate(Input{Now: now, Sample: s, History: past[i], SkipTree: true}, states[i]).Next
		}
	}
	for range 300 {
		tick()
	}
	return tick
}

// A tick of a database with 20 policies allocates what it returns, and little more.
func TestEvaluateAllocatesLittle(t *testing.T) {
	for name, size := range map[string]int64{"quiet": 1e6, "armed": 300e6} {
		const databases = 100
		tick := fleet(t, databases, size)
		if n := testing.AllocsPerRun(60, tick) / databases; n > 5.5+dropped {
			t.Errorf("%s: %v allocations a database, want about %d", name, n, 5+dropped)
		}
	}
}
