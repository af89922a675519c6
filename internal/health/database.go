package health

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/show"
)

// Database is what is known of one database, from whatever source.
type Database struct {
	Name        string
	Path        string
	Now         time.Time
	Replicated  bool              // the configuration names replicas
	Found       bool              // it was there before, for this daemon or an earlier one
	OpenErr     string            // why its parts could not be opened
	Sample      *collector.Sample // nil before the first look
	SilentFor   time.Duration     // since the last turn ended
	PausedUntil time.Time
	Faults      int // panics of sqlwatch, in a row
	Failed      *Attempt
	Hindered    map[string]string // why a policy cannot do everything it is for, by policy
}

// Hinder notes why a policy cannot do everything it is for; "": it can.
func (d *Database) Hinder(policy, why string) {
	if why == "" {
		return
	}
	if d.Hindered == nil {
		d.Hindered = map[string]string{}
	}
	d.Hindered[policy] = why
}

// Attempt is an action that did not succeed, and after which no action of its kind has succeeded.
type Attempt struct {
	Action, Policy, Outcome, Err, Advice string
}

// The limits beyond which something is a condition. Alerts about the same thing use the same limits.
const (
	writerWarning   = 10 * time.Second
	writerCritical  = time.Minute
	saturated       = 0.8
	saturatedAfter  = 15 * time.Second
	pinnedWarning   = 10 * time.Minute
	pinnedReplicaOK = 64e6 // bytes of WAL in use: our own capture lets it reach restart.at
	overlapBytes    = 16e6
	overlapShare    = 0.9
	starvedBytes    = 64e6
	diskWarning     = 0.10
	diskWarningAt   = 20e9
	diskCritical    = 0.03
	diskCriticalAt  = 5e9
)

// WALLimit is the size of a WAL file, in bytes, beyond which it is oversized.
const WALLimit = 512e6

// OfDatabase returns the conditions of one database, the worst first.
func OfDatabase(d Database) []Condition {
	f := &findings{db: d.Name}
	if d.SilentFor > HungAfter {
		f.add("hung", Critical, fmt.Sprintf("No measurement of %s has finished for %s.", d.Name, show.Span(d.SilentFor)),
			"A read from its disk or an action has been hanging; what is shown is that old.",
			"dmesg, and the state of the disk under "+d.Path)
	}
	if d.Faults > 0 {
		f.add("restarted", Warning, fmt.Sprintf("A bug in sqlwatch stopped the work on this database, %s in a row.",
			show.Count(d.Faults, "time")),
			"It was restarted automatically; the other databases were not affected.", "report the stack trace in sqlwatch's log")
	}
	f.opening(&d)
	if s := d.Sample; s != nil {
		if d.OpenErr == "" {
			f.state(&d, s)
		}
		f.disk(s.Disk)
		f.readOnly(&d, s.Disk)
		if s.State == collector.StateUp {
			f.writers(s, d.Now)
			f.readers(&d, s)
			f.wal(s, d.Now)
		}
		if s.Database.WALResetBug {
			f.add("wal_reset_bug", Warning, fmt.Sprintf("%s was last written by SQLite %s.", d.Name, s.Database.EngineVersion),
				"That version can lose commits when a checkpoint meets a WAL reset (3.7.0 to 3.51.2, except 3.44.6 and 3.50.7).",
				"update the application's SQLite to 3.51.3 or later")
		}
		if s.Database.PageChecksums {
			f.add("page_checksums", Critical, fmt.Sprintf("The pages of %s carry checksums (cksumvfs).", d.Name),
				"A page without its checksum is an I/O error for the application, so the database is measured, but neither "+
					"checkpointed nor replicated.",
				fmt.Sprintf("stop the application, then: sqlite3 %s '.filectrl reserve_bytes 0' 'PRAGMA journal_mode=delete' "+
					"VACUUM 'PRAGMA journal_mode=wal'", show.Quote(d.Path)))
		}
		f.schema(&d, s)
		f.capture(s.Capture, s.State, d.Now)
		for i := range s.Replicas {
			f.replica(&s.Replicas[i], s, d.Now)
		}
	}
	f.policies(&d)
	return f.sorted()
}

