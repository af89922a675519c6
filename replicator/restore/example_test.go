package restore_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// A replica that holds nothing is an error of its own kind, and no file is made. With a
// store/s3 or store/file in place of the memory, this is all that restoring takes.
func ExampleRun() {
	replica := storetest.NewMemory()
	_, err := restore.Run(context.Background(), replica, restore.Options{Output: "/tmp/restored.db",
		Check: restore.CheckQuick})
	fmt.Println(errors.Is(err, catalog.ErrEmpty))
	// Output: true
}
