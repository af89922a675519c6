package dashboards

// Queries that several dashboards share. Freshness is taken at the time of the scrape, so
// it does not include the time since then. After a restart of sqlwatch, the value from
// before counts until the replica has answered.
const (
	freshness = `clamp_min(timestamp(sqlwatch_replica_caught_up_timestamp_seconds{@db}) - ` +
		`(max_over_time(sqlwatch_replica_caught_up_timestamp_seconds{@db}[6h]) > 0), 0)`
	pinnedFor = `time() - (sqlite_wal_pinned_since_timestamp_seconds{@db} > 0)`
	diskFree  = `sqlite_filesystem_avail_bytes{@db} / sqlite_filesystem_size_bytes{@db}`
)

func fleet() Board {
	return Board{
		UID: "sqlwatch-fleet", Title: "SQLite fleet",
		Description: "All SQLite databases that sqlwatch looks after: is everything well, and if not, where. Click a name " +
			"to open the database.",
		Rows: []Row{fleetHealth(), fleetTable(), fleetTop(), fleetWatchers()},
	}
}

func fleetHealth() Row {
	return Row{Title: "Is everything well?", Panels: []Panel{
		{Title: "Databases", Kind: Stat, Unit: "short", Base: "blue",
			Description: "How many databases are looked after.",
			Queries:     one(`count(sqlite_up{@db})`, "databases")},
		{Title: "Cannot be measured", Kind: Stat, Unit: "short", Steps: bad(1),
			Description: "Databases that could not be read consistently: missing, not in WAL mode, or not readable. The table " +
				"of a database says which. 0 is good.",
			Queries: one(`count(sqlite_up{@db} == 0) or vector(0)`, "not up")},
		{Title: "Alerts", Kind: Stat, Unit: "short", Steps: bad(1),
			Description: "Alerts of the sqlwatch rules that are firing now. 0 is good; it is also 0 when the rules are not " +
				"loaded.",
			Queries: one(`count(ALERTS{alertname=~"Sqlwatch.+",alertstate="firing",@instance}) or vector(0)`, "firing")},
		{Title: "Most commits at risk", Kind: Stat, Unit: "s", Steps: warn(30, 300),
			Description: "How much would be lost if a machine burned down now: the age of what the least fresh replica holds. " +
				"No data: nothing is replicated.",
			Queries: one(`max(`+freshness+`)`, "seconds")},
		{Title: "Fullest disk, free", Kind: Stat, Unit: "percentunit", Base: "red", Steps: low(0.03, 0.1),
			Description: "Free share of the fullest disk that holds a database. On a full disk every write of the application " +
				"fails.",
			Queries: one(`min(`+diskFree+`)`, "free")},
		{Title: "Hosts that answer", Kind: Stat, Unit: "percentunit", Base: "red", Steps: low(0.5, 1), Max: number(1),
			Description: "Share of the sqlwatch processes that answered the last scrape. 100 % is good.",
			Queries:     one(`avg(up{@instance})`, "up")},
	}}
}

func fleetTable() Row {
	column := func(title, unit string, steps ...Step) Column { return Column{Title: title, Unit: unit, Steps: steps} }
	each := func(expr string) Query { return Query{Expr: `max by (instance, db) (` + expr + `)`} }
	return Row{Title: "Databases", Panels: []Panel{{
		Title: "All databases", Kind: Table, Unit: "short",
		Description: "One line for each database, as of now. Click a name to open its dashboard. An empty cell is " +
			"something that is not known, or does not apply.",
		Queries: []Query{
			each(`sqlite_up{@db}`),
			each(`sqlite_database_size_bytes{@db}`),
			each(`sqlite_wal_size_bytes{@db}`),
			each(`rate(sqlite_wal_commits_total{@db}[$__rate_interval])`),
			each(`sqlite_wal_checkpoint_lag_seconds{@db}`),
			each(pinnedFor),
			each(`sqlite_lock_held_ratio{@db,lock="write"}`),
			each(freshness),
			each(diskFree),
		},
		Columns: []Column{
			{Title: "Measured", Unit: "short", Values: []Mapping{{0, "NO", "red"}, {1, "yes", "green"}}},
			column("Size", "bytes"),
			column("WAL", "bytes", warn(256e6, 512e6)...),
			column("Commits", "ops"),
			column("Oldest frame not in the file", "s"),
			column("Pinned for", "s", warn(60, 600)...),
			column("Write lock held", "percentunit", warn(0.5, 0.8)...),
			column("At risk", "s", warn(30, 300)...),
			{Title: "Disk free", Unit: "percentunit", Steps: []Step{{0, "red"}, {0.03, "orange"}, {0.1, "green"}}},
		},
	}}}
}

