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
	lagAtLeast      = time.Minute // as the alert SqlwatchReplicaStale
	lagObjectives   = 10
	unavailableTill = time.Minute // an outage this short is repaired by itself
	snapshotSlack   = 2 * time.Hour
	drillSlack      = 24 * time.Hour
)

// capture says what keeps commits from being captured.
func (f *findings) capture(c *collector.Capture, now time.Time) {
	if c == nil {
		return
	}
	used := float64(c.SpoolBytes) / float64(max(c.SpoolLimitBytes, 1))
	full := fmt.Sprintf("The spool holds %s of at most %s", show.Bytes(c.SpoolBytes), show.Bytes(c.SpoolLimitBytes))
	switch {
	case c.Reason == collector.CaptureSpoolFull:
		f.add("spool_full", Critical, full+": commits are not captured.",
			"No replica could be reached for long; when one answers again, the difference is taken, but the states in between "+
				"are lost.",
			"repair the replica: sqlwatch status DB says what it answers")
	case c.Reason == collector.CaptureFileCut:
		f.add("file_cut", Critical, "The database's file lacks pages, and its WAL does not have them.",
			"It was cut, or a shorter file was copied over it, while an application had it open: the application reads damage "+
				"there, and nothing new is captured. Replicas hold what was before.",
			"end the application, put a whole file in place (sqlwatch restore --force DB), remove its -wal and -shm, start the "+
				"application")
	case c.Reason == collector.CaptureIndexCut:
		f.add("index_cut", Critical, "The database's -shm file was cut short while it was in use.",
			"A process that has it mapped ends with SIGBUS when it touches what is gone: the application too. sqlwatch let go "+
				"of it and tries again.",
			"end the application, then start it: it makes the file anew; find out who wrote to it")
	case c.Reason != "" && c.Reason != collector.CaptureWaiting && now.Sub(c.Since) > unavailableTill/4:
		f.add("capture_stopped", Critical, sentence("commits are not captured: "+c.Err),
			"It is tried again every two seconds; what is missed meanwhile is found by a comparison of the whole database.",
			"sqlwatch doctor DB")
	case c.SpoolLimitBytes > 0 && used > spoolFilling:
		f.add("spool_filling", Warning, full+".",
			"A replica does not take what is captured; when the spool is full, capture stops.",
			"repair the replica: sqlwatch status DB says what it answers")
	}
}

// trouble is what an operator needs to know of one reason for which a replica
// does not advance.
type trouble struct {
	id       string
	severity Severity
	patience time.Duration // for so long it is a warning only
	why      string
	cure     string
}

// troubles is by collector.Replica.Reason; any other word is replica_failing.
var troubles = map[string]trouble{
	"fenced": {"replica_fenced", Critical, 0, "This daemon no longer writes there; commits are kept in the spool.",
		"stop the other writer, then: sqlwatch run --adopt=%s"},
	"held": {"replica_held", Warning, 0,
		"Another sqlwatch, or one that was killed, holds the lease; it is waited for, and commits are kept in the spool.",
		"stop the other writer, or wait until its lease ends"},
	"foreign": {"replica_foreign", Critical, 0, "Going on would mix two histories in one place.",
		"an empty prefix or dir for this database, or to go on with what is there: sqlwatch run --adopt=%s"},
	"auth": {"replica_auth_failed", Critical, 0,
		"The key, the secret or the permission is wrong or was withdrawn; commits are kept in the spool.",
		"correct the replica's credentials, then: sqlwatch reload"},
	"misplaced": {"replica_misplaced", Critical, 0,
		"The place in the configuration is not there; trying again does not help.",
		"make the bucket or directory, or correct the replica's block"},
	"unavailable": {"replica_unavailable", Critical, time.Minute,
		"The network, the name or the service does not answer; commits are kept in the spool and the attempt is repeated.",
		"sqlwatch doctor DB"},
	"timeout": {"replica_unavailable", Critical, time.Minute,
		"The store answers too slowly; commits are kept in the spool and the attempt is repeated.", "sqlwatch doctor DB"},
	"looking_anew": {"replica_failing", Critical, time.Minute,
		"What the replica holds is not what was left there; it is looked at anew.", "sqlwatch doctor DB"},
	"": {"replica_failing", Critical, time.Minute, "Commits are kept in the spool and the attempt is repeated.",
		"sqlwatch doctor DB"},
}

// replica says what is wrong with one replica.
func (f *findings) replica(r *collector.Replica, s *collector.Sample, now time.Time) {
	if !r.Healthy {
		t, known := troubles[r.Reason]
		if !known {
			t = troubles[""]
		}
		severity := t.severity
		if now.Sub(r.FailingSince) < t.patience {
			severity = Warning
		}
		cure := t.cure
		if t.id == "replica_fenced" || t.id == "replica_foreign" {
			cure = fmt.Sprintf(t.cure, show.Quote(r.Name))
		}
		what := r.Err
		if what == "" {
			what = "the last attempt failed"
		}
		f.about(t.id, r.Name, severity, "Replica "+r.Name+" does not advance: "+sentence(what), t.why, cure)
	}
	f.custody(r)
	f.freshness(r, now)
	f.snapshot(r, s, now)
	f.drill(r, now)
}

