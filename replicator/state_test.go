package replicator_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator"
	"github.com/sqlwatch/sqlwatch/replicator/capture"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// TestRun_StateDirectoryIsNone: if the state directory cannot be used, Run fails, and that is
// reported as the reason why commits are not captured.
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
		t.Fatal("Run succeeded without a state directory")
	}
	if _, err := r.Captured(); err == nil || !strings.Contains(err.Error(), state) {
		t.Errorf("Captured: %v, want an error that names the state directory", err)
	}
}

// TestRun_StateDirectoryWithoutRoom: if the file system of the state directory is full, that is
// reported as such.
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

// TestShip_S20_fullDisk: the disk of the state directory is full while the application continues.
// sqlwatch reports that, loses nothing, and stores everything on its own once there is room again.
func TestShip_S20_fullDisk(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	st := storetest.NewMemory().Enforce(t)
	state := t.TempDir()
	if err := unix.Mount("tmpfs", state, "tmpfs", 0, "size=80m"); err != nil {
		t.Skipf("needs a file system that can be filled: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(state, unix.MNT_DETACH) })
	h := newHost(t, path, replica("memory.a", st))
	h.state = state
	h.begin()
	w.commit(3)
	h.synced()
	ballast := filepath.Join(h.state, "ballast")
	if out, err := exec.Command("dd", "if=/dev/zero", "of="+ballast, "bs=4k").CombinedOutput(); err == nil {
		t.Fatalf("the disk was not filled: %s", out)
	}
	h.eventually("what keeps commits from being captured is told", func() bool {
		w.commit(1)
		h.r.Wake()
		_, err := h.r.Captured()
		return err != nil
	})
	for range 20 {
		w.commit(3) // the application continues
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	h.eventually("everything is stored again", func() bool { return h.sync() == nil })
	wantRestored(t, st, path)
	h.eventually("nothing is reported any more", func() bool { _, err := h.r.Captured(); return err == nil })
}

// TestShip_P12_anothersState: the state directory is replaced by another database's, as when
// backups are mixed up. sqlwatch then stores this database, and no earlier state is lost.
func TestShip_P12_anothersState(t *testing.T) {
	t.Parallel()
	path, w := database(t)
	other, ow := database(t)
	st := storetest.NewMemory().Enforce(t)
	a := newHost(t, path, replica("memory.a", st))
	b := newHost(t, other, replica("memory.a", storetest.NewMemory().Enforce(t)))
	a.begin()
	b.begin()
	a.commits(w, 3, 5)
	b.commits(ow, 3, 7)
	before := wantRestored(t, st, path)
	a.halt()
	b.halt()
	swap := exec.Command("sh", "-c", `rm -rf "$0" && cp -a "$1" "$0"`, a.state, b.state)
	if out, err := swap.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.commit(3)
	a.start()
	a.eventually("all is stored", func() bool { return a.sync() == nil })
	if after := wantRestored(t, st, path); after.TXID <= before.TXID {
		t.Errorf("txid %d after %d", after.TXID, before.TXID)
	}
}
