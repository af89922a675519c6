package replicator

import (
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator/capture"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/spool"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// TestLag_S2_captureStopped: while capture has stopped, a replica that has every captured commit does
// not count as up to date.
func TestLag_S2_captureStopped(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	r, err := New(Options{
		Name: "app", StateDir: t.TempDir(), Files: func() *dbfile.Files { return nil }, Clock: func() time.Time {
			return now
		},
		Replicas: []ReplicaOptions{{Name: "memory.a", Store: storetest.NewMemory()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := spool.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r.backlog.Captured(s)
	r.replicas[0].progress.Found(catalog.Tip{}, 0)
	now = now.Add(time.Minute)
	for _, tt := range []struct {
		captured error
		want     float64
	}{{nil, 0}, {capture.ErrSpoolFull, 60}, {ErrNotOpen, 0}} {
		r.source.note(tt.captured)
		if got := r.Replicas()[0].LagSeconds; got != tt.want {
			t.Errorf("lag after %v: %v s, want %v", tt.captured, got, tt.want)
		}
	}
}
