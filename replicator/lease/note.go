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

// Key is where a replica says who writes to it.
const Key = "sqlwatch/lease"

// Note is the lease object.
type Note struct {
	Fence    uint64    `json:"fence"` // rises with every change of hands
	Nonce    string    `json:"nonce"` // of this very note
	Owner    string    `json:"owner"`
	Boot     string    `json:"boot,omitempty"`    // of the owner's machine, since when it runs
	Process  string    `json:"process,omitempty"` // the owner's, see ThisProcess
	File     string    `json:"file,omitempty"`    // what the owner replicates, see Options.File
	Lineage  string    `json:"lineage,omitempty"` // that the replica was named for by then; "": not known
	Life     float64   `json:"life_seconds,omitempty"`
	Expires  time.Time `json:"expires"` // Life by the owner's clock, for people and for versions that believe it
	Released bool      `json:"released,omitempty"`
}

// life is how long the note must be watched unchanged before another may take the
// lease. Nothing that a stranger wrote makes anybody wait for long, or hardly at all.
func (n Note) life() time.Duration {
	if n.Life <= 0 {
		return busyLife // of an earlier version, which wrote no other
	}
	return min(max(time.Duration(n.Life*float64(time.Second)), busyLife), time.Hour)
}

// body is what is stored.
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

// Read returns the lease that a replica holds, and its ETag. A replica without one,
// or a place that is not there yet, is no error.
func Read(ctx context.Context, st store.Store) (note Note, etag string, found bool, err error) {
	body, object, err := st.Get(ctx, Key, 0, -1)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrMisplaced) {
		// The first write makes the place, or says why not.
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
