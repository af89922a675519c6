package doctor

import (
	"fmt"
	"io/fs"
	"strings"

	"github.com/sqlwatch/sqlwatch/internal/show"
)

func missing(f Facts) []Finding {
	if f.State != StateMissing {
		return nil
	}
	return one("missing", Critical, fmt.Sprintf("there is no file at %s", f.Path),
		"nothing is watched or replicated until the application creates it; a wrong path looks the same",
		"start the application once, or correct `path` in the configuration")
}

func notDatabase(f Facts) []Finding {
	if f.State != StateNotDatabase {
		return nil
	}
	return one("not-a-database", Critical, fmt.Sprintf("%s is not an SQLite database: %s", f.Path, f.StateErr),
		"only plain SQLite files can be read; one that is encrypted (SQLCipher, SEE) cannot",
		"correct `path` in the configuration; to see what the file is: file "+show.Quote(f.Path))
}

func unreadable(f Facts) []Finding {
	if f.State != StateUnreadable {
		return nil
	}
	return one("unreadable", Critical, fmt.Sprintf("uid %d may not read the database: %s", f.UID, f.StateErr),
		"the database can be neither watched nor replicated",
		"run as the database's owner; to see who that is: stat -c %U "+show.Quote(f.Path))
}

func emptyFile(f Facts) []Finding {
	if f.State != StateEmpty {
		return nil
	}
	return one("empty", Note, f.Path+" is an empty file", "SQLite writes the header with the first table",
		"nothing to do: sqlwatch picks it up at the first write")
}

func (f Facts) readable() bool { return f.State == StateDatabase }

func journalMode(f Facts) []Finding {
	if !f.readable() || f.File.WALMode {
		return nil
	}
	return one("journal-mode", Critical, "the database uses a rollback journal, not WAL",
		"readers and the writer block each other, and sqlwatch cannot measure, checkpoint or replicate it",
		fmt.Sprintf("sqlwatch doctor --fix %s, or once from the application: PRAGMA journal_mode=WAL; (the file remembers "+
			"it)", show.Quote(f.Path)))
}

// CanTurnWALOn reports whether WAL mode is off and may be turned on. It would do harm on a
// network file system, and under a uid other than the owner's.
func CanTurnWALOn(f Facts) bool {
	return len(journalMode(f)) > 0 && len(networkFilesystem(f)) == 0 && len(foreignOwner(f)) == 0
}

func walResetBug(f Facts) []Finding {
	if !f.readable() || !f.File.WALResetBug {
		return nil
	}
	return one("wal-reset-bug", Warning, fmt.Sprintf("the application writes with SQLite %s, which has the WAL-reset "+
		"bug (3.7.0 to 3.51.2)", f.File.Engine),
		walResetWhy, walResetCure)
}

const (
	walResetWhy = "a checkpoint that starts just as another connection restarts the WAL can lose commits that were " +
		"reported as done"
	walResetCure = "give the application SQLite 3.51.3 or later, or 3.50.7 or 3.44.6 of the older series: upgrade " +
		"libsqlite3 for Python, PHP and Ruby, the driver where it brings its own (Go, Node); until then keep checkpoints " +
		"rare"
)

func pageChecksums(f Facts) []Finding {
	if !f.readable() || !f.File.PageChecksums {
		return nil
	}
	return one("page-checksums", Critical, "the database's pages carry checksums (cksumvfs, 8 reserved bytes)",
		"a page written without its checksum is a disk I/O error for the application, so sqlwatch measures the database "+
			"and neither checkpoints nor replicates it",
		fmt.Sprintf("rebuild it without them while the application is stopped: sqlite3 %s '.filectrl reserve_bytes 0' "+
			"'PRAGMA journal_mode=delete' VACUUM 'PRAGMA journal_mode=wal'", show.Quote(f.Path)))
}

