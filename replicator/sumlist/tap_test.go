package sumlist

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/fault"
)

// TestTap_P18_panic: a fault of sqlwatch in the listing of a file costs the list, and the file is passed on.
func TestTap_P18_panic(t *testing.T) {
	t.Parallel()
	var file bytes.Buffer
	enc, err := ltx.NewEncoder(&file)
	if err != nil {
		t.Fatal(err)
	}
	h := ltx.Header{Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: 512, Commit: 1,
		MinTXID: 2, MaxTXID: 2}
	err = errors.Join(enc.EncodeHeader(h), enc.EncodePage(ltx.PageHeader{Pgno: 1}, make([]byte, 512)), enc.Close())
	if err != nil {
		t.Fatal(err)
	}
	from, to := io.Pipe()
	tap := &tap{ReadCloser: io.NopCloser(&file), to: to, ended: make(chan struct{})}
	go tap.list(nil, from) // there is no file to write to
	if n, err := io.Copy(io.Discard, tap); err != nil || n == 0 {
		t.Errorf("%d bytes were passed on, %v", n, err)
	}
	if err := tap.end(); fault.Of(err) == nil {
		t.Errorf("the list: %v, want a fault", err)
	}
}
