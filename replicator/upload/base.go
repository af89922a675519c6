package upload

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// CreateBase is Create for a snapshot, which is read back: nothing may be deleted because
// of one that is not there. How the stored object ends, an LTX file's checksums, is
// compared with what was sent; where that differs, all of it is read, and it is removed if
// it is damaged.
func (u *Uploader) CreateBase(
	ctx context.Context, key string, body store.Body, metadata map[string]string,
) (object store.Object, err error) {
	sent, open := &ending{}, body.Open
	body.Open = func() (io.ReadCloser, error) {
		r, err := open()
		*sent = ending{ReadCloser: r}
		return sent, err
	}
	if object, err = u.Create(ctx, key, body, metadata); err != nil || u.endsAs(ctx, key, sent) {
		return object, err
	}
	level, min, max, err := store.ParseLTXKey(key)
	if err != nil {
		return object, err
	}
	_, err = restore.VerifyObject(ctx, u.store, store.LTXFile{Level: level, MinTXID: min, MaxTXID: max, Object: object})
	if err == nil {
		return object, nil
	}
	err = fmt.Errorf("read %s back: %w", key, err)
	if !errors.Is(err, store.ErrDamaged) {
		return object, err
	}
	if held := u.lease.Hold(ctx); held != nil {
		return object, errors.Join(err, held)
	}
	return object, errors.Join(fmt.Errorf("%w; it is deleted, to be stored again", err), u.store.Delete(ctx, key))
}

// endsAs reports whether the stored object is as long as what was sent, and ends so.
func (u *Uploader) endsAs(ctx context.Context, key string, sent *ending) bool {
	const n = int64(len(sent.last))
	if sent.size < n {
		return false // it was there before
	}
	body, object, err := u.store.Get(ctx, key, sent.size-n, n)
	if err != nil {
		return false
	}
	var last [n]byte
	_, err = io.ReadFull(body, last[:])
	return errors.Join(err, body.Close()) == nil && last == sent.last && object.Size == sent.size
}

// ending passes a stream on and remembers its length and its last bytes.
type ending struct {
	io.ReadCloser
	size int64
	last [ltx.TrailerSize]byte
}

// Read implements io.Reader.
func (e *ending) Read(p []byte) (int, error) {
	n, err := e.ReadCloser.Read(p)
	e.size += int64(n)
	if keep := len(e.last) - n; keep > 0 {
		copy(e.last[:], e.last[n:])
		copy(e.last[keep:], p[:n])
	} else {
		copy(e.last[:], p[n-len(e.last):n])
	}
	return n, err
}
