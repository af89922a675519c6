package target

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/daemon"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
)

// TestFarthest_C14: of several replicas those of our own lineage come first, then the newest.
// TXIDs of different lineages are not compared, and replicas of another lineage are named.
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
		"nobody knows, and times cross": {[]candidate{of("p's farthest", "p", 9, 3*time.Hour), of("another's", "s", 5,
			2*time.Hour), of("p's newest", "p", 8, time.Hour)}, "", "p's farthest", true},
		"the same, in another order": {[]candidate{of("another's", "s", 5, 2*time.Hour), of("p's newest", "p", 8,
			time.Hour), of("p's farthest", "p", 9, 3*time.Hour)}, "", "p's farthest", true},
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

// place creates a replica in a directory, with files of the given levels and TXIDs.
func place(t *testing.T, name, lineageID string, keys ...string) config.ReplicaTarget {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	for _, key := range keys {
		path := filepath.Join(dir, "ltx", key+".ltx")
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		enc, err := ltx.NewEncoder(&out)
		if err != nil {
			t.Fatal(err)
		}
		min, max, err := ltx.ParseFilename(filepath.Base(path))
		if err != nil {
			t.Fatal(err)
		}
		err = enc.EncodeHeader(ltx.Header{Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: 512, Commit: 1,
			MinTXID: min, MaxTXID: max, Timestamp: int64(max) * 1000})
		if err == nil {
			err = enc.EncodePage(ltx.PageHeader{Pgno: 1}, make([]byte, 512))
		}
		if err == nil {
			err = enc.Close()
		}
		if err == nil {
			err = os.WriteFile(path, out.Bytes(), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	target := config.ReplicaTarget{Name: "file." + name, Type: "file", File: config.File{Dir: dir}}
	if lineageID != "" {
		st, err := daemon.NewStore(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		if err := lineage.Write(t.Context(), st, lineage.Lineage{ID: lineageID, By: "host"}, lineage.Stored{},
			true); err != nil {
			t.Fatal(err)
		}
	}
	return target
}

// txids returns the name of an LTX file in a level.
func txids(level string, min, max ltx.TXID) string {
	return level + "/" + strings.TrimSuffix(ltx.FormatFilename(min, max), ".ltx")
}

// TestFarthest_possible: of the replicas that can be restored from, the one that goes farthest is
// used; those that do not answer or have a gap are reported. An empty replica is used only if all
// are known to be empty: otherwise a first start would begin with an empty database beside a full
// replica.
func TestFarthest_possible(t *testing.T) {
	t.Parallel()
	near := place(t, "near", "p", txids("9", 1, 3))
	far := place(t, "far", "p", txids("9", 1, 3), txids("0", 4, 4))
	gap := place(t, "gap", "p", txids("9", 1, 3), txids("0", 4, 4), txids("0", 7, 7))
	empty := place(t, "empty", "")
	begun := place(t, "begun", "p")
	away := config.ReplicaTarget{Name: "s3.away", Type: "s3", S3: config.S3{Bucket: "b", Endpoint: "https://127.0.0.1:1",
		CAFile: filepath.Join(t.TempDir(), "gone")}}
	for name, tt := range map[string]struct {
		targets []config.ReplicaTarget
		want    string // "": an error
		told    string
	}{
		"farther":             {[]config.ReplicaTarget{near, far}, "file.far", "using replica file.far"},
		"farthest has a gap":  {[]config.ReplicaTarget{near, gap}, "file.near", "file.gap is left out"},
		"one is away":         {[]config.ReplicaTarget{away, near}, "file.near", "s3.away is left out"},
		"away, and empty":     {[]config.ReplicaTarget{away, empty}, "", "s3.away is left out"},
		"away, and begun":     {[]config.ReplicaTarget{away, begun}, "", "s3.away is left out"},
		"a gap, and empty":    {[]config.ReplicaTarget{empty, gap}, "file.gap", "using replica file.gap"},
		"full, and empty":     {[]config.ReplicaTarget{empty, near}, "file.near", "file.empty, file://"},
		"all are empty":       {[]config.ReplicaTarget{begun, empty}, "file.begun", "using replica"},
		"none can be reached": {[]config.ReplicaTarget{away, away}, "", "s3.away is left out"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var told bytes.Buffer
			st, got, err := Farthest(t.Context(), &told, tt.targets, "")
			if got.Name != tt.want || (err != nil) != (tt.want == "") || (st == nil) != (tt.want == "") {
				t.Errorf("took %q, %v, want %q", got.Name, err, tt.want)
			}
			if !strings.Contains(told.String(), tt.told) {
				t.Errorf("it says %q, want %q", told.String(), tt.told)
			}
		})
	}
}