func networkFilesystem(f Facts) []Finding {
	if !f.Place.Network {
		return nil
	}
	what := fmt.Sprintf("the database is on %s, a network file system, mounted at %s", f.Place.Type, f.Place.Point)
	if strings.HasPrefix(f.Place.Type, "fuse") {
		what = fmt.Sprintf("the database is on %s, a FUSE file system, mounted at %s: doctor cannot tell whether locks and "+
			"shared memory work on it, and checked nothing else", f.Place.Type, f.Place.Point)
	}
	return one("network-filesystem", Critical, what,
		"WAL mode needs shared memory and locks that every process sees; over a network it corrupts databases",
		"move the database to a local disk (ext4, xfs, btrfs, zfs) and replicate it elsewhere; only one host may open it")
}

func volatileFilesystem(f Facts) []Finding {
	if !f.readable() || !f.Place.Volatile {
		return nil
	}
	return one("volatile-filesystem", Warning,
		fmt.Sprintf("the database is on %s, mounted at %s, which is lost at the next boot", f.Place.Type, f.Place.Point),
		"every commit that is not replicated yet is lost with the memory",
		"move it to a disk; if it is only a cache, there is nothing to do")
}

func overlayFilesystem(f Facts) []Finding {
	if !f.readable() || f.Place.Type != "overlay" {
		return nil
	}
	return one("overlay-filesystem", Critical, "the database is in a container's own layer (overlay), not in a volume",
		"it disappears with the container at the next deploy, and its locks cannot be seen from outside",
		"mount a volume over its directory: docker run -v app-data:"+show.Quote(f.File.Dir)+" …")
}

func readOnlyFilesystem(f Facts) []Finding {
	switch {
	case !f.readable():
		return nil
	case f.Place.ReadOnlyHere:
		return one("read-only-filesystem", Warning, "the file system at "+f.Place.Point+" is mounted read-only here",
			"the application may see it otherwise, but a sqlwatch that sees it so can neither checkpoint nor replicate",
			"let sqlwatch write there: ReadWritePaths= in its unit, no :ro at its container's volume")
	case !f.Place.ReadOnly:
		return nil
	}
	return one("read-only-filesystem", Critical, "the file system at "+f.Place.Point+" is read-only",
		"the application cannot commit; Linux makes a file system read-only after disk errors", writable(f.Place))
}

func foreignOwner(f Facts) []Finding {
	if !f.readable() || f.UID == f.File.UID || f.UID == 0 && f.CanChown {
		return nil
	}
	return one("foreign-owner", Critical, fmt.Sprintf("the database belongs to uid %d and sqlwatch runs as uid %d",
		f.File.UID, f.UID),
		"the process that opens it first creates -wal and -shm; under another uid they would lock the application out, so "+
			"sqlwatch does not open it",
		fmt.Sprintf("run as its owner: sudo -u '#%d' sqlwatch run …; with systemd, User=%d", f.File.UID, f.File.UID))
}

func runningAsRoot(f Facts) []Finding {
	if !f.readable() || f.UID != 0 || f.File.UID == 0 {
		return nil
	}
	return one("running-as-root", Note, fmt.Sprintf("this runs as root, the database belongs to uid %d", f.File.UID),
		"sqlwatch does not need root's rights",
		fmt.Sprintf("let the daemon run as the owner: User=%d in its systemd unit", f.File.UID))
}

func sideFileOwner(f Facts) []Finding {
	var found []Finding
	for _, s := range f.File.SideFiles {
		if s.UID == f.File.UID {
			continue
		}
		found = append(found, one("side-file-owner", Critical, fmt.Sprintf("%s belongs to uid %d, the database to uid %d",
			s.Path, s.UID, f.File.UID),
			`the application gets "attempt to write a readonly database": somebody opened the database under another uid `+
				`while it was closed`,
			fmt.Sprintf("chown --reference=%s %s, and open the database under its owner's uid only", show.Quote(f.Real),
				show.Quote(s.Path)))...)
	}
	return found
}

