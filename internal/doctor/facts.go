package doctor

import (
	"io/fs"
	"time"
)

// Facts are what is known of one database and its replicas.
type Facts struct {
	Name string // as configured
	Path string // as configured, absolute
	Real string // with links resolved

	State    State
	StateErr string // why it is not StateDatabase
	UID      int    // ours
	CanChown bool

	File      File
	WAL       WAL
	Place     Place
	Processes []Process
	Expected  int  // processes that may be attached; 0: any number
	Hidden    bool // a process of another pid namespace holds a lock
	// Unexamined are those of Processes of which little is known, because reading their programs does not return.
	Unexamined []Process

	Litestream Litestream
	Replicas   []Replica
}

// State is what kind of file is at the path.
type State int

// The states.
const (
	StateDatabase State = iota
	StateMissing
	StateNotDatabase
	StateEmpty
	StateUnreadable // we may not read it
	StateUnexamined // opening it might block forever
)

// File is the main file, its header, and its neighbours.
type File struct {
	Size, WALSize    int64
	PageSize         int
	WALMode          bool
	Engine           string // of the last writer; "" where it is not known
	WALResetBug      bool
	PageChecksums    bool // as cksumvfs writes them
	Encrypted        bool // behind a plain header
	UID, GID         int
	Mode             fs.FileMode
	Links            uint64
	Symlink          string // where the last element of Path leads, "" for no link
	SymlinkDirectory bool   // a directory on the way is a link
	Dir              string
	DirUID, DirGID   int
	DirMode          fs.FileMode
	SideFiles        []SideFile
}

// SideFile is a -wal, -shm or -journal that exists.
type SideFile struct {
	Path string
	UID  int
	Mode fs.FileMode
}

// WAL is what the wal-index and the locks said, at two moments a little apart.
type WAL struct {
	Known        bool
	Frames       uint32 // frames in use
	Backfilled   uint32
	LargestEver  int64 // frames the file has room for: its high-water mark
	IndexErr     string
	Attached     bool // another process is connected
	Exclusive    bool // another process holds it in exclusive locking mode
	Pinned       bool // one mark below the newest frame was held at both moments
	PinnedFrame  uint32
	PinnedOnFile bool // by a reader of the database file itself (READ0): nothing more may be copied into it
	PinnedBy     Process
	WriterStuck  bool // the write lock was held by one process at both moments, nothing committed
	Writer       Process
	ObservedOver time.Duration
}

// Place is the file system.
type Place struct {
	Type              string
	Point             string
	Size, Available   uint64
	Network, Volatile bool
	ReadOnly          bool
	ReadOnlyHere      bool // only for us: others may be able to write there
}

// Process is a process that is connected to the database.
type Process struct {
	PID     int
	Command string
	Age     time.Duration
	UID     int    // -1: not known
	Cmdline string // "" if not known
	Cgroup  string
	Deleted bool   // its program file has been replaced or removed
	Program string // the main package it was built from, if it is a Go program; otherwise ""
	Engine  uint32 // version of the SQLite that it has loaded; 0 if not known
}

// Litestream is evidence that Litestream replicates, or once replicated, the database.
type Litestream struct {
	Tables    []string
	TablesErr string // why the schema could not be read
	Dirs      []string
	Process   *Process // running with this database open
	Elsewhere bool     // it runs, but it is not known which files it has open
}

// Host is what is the same for all databases.
type Host struct {
	StateDir         string
	StateDirErr      string // why it cannot be used
	StateDirMode     fs.FileMode
	StateDirExists   bool
	StateDirPlace    Place
	UID              int
	ConfigurationTip []string // the configuration's warnings
	LeftOver         []string // what is kept of databases that are no longer configured, with the cure on a second line
}

// Replica is the result of a round trip to a replica.
type Replica struct {
	Name  string // "s3.main"
	Place string // its address, without credentials
	Kind  string // s3, file

	Skipped     string // why there was no round trip; the rest is then empty
	ListErr     error
	PutErr      error
	GetErr      error
	DeleteErr   error
	Corrupt     bool    // what was read is not what was written
	NotListed   bool    // what was written did not appear in the next listing
	Conditional Support // If-None-Match
	Matching    Support // If-Match
	Skew        time.Duration
	SkewKnown   bool // Skew is the store's clock minus ours
	Foreign     bool // files of another program are there, and none of ours
	Duration    time.Duration
	Odd         Quirks
	Dir         ReplicaDir
}

// ReplicaDir is the directory of a file replica.
type ReplicaDir struct {
	UID       int  // the owner's
	Missing   bool // it does not exist yet
	Forbidden bool // and it cannot be created
	SameDisk  bool // it is on the database's own file system
}

// Support reports whether a store honours conditional writes.
type Support int

// The answers.
const (
	Unknown Support = iota
	Honoured
	Ignored // accepts the header but overwrites
	Refused // answers that it does not support them
)
