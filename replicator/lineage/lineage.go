// Package lineage binds a replica to the history of one original database. A replica names
// its lineage in one small object; a writer must prove that it continues that history, or a
// person must tell it to. That nobody has written for a long time proves nothing: a database
// may be quiet for weeks.
package lineage

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Key is the key of the object that names a replica's lineage.
const Key = "sqlwatch/lineage"

// Lineage is the object: the history of one original.
type Lineage struct {
	ID           string        `json:"id"` // drawn at random when the history began
	PageSize     int           `json:"page_size,omitempty"`
	Made         time.Time     `json:"made"`
	By           string        `json:"made_by"`                // host and database
	Keep         float64       `json:"keep_seconds,omitempty"` // how long its restore points are kept
	Predecessors []Predecessor `json:"predecessors,omitempty"` // newest last
}

// Predecessor is a lineage that another one succeeded in the same replica.
type Predecessor struct {
	ID    string    `json:"id,omitempty"` // "": its files had no named lineage
	Made  time.Time `json:"made,omitzero"`
	By    string    `json:"made_by,omitempty"`
	Ended time.Time `json:"ended"`
	Keep  float64   `json:"keep_seconds,omitempty"`
	Until ltx.TXID  `json:"until_txid"` // its last possible TXID; the successor's files begin after it
}

// maxPredecessors bounds the object: the files of older lineages are long gone.
const maxPredecessors = 64

// NewID returns an ID that no other lineage has.
func NewID() string { return rand.Text() }

// Succeed returns l as the successor of old, whose files end at until. The old files are kept
// for old's own Keep, or for l's if old has none.
func (l Lineage) Succeed(old Lineage, until ltx.TXID, ended time.Time) Lineage {
	keep := old.Keep
	if keep <= 0 {
		keep = l.Keep
	}
	all := append(old.Predecessors[:len(old.Predecessors):len(old.Predecessors)],
		Predecessor{ID: old.ID, Made: old.Made, By: old.By, Ended: ended.UTC(), Keep: keep, Until: until})
	l.Predecessors = all[max(0, len(all)-maxPredecessors):]
	return l
}

// Spared reports whether a file that ends at txid belongs to a predecessor whose own Keep
// has not passed at now: the successor's retention must not delete it.
func (l Lineage) Spared(txid ltx.TXID, now time.Time) bool {
	for _, p := range l.Predecessors {
		if txid <= p.Until && now.Before(p.Ended.Add(time.Duration(p.Keep*float64(time.Second)))) {
			return true
		}
	}
	return false
}

// Follows reports whether l is the lineage id or one of its successors.
func (l Lineage) Follows(id string) bool {
	if l.ID == id {
		return true
	}
	for _, p := range l.Predecessors {
		if p.ID == id {
			return true
		}
	}
	return false
}

// Stored is a lineage as read from a replica.
type Stored struct {
	Lineage
	Found bool
	ETag  string
}

// Read returns a replica's lineage. A replica without one is no error.
func Read(ctx context.Context, st store.Store) (Stored, error) {
	body, object, err := st.Get(ctx, Key, 0, -1)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrMisplaced) {
		return Stored{}, nil
	}
	if err != nil {
		return Stored{}, fmt.Errorf("read lineage: %w", err)
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, 1<<20))
	if err != nil {
		return Stored{}, fmt.Errorf("read lineage: %w", err)
	}
	got := Stored{Found: true, ETag: object.ETag}
	if err := json.Unmarshal(data, &got.Lineage); err != nil || got.ID == "" {
		return Stored{}, fmt.Errorf("read lineage: %w: %.80q", store.ErrCorrupt, data)
	}
	return got, nil
}

// NameOf returns the ID of a replica's lineage, "" for none.
func NameOf(ctx context.Context, st store.Store) (string, error) {
	line, err := Read(ctx, st)
	return line.ID, err
}

// Write stores l in place of instead, with conditions if the store honours them, and reads it
// back. It returns store.ErrExists if another writer's lineage is there. The caller holds the
// replica's lease.
func Write(ctx context.Context, st store.Store, l Lineage, instead Stored, conditions bool) error {
	data, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("write lineage: %w", err)
	}
	sum := sha256.Sum256(data)
	body := store.Body{
		Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:]),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
	}
	var o store.PutOptions
	if conditions {
		o = store.PutOptions{Create: !instead.Found, Match: instead.ETag}
	}
	if _, err := st.Put(ctx, Key, body, o); err != nil && !errors.Is(err, store.ErrExists) {
		return fmt.Errorf("write lineage: %w", err)
	}
	got, err := Read(ctx, st) // even if a condition failed: it may be ours, by an earlier attempt whose reply was lost
	if err != nil {
		return err
	}
	if got.ID != l.ID || len(got.Predecessors) != len(l.Predecessors) {
		return fmt.Errorf("write lineage: %w: it is %s of %s", store.ErrExists, got.ID, got.By)
	}
	return nil
}
