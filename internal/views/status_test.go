package views

import (
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/admin"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/replicator/requests"
)

// Costs are shown for the replicas for which they are known, and their sum says how many it
// includes.
func TestStatus_costs(t *testing.T) {
	t.Parallel()
	view := func(costs ...*float64) admin.Database {
		sample := &collector.Sample{State: collector.StateUp}
		for _, c := range costs {
			sample.Replicas = append(sample.Replicas, collector.Replica{Name: "s3.main", Healthy: true,
				CaughtUp: time.Unix(1, 0), MonthlyUSD: c})
		}
		return admin.Database{DatabaseStatus: watchdog.DatabaseStatus{Name: "app", Sample: sample}}
	}
	dollars := func(v float64) *float64 { return &v }
	for name, c := range map[string]struct {
		views []admin.Database
		want  []string
		not   string
	}{
		"known": {[]admin.Database{view(dollars(0.416)), view(dollars(2), nil)},
			[]string{"(0.42 $ a month)", "(2.00 $ a month)", "about 2.42 $ a month", "list prices of " + requests.PricesAsOf},
			"0.00 $"},
		"nothing": {[]admin.Database{view(dollars(0))}, []string{"(0.00 $ a month)", "about 0.00 $"}, "NaN"},
		"unknown": {[]admin.Database{view(nil), {}}, []string{"s3.main current"}, "$"},
	} {
		var out strings.Builder
		if err := Status(&out, c.views, time.Now()); err != nil {
			t.Fatal(err)
		}
		for _, want := range c.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: no %q in\n%s", name, want, &out)
			}
		}
		if strings.Contains(out.String(), c.not) {
			t.Errorf("%s: %q in\n%s", name, c.not, &out)
		}
	}
}
