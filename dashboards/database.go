package dashboards

func database() Board {
	return Board{
		UID: "sqlwatch-database", Title: "SQLite database", OneDatabase: true,
		Description: "One database: its writes, its WAL, who holds what, and the room it has.",
		Rows:        []Row{databaseHealth(), databaseWrites(), databaseCheckpoints(), databaseLocks(), databaseSpace()},
	}
}

func databaseHealth() Row {
	return Row{Title: "Is everything well?", Panels: []Panel{
		{Title: "Measured", Kind: Stat, Unit: "short", Width: 3, Base: "red",
			Values:      []Mapping{{0, "NO", "red"}, {1, "yes", "green"}},
			Description: "Whether the database could be read consistently. If not, `sqlwatch status` says why.",
			Queries:     one(`min(sqlite_up{@db})`, "up")},
		{Title: "WAL file", Kind: Stat, Unit: "bytes", Width: 3, Steps: warn(256e6, 512e6),
			Description: "Size of the -wal file. Commits go there first; a checkpoint copies them into the database and lets " +
				"the file start over.",
			Queries: one(`max(sqlite_wal_size_bytes{@db})`, "size")},
		{Title: "Oldest frame not in the file", Kind: Stat, Unit: "s", Width: 3, Base: "blue",
			Description: "Age of the oldest commit that is only in the WAL. It is safe there. Without much writing a high age " +
				"is normal: applications checkpoint by size, not by time.",
			Queries: one(`max(sqlite_wal_checkpoint_lag_seconds{@db})`, "lag")},
		{Title: "Pinned for", Kind: Stat, Unit: "s", Width: 3, Steps: warn(60, 600),
			Description: "For how long one read transaction has kept the WAL from restarting; 0 is nobody. `sqlwatch " +
				"blockers` names the process. With replicas it is sqlwatch itself, up to its restart bound.",
			Queries: one(`max(`+pinnedFor+`) or vector(0)`, "pinned")},
		{Title: "Write lock held", Kind: Stat, Unit: "percentunit", Width: 3, Steps: warn(0.5, 0.8),
			Description: "Share of the last minute that somebody was writing. SQLite has one writer at a time.",
			Queries:     one(`max(sqlite_lock_held_ratio{@db,lock="write"})`, "held")},
		{Title: "Commits at risk", Kind: Stat, Unit: "s", Width: 3, Steps: warn(30, 300),
			Description: "What would be lost with this machine: the age of the freshest replica. No data: the database is not " +
				"replicated.",
			Queries: one(`min(`+freshness+`)`, "at risk")},
		{Title: "Disk free", Kind: Stat, Unit: "percentunit", Width: 3, Base: "red", Steps: low(0.03, 0.1),
			Description: "Free share of the disk that holds the database.",
			Queries:     one(`min(`+diskFree+`)`, "free")},
		{Title: "Engine at risk", Kind: Stat, Unit: "short", Width: 3, Values: yesNo, Steps: bad(1),
			Description: "Whether the application's SQLite has the WAL-reset bug, which can lose commits. Cure: SQLite " +
				"3.51.3, 3.50.7 or 3.44.6.",
			Queries: one(`max(sqlite_database_wal_reset_bug{@db}) or vector(0)`, "affected")},
	}}
}

func databaseWrites() Row {
	return Row{Title: "Writes", Panels: []Panel{
		{Title: "Commits", Kind: TimeSeries, Unit: "ops", Min: number(0),
			Description: "Transactions committed per second, by all processes. Exact: SQLite counts them.",
			Queries:     one(`rate(sqlite_wal_commits_total{@db}[$__rate_interval])`, "commits")},
		{Title: "Bytes written to the WAL", Kind: TimeSeries, Unit: "Bps", Min: number(0),
			Description: "Pages written to the WAL, in bytes per second. Many bytes per commit mean large transactions or " +
				"scattered updates.",
			Queries: one(
				`rate(sqlite_wal_frames_written_total{@db}[$__rate_interval]) * on (job, instance, db) `+
					`sqlite_database_page_size_bytes{@db}`, "written")},
		{Title: "Since the last write", Kind: TimeSeries, Unit: "s", Min: number(0),
			Description: "How long ago a commit was seen. A straight climb is an idle application. Nothing is drawn before " +
				"the first commit that sqlwatch saw.",
			Queries: one(`time() - (sqlite_wal_last_write_timestamp_seconds{@db} > 0)`, "idle for")},
		{Title: "WAL restarts", Kind: TimeSeries, Unit: "short", Min: number(0),
			Description: "How often the WAL restarted at its first frame. None for long, with writes: something keeps it " +
				"from doing so.",
			Queries: one(`increase(sqlite_wal_resets_total{@db}[$__rate_interval])`, "restarts")},
	}}
}

