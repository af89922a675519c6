package measured

import (
	"math"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
)

// Every name is documented and listed once. With an empty sample its value is unknown, or
// that of a database without readers and replicas.
func TestNames(t *testing.T) {
	t.Parallel()
	known := map[string]float64{"readers.oldest_age": 0, "replica.lag": 0, "replica.pending_bytes": 0,
		"replica.healthy": 1}
	seen := map[string]bool{}
	for i := range Names {
		n := &Names[i]
		if n.Doc == "" || n.Unit == AnyUnit || seen[n.String()] {
			t.Errorf("%s: documented as %q in %s, named before: %v", n, n.Doc, n.Unit, seen[n.String()])
		}
		seen[n.String()] = true
		got := n.Read(&Reading{Sample: &collector.Sample{}, Stall: math.NaN()})
		if want, ok := known[n.String()]; ok && (n.Group == "replica") && got != want {
			t.Errorf("%s of nothing is %v, want %v", n, got, want)
		} else if !ok && !math.IsNaN(got) {
			t.Errorf("%s of nothing is %v, want unknown", n, got)
		}
	}
}

// Of several replicas the worst value counts. If one has not reported, it is unknown.
func TestWorstReplica(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	r := &Reading{Sample: &collector.Sample{At: at, Replicas: []collector.Replica{
		{Name: "a", Healthy: true, LagSeconds: 1, LastVerified: at.Add(-time.Hour)},
		{Name: "b", LagSeconds: 5, PendingBytes: 7}}}, Expected: []string{"a", "b"}}
	one := r.Only("a")
	gone := r.Only("c")
	for _, test := range []struct {
		name string
		r    *Reading
		want float64
	}{
		{"lag", r, 5}, {"pending_bytes", r, 7}, {"healthy", r, 0}, {"last_verified_age", r, math.NaN()},
		{"lag", &one, 1}, {"healthy", &one, 1}, {"last_verified_age", &one, 3600},
		{"lag", &gone, math.NaN()},
	} {
		for i := range Names {
			if n := &Names[i]; n.Group == "replica" && n.Name == test.name {
				if got := n.Read(test.r); got != test.want && !(math.IsNaN(got) && math.IsNaN(test.want)) {
					t.Errorf("%s is %v, want %v", n, got, test.want)
				}
			}
		}
	}
	r.Expected = append(r.Expected, "c")
	for i := range Names {
		if n := &Names[i]; n.String() == "replica.lag" && !math.IsNaN(n.Read(r)) {
			t.Error("the lag is known though one replica has not reported")
		}
	}
}

func TestUnits(t *testing.T) {
	t.Parallel()
	for u := AnyUnit; u <= WindowUnit; u++ {
		if numeric := u == Plain || u == Count || u == Bytes || u == Seconds || u == Ratio; u.Numeric() != numeric {
			t.Errorf("%s: numeric %v", u, u.Numeric())
		}
	}
}