func fileMode(f Facts) []Finding {
	switch {
	case !f.readable():
		return nil
	case f.File.Mode&0o002 != 0:
		return one("world-writable", Warning, fmt.Sprintf("every user of this machine may write the database (mode %04o)",
			f.File.Mode.Perm()),
			"any of them can change or destroy the data", "chmod o-rwx "+show.Quote(f.Real))
	case f.File.Mode&0o200 == 0:
		return one("file-read-only", Warning, fmt.Sprintf("the database's owner may not write it (mode %04o)",
			f.File.Mode.Perm()),
			"commits fail, unless the application is root", "chmod u+w "+show.Quote(f.Real))
	case f.File.Mode&0o004 != 0:
		return one("world-readable", Note, fmt.Sprintf("every user of this machine may read the database (mode %04o)",
			f.File.Mode.Perm()),
			"anyone on this machine can read its content; -wal and -shm take the same mode", "chmod o-rwx "+show.Quote(f.Real))
	}
	return nil
}

// directoryMode checks whether the database's owner can create -wal and -shm. It does not look
// at groups beyond the file's own, nor at access lists.
func directoryMode(f Facts) []Finding {
	if !f.readable() || f.File.UID == 0 {
		return nil
	}
	bits := fs.FileMode(0o003)
	switch {
	case f.File.DirUID == f.File.UID:
		bits = 0o300
	case f.File.DirGID == f.File.GID:
		bits = 0o030
	}
	if f.File.DirMode&bits == bits {
		return nil
	}
	return one("directory-not-writable", Warning,
		fmt.Sprintf("uid %d, the database's owner, may not create files in %s (mode %04o)", f.File.UID, f.File.Dir,
			f.File.DirMode.Perm()),
		`-wal and -shm are created there: the application gets "unable to open database file" or `+
			`"attempt to write a readonly database"`,
		fmt.Sprintf("chown %d %s && chmod u+rwx %s", f.File.UID, show.Quote(f.File.Dir), show.Quote(f.File.Dir)))
}

func hardLinks(f Facts) []Finding {
	if !f.readable() || f.File.Links <= 1 {
		return nil
	}
	return one("hard-link", Critical, fmt.Sprintf("the database has %d names (hard links)", f.File.Links),
		"each name has its own -wal and -shm: if it is opened by two names, it gets corrupted",
		fmt.Sprintf("find %s -xdev -samefile %s, then remove all names but one (replace a backup made by `cp -l` or `ln` "+
			"with `sqlwatch restore`)", show.Quote(f.Place.Point), show.Quote(f.Real)))
}

func symbolicLink(f Facts) []Finding {
	switch {
	case !f.readable():
		return nil
	case f.File.Symlink != "":
		return one("symlink", Warning, fmt.Sprintf("%s is a symbolic link to %s", f.Path, f.Real),
			"-wal and -shm are next to the target; if a deploy points the link at another file, commits stay behind in the "+
				"old -wal",
			fmt.Sprintf("use the path of the file itself, here and in the application: %s", f.Real))
	case f.File.SymlinkDirectory:
		return one("symlink-directory", Note,
			fmt.Sprintf("a directory in %s is a symbolic link; the file is %s", f.Path, f.Real),
			"a link such as `current` that changes at each deploy would mean another database each time",
			"keep the database outside the directories that a deploy replaces")
	}
	return nil
}

// Room that must be left: a checkpoint, a VACUUM and a restore each need some.
const (
	tightBytes = 100 << 20
	tightRatio = 0.05
)

func diskFree(f Facts) []Finding {
	p := f.Place
	if !f.readable() || p.Size == 0 || p.Volatile {
		return nil
	}
	free := fmt.Sprintf("%s of %s are free on %s", show.Bytes(int64(p.Available)), show.Bytes(int64(p.Size)), p.Point)
	cure := fmt.Sprintf("free or add space; to see what uses it: du -xh --max-depth=2 %s | sort -h | tail",
		show.Quote(p.Point))
	if p.Available < tightBytes || float64(p.Available) < tightRatio*float64(p.Size) {
		return one("disk-full", Critical, "the disk is nearly full: "+free,
			`commits fail with "database or disk is full", and a WAL that cannot grow stops every writer`, cure)
	}
	if need := uint64(f.File.Size + f.File.WALSize); p.Available < need {
		return one("disk-tight", Warning, fmt.Sprintf("%s, the database and its WAL take %s", free, show.Bytes(int64(need))),
			"a VACUUM or a restore next to it needs the same space again", cure)
	}
	return nil
}

