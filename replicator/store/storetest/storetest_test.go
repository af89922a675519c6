package storetest_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return storetest.NewMemory() })
}

func TestFaultyThatBreaksNothing(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return storetest.NewFaulty(storetest.NewMemory(), nil) })
}

func TestMemoryTellsViolations(t *testing.T) {
	ctx, m := context.Background(), storetest.NewMemory()
	key := store.LTXKey(0, 1, 1)
	for range 2 {
		if _, err := m.Put(ctx, key, storetest.Bytes([]byte("same")), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if v := m.Violations(); len(v) != 0 {
		t.Fatalf("the same bytes again: %q", v)
	}
	if _, err := m.Put(ctx, key, storetest.Bytes([]byte("other")), store.PutOptions{}); err == nil ||
		len(m.Violations()) != 1 {
		t.Errorf("other bytes under an immutable key: %v, %q", err, m.Violations())
	}
}

func TestFaultyWritesFailTwoWays(t *testing.T) {
	ctx, key := context.Background(), "sqlwatch/x"
	for fault, stored := range map[storetest.Fault]bool{storetest.NotStored: false, storetest.Stored: true} {
		m := storetest.NewMemory()
		f := storetest.NewFaulty(m, storetest.Nth(0, fault, "put"))
		_, err := f.Put(ctx, key, storetest.Bytes([]byte("x")), store.PutOptions{})
		if !errors.Is(err, storetest.ErrInjected) || !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("fault %d: %v", fault, err)
		}
		if got := len(m.Keys()) == 1; got != stored || f.Injected(fault) != 1 {
			t.Errorf("fault %d: stored is %v, want %v; injected %d", fault, got, stored, f.Injected(fault))
		}
	}
}

func TestFaultyReads(t *testing.T) {
	ctx, key, data := context.Background(), "sqlwatch/x", []byte("0123456789")
	m := storetest.NewMemory()
	if _, err := m.Put(ctx, key, storetest.Bytes(data), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	for fault, want := range map[storetest.Fault]string{
		storetest.Truncated: "01234", storetest.Short: "01234", storetest.Corrupt: "01234%6789", storetest.Slow: "0123456789",
	} {
		r, _, err := storetest.NewFaulty(m, storetest.Nth(0, fault)).Get(ctx, key, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if string(got) != want || (fault == storetest.Truncated) != (err != nil) {
			t.Errorf("fault %d: %q, %v; want %q", fault, got, err, want)
		}
	}
}
