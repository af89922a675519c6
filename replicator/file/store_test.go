package file_test

import (
	"testing"

	"github.com/sqlwatch/sqlwatch/replicator"
	"github.com/sqlwatch/sqlwatch/replicator/file"
	"github.com/sqlwatch/sqlwatch/replicator/storetest"
)

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) replicator.Store {
		s, err := file.New(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
