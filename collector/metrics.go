package collector

import (
	"slices"

	"github.com/sqlwatch/sqlwatch/internal/metric"
)

// The metrics of this package, in the order of the reference. State gauges that need a consistent
// WAL are absent while there is none: an absent series is unknown, and unknown is not zero.
// Counters are always exported.
var (
	metricUp = metric.Metric{Name: "sqlite_up", Type: metric.Gauge, Labels: []string{"db"},
		Help: "1 if header, WAL and wal-index of the database were read consistently; 0 if not, with the reason in " +
			"sqlite_database_info's state label."}
	metricSampled = metric.Metric{Name: "sqlite_last_sample_timestamp_seconds", Type: metric.Gauge, Labels: []string{"db"},
		Help: "When the values of this database were measured. A scrape shows the latest sample and waits for no disk: if " +
			"this stands still, so do the others."}
	metricDatabaseInfo = metric.Metric{Name: "sqlite_database_info", Type: metric.Gauge,
		Labels: []string{"db", "path", "journal_mode", "state"},
		Help:   "Always 1: facts about the database to join on. This is the only metric that carries its path."}
	metricEngineInfo = metric.Metric{Name: "sqlite_engine_info", Type: metric.Gauge, Labels: []string{"db", "version"},
		Help: "Always 1: version of the SQLite library that last wrote page 1."}
	metricFilesystemInfo = metric.Metric{Name: "sqlite_filesystem_info", Type: metric.Gauge,
		Labels: []string{"db", "fstype", "mountpoint"},
		Help:   "Always 1: the file system that holds the database."}
	metricWALResetBug = metric.Metric{Name: "sqlite_database_wal_reset_bug", Type: metric.Gauge, Labels: []string{"db"},
		Help: "1 if the last writer's SQLite can lose commits when a checkpoint meets a WAL reset (3.7.0 to 3.51.2, except " +
			"3.44.6 and 3.50.7).",
		AbsentAtZero: true}
	metricDatabaseSize = metric.Metric{Name: "sqlite_database_size_bytes", Type: metric.Gauge, Labels: []string{"db"},
		Help: "Size of the main database file."}
	metricWALSize = metric.Metric{Name: "sqlite_wal_size_bytes", Type: metric.Gauge, Labels: []string{"db"},
		Help: "Size of the WAL file, a high-water mark: frames in use are sqlite_wal_frames."}
	metricPageSize = metric.Metric{Name: "sqlite_database_page_size_bytes", Type: metric.Gauge, Labels: []string{"db"},
		Help: "Page size of the database."}
	metricPages = metric.Metric{Name: "sqlite_database_pages", Type: metric.Gauge, Labels: []string{"db"},
		Help: "Pages of the database, including those only in the WAL so far."}
	metricFreelistPages = metric.Metric{Name: "sqlite_database_freelist_pages", Type: metric.Gauge, Labels: []string{"db"},
		Help: "Unused pages of the database, as of the last checkpoint of page 1."}
	metricFrames = metric.Metric{Name: "sqlite_wal_frames", Type: metric.Gauge, Labels: []string{"db"},
		Help: "Committed frames in the WAL."}
	metricCheckpointed = metric.Metric{Name: "sqlite_wal_checkpointed_frames", Type: metric.Gauge, Labels: []string{"db"},
		Help: "Frames of the WAL already copied into the database file; sqlite_wal_frames minus this is the checkpoint lag " +
			"in frames. Absent in EXCLUSIVE locking mode, where it cannot be seen."}
	metricCheckpointLag = metric.Metric{Name: "sqlite_wal_checkpoint_lag_seconds", Type: metric.Gauge,
		Labels: []string{"db"},
		Help: "Age of the oldest frame not yet in the database file; 0 if there is none. Absent in EXCLUSIVE locking " +
			"mode, where it cannot be seen."}
	metricCommits = metric.Metric{Name: "sqlite_wal_commits_total", Type: metric.Counter, Labels: []string{"db"},
		Help: "Transactions committed to the WAL since sqlwatch began to watch."}
	metricFramesWritten = metric.Metric{Name: "sqlite_wal_frames_written_total", Type: metric.Counter,
		Labels: []string{"db"},
		Help:   "Frames committed to the WAL since sqlwatch began to watch."}
	metricResets = metric.Metric{Name: "sqlite_wal_resets_total", Type: metric.Counter, Labels: []string{"db"},
		Help: "Times the WAL restarted at its first frame since sqlwatch began to watch."}
	metricLastWrite = metric.Metric{Name: "sqlite_wal_last_write_timestamp_seconds", Type: metric.Gauge,
		Labels: []string{"db"},
		Help:   "When a commit was last seen; 0 if none was since sqlwatch began to watch."}
	metricLastCheckpoint = metric.Metric{Name: "sqlite_wal_last_complete_checkpoint_timestamp_seconds", Type: metric.Gauge,
		Labels: []string{"db"},
		Help: "When the last frame of the WAL was last seen to reach the database file; 0 if that was not seen since " +
			"sqlwatch began to watch."}
	metricReaders = metric.Metric{Name: "sqlite_wal_readers", Type: metric.Gauge, Labels: []string{"db"},
		Help: "Read marks that processes other than sqlwatch use: at least this many read transactions are open."}
	metricOldestReader = metric.Metric{Name: "sqlite_wal_oldest_reader_frame", Type: metric.Gauge, Labels: []string{"db"},
		Help:         "Lowest of those read marks: frames after it stay in the WAL; 0 = nobody.",
		AbsentAtZero: true}
	metricPinnedSince = metric.Metric{Name: "sqlite_wal_pinned_since_timestamp_seconds", Type: metric.Gauge,
		Labels: []string{"db"},
		Help: "Since when one of those read marks, below the head, has been keeping the WAL from being reset; 0 = " +
			"nobody.",
		AbsentAtZero: true}
	metricLockHeld = metric.Metric{Name: "sqlite_lock_held_ratio", Type: metric.Gauge, Labels: []string{"db", "lock"},
		Help: "Share of the last minute's samples, 0 to 1, that found the lock held."}
	metricBusy = metric.Metric{Name: "sqlite_busy_total", Type: metric.Counter, Labels: []string{"db", "lock", "source"},
		Help: "Refused locks. Source ebpf: refused attempts of all other processes that an application without " +
			"busy_timeout sees as SQLITE_BUSY; with one, the retries too. Source sqlwatch: what sqlwatch's own operations " +
			"met. Source step, for chosen databases: calls of sqlite3_step that returned SQLITE_BUSY, whatever was in the " +
			"way; it overlaps with ebpf.",
		AbsentAtZero: true}
	metricWriteHold = metric.Metric{Name: "sqlite_write_lock_hold_seconds", Type: metric.Histogram, Labels: []string{"db"},
		Help: "How long the write lock was held, by any process. One of eight holds is timed, by lot, and counts for " +
			"eight. Only where the kernel's source (ebpf) works; absent elsewhere.",
		AbsentAtZero: true, Bounds: []float64{0.001048576, 0.016777216, 0.268435456, 4.294967296}}
	metricProcesses = metric.Metric{Name: "sqlite_database_processes", Type: metric.Gauge, Labels: []string{"db"},
		Help: "Distinct processes seen holding a lock within the last minute: at least this many are attached."}
	metricAvail = metric.Metric{Name: "sqlite_filesystem_avail_bytes", Type: metric.Gauge, Labels: []string{"db"},
		Help: "Bytes available to unprivileged users on the database's file system."}
	metricFilesystemSize = metric.Metric{Name: "sqlite_filesystem_size_bytes", Type: metric.Gauge, Labels: []string{"db"},
		Help: "Size of the database's file system."}
	metricScrapeDuration = metric.Metric{Name: "sqlwatch_scrape_collector_duration_seconds", Type: metric.Gauge,
		Labels: []string{"collector"},
		Help:   "How long the collector took to answer this scrape."}
	metricScrapeSuccess = metric.Metric{Name: "sqlwatch_scrape_collector_success", Type: metric.Gauge,
		Labels: []string{"collector"},
		Help:   "1 if the collector works; 0 if not, with the reason in the log."}
)

var catalogue = []metric.Metric{
	metricUp, metricSampled, metricDatabaseInfo, metricEngineInfo, metricFilesystemInfo, metricWALResetBug,
	metricDatabaseSize, metricWALSize, metricPageSize, metricPages, metricFreelistPages,
	metricFrames, metricCheckpointed, metricCheckpointLag,
	metricCommits, metricFramesWritten, metricResets, metricLastWrite, metricLastCheckpoint,
	metricReaders, metricOldestReader, metricPinnedSince, metricLockHeld, metricBusy, metricWriteHold,
	metricProcesses, metricAvail, metricFilesystemSize,
	metricScrapeDuration, metricScrapeSuccess,
}

// Catalogue returns every metric that Exporter exports.
func Catalogue() []metric.Metric { return slices.Clone(catalogue) }