// hindrance is what keeps compaction and retention from their end, in words.
type hindrance struct{ what, cure string }

// hindrances is by collector.Replica.MaintenanceErr; any other word is said as it is.
var hindrances = map[string]hindrance{
	"clock": {"this machine's clock and the store's differ by more than ten minutes, so that nobody can tell how old a " +
		"file is", "timedatectl set-ntp true; sqlwatch doctor DB compares the two"},
	"auth": {"the store forbids it", "let the key delete below its prefix: docs/storage.md has the policy"},
	"unsupported": {"the store cannot do it, or a lock on its objects forbids it",
		"shorten the lock of the bucket, or lengthen retention.keep"},
	"other":       {"the log has the sentence", "journalctl -u sqlwatch | grep DB"},
	"not_found":   {"a file that belongs to the replica is gone", "sqlwatch verify DB"},
	"unavailable": {"the store does not answer", "sqlwatch doctor DB"},
}

// custody reports whether what the replica holds is whole, tended and ours alone.
func (f *findings) custody(r *collector.Replica) {
	if r.LostFiles > 0 {
		f.about("replica_files_lost", r.Name, Warning,
			fmt.Sprintf("%d files of replica %s were found gone or unreadable since "+
				"sqlwatch started.", r.LostFiles, r.Name),
			"A new snapshot was taken: what comes is whole, what they held of the past is not.",
			"find out who deletes there; sqlwatch verify DB proves what is left")
	}
	if r.MaintenanceErr != "" {
		h, known := hindrances[r.MaintenanceErr]
		if !known {
			h = hindrance{strings.ReplaceAll(r.MaintenanceErr, "_", " "), "sqlwatch doctor DB"}
		}
		f.about("replica_maintenance", r.Name, Warning, sentence("Compaction or retention of replica "+r.Name+
			" does not go on: "+h.what),
			"Files that could not be deleted or merged pile up; uploads go on, and everything can be restored.", h.cure)
	}
	if r.WeakFencing {
		f.about("replica_weak_fencing", r.Name, Info, "The store of replica "+r.Name+" does not refuse a second writer.",
			"It honours no conditional writes: two writers find each other out by the lease, within a minute.",
			"see that one sqlwatch only writes there")
	}
}

func (f *findings) freshness(r *collector.Replica, now time.Time) {
	lag := time.Duration(r.LagSeconds * float64(time.Second))
	objective := time.Duration(r.ObjectiveSeconds * float64(time.Second))
	late := lag > lagAtLeast && lag > lagObjectives*objective
	switch {
	case r.CaughtUp.IsZero() && r.Healthy:
		severity := Info
		if lag > time.Hour {
			severity = Warning
		}
		f.about("replica_incomplete", r.Name, severity,
			fmt.Sprintf("Replica %s has never been complete since sqlwatch started, %s ago.", r.Name, show.Span(lag)),
			"Its first snapshot is on its way; until it is there, nothing newer can be restored from it.",
			"wait; sqlwatch status DB shows how it advances")
	case late && !r.CaughtUp.IsZero():
		f.about("replica_lagging", r.Name, Critical, fmt.Sprintf("Replica %s lacks the commits of the last %s.", r.Name,
			show.Span(lag)),
			"They exist on this machine only: if it is lost now, they are lost.", "sqlwatch sync DB")
	}
}

func (f *findings) snapshot(r *collector.Replica, s *collector.Sample, now time.Time) {
	every := time.Duration(r.SnapshotEverySeconds * float64(time.Second))
	age := now.Sub(r.LastSnapshot)
	if every == 0 || r.LastSnapshot.IsZero() || age <= 2*every+snapshotSlack || !s.WAL.LastWrite.After(r.LastSnapshot) {
		return
	}
	f.about("snapshot_too_old", r.Name, Warning, fmt.Sprintf("The newest snapshot in %s is %s old.", r.Name,
		show.Span(age)),
		"Two in a row were missed: a restore reads an ever longer chain of files, and old files cannot be deleted.",
		"sqlwatch snapshot DB")
}

func (f *findings) drill(r *collector.Replica, now time.Time) {
	if r.DrillErr != "" {
		f.about("drill_failed", r.Name, Critical, sentence("The last restore drill from "+r.Name+" failed: "+r.DrillErr),
			"What is stored there could not be restored to a sound database that equals the original.", "sqlwatch verify DB")
		return
	}
	every := time.Duration(r.VerifyEverySeconds * float64(time.Second))
	if age := now.Sub(r.LastVerified); every > 0 && !r.LastVerified.IsZero() && age > every+drillSlack {
		f.about("drill_overdue", r.Name, Warning, fmt.Sprintf("The last restore from %s that was proven is %s ago.", r.Name,
			show.Span(age)),
			"A backup that nobody has restored is a hope.", "sqlwatch verify DB")
	}
}
