package file_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/file"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		s, err := file.New(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

// TestDelete_S15_others: Delete removes the other files even if one cannot be removed, and returns
// an error.
func TestDelete_S15_others(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := file.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for i := ltx.TXID(1); i <= 6; i++ {
		key := store.LTXKey(0, i, i)
		if _, err := s.Put(t.Context(), key, storetest.Bytes([]byte("x")), store.PutOptions{Create: true}); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	// A directory that is not empty cannot be removed, like a locked file.
	stuck := filepath.Join(dir, "ltx/0", ltx.FormatFilename(2, 2))
	if err := os.Remove(stuck); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(stuck, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), keys...); err == nil {
		t.Error("a file could not be removed, and Delete returned nil")
	}
	for _, key := range keys[2:] {
		if _, _, err := s.Get(t.Context(), key, 0, 0); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// TestModified_S29: Object.Modified is when the file was put, whatever the time of its batch.
func TestModified_S29(t *testing.T) {
	t.Parallel()
	s, err := file.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now().Add(-time.Second)
	object, err := s.Put(t.Context(), store.LTXKey(0, 1, 1), storetest.Bytes([]byte("x")), store.PutOptions{Create: true,
		Metadata: map[string]string{store.MetaTimestamp: "2036-03-01T12:00:00Z"}})
	if err != nil || object.Modified.Before(before) || object.Modified.After(time.Now().Add(time.Second)) {
		t.Errorf("modified %v, %v", object.Modified, err)
	}
}
