package file_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/superfly/ltx"
	"golang.org/x/sys/unix"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/file"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

func open(t *testing.T, dir string) *file.Store {
	t.Helper()
	s, err := file.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *file.Store, key, data string, opts store.PutOptions) store.Object {
	t.Helper()
	obj, err := s.Put(context.Background(), key, storetest.Bytes([]byte(data)), opts)
	if err != nil {
		t.Fatal(err)
	}
	return obj
}

func keys(t *testing.T, s *file.Store) []string {
	t.Helper()
	var all []string
	for obj, err := range s.List(context.Background(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, obj.Key)
	}
	return all
}

func TestLayoutIsLitestreams(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	when := time.Date(2024, 3, 1, 12, 0, 0, 123456789, time.UTC)
	put(t, s, store.LTXKey(9, 1, 0xab), "x",
		store.PutOptions{Metadata: map[string]string{store.MetaTimestamp: when.Format(time.RFC3339Nano)}})
	put(t, s, "sqlwatch/lease", "y", store.PutOptions{})
	info, err := os.Stat(filepath.Join(dir, "ltx/9/0000000000000001-00000000000000ab.ltx"))
	if err != nil || !info.ModTime().Equal(when) {
		t.Errorf("the file in Litestream's place, with the batch's time: %v, %v", info, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "sqlwatch/lease")); err != nil {
		t.Error(err)
	}
	if got, want := keys(t, s), []string{store.LTXKey(9, 1, 0xab), "sqlwatch/lease"}; !slices.Equal(got, want) {
		t.Errorf("keys %q, want %q", got, want)
	}
}

func TestModes_X8(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	dir := filepath.Join(t.TempDir(), "a", "b")
	s := open(t, dir)
	put(t, s, store.LTXKey(0, 1, 1), "x", store.PutOptions{Create: true})
	put(t, s, "sqlwatch/lease", "y", store.PutOptions{})
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if want := map[bool]fs.FileMode{true: 0o700, false: 0o600}[e.IsDir()]; info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode().Perm(), want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestCrash_S26(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, store.LTXKey(0, 1, 1), "x", store.PutOptions{})
	// A Put that crashes leaves a temporary file of package durable.
	left := filepath.Join(dir, "ltx/0/.sqlwatch-tmp-123")
	if err := os.WriteFile(left, []byte("half an obj"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir)
	if got := keys(t, again); !slices.Equal(got, []string{store.LTXKey(0, 1, 1)}) {
		t.Errorf("keys after a crash: %q", got)
	}
	put(t, again, store.LTXKey(0, 2, 2), "y", store.PutOptions{Create: true})
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the temporary file was not swept: %v", err)
	}
}

func TestKeys_R13(t *testing.T) {
	s := open(t, t.TempDir())
	for _, key := range []string{
		"", "x", "/etc/passwd", "../x", "sqlwatch/../../x", "sqlwatch/./x", "sqlwatch//x", "sqlwatch/", "sqlwatch/.hidden",
		"sqlwatch/a\x00b",
		"sqlwatch/a\nb", ".sqlwatch-meta/x", ".sqlwatch-lock", "ltx/0/x", "sqlwatch/" + strings.Repeat("a", 300),
		`sqlwatch/a\b`,
	} {
		if _, err := s.Put(context.Background(), key, storetest.Bytes(nil), store.PutOptions{}); err == nil {
			t.Errorf("key %q was stored", key)
		}
		if _, _, err := s.Get(context.Background(), key, 0, -1); err == nil {
			t.Errorf("key %q was read", key)
		}
		if err := s.Delete(context.Background(), key); err == nil {
			t.Errorf("key %q was deleted", key)
		}
	}
}

