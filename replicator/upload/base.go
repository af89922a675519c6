package upload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/custody"
	"github.com/sqlwatch/sqlwatch/replicator/lease"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// CreateBase is Create for a snapshot. It reads the snapshot back, because older files are
// deleted on the strength of it: it compares the object's last bytes, an LTX file's checksums,
// with what was sent; if they differ, it reads the whole object, and deletes it if it is
// corrupt.
func (u *Uploader) CreateBase(
	ctx context.Context, key string, body store.Body, metadata map[string]string,
) (object store.Object, err error) {
	u.sending.Store(key, true)
	defer u.sending.Delete(key)
	list := u.listed(key, &body)
	defer list.Discard()
	sent, open := &ending{}, body.Open
	body.Open = func() (io.ReadCloser, error) {
		r, err := open()
		*sent = ending{ReadCloser: r, whole: body.Size, done: func(size int64, last []byte) error {
			return u.journal.Sent(custody.Unread{Key: key, Size: size, Ending: last})
		}}
		return sent, err
	}
	if object, err = u.Create(ctx, key, body, metadata); err != nil {
		return object, err
	}
	if u.endsAs(ctx, key, sent.size, sent.last[:]) {
		u.journal.ReadBack(key)
	} else if err = u.readBase(ctx, key, object); err != nil {
		return object, err
	}
	u.storeSums(ctx, key, list)
	return object, nil
}

// readBase reads a whole stored file, and deletes it if it is corrupt.
func (u *Uploader) readBase(ctx context.Context, key string, object store.Object) error {
	level, min, max, err := store.ParseLTXKey(key)
	if err != nil {
		return err
	}
	_, err = restore.VerifyObject(ctx, u.store, store.LTXFile{Level: level, MinTXID: min, MaxTXID: max, Object: object})
	if err == nil {
		u.journal.ReadBack(key)
		return nil
	}
	err = fmt.Errorf("read %s back: %w", key, err)
	if !errors.Is(err, store.ErrCorrupt) {
		return err
	}
	if held := u.lease.Hold(ctx); held != nil {
		return errors.Join(err, held)
	}
	gone := u.store.Delete(ctx, key)
	if gone == nil {
		u.journal.ReadBack(key)
	}
	return errors.Join(fmt.Errorf("%w; it is deleted, to be stored again", err), gone)
}

// Recheck reads objects that were stored but not read back, because of a crash or an error of
// the store: until then nothing may be built on them, or deleted because of them. It reports
// whether it found one corrupt and deleted it. One that is not there stays listed until it was
// missed for a day: its upload may still be under way.
func (u *Uploader) Recheck(ctx context.Context) (gone bool, err error) {
	for _, sent := range u.journal.Get().Unread {
		if _, now := u.sending.Load(sent.Key); now {
			continue
		}
		_, object, err := u.store.Get(ctx, sent.Key, 0, 0)
		switch {
		case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrMisplaced):
			u.journal.Absent(sent.Key, u.clock())
			continue
		case err != nil:
			return gone, fmt.Errorf("read %s back: %w", sent.Key, err)
		case len(sent.Ending) > 0 && u.endsAs(ctx, sent.Key, sent.Size, sent.Ending):
			u.journal.ReadBack(sent.Key)
			continue
		}
		err = u.readBase(ctx, sent.Key, object)
		if corrupt := errors.Is(err, store.ErrCorrupt); err != nil && (!corrupt || u.unread(sent.Key)) {
			return gone, err
		} else if corrupt {
			gone = true
		}
	}
	return gone, nil
}

// HoldChecked is the lease's Hold for retention: it also fails unless every stored object that
// replaces others was read back. One that is not there replaces nothing.
func (u *Uploader) HoldChecked(ctx context.Context) error {
	gone, err := u.Recheck(ctx)
	switch {
	case err != nil:
		return err
	case gone:
		return fmt.Errorf("what was to replace older files was corrupt: %w", lease.ErrMoved)
	case slices.ContainsFunc(u.journal.Get().Unread, u.pending):
		return fmt.Errorf("a snapshot is being read back: %w", lease.ErrConfirming)
	}
	return u.lease.Hold(ctx)
}

// pending reports whether an object is being sent, or is there and not read back yet.
func (u *Uploader) pending(sent custody.Unread) bool {
	_, now := u.sending.Load(sent.Key)
	return now || sent.Absent == 0
}

// unread reports whether an object is still to be read back.
func (u *Uploader) unread(key string) bool {
	for _, sent := range u.journal.Get().Unread {
		if sent.Key == key {
			return true
		}
	}
	return false
}

// endsAs reports whether the stored object has that size and ends with these bytes.
func (u *Uploader) endsAs(ctx context.Context, key string, size int64, ending []byte) bool {
	n := int64(len(ending))
	if size < n {
		return false // nothing was sent: the object was there before
	}
	body, object, err := u.store.Get(ctx, key, size-n, n)
	if err != nil {
		return false
	}
	last := make([]byte, n)
	_, err = io.ReadFull(body, last)
	return errors.Join(err, body.Close()) == nil && bytes.Equal(last, ending) && object.Size == size
}

// ending passes a stream on and remembers its length and last bytes. It calls done with them
// before the reader gets the last of it, so that they are recorded before the upload is complete.
type ending struct {
	io.ReadCloser
	size, whole int64 // read so far; of the whole stream, negative if unknown
	last        [ltx.TrailerSize]byte
	done        func(size int64, last []byte) error
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
	if n > 0 && e.size == e.whole || err == io.EOF && e.size != e.whole {
		if told := e.done(e.size, bytes.Clone(e.last[:])); told != nil {
			return 0, told
		}
	}
	return n, err
}
