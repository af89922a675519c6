package recovery

import (
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/target"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/file"
)

// TestIfReplicaExists: if nothing was stored yet, there is nothing to do at a first start. But if
// the state directory knows a lineage that the replica does not have, the replica's place is not
// what it was, and that is an error.
func TestIfReplicaExists(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		known, there string // lineages
		made         bool   // the directory is there
		nothing      bool   // no error: there is nothing to do
	}{
		"a first start":                    {"", "", false, true},
		"an empty directory":               {"", "", true, true},
		"begun, and nothing stored":        {"p", "p", true, true},
		"another one's, and empty":         {"p", "s", true, true},
		"not mounted":                      {"p", "", false, false},
		"an empty mount point, or emptied": {"p", "", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "replica")
			if tt.made {
				dir = t.TempDir()
			}
			st, err := file.New(dir)
			if err != nil {
				t.Fatal(err)
			}
			if tt.there != "" {
				if err := lineage.Write(t.Context(), st, lineage.Lineage{ID: tt.there}, lineage.Stored{}, true); err != nil {
					t.Fatal(err)
				}
			}
			s := target.Source{Store: st, Lineage: tt.known,
				Replica: config.ReplicaTarget{Name: "file.r", Type: "file", File: config.File{Dir: dir}}}
			r := Recovery{Resolver: &target.Resolver{}, IfReplicaExists: true}
			out, err := r.from(t.Context(), s, restore.Options{Output: filepath.Join(t.TempDir(), "app.db")})
			if out.Nothing != tt.nothing || (err == nil) != tt.nothing {
				t.Errorf("nothing to do: %v, %v; want %v", out.Nothing, err, tt.nothing)
			}
			if err != nil && !strings.Contains(err.Error(), "not mounted") {
				t.Errorf("it says %v", err)
			}
			if warned := strings.Contains(strings.Join(out.Warnings, " "), "was begun there"); warned != (tt.there != "") {
				t.Errorf("it warns %q", out.Warnings)
			}
		})
	}
}

// TestIfReplicaExists_R1_corrupt: a replica whose only snapshot is corrupt is not one to which nothing
// was replicated yet, on a machine that knows nothing of it either.
func TestIfReplicaExists_R1_corrupt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	st, err := file.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	cut := bytes.Repeat([]byte("x"), 200)
	body := store.Body{Size: int64(len(cut)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(cut)), nil
	}}
	meta := map[string]string{store.MetaTimestamp: "2024-03-01T12:00:00Z"}
	if _, err := st.Put(t.Context(), store.LTXKey(store.SnapshotLevel, 1, 7), body,
		store.PutOptions{Metadata: meta}); err != nil {
		t.Fatal(err)
	}
	s := target.Source{Store: st, Replica: config.ReplicaTarget{Name: "file.r", Type: "file", File: config.File{Dir: dir}}}
	r := Recovery{Resolver: &target.Resolver{}, IfReplicaExists: true}
	out, err := r.from(t.Context(), s, restore.Options{Output: filepath.Join(t.TempDir(), "app.db")})
	if err == nil || out.Nothing {
		t.Fatalf("nothing to do: %v, %v", out.Nothing, err)
	}
	if !strings.Contains(err.Error(), "txids 1 to 7 are missing") {
		t.Errorf("it says %v", err)
	}
}