// leftOvers reports databases that the configuration no longer names.
func leftOvers(h Host) []Finding {
	var all []Finding
	for _, text := range h.LeftOver {
		what, cure, _ := strings.Cut(text, "\n")
		all = append(all, one("left-over-state", Warning, what,
			"a renamed database begins a new history; what the old one stored stays, and is paid for, until somebody deletes it",
			strings.TrimSpace(cure))...)
	}
	return all
}

// stateDirSpace reports a state directory without room for what waits for a replica.
func stateDirSpace(h Host) []Finding {
	p := h.StateDirPlace
	if !h.StateDirExists || p.Size == 0 || p.Available >= tightBytes {
		return nil
	}
	return one("state-directory-full", Critical, fmt.Sprintf("%s of %s are free on %s, which holds the state directory %s",
		show.Bytes(int64(p.Available)), show.Bytes(int64(p.Size)), p.Point, h.StateDir),
		"captured commits wait there until they are uploaded; without space capture stops",
		fmt.Sprintf("free or add space; to see what uses it: du -xh --max-depth=2 %s | sort -h | tail", show.Quote(p.Point)))
}

// writable is the cure of a file system that is read-only.
func writable(p Place) string {
	return fmt.Sprintf("look for disk errors with `dmesg`; after one, unmount it, check it with fsck and mount it again; "+
		"else: mount -o remount,rw %s", show.Quote(p.Point))
}

func stateDirMissing(h Host) []Finding {
	if h.StateDir != "" && (h.StateDirPlace.ReadOnly || h.StateDirPlace.ReadOnlyHere) {
		return one("state-directory-read-only", Critical, fmt.Sprintf("the file system at %s, which holds the state "+
			"directory %s, is read-only", h.StateDirPlace.Point, h.StateDir),
			"captured commits are kept there until they are uploaded: nothing new is replicated",
			writable(h.StateDirPlace)+"; then restart sqlwatch")
	}
	if h.StateDir == "" || h.StateDirErr == "" {
		return nil
	}
	return one("state-directory", Critical, fmt.Sprintf("the state directory %s cannot be used: %s", h.StateDir,
		h.StateDirErr),
		"captured commits are kept there until they are uploaded; without it there is no replication",
		fmt.Sprintf("install -d -m 0700 -o %d %s, or set server.state_dir (systemd: StateDirectory=sqlwatch)", h.UID,
			show.Quote(h.StateDir)))
}

func stateDirMode(h Host) []Finding {
	if !h.StateDirExists || h.StateDirMode&0o077 == 0 {
		return nil
	}
	return one("state-directory-open", Warning, fmt.Sprintf("other users may enter the state directory %s (mode %04o)",
		h.StateDir, h.StateDirMode.Perm()),
		"it holds copies of your data that wait for their upload", "chmod 0700 "+show.Quote(h.StateDir))
}

func stateDirVolatile(h Host) []Finding {
	if !h.StateDirPlace.Volatile && !h.StateDirPlace.Network {
		return nil
	}
	return one("state-directory-place", Warning, fmt.Sprintf("the state directory %s is on %s", h.StateDir,
		h.StateDirPlace.Type),
		"commits that are captured but not yet uploaded are not safe there, and each start costs a comparison with the "+
			"replica",
		"set server.state_dir to a directory on a local disk, such as /var/lib/sqlwatch")
}

func configuration(h Host) []Finding {
	var found []Finding
	for _, tip := range h.ConfigurationTip {
		found = append(found, one("configuration", Warning, tip, "`sqlwatch check` says the same",
			"sqlwatch check shows the line")...)
	}
	return found
}
