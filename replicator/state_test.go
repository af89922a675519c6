package replicator_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator"
	"github.com/sqlwatch/sqlwatch/replicator/capture"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// A state directory that cannot be used stops everything, and is told as what keeps commits
// from being captured.
func TestRun_StateDirectoryIsNone(t *testing.T) {
	t.Parallel()
	state := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(state, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := replicator.New(replicator.Options{Name: "app", StateDir: state, Files: func() *dbfile.Files { return nil },
		Replicas: []replicator.ReplicaOptions{replica("memory.a", storetest.NewMemory())}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Run(t.Context()); err == nil {
		t.Fatal("it ran without a state directory")
	}
	if _, err := r.Captured(); err == nil || !strings.Contains(err.Error(), state) {
		t.Errorf("of what keeps commits from being captured it says: %v", err)
	}
}

// Where the state directory's file system is full, that is told, and no replica is blamed.
func TestRun_StateDirectoryWithoutRoom(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	h := newHost(t, path, replica("memory.a", storetest.NewMemory()))
	h.state = t.TempDir()
	if err := unix.Mount("tmpfs", h.state, "tmpfs", 0, "size=12m"); err != nil {
		t.Skipf("needs a file system that is full: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(h.state, unix.MNT_DETACH) })
	h.start()
	w.commit(3)
	h.eventually("what keeps commits from being captured is told", func() bool {
		_, err := h.r.Captured()
		return errors.Is(err, capture.ErrNoRoom) && errors.Is(err, capture.ErrSpoolFull) &&
			strings.Contains(err.Error(), "free on the file system of "+h.state)
	})
}
