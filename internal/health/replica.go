package health

import (
	"fmt"
	"strings"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/show"
)

const (
	spoolFilling    = 0.75
	lagObjectives   = 10
	unavailableTill = time.Minute // shorter outages end on their own
	snapshotSlack   = 2 * time.Hour
	drillSlack      = 24 * time.Hour
)

// capture reports why commits are not captured.
func (f *findings) capture(c *collector.Capture, state collector.State, now time.Time) {
	if c == nil {
		return
	}
	used := float64(c.SpoolBytes) / float64(max(c.SpoolLimitBytes, 1))
	full := fmt.Sprintf("The spool holds %s of at most %s", show.Bytes(c.SpoolBytes), show.Bytes(c.SpoolLimitBytes))
	switch {
	case c.Reason == collector.CaptureSpoolFull:
		f.add("spool_full", Critical, full+": commits are not captured.",
			"No replica could be reached for a long time; when one answers again, the difference is uploaded, but the states "+
				"in between are lost.",
			"repair the replica: sqlwatch status DB shows its error")
	case c.Reason == collector.CaptureFileCut:
		f.add("file_cut", Critical, "The database's file lacks pages, and its WAL does not have them.",
			"It was truncated, or a shorter file was copied over it, while an application had it open: the application reads "+
				"a corrupt database, and nothing new is captured. Replicas hold the state before that.",
			"stop the application, put an intact file in place (sqlwatch restore --force DB), remove its -wal and -shm, "+
				"start the application")
	case c.Reason == collector.CaptureIndexCut:
		f.add("index_cut", Critical, "The database's -shm file was cut short while it was in use.",
			"A process that has it mapped is killed by SIGBUS when it touches the missing part, the application included. "+
				"sqlwatch has closed it and retries.",
			"restart the application, which makes the file again; find out who wrote to it")
	case state != collector.StateUp && state != collector.StateUnknown: // the state says why
	case c.Reason == collector.CaptureNoRoom:
		f.add("capture_stopped", Critical, sentence("commits are not captured: "+c.Err),
			"What is captured waits there for its upload. Commits missed in the meantime are found by comparing the whole "+
				"database.",
			"free space on that file system, or set server.state_dir to another; capture resumes by itself")
	case c.Reason == collector.CaptureQueued: // the conditions of the replicas say it
	case c.Reason == collector.CaptureSchema: // it has a condition of its own
	case c.Reason != "" && c.Reason != collector.CaptureWaiting && now.Sub(c.Since) > unavailableTill/4:
		f.add("capture_stopped", Critical, sentence("commits are not captured: "+c.Err),
			"It is retried every two seconds; commits missed in the meantime are found by comparing the whole database.",
			"make usable what the error names, the state directory or the database's files; dmesg shows disk errors"+closer)
	case c.SpoolLimitBytes > 0 && used > spoolFilling:
		f.add("spool_filling", Warning, full+".",
			"A replica does not accept uploads; when the spool is full, capture stops.",
			"repair the replica: sqlwatch status DB shows its error")
	}
}

// cause is what an operator needs to know about one reason why a replica does not advance.
type cause struct {
	id       string
	severity Severity
	patience time.Duration // only a warning for this long
	why      string
	cure     string
}

// causes is keyed by collector.Replica.Reason; any other word means replica_failing.
var causes = map[string]cause{
	"fenced": {"replica_fenced", Critical, 0, "This daemon no longer writes there; commits wait in the spool.",
		"stop the other writer, then: sqlwatch run --adopt=%s"},
	"held": {"replica_held", Warning, 0,
		"Another sqlwatch, or one that was killed, holds the lease; commits wait in the spool until it is free.",
		"stop the other writer, or wait until its lease ends"},
	"foreign": {"replica_foreign", Critical, 0, "Continuing would mix two histories in one place.",
		"use an empty prefix or dir for this database, or continue the existing replica: sqlwatch run --adopt=%s"},
	"auth": {"replica_auth_failed", Critical, 0,
		"The key, the secret or the permission is wrong or was withdrawn; commits wait in the spool.",
		"correct the replica's credentials, then: sqlwatch reload"},
	"misplaced": {"replica_misplaced", Critical, 0,
		"The configured bucket or directory does not exist; retrying does not help.",
		"create the bucket or directory, or correct the replica's block"},
	"unavailable": {"replica_unavailable", Critical, time.Minute,
		"The network, the name server or the service does not answer; commits wait in the spool, and uploads are retried.",
		"restore the way to the store's endpoint: network, name server, proxy, firewall" + closer},
	"timeout": {"replica_unavailable", Critical, time.Minute,
		"The store answers too slowly; commits wait in the spool, and uploads are retried.",
		"find what slows the line down, or leave room on it with uploads.bandwidth" + closer},
	"looking_anew": {"replica_failing", Critical, time.Minute,
		"The replica does not hold what was left there; its state is being determined again.",
		"find out who changes or deletes files there, if it does not end by itself" + closer},
	"": {"replica_failing", Critical, time.Minute, "Commits wait in the spool, and uploads are retried.",
		"correct what the store's error names" + closer},
}

