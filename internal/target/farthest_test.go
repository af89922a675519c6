package target

import (
	"strings"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
)

// TestFarthest_C14: of several replicas the own lineage's comes first, then the newest;
// TXIDs of different lineages are not compared; who disagrees is named.
func TestFarthest_C14(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_700_000_000, 0)
	of := func(name, id string, txid ltx.TXID, ago time.Duration) candidate {
		return candidate{
			target: config.ReplicaTarget{Name: name}, tip: catalog.Tip{TXID: txid, At: at.Add(-ago)},
			line: lineage.Stored{Found: id != "", Lineage: lineage.Lineage{ID: id, By: "host of " + id}},
		}
	}
	for name, tt := range map[string]struct {
		all      []candidate
		ours     string
		want     string
		disagree bool
	}{
		"one lineage": {[]candidate{of("near", "p", 5, 0), of("far", "p", 9, 0)}, "", "far", false},
		"another's is newer, farther": {[]candidate{of("staging's", "s", 2<<20, 0), of("ours", "p", 9, time.Hour)}, "p",
			"ours", true},
		"nobody knows": {[]candidate{of("older", "s", 2<<20, time.Hour), of("newer", "p", 9, 0)}, "", "newer", true},
		"one is empty": {[]candidate{of("empty", "", 0, 0), of("full", "p", 9, time.Hour)}, "p", "full", false},
	} {
		ranked := rank(tt.all, tt.ours)
		if ranked[0].target.Name != tt.want {
			t.Errorf("%s: %s comes first, want %s", name, ranked[0].target.Name, tt.want)
		}
		if told := disagreement(ranked); (told != "") != tt.disagree || tt.disagree && !strings.Contains(told, "host of p") {
			t.Errorf("%s: told %q", name, told)
		}
	}
}