func databaseCheckpoints() Row {
	return Row{Title: "WAL and checkpoints", Panels: []Panel{
		{Title: "WAL", Kind: TimeSeries, Unit: "bytes", Min: number(0),
			Description: "The file is a high-water mark. Of it, in use is what readers may need; not in the database file yet " +
				"is what the next checkpoint has to copy.",
			Queries: []Query{
				{`sqlite_wal_size_bytes{@db}`, "file"},
				{`sqlite_wal_frames{@db} * sqlite_database_page_size_bytes{@db}`, "in use"},
				{`(sqlite_wal_frames{@db} - sqlite_wal_checkpointed_frames{@db}) * sqlite_database_page_size_bytes{@db}`,
					"not in the database file yet"},
			}},
		{Title: "Oldest frame not in the file", Kind: TimeSeries, Unit: "s", Min: number(0),
			Description: "Age of the oldest commit that is only in the WAL, beside the time since everything was last seen to " +
				"be in the database file.",
			Queries: []Query{
				{`sqlite_wal_checkpoint_lag_seconds{@db}`, "oldest frame"},
				{`time() - (sqlite_wal_last_complete_checkpoint_timestamp_seconds{@db} > 0)`, "since the last complete checkpoint"},
			}},
		{Title: "Checkpoints by sqlwatch", Kind: TimeSeries, Unit: "short", Min: number(0),
			Description: "Checkpoints that sqlwatch began. The application's own show in the panels above only.",
			Queries:     one(`increase(sqlwatch_checkpoints_total{@db}[$__rate_interval])`, "{{mode}}")},
		{Title: "Checkpoints that fell short", Kind: TimeSeries, Unit: "short", Min: number(0),
			Description: "By reason. busy: a writer was at work. pinned: a reader was in the way. contended: another " +
				"checkpoint. stall_budget: it would have held writers up for too long. io: an error, see the log. All but io are " +
				"tried again later.",
			Queries: one(`sum by (reason) (`+grown(`sqlwatch_checkpoint_failures_total{@db}`, "$__rate_interval")+`)`,
				"{{reason}}")},
		{Title: "Duration of checkpoints", Kind: TimeSeries, Unit: "s", Min: number(0),
			Description: "95 of 100 checkpoints took less.",
			Queries: one(
				`histogram_quantile(0.95, sum by (le, mode) `+
					`(rate(sqlwatch_checkpoint_duration_seconds_bucket{@db}[$__rate_interval])))`, "{{mode}}")},
		{Title: "Writer stall by sqlwatch", Kind: TimeSeries, Unit: "s", Min: number(0),
			Description: "How long our checkpoints kept the write lock, 95 and 99 of 100: what writers may have waited " +
				"because of sqlwatch. The stall budget of the policy bounds it.",
			Queries: []Query{
				{`histogram_quantile(0.95, sum by (le) (rate(sqlwatch_writer_stall_seconds_bucket{@db}[$__rate_interval])))`,
					"95 %"},
				{`histogram_quantile(0.99, sum by (le) (rate(sqlwatch_writer_stall_seconds_bucket{@db}[$__rate_interval])))`,
					"99 %"},
			}},
	}}
}