// opening reports why the database has no turns.
func (f *findings) opening(d *Database) {
	if d.OpenErr != "" && d.Faults == 0 {
		f.add("open_failed", Critical, sentence("Opening "+d.Name+" failed: "+d.OpenErr),
			"It is retried regularly; until it succeeds nothing is replicated and no policy acts.",
			"correct what the error names, then: sqlwatch reload"+closer)
	}
}

// state reports what is wrong with the files.
func (f *findings) state(d *Database, s *collector.Sample) {
	what, severity := sentence(s.Err), Critical
	if what == "" {
		what = sentence(d.Path + " is " + s.State.String())
	}
	switch s.State {
	case collector.StateUp, collector.StateUnknown:
	case collector.StateEmpty:
		if d.Found {
			f.add("empty", Critical, d.Path+" is an empty file, where there was a database.",
				"It was removed or truncated, and the application created the file again; its replicas stay as they are.",
				"stop the application, then: sqlwatch restore --force DB; or nothing, if an empty database is "+
					"intended")
			return
		}
		f.add("empty", Info, what, "The application has created the file but not written to it yet.", "no action needed")
	case collector.StateMissing:
		if !d.Found {
			severity = Warning
		}
		f.add("missing", severity, what, "It was deleted or moved, its disk is not mounted, or the application has not run "+
			"yet; its replicas stay as they are.",
			"sqlwatch restore DB, or if it was deleted on purpose: sqlwatch forget DB")
	case collector.StateNotWAL:
		if !d.Replicated {
			severity = Warning
		}
		f.add("not_wal", severity, what, "Checkpoints and replication need WAL mode.", "sqlwatch doctor --fix DB")
	case collector.StateNotDatabase:
		f.add("not_a_database", Critical, what,
			"Only regular files that start with an SQLite header are opened; one that is encrypted (SQLCipher) does not.",
			"correct path or glob in the configuration; of an encrypted database take it out: "+
				"its application must back it up")
	case collector.StateForeignOwner:
		f.add("foreign_owner", Critical, what, "Side files made by another user would lock the application out.",
			"run sqlwatch as the database's owner")
	case collector.StateNetworkFS:
		f.add("network_filesystem", Critical, what,
			"Locks and shared memory do not work across a network, and WAL mode can lose commits there.",
			"move the database to a local disk")
	default:
		f.unreadable(s, what)
	}
}

func (f *findings) unreadable(s *collector.Sample, what string) {
	if s.State.String() == "foreign_wal" {
		f.add("foreign_wal", Critical, what, "The application writes to other side files than those at this path: its "+
			"commits cannot be seen, and sqlwatch must not connect.",
			"restart the application, or watch the path under which it opens the database")
		return
	}
	f.add("unreadable", Critical, what, "Nothing is measured, and if the database has replicas they fall behind.",
		"do what it says; dmesg shows disk errors"+closer)
}

// schema reports that SQLite, without a key or in this version, cannot read the database.
func (f *findings) schema(d *Database, s *collector.Sample) {
	failed := s.Capture != nil && s.Capture.Reason == collector.CaptureSchema
	switch {
	case s.Database.Encrypted:
		severity, cure := Info, "have its application, which has the key, back it up"
		if d.Replicated {
			severity, cure = Critical, "take replicate_to out of its block, and "+cure
		}
		f.add("schema_unreadable", severity, fmt.Sprintf("%s is encrypted behind a plain header.", d.Name),
			"Nothing of it can be read without its key, so it is measured, but neither checkpointed nor replicated.", cure)
	case failed:
		f.add("schema_unreadable", Critical, sentence("Commits are not captured: "+s.Capture.Err),
			"The schema is corrupt, or of an SQLite that is newer than sqlwatch's.",
			fmt.Sprintf("sqlite3 %s 'PRAGMA integrity_check' with the application's SQLite: if it says ok, update sqlwatch; "+
				"else stop the application, then: sqlwatch restore --force DB", show.Quote(d.Path)))
	}
}

