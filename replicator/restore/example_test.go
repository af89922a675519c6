package restore_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// An application restores its database when it starts for the first time. If the replica holds
// nothing, Run returns catalog.ErrEmpty and makes no file. With store/s3 or store/file in place of
// the store in memory, this is all that a restore takes.
func ExampleRun() {
	replica := storetest.NewMemory()
	result, err := restore.Run(context.Background(), replica, restore.Options{
		Output: "/tmp/restored.db",
		Check:  restore.CheckQuick,
	})
	switch {
	case errors.Is(err, catalog.ErrEmpty):
		fmt.Println("there is nothing to restore yet")
	case err != nil:
		fmt.Println(err)
	default:
		fmt.Println("restored the state of", result.Timestamp)
	}
	// Output: there is nothing to restore yet
}
