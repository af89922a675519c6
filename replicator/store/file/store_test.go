package file_test

import (
	"testing"
	"time"

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
