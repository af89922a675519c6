package health

import (
	"fmt"
	"strings"
)

// Kind is one kind of condition.
type Kind struct {
	ID       string
	Severity Severity // the worst that it can have
	Meaning  string
}

// kinds is every kind of condition, in the order of the reference.
var kinds = []Kind{
	{"daemon_down", Critical, "No daemon answers: nothing is measured, replicated or checkpointed. Only the commands " +
		"can show it."},
	{"reload_failed", Warning, "The last reload of the configuration failed; the previous one stays in force."},
	{"left_out", Warning, "Databases of the configuration are not watched."},
	{"no_databases", Warning, "The configuration names no database that exists."},
	{"handler_panicked", Warning, "A request of the page, the API or the admin socket failed because of a bug in " +
		"sqlwatch."},
	{"notification_failed", Warning, "A notifier did not accept the last message."},
	{"state_directory_read_only", Critical, "The file system of the state directory is read-only."},

	{"missing", Critical, "There is no file at the database's path."},
	{"empty", Critical, "The database is an empty file: the application has written nothing yet, or the database " +
		"was removed."},
	{"not_wal", Critical, "The database is not in WAL mode."},
	{"not_a_database", Critical, "The file at the path is not an SQLite database."},
	{"foreign_owner", Critical, "The database belongs to another user."},
	{"foreign_wal", Critical, "The WAL that the application writes is not the one beside the database."},
	{"network_filesystem", Critical, "The database is on a network file system."},
	{"unreadable", Critical, "The database cannot be read."},
	{"schema_unreadable", Critical, "SQLite cannot read the database's schema: it is encrypted, corrupt, or of a newer " +
		"SQLite."},
	{"open_failed", Critical, "Opening the database failed."},
	{"hung", Critical, "No measurement of the database has finished for a minute: its disk may be hanging."},
	{"restarted", Warning, "A bug in sqlwatch stopped the work on the database; it was restarted."},

	{"write_lock_held", Critical, "One process has held the write lock for a long time: nobody else can write."},
	{"write_lock_saturated", Warning, "Writers use nearly all of the available time."},
	{"reader_pinning", Warning, "One read transaction keeps the WAL from being reset."},
	{"overlapping_readers", Warning, "Short readers overlap without a pause: together they keep the WAL from being " +
		"reset."},
	{"wal_oversized", Warning, "The WAL file is large."},
	{"checkpoint_starved", Warning, "Commits wait a long time to be copied into the database file."},
	{"page_checksums", Critical, "The database's pages carry checksums: it is measured, but neither checkpointed nor " +
		"replicated."},
	{"wal_reset_bug", Warning, "The application's SQLite can lose commits when a checkpoint meets a WAL reset."},
	{"disk_low", Critical, "The database's file system is nearly full."},
	{"read_only_filesystem", Critical, "The database's file system is read-only."},
	{"paused", Info, "An operator has paused the policies."},
	{"action_failed", Warning, "The last action of a policy did not complete."},
	{"policy_hindered", Warning, "A policy cannot do its job, and waiting does not help."},

	{"capture_stopped", Critical, "Commits are not captured."},
	{"file_cut", Critical, "The database's file lacks pages that its WAL does not have either."},
	{"index_cut", Critical, "The database's -shm file was cut short while it was in use."},
	{"spool_full", Critical, "The spool is full: commits are not captured."},
	{"spool_filling", Warning, "Three quarters of the spool are used."},
	{"replica_fenced", Critical, "Another writer has taken the replica over."},
	{"replica_held", Warning, "Another writer holds the replica's lease."},
	{"replica_foreign", Critical, "The replica's place holds another history."},
	{"replica_auth_failed", Critical, "The store refuses the credentials."},
	{"replica_misplaced", Critical, "The bucket or directory does not exist."},
	{"replica_unavailable", Critical, "The store cannot be reached."},
	{"replica_failing", Critical, "Uploads fail."},
	{"replica_lagging", Critical, "Commits are not in the replica yet, for longer than its objective."},
	{"replica_incomplete", Info, "The replica's first snapshot is not complete."},
	{"snapshot_too_old", Warning, "No snapshot check has succeeded for more than twice its interval."},
	{"replica_files_lost", Warning, "Files of the replica were found missing or unreadable: the past has gaps."},
	{"replica_maintenance", Warning, "Compaction or retention of the replica is blocked."},
	{"replica_weak_fencing", Info, "The store does not refuse a second writer: only the lease keeps two apart."},
	{"drill_failed", Critical, "The last restore drill failed."},
	{"drill_overdue", Warning, "No restore drill has succeeded for longer than configured."},
}

// Kinds returns every kind of condition, in the order of the reference.
func Kinds() []Kind { return append([]Kind(nil), kinds...) }

// Markdown returns the conditions as a table of the reference.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| condition | at worst | meaning |\n|---|---|---|\n")
	for _, k := range kinds {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", k.ID, k.Severity, k.Meaning)
	}
	return b.String()
}