func (f *findings) disk(d collector.Disk) {
	if !d.Known || d.SizeBytes == 0 {
		return
	}
	free, share := float64(d.FreeBytes), float64(d.FreeBytes)/float64(d.SizeBytes)
	what := fmt.Sprintf("%s of %s are free on %s.", show.Bytes(int64(d.FreeBytes)), show.Bytes(int64(d.SizeBytes)),
		d.Mountpoint)
	const why = "On a full disk every write of the application fails."
	switch {
	case share < diskCritical && free < diskCriticalAt:
		f.add("disk_low", Critical, what, why, "free space on "+d.Mountpoint)
	case share < diskWarning && free < diskWarningAt:
		f.add("disk_low", Warning, what, why, "free space on "+d.Mountpoint)
	}
}

// readOnly reports that no process, or only sqlwatch, cannot write to the database's file system.
func (f *findings) readOnly(d *Database, disk collector.Disk) {
	switch {
	case disk.ReadOnly:
		f.add("read_only_filesystem", Critical, "The file system at "+disk.Mountpoint+" is read-only.",
			"The application cannot commit; Linux makes a file system read-only after disk errors.", writable(disk.Mountpoint))
	case disk.ReadOnlyHere:
		severity := Warning
		if d.Replicated {
			severity = Critical
		}
		f.add("read_only_filesystem", severity,
			"The file system at "+disk.Mountpoint+" is mounted read-only where sqlwatch runs.",
			"The application may see it otherwise; sqlwatch can neither checkpoint nor replicate the database.",
			writableHere)
	}
}

// writableHere is the cure of a file system that is read-only where sqlwatch runs.
const writableHere = "let sqlwatch write there: ReadWritePaths= in its unit, no :ro at its container's volume"

// writable is the cure of a file system that is read-only.
func writable(mountpoint string) string {
	return "dmesg; after a disk error unmount it, fsck, mount it again; else: mount -o remount,rw " +
		show.Quote(mountpoint)
}

func (f *findings) writers(s *collector.Sample, now time.Time) {
	held := now.Sub(s.Locks.WriteSince)
	if s.Locks.WriteSince.IsZero() {
		held = 0
	}
	if held >= writerWarning {
		severity := Warning
		if held >= writerCritical {
			severity = Critical
		}
		f.add("write_lock_held", severity, fmt.Sprintf("%s has held the write lock for %s.",
			process(s.Locks.WriterPID, s.Locks.WriterCommand), show.Span(held)),
			"One write transaction has been open the whole time: every other writer waits or fails with \"database is locked\".",
			"sqlwatch blockers DB, then end that transaction")
	}
	// There may be many short transactions. A single look, or a daemon's first seconds, tell nothing.
	if s.Locks.WriteRatio > saturated && held < writerWarning && s.Locks.Watched >= saturatedAfter {
		f.add("write_lock_saturated", Warning, fmt.Sprintf("The write lock was held %.0f %% of the last %s.",
			100*s.Locks.WriteRatio, show.Span(s.Locks.Watched)),
			"SQLite allows one writer at a time, and there is hardly any time left for another.",
			"write in fewer, larger transactions; sqlwatch blockers DB shows who writes")
	}
}

// process names a process, as far as the kernel identifies it.
func process(pid int, command string) string {
	switch {
	case pid <= 0:
		return "A process"
	case command == "":
		return fmt.Sprintf("Process %d", pid)
	}
	return fmt.Sprintf("Process %d (%s)", pid, command)
}

