package doctor

import (
	"fmt"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/show"
)

// The application's own checkpoint, wal_autocheckpoint, runs at 1,000 frames unless it was
// configured. One large transaction or a slow reader may take the WAL beyond that, but several
// times that size is no accident.
const (
	autocheckpointFrames = 1000
	suspiciousFrames     = 4 * autocheckpointFrames
	largeWAL             = 64 << 20
)

func walSize(f Facts) []Finding {
	if !f.readable() || !f.File.WALMode || f.File.WALSize < largeWAL {
		return nil
	}
	used := "how much of it is in use is unknown"
	if f.WAL.Known {
		used = fmt.Sprintf("%d frames of %d are in use", f.WAL.Frames, f.WAL.LargestEver)
	}
	return one("wal-size", Warning, fmt.Sprintf("the WAL takes %s, the database %s; %s",
		show.Bytes(f.File.WALSize), show.Bytes(f.File.Size), used),
		"a WAL file never shrinks on its own, reads have to search the part in use, and it takes disk space",
		fmt.Sprintf("now: sqlwatch checkpoint %s; for good: run the daemon, whose default policy does that, and PRAGMA "+
			"journal_size_limit=67108864 in the application", show.Quote(f.Path)))
}

func autocheckpoint(f Facts) []Finding {
	w := f.WAL
	if !f.readable() || !w.Known || w.Pinned || !w.Attached {
		return nil
	}
	backlog := uint32(0)
	if w.Frames > w.Backfilled {
		backlog = w.Frames - w.Backfilled
	}
	if backlog < suspiciousFrames {
		return nil
	}
	return one("autocheckpoint", Warning, fmt.Sprintf("%d frames wait for a checkpoint and no reader holds them: "+
		"the application's wal_autocheckpoint is off, or far above the usual %d", backlog, autocheckpointFrames),
		"nothing moves commits into the database file: the WAL grows, and reads become slower",
		"PRAGMA wal_autocheckpoint=1000; on each of the application's connections, unless sqlwatch or another checkpointer "+
			"should do it (the setting cannot be read from outside; this is inferred)")
}

func pinnedReader(f Facts) []Finding {
	w := f.WAL
	if !f.readable() || !w.Pinned || w.Frames-w.PinnedFrame < autocheckpointFrames {
		return nil
	}
	if w.PinnedBy.isSqlwatch() && len(f.Replicas) > 0 && f.File.WALSize < largeWAL {
		return nil // sqlwatch's capture, which lets the WAL restart in time
	}
	what := fmt.Sprintf("%s has been reading at frame %d of %d for at least %s",
		w.PinnedBy.name(), w.PinnedFrame, w.Frames, w.ObservedOver.Round(time.Millisecond))
	if w.PinnedOnFile {
		what = fmt.Sprintf("%s has been reading the database file as it was before the WAL for at least %s; %d frames wait "+
			"behind it", w.PinnedBy.name(), w.ObservedOver.Round(time.Millisecond), w.Frames-w.PinnedFrame)
	}
	return one("pinned-reader", Warning, what,
		"as long as its transaction lasts, frames after that one cannot leave the WAL, which grows with every commit",
		fmt.Sprintf("end that transaction (a forgotten cursor, an open iterator, a long report); to see whose it is: "+
			"sqlwatch blockers %s", show.Quote(f.Path)))
}

func longWriter(f Facts) []Finding {
	w := f.WAL
	if !f.readable() || !w.WriterStuck {
		return nil
	}
	return one("long-writer", Warning, fmt.Sprintf("%s has held the write lock for at least %s without a commit",
		w.Writer.name(), w.ObservedOver.Round(time.Millisecond)),
		`every other writer waits or gets "database is locked"`,
		"keep slow work (network, files, sleeping) out of write transactions; begin them with BEGIN IMMEDIATE and commit "+
			"in milliseconds")
}

func exclusiveLocking(f Facts) []Finding {
	if !f.readable() || !f.WAL.Exclusive {
		return nil
	}
	return one("exclusive-locking", Warning, "an application holds the database in locking_mode=EXCLUSIVE",
		"nobody else can open it: sqlwatch can measure it, but neither checkpoint nor replicate it",
		"PRAGMA locking_mode=NORMAL; in the application, followed by one read")
}

func unusableIndex(f Facts) []Finding {
	if !f.readable() || f.WAL.IndexErr == "" {
		return nil
	}
	return one("wal-index", Warning, "the wal-index (-shm) cannot be read: "+f.WAL.IndexErr,
		"a writer stopped or died while it changed the wal-index, or the file is not a wal-index",
		"the next connection that writes repairs it: let the application write once; if that does not help, stop every "+
			"process that has the database open, then start them again")
}

func leftBehind(f Facts) []Finding {
	if !f.readable() || !f.File.WALMode || f.WAL.Attached || f.WAL.Exclusive || f.File.WALSize == 0 || f.Hidden {
		return nil
	}
	return one("wal-left-behind", Note, fmt.Sprintf("no process is connected, but there is a WAL of %s",
		show.Bytes(f.File.WALSize)),
		"the last application did not close the database: some commits may be only in the WAL",
		fmt.Sprintf("nothing to do; never copy, move or delete %s without its -wal", f.Real))
}
