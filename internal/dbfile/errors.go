package dbfile

import "errors"

// What can be wrong with a watched file. The errors come wrapped with the path or the frame; test with errors.Is.
var (
	ErrNotRegular  = errors.New("not a regular file")
	ErrNotDatabase = errors.New("not an SQLite database")
	ErrEmpty       = errors.New("empty database file")
	ErrDescriptors = errors.New("no descriptors to spare for another database: raise LimitNOFILE= of the unit, or " +
		"ulimit -n")
	ErrAlreadyOpen   = errors.New("database is already open in this process")
	ErrNoWAL         = errors.New("no WAL file, or one without a header")
	ErrNoWALIndex    = errors.New("no wal-index file")
	ErrUninitialised = errors.New("wal-index is not initialised")
	ErrTorn          = errors.New("wal-index header is being written, or its writer died")
	ErrFormat        = errors.New("unknown magic number, version or page size")
	ErrChecksum      = errors.New("checksum does not match")
	ErrSalt          = errors.New("salt of another WAL generation")
)
