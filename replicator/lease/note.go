package lease

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Key is the key of the object that names a replica's writer.
const Key = "sqlwatch/lease"

// Note is the lease object.
type Note struct {
	Fence    uint64    `json:"fence"` // rises each time the lease is taken
	Nonce    string    `json:"nonce"` // unique to this note
	Owner    string    `json:"owner"`
	Boot     string    `json:"boot,omitempty"`    // the boot id of the owner's machine
	Process  string    `json:"process,omitempty"` // the owner's, see ThisProcess
	File     string    `json:"file,omitempty"`    // what the owner replicates, see Options.File
	Lineage  string    `json:"lineage,omitempty"` // the replica's lineage when this was written; "": unknown
	Life     float64   `json:"life_seconds,omitempty"`
	Expires  time.Time `json:"expires"` // when Life ends by the owner's clock; for people and older versions
	Released bool      `json:"released,omitempty"`
}

// life is how long another host must watch the note unchanged before it may take the lease. It
// is clamped, so that a foreign or corrupt note makes nobody wait for ever or too briefly.
func (n Note) life() time.Duration {
	if n.Life <= 0 {
		return busyLife // an earlier version wrote the note; it knew no other life
	}
	return min(max(time.Duration(n.Life*float64(time.Second)), busyLife), time.Hour)
}

// body returns the note as it is stored.
func (n Note) body() (store.Body, error) {
	data, err := json.Marshal(n)
	if err != nil {
		return store.Body{}, fmt.Errorf("encode lease: %w", err)
	}
	return bodyOf(data), nil
}

func bodyOf(data []byte) store.Body {
	sum := sha256.Sum256(data)
	return store.Body{
		Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:]),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
	}
}

// Read returns a replica's lease and its ETag. A replica without a lease, or a bucket or
// directory that does not exist yet, is no error.
func Read(ctx context.Context, st store.Store) (note Note, etag string, found bool, err error) {
	body, object, err := st.Get(ctx, Key, 0, -1)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrMisplaced) {
		// The first write creates the place, or reports why it cannot.
		return Note{}, "", false, nil
	}
	if err != nil {
		return Note{}, "", false, fmt.Errorf("read lease: %w", err)
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, 1<<16))
	if err != nil {
		return Note{}, "", false, fmt.Errorf("read lease: %w", err)
	}
	if err := json.Unmarshal(data, &note); err != nil {
		return Note{}, "", false, fmt.Errorf("read lease: %w: %w", store.ErrCorrupt, err)
	}
	return note, object.ETag, true, nil
}
