package stage_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/stage"
)

func touch(t *testing.T, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if err := os.WriteFile(p, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// TestPublish_R6_putBack: if the restored file cannot take the place of a database, that one has its WAL again.
func TestPublish_R6_putBack(t *testing.T) {
	t.Parallel()
	output := filepath.Join(t.TempDir(), "a.db")
	touch(t, output, output+"-wal", output+"-shm", output+"-journal")
	s, err := stage.Open(output, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := errors.Join(os.Remove(s.Name()), os.Mkdir(s.Name(), 0o700)); err != nil { // the last rename will fail
		t.Fatal(err)
	}
	before := names(t, filepath.Dir(output))
	if aside, err := s.Publish(); err == nil || len(aside) != 0 {
		t.Errorf("set aside %q, %v", aside, err)
	}
	if after := names(t, filepath.Dir(output)); !slices.Equal(after, before) {
		t.Errorf("the directory has %q, had %q", after, before)
	}
}

// TestCleanUp: of the files that were set aside, those of this restore and all of the last day stay. No
// other file in the directory is touched.
func TestCleanUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out := filepath.Join(dir, "app.db")
	now := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	stay := []string{"app.db", "app.db.replaced-20260310T100000.000Z", "app.db.replaced-20260310T100000.000Z-wal",
		"app.db.replaced-20260309T130000.000Z", "app.db.replaced-by-hand", "app.db.replaced-20260101T000000.000Z.gz",
		"other.db.replaced-20260101T000000.000Z"}
	gone := []string{"app.db.replaced-20260301T100000.000Z", "app.db.replaced-20260301T100000.000Z-wal",
		"app.db.replaced-20260228T100000.000Z"}
	for _, name := range append(slices.Clone(stay), gone...) {
		touch(t, filepath.Join(dir, name))
	}
	aside := []string{filepath.Join(dir, stay[1]), filepath.Join(dir, stay[2])}
	removed, err := stage.CleanUp(out, aside, now)
	slices.Sort(stay)
	if got := names(t, dir); err != nil || len(removed) != len(gone) || !slices.Equal(got, stay) {
		t.Errorf("removed %q, %v; left %q, want %q", removed, err, got, stay)
	}
	// A year later only those of this restore are left.
	if _, err := stage.CleanUp(out, aside, now.AddDate(1, 0, 0)); err != nil {
		t.Fatal(err)
	}
	stay = slices.DeleteFunc(stay, func(n string) bool { return n == "app.db.replaced-20260309T130000.000Z" })
	if got := names(t, dir); !slices.Equal(got, stay) {
		t.Errorf("a year later: %q, want %q", got, stay)
	}
}

// TestCleanUp_P8: the clock was set back by days after an earlier restore. What was set aside just now stays, and what
// was set aside before has no claim to be the newest.
func TestCleanUp_P8(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out := filepath.Join(dir, "app.db")
	made, before := out+".replaced-20260310T120000.000Z", out+".replaced-20260314T120000.000Z"
	touch(t, made, made+"-wal", before)
	aside := []string{made, made + "-wal"}
	now := time.Date(2026, 3, 10, 12, 0, 1, 0, time.UTC)
	// Once when it was made, and once as if it had taken more than a day to get there.
	for _, now := range []time.Time{now, now.AddDate(0, 0, 2)} {
		if removed, err := stage.CleanUp(out, aside, now); err != nil || len(removed) > 0 {
			t.Errorf("at %v: removed %q, %v", now, removed, err)
		}
	}
	// The next restore finds no database there: the names alone do not tell which of them is the newest.
	if removed, err := stage.CleanUp(out, nil, now.AddDate(0, 0, 6)); err != nil || len(removed) > 0 {
		t.Errorf("nothing was replaced: removed %q, %v", removed, err)
	}
	removed, err := stage.CleanUp(out, aside, now.AddDate(0, 0, 6))
	if err != nil || !slices.Equal(removed, []string{before}) {
		t.Errorf("removed %q, %v; want %q", removed, err, before)
	}
}

// TestOpen_R6_sweeps: files that killed restores left are removed, but not those that a running
// restore is just writing.
func TestOpen_R6_sweeps(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out := filepath.Join(dir, "app.db")
	old, young := filepath.Join(dir, ".sqlwatch-tmp-1"), filepath.Join(dir, ".sqlwatch-tmp-2")
	touch(t, filepath.Join(dir, ".app.db.sqlwatch-restore-LEFT"), filepath.Join(dir, ".b.db.sqlwatch-restore-LEFT"), old,
		young)
	if err := os.Chtimes(old, time.Time{}, time.Now().Add(-2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	s, err := stage.Open(out, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stage.Open(out, 0); err == nil {
		t.Error("opened twice at the same time")
	}
	s.Discard()
	if got, want := names(t, dir), []string{".b.db.sqlwatch-restore-LEFT", ".sqlwatch-tmp-2"}; !slices.Equal(got, want) {
		t.Errorf("left %q, want %q", got, want)
	}
}

// TestGive_R14: the staged file gets the owner and the mode that are asked for.
func TestGive_R14(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "app.db")
	s, err := stage.Open(out, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Discard()
	other := 4321
	err = s.Give(stage.Owner{User: &other, Mode: 0o640})
	if os.Geteuid() != 0 {
		if !errors.Is(err, os.ErrPermission) {
			t.Errorf("change of owner by uid %d: %v", os.Geteuid(), err)
		}
		return
	}
	info, serr := s.Stat()
	if sys := info.Sys().(*syscall.Stat_t); err != nil || serr != nil || sys.Uid != 4321 || int(sys.Gid) != os.Getegid() ||
		info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v: uid %d, gid %d, mode %v", err, serr, sys.Uid, sys.Gid, info.Mode())
	}
	touch(t, out+"-sqlwatch")
	if err := s.Share(out + "-sqlwatch"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(out + "-sqlwatch"); err != nil || info.Sys().(*syscall.Stat_t).Uid != 4321 {
		t.Errorf("the note: %v, %v", info, err)
	}
}

// TestCleanUp_R6_forgotten: files that an interrupted restore to another path left are removed
// after a week. Younger ones, ones in use, and ones that may belong to somebody else stay.
func TestCleanUp_R6_forgotten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	const id = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	old, young, open, shown, linked, alike := at(".a.db.sqlwatch-restore-"+id), at(".b.db.sqlwatch-restore-"+id),
		at(".c.db.sqlwatch-restore-"+id), at(".d.db.sqlwatch-restore-"+id), at(".e.db.sqlwatch-restore-"+id),
		at(".f.db.sqlwatch-restore-notes")
	touch(t, old, old+".plan", young, young+".plan", open, open+".plan", shown, linked, alike)
	if err := errors.Join(os.Chmod(shown, 0o644), os.Link(linked, at("mine.db"))); err != nil {
		t.Fatal(err)
	}
	week := time.Now().Add(-8 * 24 * time.Hour)
	for _, path := range []string{old, open, shown, linked, alike} {
		if err := os.Chtimes(path, week, week); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(open)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	before := names(t, dir)
	removed, err := stage.CleanUp(at("app.db"), nil, time.Now())
	if err != nil || !slices.Equal(removed, []string{old}) {
		t.Errorf("removed %q, %v", removed, err)
	}
	want := slices.DeleteFunc(before, func(n string) bool { return at(n) == old || at(n) == old+".plan" })
	if got := names(t, dir); !slices.Equal(got, want) {
		t.Errorf("left %q, want %q", got, want)
	}
}
