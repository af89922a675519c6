package collector

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/internal/owner"
)

var (
	errNotWAL    = errors.New("not in WAL mode")
	errMispaired = errors.New("the WAL is not the one its wal-index speaks of")
)

type networkFSError struct{ fstype string }

func (e networkFSError) Error() string { return "on the network file system " + e.fstype }

// diagnose converts an error about the database at path into its state and a message for the
// operator: what happened, what sqlwatch does, what to do next.
func diagnose(path string, err error) (State, string) {
	var foreign *owner.ForeignError
	var network networkFSError
	var stranger *dbfile.ForeignError
	switch {
	case errors.As(err, &stranger):
		return StateForeignWAL, fmt.Sprintf("%s: %v. Nothing acts on it, and no replica is called caught up. %s", path,
			stranger, stranger.Cure())
	case errors.Is(err, fs.ErrNotExist):
		return StateMissing, fmt.Sprintf("no file at %s: waiting for the application to create it. If the path is wrong, "+
			"correct it in the configuration.", path)
	case errors.Is(err, dbfile.ErrEmpty):
		return StateEmpty, fmt.Sprintf("%s is an empty file: waiting for the application's first write. Nothing to do.", path)
	case errors.Is(err, dbfile.ErrNotRegular):
		return StateNotDatabase, fmt.Sprintf("%s is %s and not a regular file: it is not opened. Correct the path in the "+
			"configuration.", path, kindOf(path))
	case errors.Is(err, dbfile.ErrNotDatabase):
		return StateNotDatabase, fmt.Sprintf("%s cannot be read as a database (%v): it is left alone and looked at again. "+
			"Correct the path; an encrypted database cannot be watched.", path, err)
	case errors.Is(err, dbfile.ErrAlreadyOpen):
		return StateUnreadable, fmt.Sprintf("%v: it is measured there and not here. Remove one of the two from the "+
			"configuration.", err)
	case errors.Is(err, errNotWAL):
		return StateNotWAL, fmt.Sprintf("%s is in rollback journal mode: its size is measured, checkpoints and replication "+
			"are off. Have the application run PRAGMA journal_mode=WAL once, or run `sqlwatch doctor --fix`.", path)
	case errors.As(err, &foreign):
		return StateForeignOwner, fmt.Sprintf("%s %s: only its size is measured, nothing acts on it. To change that, %s.",
			path, foreign.What, foreign.Cure)
	case errors.As(err, &network):
		return StateNetworkFS, fmt.Sprintf("%s is %v, where WAL mode can lose commits: it is not opened. Move it to a "+
			"local disk.", path, err)
	case errors.Is(err, fs.ErrPermission):
		return StateUnreadable, fmt.Sprintf("no permission: %v: nothing is measured. Run sqlwatch as the database's owner, "+
			"or as root.", err)
	case errors.Is(err, errMispaired):
		return StateUnreadable, fmt.Sprintf("%v: nothing is measured of %s. A -wal or -shm file was copied, restored or "+
			"deleted separately from its database: stop the application, put the right files together, and check them with "+
			"`PRAGMA integrity_check`.", err, path)
	case errors.Is(err, dbfile.ErrTorn):
		return StateUnreadable, fmt.Sprintf("%v: trying again at each sample. If it stays so, a process died while it "+
			"wrote: the next one that opens the database repairs it.", err)
	case errors.Is(err, dbfile.ErrDescriptors):
		return StateUnreadable, fmt.Sprintf("%s is not watched: no file descriptors are left for another database. Those "+
			"that are watched go on. Raise LimitNOFILE= of the unit, or ulimit -n, and restart sqlwatch.", path)
	case errors.Is(err, errScanBehind):
		return StateUnreadable, fmt.Sprintf("%s has no wal-index and a long WAL: %v, some megabytes a sample. Nothing to do.",
			path, err)
	}
	return StateUnreadable, fmt.Sprintf("cannot read %s: %v: trying again at each sample. See the system log for disk "+
		"errors.", path, err)
}

// kindOf describes the kind of file at path, for a message.
func kindOf(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return "special"
	}
	switch m := info.Mode(); {
	case m.IsDir():
		return "a directory"
	case m&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m&fs.ModeDevice != 0:
		return "a device"
	}
	return "special"
}