// ofDirectories has the texts of some causes for a replica in a directory. Each is retried automatically.
var ofDirectories = map[string]struct{ why, cure string }{
	"replica_auth_failed": {"sqlwatch's user may not write to the directory; commits are kept in the spool.",
		"give the directory to sqlwatch's user; uploads are retried automatically"},
	"replica_misplaced": {"Its directory is not there, or its file system is mounted read-only; commits wait.",
		"mount its file system read-write, or correct dir in the replica's block; uploads are retried automatically"},
	"replica_unavailable": {"Its file system is full or does not answer; commits wait in the spool, uploads are retried.",
		"free space there" + closer},
}

// replica reports what is wrong with one replica.
func (f *findings) replica(r *collector.Replica, s *collector.Sample, now time.Time) {
	if !r.Healthy {
		t, known := causes[r.Reason]
		if !known {
			t = causes[""]
		}
		severity := t.severity
		if now.Sub(r.FailingSince) < t.patience {
			severity = Warning
		}
		why, cure := t.why, t.cure
		if d, known := ofDirectories[t.id]; known && strings.HasPrefix(r.Name, "file.") {
			why, cure = d.why, d.cure
		}
		if t.id == "replica_fenced" || t.id == "replica_foreign" {
			cure = fmt.Sprintf(t.cure, show.Quote(r.Name))
		}
		what := r.Err
		if what == "" {
			what = "the last attempt failed"
		}
		f.about(t.id, r.Name, severity, "Replica "+r.Name+" does not advance: "+sentence(what), why, cure)
	}
	f.custody(r)
	f.freshness(r, s)
	f.snapshot(r, s, now)
	f.drill(r, now)
}

// hindrance describes what prevents compaction and retention from completing.
type hindrance struct{ what, cure string }

// hindrances is keyed by collector.Replica.MaintenanceErr; any other word is shown as it is.
var hindrances = map[string]hindrance{
	"clock": {"the clocks of this machine and the store differ by more than ten minutes, so the age of files is " +
		"unknown", "timedatectl set-ntp true; sqlwatch doctor DB compares the two"},
	"auth": {"the store forbids it", "let the key delete below its prefix: docs/storage.md has the policy"},
	"unsupported": {"the store does not support it, or an object lock forbids it",
		"shorten the bucket's object lock, or lengthen retention.keep"},
	"other":       {"the log has the reason", "journalctl -u sqlwatch | grep DB"},
	"not_found":   {"a file of the replica is missing", "sqlwatch verify DB"},
	"unavailable": {"the store does not answer", "restore the way to the store's endpoint" + closer},
}

// custody judges whether what the replica holds is complete, maintained and ours alone.
func (f *findings) custody(r *collector.Replica) {
	if r.LostFiles > 0 {
		f.about("replica_files_lost", r.Name, Warning,
			fmt.Sprintf("Missing or unreadable in replica %s, found since sqlwatch started: at least %s.", r.Name,
				show.Count(r.LostFiles, "file")),
			"A new snapshot was taken: newer states can be restored, some older ones cannot.",
			"find out who deletes there; sqlwatch verify DB checks what is left")
	}
	if r.MaintenanceErr != "" {
		h, known := hindrances[r.MaintenanceErr]
		if !known {
			h = hindrance{strings.ReplaceAll(r.MaintenanceErr, "_", " "), hindrances["other"].cure + closer}
		}
		f.about("replica_maintenance", r.Name, Warning, sentence("Compaction or retention of replica "+r.Name+
			" is blocked: "+h.what),
			"Files that could not be deleted or merged pile up; uploads continue, and everything can be restored.", h.cure)
	}
	if r.WeakFencing {
		f.about("replica_weak_fencing", r.Name, Info, "The store of replica "+r.Name+" does not refuse a second writer.",
			"It does not honour conditional writes: two writers notice each other only by the lease, within a minute.",
			"make sure that only one sqlwatch writes there")
	}
}

