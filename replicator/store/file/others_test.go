package file

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// TestList_link: a replica whose directory is reached through a symbolic link has all of its objects, also those that
// are no LTX files, as the generations of Litestream 0.3.
func TestList_link(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	st, err := New(link)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{store.LTXKey(0, 1, 1), "generations/0123456789abcdef/wal/00000000_00000000.wal.lz4", "sqlwatch/lease"}
	for _, key := range want {
		if _, err := st.Put(t.Context(), key, storetest.Bytes([]byte("x")), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for object, err := range st.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, object.Key)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestList_gone: a directory that goes, or cannot be read, while it is listed is no empty replica.
func TestList_gone(t *testing.T) {
	t.Parallel()
	st, err := New(filepath.Join(t.TempDir(), "gone"))
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := st.others(""); err == nil {
		t.Errorf("it has %q", keys)
	}
}
