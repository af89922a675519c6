package recovery

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/target"
	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/lineage"
)

// TestMissing: an application is started with an empty database only where nothing was replicated before.
func TestMissing(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		known, made, old bool // known to the state directory; its directory exists; it has files of Litestream 0.3
		says             string
	}{
		"a first start":                {false, false, false, ""},
		"an empty directory":           {false, true, false, ""},
		"not mounted":                  {true, false, false, "not mounted"},
		"an empty mount point":         {true, true, false, "not mounted"},
		"Litestream 0.3's generations": {false, true, true, "generations/0123456789abcdef"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			replica := filepath.Join(dir, "replica")
			c := &config.Config{}
			c.Server.StateDir = filepath.Join(dir, "state")
			if tt.known {
				state := target.StateOf(c, "app")
				if err := os.MkdirAll(state, 0o700); err != nil {
					t.Fatal(err)
				}
				if _, err := custody.New(state).Take(lineage.Begin, "", 7, ""); err != nil {
					t.Fatal(err)
				}
			}
			if tt.made {
				if err := os.Mkdir(replica, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if tt.old {
				at := filepath.Join(replica, "generations/0123456789abcdef/snapshots")
				if err := os.MkdirAll(at, 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(at, "00000000.snapshot.lz4"), []byte("cut"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var out bytes.Buffer
			err := Missing{Config: c, Stderr: &out}.one(t.Context(), config.DatabaseTarget{
				Name: "app", Path: filepath.Join(dir, "app.db"),
				Replicas: []config.ReplicaTarget{{Name: "file.r", Type: "file", File: config.File{Dir: replica}}},
			})
			if tt.says == "" && (err != nil || !strings.Contains(out.String(), "starting without a restore")) {
				t.Errorf("%v, %s", err, &out)
			}
			if tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("%v, %s; want %q", err, &out, tt.says)
			}
		})
	}
}