// uncaptured returns why the database is waiting to be read, or why it cannot be captured: at
// most one of them, without the database's name.
func uncaptured(c *collector.Capture) (queued, stopped string) {
	if c == nil || c.Reason == "" || c.Reason == collector.CaptureWaiting {
		return "", ""
	}
	_, err, named := strings.Cut(c.Err, ": ")
	if !named {
		err = c.Err
	}
	if c.Reason == collector.CaptureQueued {
		return err, ""
	}
	return "", err
}

// freshness reports how far behind a replica is. If the database cannot be read, nothing is uploaded
// and its state says why. If it is not captured, nothing is uploaded either.
func (f *findings) freshness(r *collector.Replica, s *collector.Sample) {
	state := s.State
	queued, stopped := uncaptured(s.Capture)
	lag := time.Duration(r.LagSeconds * float64(time.Second))
	objective := time.Duration(r.ObjectiveSeconds * float64(time.Second))
	late := lag > lagAtLeast && lag > lagObjectives*objective
	switch {
	case r.CaughtUp.IsZero() && r.Healthy && state != collector.StateUp && state != collector.StateUnknown:
	case r.CaughtUp.IsZero() && r.Healthy && lag == 0 && queued == "":
		why, cure := "the database is not there yet, or cannot be opened", "wait, or start the application, which makes the "+
			"database: it begins by itself"
		if state == collector.StateUp {
			why, cure = "at the first start, a replica that does not answer delays it by up to 20 s", "wait"
		}
		f.about("replica_incomplete", r.Name, Info, fmt.Sprintf("Replica %s has not been complete since sqlwatch "+
			"started.", r.Name), "Capture has not begun: "+why+"; the first snapshot follows it.", cure)
	case r.CaughtUp.IsZero() && r.Healthy:
		severity, why := Info, "Its first snapshot is being uploaded; until that is complete, nothing newer can be restored "+
			"from it."
		if lag > time.Hour {
			severity = Warning
		}
		cure := "wait; sqlwatch status DB shows its progress"
		switch {
		case queued != "":
			why = sentence(queued)
		case stopped != "":
			why, cure = sentence("nothing is uploaded while commits are not captured: "+stopped),
				"correct what it names; it goes on by itself"+closer
		}
		f.about("replica_incomplete", r.Name, severity,
			fmt.Sprintf("Replica %s has never been complete since sqlwatch started, %s ago.", r.Name, show.Span(lag)),
			why, cure)
	case late && !r.CaughtUp.IsZero():
		why := "They exist on this machine only: if it is lost now, they are lost."
		if queued != "" {
			why += " " + sentence(queued)
		}
		f.about("replica_lagging", r.Name, Critical, fmt.Sprintf("Replica %s lacks the commits of the last %s.", r.Name,
			show.Span(lag)), why, "sqlwatch sync DB")
	}
}

// snapshot reports that no snapshot check has succeeded for too long, although the database was
// written to. A check takes a snapshot, or finds that none is needed.
func (f *findings) snapshot(r *collector.Replica, s *collector.Sample, now time.Time) {
	every := time.Duration(r.SnapshotEverySeconds * float64(time.Second))
	age := now.Sub(r.LastSnapshot)
	if every == 0 || r.LastSnapshot.IsZero() || age <= 2*every+snapshotSlack || !s.WAL.LastWrite.After(r.LastSnapshot) {
		return
	}
	f.about("snapshot_too_old", r.Name, Warning, fmt.Sprintf("The last snapshot check of %s that succeeded was %s ago.",
		r.Name, show.Span(age)),
		"That is more than twice its interval. A check takes a new snapshot if one is needed: without it, restores may "+
			"have to read an ever longer chain of files, and old files cannot be deleted.",
		"sqlwatch snapshot DB")
}

func (f *findings) drill(r *collector.Replica, now time.Time) {
	if r.DrillErr != "" {
		f.about("drill_failed", r.Name, Critical, sentence("The last restore drill from "+r.Name+" failed: "+r.DrillErr),
			"The replica could not be restored to an intact database that equals the original.", "sqlwatch verify DB")
		return
	}
	every := time.Duration(r.VerifyEverySeconds * float64(time.Second))
	if age := now.Sub(r.LastVerified); every > 0 && !r.LastVerified.IsZero() && age > every+drillSlack {
		f.about("drill_overdue", r.Name, Warning, fmt.Sprintf("The last restore from %s that was proven is %s ago.", r.Name,
			show.Span(age)),
			"A backup that nobody has restored is a hope.", "sqlwatch verify DB")
	}
}