func databaseLocks() Row {
	return Row{Title: "Readers and locks", Panels: []Panel{
		{Title: "Readers", Kind: TimeSeries, Unit: "short", Min: number(0),
			Description: "Read marks that other processes use. Several readers can share a mark: this many transactions are " +
				"open at least.",
			Queries: one(`sqlite_wal_readers{@db}`, "read marks")},
		{Title: "Pinned for", Kind: TimeSeries, Unit: "s", Min: number(0), Steps: bad(600),
			Description: "For how long one read transaction has kept the WAL from restarting. A saw is readers that come " +
				"and go; a long climb is one that was forgotten.",
			Queries: one(pinnedFor, "pinned")},
		{Title: "Kept for readers", Kind: TimeSeries, Unit: "bytes", Min: number(0),
			Description: "What was written after the oldest reader began: it stays in the WAL until that reader ends.",
			Queries: one(
				`clamp_min(sqlite_wal_frames{@db} - (sqlite_wal_oldest_reader_frame{@db} or sqlite_wal_readers{@db} * 0), 0) * `+
					`sqlite_database_page_size_bytes{@db} unless sqlite_wal_readers{@db} == 0`, "kept")},
		{Title: "Locks held", Kind: TimeSeries, Unit: "percentunit", Min: number(0), Max: number(1), Steps: bad(0.8),
			Description: "Share of the last minute that a lock was held. write: by writers. checkpoint: by whoever copies the " +
				"WAL into the database.",
			Queries: one(`sqlite_lock_held_ratio{@db}`, "{{lock}}")},
		{Title: "Refused locks", Kind: TimeSeries, Unit: "ops", Min: number(0),
			Description: "Refused attempts per second. ebpf: of all processes, as the kernel saw them (0 where it is not " +
				"asked). sqlwatch: our own. An application with busy_timeout tries again, and each try is counted.",
			Queries: one(`sum by (source, lock) (rate(sqlite_busy_total{@db}[$__rate_interval]))`,
				"{{lock}}, seen by {{source}}")},
		{Title: "How long writers keep the lock", Kind: TimeSeries, Unit: "s", Min: number(0),
			Description: "Half, and 99 of 100, write transactions kept the lock for less. Only where the kernel is asked " +
				"(eBPF).",
			Queries: []Query{
				{`histogram_quantile(0.5, sum by (le) (rate(sqlite_write_lock_hold_seconds_bucket{@db}[$__rate_interval])))`,
					"50 %"},
				{`histogram_quantile(0.99, sum by (le) (rate(sqlite_write_lock_hold_seconds_bucket{@db}[$__rate_interval])))`,
					"99 %"},
			}},
		{Title: "Processes", Kind: TimeSeries, Unit: "short", Min: number(0),
			Description: "Processes that were seen holding a lock in the last minute; sqlwatch counts itself while it holds " +
				"one. More than expected may be an old deployment that still runs.",
			Queries: one(`sqlite_database_processes{@db}`, "processes")},
	}}
}

func databaseSpace() Row {
	return Row{Title: "Size and disk", Panels: []Panel{
		{Title: "Database", Kind: TimeSeries, Unit: "bytes", Min: number(0),
			Description: "Size of the database file, and how much of it is free pages. Free pages are used again by later " +
				"writes; only VACUUM gives them back.",
			Queries: []Query{
				{`sqlite_database_size_bytes{@db}`, "file"},
				{`sqlite_database_freelist_pages{@db} * sqlite_database_page_size_bytes{@db}`, "free inside"},
			}},
		{Title: "Disk", Kind: TimeSeries, Unit: "bytes", Min: number(0),
			Description: "What is free on the file system that holds the database, and where it will be in a day at the rate " +
				"of the last six hours.",
			Queries: []Query{
				{`sqlite_filesystem_avail_bytes{@db}`, "free"},
				{`clamp_min(predict_linear(sqlite_filesystem_avail_bytes{@db}[6h], 86400), 0)`, "free in a day at this rate"},
			}},
		{Title: "What it is", Kind: Table, Unit: "short", Height: 6, Columns: []Column{{Title: "Pages", Unit: "short"}},
			Description: "Path, journal mode, state, engine and file system.",
			Queries: one(`max by (instance, db, path, journal_mode, state, version, fstype, mountpoint) (
  sqlite_database_pages{@db}
  * on (job, instance, db) group_left (path, journal_mode, state) sqlite_database_info{@db}
  * on (job, instance, db) group_left (version) sqlite_engine_info{@db}
  * on (job, instance, db) group_left (fstype, mountpoint) sqlite_filesystem_info{@db}
)`, "")},
	}}
}
