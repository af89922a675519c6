// Package store defines the storage of replicas: the contract of a Store, the format of its
// keys and the metadata of its objects. Implementations are store/s3 and store/file;
// store/storetest tests them against the contract.
package store

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// The errors that a Store returns, wrapped with the operation and the key.
var (
	ErrNotFound    = errors.New("object not found")
	ErrExists      = errors.New("object exists already") // the condition Create or Match was not met
	ErrConflict    = errors.New("conflicting write in progress: retry")
	ErrAuth        = errors.New("access denied")
	ErrMisplaced   = errors.New("no such bucket or directory") // configuration: retrying will not help
	ErrUnavailable = errors.New("store unavailable")           // worth retrying later
	ErrCorrupt     = errors.New("stored object is corrupt")    // its bytes are not those that were stored
	ErrListing     = errors.New("listing cannot be trusted")   // out of order, endless, or incomplete
)

// Unsent is the error of a request that was held back and never sent, because its endpoint
// answered nobody. If it is repeated, it waits again and is sent as soon as the endpoint answers.
type Unsent interface {
	error
	Unsent()
}

// Store keeps immutable objects under short keys in one replica's own space (a
// bucket and prefix, or a directory). Keys are canonical, the same for every
// kind of store: "0000/0000000000000001-0000000000000001.ltx" for LTX files (see
// LTXKey) and "sqlwatch/…" for our own notes; a store maps them to its own layout.
//
// Durable: Put returns nil only once the object survives a power cut, or the provider
// has confirmed it. Idempotent: every call may be repeated. Retries: the store retries
// errors of the transport within one call's deadline; the caller retries the rest.
// Concurrent: all methods may be called from any number of goroutines. Errors: those
// above, matched with errors.Is; any other error is unexpected and worth a retry later.
type Store interface {
	// Put stores body under key and returns the object as stored. Without a
	// condition in opts it replaces. On ErrExists nothing was changed.
	// Readers never see part of an object.
	Put(ctx context.Context, key string, body Body, opts PutOptions) (Object, error)

	// Get returns length bytes from offset; length -1 means to the end, length 0 fetches only
	// the description (the reader is then nil). The Object describes the whole object. The store
	// resumes a body that breaks off; a reader must never end early without an error.
	Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, Object, error)

	// List yields the objects whose key begins with prefix and sorts after
	// `after`, in ascending order of key. Object.Metadata is nil if the store would
	// need a request per object; Get with length 0 returns it. Iteration ends after
	// the first error. A listing that is detectably incomplete ends with ErrListing.
	List(ctx context.Context, prefix, after string) iter.Seq2[Object, error]

	// Delete removes keys. A missing key is no error. A key that cannot be removed does not
	// stop the others: a *DeleteError names those that are left.
	Delete(ctx context.Context, keys ...string) error
}

// Directory is a Store in a directory of this machine, where reads and listings are cheap.
type Directory interface {
	Dir() string // its absolute path
}

// Body is what Put stores. Size is -1 for a stream of unknown length, which can
// be read once; otherwise Open may be called again for each retry.
type Body struct {
	Size   int64
	AtMost int64  // of a stream: an upper bound of its size, 0 if unknown; determines the size of parts
	SHA256 string // hex; "" if not known beforehand
	Pace   Pace   // how fast it may be sent
	Open   func() (io.ReadCloser, error)
}

// PutOptions are the conditions and metadata of one Put.
type PutOptions struct {
	Create   bool              // only if the key does not exist (If-None-Match: *)
	Match    string            // only if the object's ETag is this (If-Match); "" is no condition
	Metadata map[string]string // lower-case keys, ASCII values: see the Meta constants
}

// Object describes one stored object.
type Object struct {
	Key      string
	Size     int64
	ETag     string            // opaque; unchanged exactly as long as nothing has replaced the object
	Modified time.Time         // by the store's clock: never used for decisions about commits
	Metadata map[string]string // nil if the store did not return it
}

// The metadata keys that travel with LTX objects.
const (
	MetaTimestamp = "litestream-timestamp" // RFC 3339 with nanoseconds, strictly monotone in TXID order
	MetaChecksum  = "sqlwatch-checksum"    // database checksum after applying, 16 hex digits
	MetaLineage   = "sqlwatch-lineage"     // names the unbroken history that the object belongs to
	MetaSHA256    = "sqlwatch-sha256"      // of the object's bytes, hex
	MetaReason    = "sqlwatch-reason"      // why the database was compared, if it was

	// MetaAfter is on a snapshot that begins a chain without joining the previous one: the last
	// TXID before it that the replica has or will get, 16 hex digits. No TXID in between was or
	// will be stored, except as a snapshot.
	MetaAfter = "sqlwatch-after"
)