func TestStrangersFilesAreNoObjects(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, store.LTXKey(0, 2, 2), "x", store.PutOptions{})
	level := filepath.Join(dir, "ltx/0")
	for _, name := range []string{"README", "0000000000000003-0000000000000003.ltx.tmp",
		"0000000000000001-000000000000000Z.ltx"} {
		if err := os.WriteFile(filepath.Join(level, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(level, "0000000000000004-0000000000000004.ltx")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(level, "0000000000000005-0000000000000005.ltx"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := keys(t, s); !slices.Equal(got, []string{store.LTXKey(0, 2, 2)}) {
		t.Errorf("keys %q", got)
	}
	for _, txid := range []ltx.TXID{4, 5} {
		if _, _, err := s.Get(context.Background(), store.LTXKey(0, txid, txid), 0, -1); err == nil {
			t.Errorf("txid %d, which is no regular file, was read", txid)
		}
	}
}

func TestNoReplicaThere(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "missing"))
	for _, err := range s.List(context.Background(), "", "") {
		if !errors.Is(err, store.ErrMisplaced) {
			t.Errorf("List: %v, want ErrMisplaced", err)
		}
	}
	if _, _, err := s.Get(context.Background(), store.LTXKey(0, 1, 1), 0, -1); !errors.Is(err, store.ErrMisplaced) {
		t.Errorf("Get: %v, want ErrMisplaced", err)
	}
}

// TestFirstStartIsNoFailure: a missing directory that the first write will create is not counted as
// a failure of the store. It is one if the first write may not create the directory, or if the
// directory existed and is gone.
func TestFirstStartIsNoFailure(t *testing.T) {
	t.Parallel()
	reasons := func(dir string) []string {
		var all []string
		st := store.Through(open(t, dir), nil, func(r store.Request) { all = append(all, r.Operation+" "+r.Reason) })
		for range st.List(t.Context(), "", "") {
			break
		}
		_, _, _ = st.Get(t.Context(), store.LTXKey(0, 1, 1), 0, -1)
		if _, err := os.Stat(filepath.Dir(dir)); err != nil {
			return all
		}
		body := storetest.Bytes([]byte("x"))
		if _, err := st.Put(t.Context(), store.LTXKey(0, 1, 1), body, store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		_, _, _ = st.Get(t.Context(), store.LTXKey(0, 1, 1), 0, -1)
		return all
	}
	want := []string{"list not_found", "get not_found", "put ", "get misplaced"}
	if got := reasons(filepath.Join(t.TempDir(), "replica")); !slices.Equal(got, want) {
		t.Errorf("before, during and after the directory existed: %q, want %q", got, want)
	}
	// Nothing is created in the root directory, because a missing directory there is probably an
	// unmounted disk.
	if got, want := reasons("/nowhere/replica"), []string{"list misplaced", "get misplaced"}; !slices.Equal(got, want) {
		t.Errorf("a directory that may not be created: %q, want %q", got, want)
	}
}

func TestErrors_S24(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small tmpfs needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("mount tmpfs: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	s := open(t, dir)
	put(t, s, store.LTXKey(0, 1, 1), "x", store.PutOptions{Create: true})
	_, err := s.Put(context.Background(), store.LTXKey(0, 2, 2), storetest.Bytes(make([]byte, 1<<20)),
		store.PutOptions{Create: true})
	if !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("on a full disk: %v, want ErrUnavailable", err)
	}
	put(t, s, store.LTXKey(0, 3, 3), "room again", store.PutOptions{Create: true})
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(context.Background(), store.LTXKey(0, 4, 4), storetest.Bytes(nil),
		store.PutOptions{Create: true}); !errors.Is(err, store.ErrMisplaced) {
		t.Errorf("on a read-only file system: %v, want ErrMisplaced", err)
	}
	if got := keys(t, s); len(got) != 2 {
		t.Errorf("keys %q", got)
	}
}

// TestInodes_S24: no inodes are left, although there is free space.
func TestInodes_S24(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,nr_inodes=20"); err != nil {
		t.Skipf("mount tmpfs: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	s := open(t, dir)
	full := func(txid ltx.TXID) error {
		_, err := s.Put(context.Background(), store.LTXKey(0, txid, txid), storetest.Bytes([]byte("x")),
			store.PutOptions{Create: true})
		return err
	}
	var err error
	for txid := ltx.TXID(1); err == nil && txid < 30; txid++ {
		err = full(txid)
	}
	if !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("without inodes: %v, want ErrUnavailable", err)
	}
	before := keys(t, s)
	if err := s.Delete(t.Context(), before[0]); err != nil {
		t.Fatal(err)
	}
	if err := full(40); err != nil || len(keys(t, s)) != len(before) {
		t.Errorf("with one inode again: %v, keys %q", err, keys(t, s))
	}
}

// TestWithoutXattrs runs the contract on ramfs, a file system without extended attributes.
func TestWithoutXattrs(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a ramfs needs root")
	}
	mount := func(t *testing.T) string {
		t.Helper()
		dir := t.TempDir()
		if err := unix.Mount("ramfs", dir, "ramfs", 0, ""); err != nil {
			t.Skipf("mount ramfs: %v", err)
		}
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
		return dir
	}
	probe := filepath.Join(mount(t), "probe")
	if err := os.WriteFile(probe, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(probe, "user.sqlwatch", []byte("x"), 0); !errors.Is(err, unix.ENOTSUP) {
		t.Skipf("ramfs has extended attributes here (%v)", err)
	}
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, mount(t)) })
	t.Run("the sidecar of a replacement that never came does not count", func(t *testing.T) {
		dir := mount(t)
		s := open(t, dir)
		put(t, s, "sqlwatch/x", "one", store.PutOptions{Metadata: map[string]string{"a": "1"}})
		sides, err := filepath.Glob(filepath.Join(dir, ".sqlwatch-meta/sqlwatch/x.*.json"))
		if err != nil || len(sides) != 1 {
			t.Fatalf("sidecars %q, %v", sides, err)
		}
		if err := os.WriteFile(sides[0], []byte(`{"size":3,"modified":12345,"metadata":{"a":"2"}}`), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, obj, err := s.Get(context.Background(), "sqlwatch/x", 0, 0); err != nil || obj.Metadata["a"] == "2" {
			t.Errorf("%v, %v", obj.Metadata, err)
		}
		for range 3 {
			put(t, s, "sqlwatch/x", "more", store.PutOptions{Metadata: map[string]string{"a": "3"}})
		}
		if sides, err := filepath.Glob(filepath.Join(dir, ".sqlwatch-meta/sqlwatch/*")); err != nil || len(sides) != 1 {
			t.Errorf("sidecars after replacements: %q, %v", sides, err)
		}
		if err := s.Delete(context.Background(), "sqlwatch/x"); err != nil {
			t.Error(err)
		}
		if sides, err := filepath.Glob(filepath.Join(dir, ".sqlwatch-meta/sqlwatch/*")); err != nil || len(sides) != 0 {
			t.Errorf("sidecars after Delete: %q, %v", sides, err)
		}
	})
}

