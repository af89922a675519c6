package file_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// TestDelete_S15: a file that cannot be removed does not keep others from being deleted.
func TestDelete_S15(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	all := []string{"sqlwatch/a", "sqlwatch/b", "sqlwatch/c"}
	put(t, s, all[0], "x", store.PutOptions{})
	put(t, s, all[2], "x", store.PutOptions{})
	stuck := filepath.Join(dir, all[1], "x") // a directory that is not empty cannot be removed, like a locked file
	if err := os.MkdirAll(stuck, 0o700); err != nil {
		t.Fatal(err)
	}
	err := s.Delete(t.Context(), all...)
	var refused *store.DeleteError
	if !errors.As(err, &refused) || len(refused.Refused) != 1 || !refused.Has(all[1]) || refused.Asked != 3 {
		t.Fatalf("Delete: %v", err)
	}
	if left := keys(t, s); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}