func (f *findings) readers(d *Database, s *collector.Sample) {
	inUse := float64(s.WAL.Frames) * float64(s.WAL.PageSize)
	pinned := d.Now.Sub(s.Readers.PinnedSince)
	if !s.Readers.PinnedSince.IsZero() && pinned >= pinnedInfo {
		severity := Info
		if pinned >= pinnedWarning && (!d.Replicated || inUse > pinnedReplicaOK) {
			severity = Warning
		}
		f.add("reader_pinning", severity,
			fmt.Sprintf("%s has pinned the WAL at frame %d of %d for %s.", process(s.Readers.OldestPID, s.Readers.OldestCommand),
				s.Readers.OldestFrame, s.WAL.Frames, show.Span(pinned)),
			"One read transaction has been open the whole time, and until it ends the WAL grows with every write.",
			"sqlwatch blockers DB, then end that transaction")
	}
	if s.Readers.Share >= overlapShare && pinnedShort(s, d.Now) && inUse > overlapBytes &&
		d.Now.Sub(s.WAL.Restarted) > overlapAfter &&
		s.WAL.LastWrite.After(d.Now.Add(-overlapAfter)) {
		f.add("overlapping_readers", Warning,
			fmt.Sprintf("Readers were active for %.0f %% of the last minute, none of them for long, and %s of WAL cannot be "+
				"reset.",
				100*s.Readers.Share, show.Bytes(int64(inUse))),
			"The WAL restarts only at a moment when no reader uses it, and there is none.",
			"sqlwatch checkpoint DB at a quieter time, or have the application's readers pause now and then")
	}
}

// pinnedShort reports whether no single reader pins the WAL for long.
func pinnedShort(s *collector.Sample, now time.Time) bool {
	return s.Readers.PinnedSince.IsZero() || now.Sub(s.Readers.PinnedSince) < pinnedInfo
}

func (f *findings) wal(s *collector.Sample, now time.Time) {
	if !s.WAL.Known {
		return
	}
	if s.WAL.SizeBytes > WALLimit {
		inUse := int64(s.WAL.Frames) * int64(s.WAL.PageSize)
		f.add("wal_oversized", Warning, fmt.Sprintf("The WAL file is %s, %s of it in use.",
			show.Bytes(s.WAL.SizeBytes), show.Bytes(inUse)),
			"A reader, a closed window or a missing policy keeps it from being emptied; reads become slow and the disk fills "+
				"up.", "sqlwatch checkpoint DB")
	}
	waits := float64(s.WAL.LagFrames()) * float64(s.WAL.PageSize)
	if lag := now.Sub(s.WAL.LagSince); !s.WAL.LagSince.IsZero() && lag > starvedAfter && waits > starvedBytes {
		f.add("checkpoint_starved", Warning, fmt.Sprintf("%s of commits have not reached the database file for up to %s.",
			show.Bytes(int64(waits)), show.Span(lag)),
			"No checkpoint completes: a reader is in the way, or nobody runs one. Nothing is lost, but the WAL grows.",
			"sqlwatch checkpoint DB --mode passive, which blocks nobody; sqlwatch blockers DB names the reader")
	}
}

func (f *findings) policies(d *Database) {
	if d.PausedUntil.After(d.Now) {
		f.add("paused", Info, fmt.Sprintf("No policy acts until %s.", show.Time(d.PausedUntil)),
			"An operator paused them; measuring and replication continue.", "sqlwatch resume DB")
	}
	for _, policy := range slices.Sorted(maps.Keys(d.Hindered)) {
		f.about("policy_hindered", policy, Warning, sentence("Policy "+policy+" cannot do its job: "+
			d.Hindered[policy]),
			"Waiting will not help: what it should keep small keeps growing.",
			"give it a larger stall_budget or a longer window: sqlwatch why DB "+show.Quote(policy)+" says which")
	}
	if a := d.Failed; a != nil {
		what := fmt.Sprintf("The last %s of %s ended %s", a.Action, a.Policy, a.Outcome)
		if a.Err != "" {
			what += ": " + a.Err
		}
		cure := a.Advice
		if cure == "" {
			cure = "wait for the retry: sqlwatch why DB says when"
		}
		f.add("action_failed", Warning, sentence(what), "It is retried after its backoff.", cure)
	}
}
