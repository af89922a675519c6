// Package store is what replicas are stored through: what a Store promises, how its
// keys are spelled and what travels with its objects. The stores are store/s3 and
// store/file; store/storetest holds them to their promises.
package store

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// The errors that a Store returns, wrapped with what it was doing to what.
var (
	ErrNotFound    = errors.New("object not found")
	ErrExists      = errors.New("object exists already") // Create or Match was not fulfilled
	ErrConflict    = errors.New("conflicting write in progress: retry")
	ErrAuth        = errors.New("access denied")
	ErrMisplaced   = errors.New("no such bucket or directory") // configuration: retrying will not help
	ErrUnavailable = errors.New("store unavailable")           // worth retrying later
	ErrCorrupt     = errors.New("stored object is corrupt")    // its bytes are not those that were stored
	ErrListing     = errors.New("listing cannot be trusted")   // out of order, endless, or without what is there
)

// Unsent is an error of a request that waited for its endpoint to answer anybody, and was not
// sent. Who repeats it waits there again, and is released as soon as there is an answer.
type Unsent interface {
	error
	Unsent()
}

// Store keeps immutable objects under short keys in one replica's own space (a
// bucket and prefix, or a directory). Keys are canonical, the same for every
// kind of store: "0000/0000000000000001-0000000000000001.ltx" for LTX files (see
// LTXKey) and "sqlwatch/…" for our own notes; a store maps them to its own layout.
//
// Durable: Put has returned nil only when the object survives a power cut or the
// provider says so. Idempotent: every call may be repeated. Who retries: the
// store retries what its transport can repair within one call's deadline; the
// caller retries the rest. Concurrent: all methods may be called from any number
// of goroutines. Errors: those above, matched with errors.Is; anything else is
// unexpected and worth a retry later.
type Store interface {
	// Put stores body under key and returns the object as stored. Without a
	// condition in opts it replaces. On ErrExists nothing was changed.
	// Readers never see part of an object.
	Put(ctx context.Context, key string, body Body, opts PutOptions) (Object, error)

	// Get returns length bytes from offset; length -1 is to the end, length 0
	// fetches the description only (the reader is then nil). The object describes the whole.
	// A reader that breaks off is resumed by the store; one that ends early without an error is a defect.
	Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, Object, error)

	// List yields the objects whose key begins with prefix and sorts after
	// `after`, in ascending order of key. Object.Metadata and Timestamp may be
	// missing where the store would need a request per object: Get with
	// length 0 tells. Iteration ends after the first error. A listing that cannot be
	// the whole one is ErrListing, where that shows.
	List(ctx context.Context, prefix, after string) iter.Seq2[Object, error]

	// Delete removes keys. A key that is not there is no error, and one that cannot be
	// removed keeps no other: a *DeleteError names those that are left.
	Delete(ctx context.Context, keys ...string) error
}

// Directory is a Store in a directory of this machine, where a look costs no request.
type Directory interface {
	Dir() string // its absolute path
}

// Body is what Put stores. Size is -1 for a stream of unknown length, which can
// be read once; otherwise Open may be called again for each retry.
type Body struct {
	Size   int64
	AtMost int64  // of a stream: about what it cannot exceed, 0 when not known. Decides how it is cut into parts
	SHA256 string // hex; "" when not known beforehand
	Pace   Pace   // how fast it may go out
	Open   func() (io.ReadCloser, error)
}

// PutOptions are the conditions and notes of one Put.
type PutOptions struct {
	Create   bool              // only if the key does not exist (If-None-Match: *)
	Match    string            // only if the object's ETag is this (If-Match); "" is no condition
	Metadata map[string]string // lower-case keys, ASCII values: see the Meta constants
}

// Object describes one stored object.
type Object struct {
	Key      string
	Size     int64
	ETag     string            // opaque; equal exactly when nothing has replaced the object
	Modified time.Time         // by the store's clock: never used for decisions about commits
	Metadata map[string]string // nil where the store did not tell
}

// The metadata keys that travel with LTX objects.
const (
	MetaTimestamp = "litestream-timestamp" // RFC 3339 with nanoseconds, strictly monotone in TXID order
	MetaChecksum  = "sqlwatch-checksum"    // database checksum after applying, 16 hex digits
	MetaLineage   = "sqlwatch-lineage"     // which unbroken history the object belongs to
	MetaSHA256    = "sqlwatch-sha256"      // of the object's bytes, hex
	MetaReason    = "sqlwatch-reason"      // why the database was compared, if it was

	// MetaAfter is on a whole database that begins a chain and whose TXID does not follow: up to
	// which one the replica had files before, or was to get them, 16 hex digits. None between
	// was ever stored, or is going to be, but for whole databases.
	MetaAfter = "sqlwatch-after"
)
