package restore

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// TestBounded_R12_claims: an intact file passes unchanged. A page that claims to have four
// gigabytes does not reach a decoder, and neither does the header of another file.
func TestBounded_R12_claims(t *testing.T) {
	t.Parallel()
	var file bytes.Buffer
	enc, err := ltx.NewEncoder(&file)
	if err != nil {
		t.Fatal(err)
	}
	if err := enc.EncodeHeader(ltx.Header{Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: 4096, Commit: 3,
		MinTXID: 2, MaxTXID: 5}); err != nil {
		t.Fatal(err)
	}
	for page := range uint32(3) {
		if err := enc.EncodePage(ltx.PageHeader{Pgno: page + 1}, bytes.Repeat([]byte{byte(page), 7}, 2048)); err != nil {
			t.Fatal(err)
		}
	}
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	f := store.LTXFile{MinTXID: 2, MaxTXID: 5, Object: store.Object{Key: store.LTXKey(0, 2, 5)}}
	got, err := io.ReadAll(Bounded(f, bytes.NewReader(file.Bytes())))
	if err != nil || !bytes.Equal(got, file.Bytes()) {
		t.Fatalf("an intact file: %d of %d bytes, %v", len(got), file.Len(), err)
	}
	claim := bytes.Clone(file.Bytes())
	copy(claim[ltx.HeaderSize+ltx.PageHeaderSize:], []byte{0xff, 0xff, 0xff, 0xff})
	other := f
	other.MaxTXID = 6
	for name, r := range map[string]io.Reader{
		"4294967295 compressed bytes": Bounded(f, bytes.NewReader(claim)),
		"it holds txids 2 to 5":       Bounded(other, bytes.NewReader(file.Bytes())),
		"unexpected EOF":              Bounded(f, bytes.NewReader(file.Bytes()[:120])),
	} {
		var corrupt *store.CorruptError
		if err := ltx.NewDecoder(r).Verify(); !errors.As(err, &corrupt) || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want a *store.CorruptError that says %q", err, name)
		}
	}
}
