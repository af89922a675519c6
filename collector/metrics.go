package collector

import "slices"

// The metrics of this package, in the order of the reference. Names of state
// gauges that need a consistent WAL are absent while there is none: an absent
// series is unknown, and unknown is not zero. Counters are always there.
var (
	metricUp = Metric{"sqlite_up", Gauge, []string{"db"},
		"1 if header, WAL and wal-index of the database were read consistently; 0 if not, with the reason in sqlite_database_info's state label."}
	metricSampled = Metric{"sqlite_last_sample_timestamp_seconds", Gauge, []string{"db"},
		"When the values of this database were measured. A scrape shows the latest sample and waits for no disk: if this stands still, so do the others."}
	metricDatabaseInfo = Metric{"sqlite_database_info", Gauge, []string{"db", "path", "journal_mode", "state"},
		"Always 1: facts about the database to join on. This is the only metric that carries its path."}
	metricEngineInfo = Metric{"sqlite_engine_info", Gauge, []string{"db", "version"},
		"Always 1: version of the SQLite library that last wrote page 1."}
	metricFilesystemInfo = Metric{"sqlite_filesystem_info", Gauge, []string{"db", "fstype", "mountpoint"},
		"Always 1: the file system that holds the database."}
	metricWALResetBug = Metric{"sqlite_database_wal_reset_bug", Gauge, []string{"db"},
		"1 if the last writer's SQLite can lose commits when a checkpoint meets a WAL reset (3.7.0 to 3.51.2, except 3.44.6 and 3.50.7)."}
	metricDatabaseSize = Metric{"sqlite_database_size_bytes", Gauge, []string{"db"},
		"Size of the main database file."}
	metricWALSize = Metric{"sqlite_wal_size_bytes", Gauge, []string{"db"},
		"Size of the WAL file, a high-water mark: frames in use are sqlite_wal_frames."}
	metricPageSize = Metric{"sqlite_database_page_size_bytes", Gauge, []string{"db"},
		"Page size of the database."}
	metricPages = Metric{"sqlite_database_pages", Gauge, []string{"db"},
		"Pages of the database, including those only in the WAL so far."}
	metricFreelistPages = Metric{"sqlite_database_freelist_pages", Gauge, []string{"db"},
		"Unused pages of the database, as of the last checkpoint of page 1."}
	metricFrames = Metric{"sqlite_wal_frames", Gauge, []string{"db"},
		"Committed frames in the WAL."}
	metricCheckpointed = Metric{"sqlite_wal_checkpointed_frames", Gauge, []string{"db"},
		"Frames of the WAL already copied into the database file; sqlite_wal_frames minus this is the checkpoint lag in frames. Absent in EXCLUSIVE locking mode, where it cannot be seen."}
	metricCheckpointLag = Metric{"sqlite_wal_checkpoint_lag_seconds", Gauge, []string{"db"},
		"Age of the oldest frame not yet in the database file; 0 if there is none. Absent in EXCLUSIVE locking mode, where it cannot be seen."}
	metricCommits = Metric{"sqlite_wal_commits_total", Counter, []string{"db"},
		"Transactions committed to the WAL since sqlwatch began to watch."}
	metricFramesWritten = Metric{"sqlite_wal_frames_written_total", Counter, []string{"db"},
		"Frames committed to the WAL since sqlwatch began to watch."}
	metricResets = Metric{"sqlite_wal_resets_total", Counter, []string{"db"},
		"Times the WAL began anew from its first frame since sqlwatch began to watch."}
	metricLastWrite = Metric{"sqlite_wal_last_write_timestamp_seconds", Gauge, []string{"db"},
		"When a commit was last seen; 0 if none was since sqlwatch began to watch."}
	metricLastCheckpoint = Metric{"sqlite_wal_last_complete_checkpoint_timestamp_seconds", Gauge, []string{"db"},
		"When the last frame of the WAL was last seen to reach the database file; 0 if that was not seen since sqlwatch began to watch."}
	metricReaders = Metric{"sqlite_wal_readers", Gauge, []string{"db"},
		"Read marks that processes other than sqlwatch use: at least this many read transactions are open."}
	metricOldestReader = Metric{"sqlite_wal_oldest_reader_frame", Gauge, []string{"db"},
		"Lowest of those read marks: frames after it stay in the WAL; 0 = nobody."}
	metricPinnedSince = Metric{"sqlite_wal_pinned_since_timestamp_seconds", Gauge, []string{"db"},
		"Since when one of those read marks, below the head, has been keeping the WAL from being reset; 0 = nobody."}
	metricLockHeld = Metric{"sqlite_lock_held_ratio", Gauge, []string{"db", "lock"},
		"Share of the last minute's samples, 0 to 1, that found the lock held."}
	metricBusy = Metric{"sqlite_busy_total", Counter, []string{"db", "lock", "source"},
		"Refused locks. Source ebpf: refused attempts of all other processes that an application without busy_timeout sees as SQLITE_BUSY; with one, the retries too. Source sqlwatch: what sqlwatch's own operations met. Source step, for chosen databases: calls of sqlite3_step that returned SQLITE_BUSY, whatever was in the way; it overlaps with ebpf."}
	metricWriteHold = Metric{"sqlite_write_lock_hold_seconds", Histogram, []string{"db"},
		"How long the write lock was held, by any process. One of eight holds is timed, by lot, and counts for eight. Only where the kernel's source (ebpf) works; absent elsewhere."}
	metricProcesses = Metric{"sqlite_database_processes", Gauge, []string{"db"},
		"Distinct processes seen holding a lock within the last minute: at least this many are attached."}
	metricAvail = Metric{"sqlite_filesystem_avail_bytes", Gauge, []string{"db"},
		"Bytes available to unprivileged users on the database's file system."}
	metricFilesystemSize = Metric{"sqlite_filesystem_size_bytes", Gauge, []string{"db"},
		"Size of the database's file system."}
	metricScrapeDuration = Metric{"sqlwatch_scrape_collector_duration_seconds", Gauge, []string{"collector"},
		"How long the collector took to answer this scrape."}
	metricScrapeSuccess = Metric{"sqlwatch_scrape_collector_success", Gauge, []string{"collector"},
		"1 if the collector works; 0 if not, with the reason in the log."}
)

var catalogue = []Metric{
	metricUp, metricSampled, metricDatabaseInfo, metricEngineInfo, metricFilesystemInfo, metricWALResetBug,
	metricDatabaseSize, metricWALSize, metricPageSize, metricPages, metricFreelistPages,
	metricFrames, metricCheckpointed, metricCheckpointLag,
	metricCommits, metricFramesWritten, metricResets, metricLastWrite, metricLastCheckpoint,
	metricReaders, metricOldestReader, metricPinnedSince, metricLockHeld, metricBusy, metricWriteHold,
	metricProcesses, metricAvail, metricFilesystemSize,
	metricScrapeDuration, metricScrapeSuccess,
}

// Catalogue returns every metric that Exporter exports.
func Catalogue() []Metric { return slices.Clone(catalogue) }