func TestListingIsRememberedAndForgotten(t *testing.T) {
	dir := t.TempDir()
	s, other := open(t, dir), open(t, dir)
	for i := range 5 {
		put(t, s, store.LTXKey(0, ltx.TXID(i+1), ltx.TXID(i+1)), "x", store.PutOptions{})
	}
	level := filepath.Join(dir, "ltx/0")
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(level, past, past); err != nil { // the directory is long unchanged, so its listing is cached
		t.Fatal(err)
	}
	if n := len(keys(t, s)); n != 5 {
		t.Fatalf("%d keys, want 5", n)
	}
	put(t, other, store.LTXKey(0, 6, 6), "x", store.PutOptions{})
	if n := len(keys(t, s)); n != 6 {
		t.Errorf("%d keys after another process's Put, want 6", n)
	}
	if err := other.Delete(context.Background(), store.LTXKey(0, 1, 1)); err != nil {
		t.Fatal(err)
	}
	if n := len(keys(t, s)); n != 5 {
		t.Errorf("%d keys after another process's Delete, want 5", n)
	}
}

func TestAnnouncedHashIsChecked(t *testing.T) {
	s := open(t, t.TempDir())
	body := storetest.Bytes([]byte("good"))
	body.Open = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("evil")), nil }
	if _, err := s.Put(context.Background(), store.LTXKey(0, 1, 1), body, store.PutOptions{}); err == nil {
		t.Error("a body with another sha256 was stored")
	}
	if got := keys(t, s); len(got) != 0 {
		t.Errorf("keys %q", got)
	}
}
