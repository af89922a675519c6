package store_test

import (
	"errors"
	"testing"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

func TestLTXKey(t *testing.T) {
	for level := range 10 {
		key := store.LTXKey(level, 0x1f, 0xabcdef0123456789)
		l, min, max, err := store.ParseLTXKey(key)
		if err != nil || l != level || min != 0x1f || max != 0xabcdef0123456789 {
			t.Errorf("%s: %d %d %d %v", key, l, min, max, err)
		}
	}
	for _, key := range []string{
		"", "0000/", "000a/0000000000000001-0000000000000001.ltx", "0000/0000000000000000-0000000000000001.ltx",
		"0000/0000000000000002-0000000000000001.ltx", "0000/000000000000000A-000000000000000F.ltx",
		"+000/0000000000000001-0000000000000001.ltx",
		"0000/0000000000000001-0000000000000001.ltx\n", "/000/0000000000000001-0000000000000001.ltx",
		"0000/../0000000000001-0000000000000001.ltx",
		"0000\\0000000000000001-0000000000000001.ltx", "0000/0000000000000001-0000000000000001.lt\x00",
	} {
		if _, _, _, err := store.ParseLTXKey(key); !errors.Is(err, store.ErrKey) {
			t.Errorf("%q: %v, want ErrKey", key, err)
		}
	}
}

func FuzzParseLTXKey(f *testing.F) {
	f.Add("0009/0000000000000001-00000000000000ff.ltx")
	f.Add("0000/../../../../../../../../../../passwd.ltx")
	f.Fuzz(func(t *testing.T, key string) {
		level, min, max, err := store.ParseLTXKey(key)
		if err == nil && store.LTXKey(level, min, max) != key {
			t.Errorf("%q is accepted, but its canonical form is %q", key, store.LTXKey(level, min, max))
		}
	})
}
