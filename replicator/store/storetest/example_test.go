package storetest_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// Your own store should pass storetest.Run. To test code that uses a store, take the one in memory,
// or one that fails where you say; here the first Put fails.
func ExampleNewFaulty() {
	memory := storetest.NewMemory()
	faulty := storetest.NewFaulty(memory, storetest.Nth(0, storetest.NotStored, "put"))
	ctx := context.Background()
	_, err := faulty.Put(ctx, "notes/a", storetest.Bytes([]byte("a")), store.PutOptions{})
	fmt.Println(errors.Is(err, storetest.ErrInjected))
	_, err = faulty.Put(ctx, "notes/a", storetest.Bytes([]byte("a")), store.PutOptions{})
	fmt.Println(err)
	// Output:
	// true
	// <nil>
}
