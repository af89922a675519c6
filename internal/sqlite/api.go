// Package sqlite is the only place of the project that runs SQL. It opens a
// watched database under every guard that keeps the application safe from us,
// holds read transactions, and runs checkpoints within a budget.
//
// A Conn is one connection of the driver, not a pool: what a checkpoint may
// reset depends on which connection holds which lock. The database's
// descriptors (internal/dbfile) are opened before the first Conn and closed
// after the last, since any close of a descriptor drops the process's locks.
package sqlite

import (
	"errors"
	"io/fs"
)

// Errors to be told apart with errors.Is.
var (
	ErrBusy         = errors.New("database is locked by another connection")
	ErrForeignOwner = errors.New("database belongs to another user")
	ErrNotWAL       = errors.New("database is not in WAL mode")
	ErrReadOnly     = errors.New("database cannot be written")
	ErrCorrupt      = errors.New("database is corrupt or not a database")
	ErrSchema       = errors.New("the schema cannot be read")
	ErrNoMemory     = errors.New("SQLite got no memory")
	ErrNotExist     = fs.ErrNotExist
	ErrReplaced     = errors.New("other files are at the database's paths than the connection's")
	// ErrIndexCut says that a connection is of no use any more: close it, and all others of
	// this process to the database.
	ErrIndexCut = errors.New("somebody cut the -shm file short while it was in use, or it cannot be mapped")
)

// ErrPageChecksums says that the database's pages carry checksums that this SQLite does
// not write: one checkpoint of ours, and the application could not read it any more.
var ErrPageChecksums = errors.New("the database's pages carry checksums (cksumvfs, 8 reserved bytes): sqlwatch only " +
	"measures it and does not checkpoint or replicate it, " +
	"because a page without its checksum is an I/O error for the application; to have it replicated, rebuild it " +
	"without: .filectrl reserve_bytes 0 and VACUUM in the sqlite3 shell")

// Options says how a watched database is opened.
type Options struct {
	ReadOnly bool // for read transactions only: neither checkpoints nor write locks
	// called before the connection is used after a Shed, nil: nothing. See dbfile.Rejoin.
	Rejoin func() error
	// Inodes of the -wal and of the -shm that the connection must use. 0: whichever it finds, or makes. Where others
	// are at the paths, or none, Open makes none and returns ErrReplaced.
	WAL, Shm uint64
}

// Source is a database to be copied, as it was found.
type Source struct {
	Path     string
	WAL      bool // its header says so
	Attached bool // and a process is connected to it
}

// Hooks are called from within a checkpoint, on its goroutine, when SQLite has taken or is about to take certain
// locks. They may use every connection but the one that checkpoints. If a hook returns an error or panics, the
// checkpoint is given up; nothing was reset.
type Hooks struct {
	// CheckpointLocked is called when the checkpoint lock is ours and nobody else can
	// checkpoint, before the marks of readers are looked at.
	CheckpointLocked func() error
	// WriteLocked is called when the write lock is ours as well: of a TRUNCATE only.
	WriteLocked func() error
	// BeforeReset is called when every frame is in the database and the WAL is about
	// to be reset. It is not called when SQLite does not get that far.
	BeforeReset func() error
}