func fleetTop() Row {
	top := func(title, description, unit, expr string, steps ...Step) Panel {
		return Panel{Title: title, Description: description, Kind: TimeSeries, Unit: unit, Min: number(0), Steps: steps,
			OpensDatabase: true,
			Queries:       one(`topk(10, max by (instance, db) (`+expr+`))`, "{{db}} on {{instance}}")}
	}
	return Row{Title: "Which databases need attention", Panels: []Panel{
		top("Largest WALs", "Size of the WAL file, the ten largest. It grows until a checkpoint empties it; what never "+
			"shrinks has a reader or a policy in its way.", "bytes", `sqlite_wal_size_bytes{@db}`, bad(512e6)...),
		top("Longest pins", "For how long one read transaction has kept the WAL from restarting. A replicated database "+
			"is pinned by sqlwatch itself, up to its restart bound: that is as it should be.", "s", pinnedFor, bad(600)...),
		top("Busiest writers", "Committed transactions per second.", "ops",
			`rate(sqlite_wal_commits_total{@db}[$__rate_interval])`),
		top("Most used write locks", "Share of time that somebody had the write lock. Near 100 % writers wait for each "+
			"other.", "percentunit", `sqlite_lock_held_ratio{@db,lock="write"}`, bad(0.8)...),
		top("Refused writes", "Attempts per second to get the write lock that were refused, as the kernel saw them. 0 "+
			"everywhere when the kernel is not asked: see the last row.", "ops",
			`(sum by (instance, db) (rate(sqlite_busy_total{@db,source="ebpf",lock="write"}[$__rate_interval]))`+
				` or 0 * sum by (instance, db) (sqlite_up{@db}))`), // the first is absent until a lock is refused
		top("Least fresh replicas", "Age of what the replica holds. While nothing is written it stays near 0.", "s",
			freshness),
	}}
}

func fleetWatchers() Row {
	return Row{Title: "sqlwatch itself", Panels: []Panel{
		{Title: "Engines", Kind: Table, Unit: "short", Width: 12, Height: 8,
			Columns:     []Column{{Title: "Databases", Unit: "short"}},
			Description: "Versions of the SQLite libraries that last wrote each database, and how many databases each has.",
			Queries:     one(`count by (version) (sqlite_engine_info{@db})`, "")},
		{Title: "Measuring works", Kind: States, Unit: "short", Values: []Mapping{{0, "no", "red"}, {1, "yes", "green"}},
			Description: "Parts of the measuring: databases is the reading of files; busy asks the kernel for refused locks, " +
				"which needs privileges and a recent kernel.",
			Queries: one(`min by (instance, collector) (sqlwatch_scrape_collector_success{@instance})`,
				"{{collector}} on {{instance}}")},
		{Title: "Time to answer a scrape", Kind: TimeSeries, Unit: "s", Min: number(0),
			Description: "How long each part took. A scrape shows the latest sample and touches no database, so that this " +
				"stays in milliseconds.",
			Queries: one(`max by (instance, collector) (sqlwatch_scrape_collector_duration_seconds{@instance})`,
				"{{collector}} on {{instance}}")},
		{Title: "Age of the measurements", Kind: TimeSeries, Unit: "s", Min: number(0), Steps: bad(300),
			Description: "Age of the oldest sample shown. If it climbs, everything else shown of that database stands still: " +
				"most often a disk that does not answer.",
			Queries: one(`max by (instance) (time() - (sqlite_last_sample_timestamp_seconds{@db} > 0))`, "{{instance}}")},
		{Title: "Memory", Kind: TimeSeries, Unit: "bytes", Min: number(0),
			Description: "Memory of the sqlwatch process.",
			Queries:     one(`max by (instance) (process_resident_memory_bytes{@instance})`, "{{instance}}")},
		{Title: "Faults of sqlwatch", Kind: TimeSeries, Unit: "short", Min: number(0),
			Description: "Evaluations that ended in a bug in sqlwatch; it closed the database and reopened it. Anything but " +
				"0 is worth a report.",
			Queries: one(`sum by (instance) (`+grown(`sqlwatch_database_panics_total{@db}`, "$__rate_interval")+`)`,
				"{{instance}}")},
	}}
}
