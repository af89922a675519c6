package restore

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// VerifyObject reads a stored file to its end and returns its SHA-256 in hex. It returns
// store.ErrCorrupt if the file could be read but is not a valid LTX file.
func VerifyObject(ctx context.Context, st store.Store, f store.LTXFile) (sum string, err error) {
	body, _, err := st.Get(ctx, f.Object.Key, 0, -1)
	if err != nil {
		return "", err
	}
	defer body.Close()
	sha := sha256.New()
	in := &noting{Reader: io.TeeReader(body, sha)}
	dec := ltx.NewDecoder(bufio.NewReaderSize(Bounded(f, in), 1<<16))
	dec.SetRetainPageIndex(false)
	switch err := dec.Verify(); {
	case in.err != nil:
		return "", in.err
	case err != nil:
		return "", fmt.Errorf("%w: %w", store.ErrCorrupt, err)
	}
	return hex.EncodeToString(sha.Sum(nil)), nil
}

// noting remembers a read error, which a decoder would report as a corrupt file.
type noting struct {
	io.Reader
	err error
}

// Read implements io.Reader.
func (n *noting) Read(p []byte) (int, error) {
	k, err := n.Reader.Read(p)
	if err != nil && err != io.EOF {
		n.err = err
	}
	return k, err
}
