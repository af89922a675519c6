package dashboards

func replication() Board {
	return Board{
		UID: "sqlwatch-replication", Title: "SQLite replication",
		Description: "Are the copies fresh, and can they be restored? Everything here is empty for databases without a " +
			"replica.",
		Rows: []Row{
			replicationHealth(), replicationFreshness(), replicationBudget(), replicationRestore(), replicationCustody(),
			replicationRequests(),
		},
	}
}

func replicationHealth() Row {
	since := func(metric string) string { return `max(time() - (` + metric + `{@db} > 0))` }
	return Row{Title: "Is everything well?", Panels: []Panel{
		{Title: "Most commits at risk", Kind: Stat, Unit: "s", Steps: warn(30, 300),
			Description: "What would be lost with the machine, in time: the age of the least fresh replica. A few seconds are " +
				"normal.",
			Queries: one(`max(`+freshness+`)`, "at risk")},
		{Title: "Not stored yet", Kind: Stat, Unit: "bytes", Steps: warn(64e6, 512e6),
			Description: "Captured and safe in the spool on this machine, but not in a replica. It grows while a store cannot " +
				"be reached.",
			Queries: one(`sum(sqlwatch_replica_pending_bytes{@db})`, "pending")},
		{Title: "Error budget left", Kind: Stat, Unit: "percentunit", Base: "red", Steps: low(0, 0.25),
			Description: "Of 30 days the replicas may be late for 43 minutes. What is left of it, for the worst replica. " +
				"Comes from the recording rules, an hour after the start.",
			Queries: one(`min(sqlwatch:replica_error_budget:remaining_ratio_30d{@db})`, "left")},
		{Title: "Longest since a snapshot check", Kind: Stat, Unit: "percentunit", Steps: warn(1.25, 2),
			Description: "Time since the last snapshot check that succeeded, as a share of the configured time between " +
				"checks, of the replica where that is largest. A check takes a snapshot if one is needed. An idle database " +
				"needs no check.",
			Queries: one(
				`max((time() - (sqlwatch_replica_snapshot_last_success_timestamp_seconds{@db} > 0)) / `+
					`sqlwatch_replica_snapshot_interval_seconds{@db})`, "of the interval")},
		{Title: "Longest since a restore drill", Kind: Stat, Unit: "s", Steps: warn(7*86400, 8*86400),
			Description: "Since when no restore of a replica has been proven. No data: none was ever made; `sqlwatch verify` " +
				"makes one.",
			Queries: one(since("sqlwatch_verify_last_success_timestamp_seconds"), "since")},
		{Title: "Discontinuities", Kind: Stat, Unit: "short", Steps: warn(1, 3),
			Description: "How often, in the time shown, sqlwatch could not prove that it had seen every commit, compared the " +
				"database and sent what differed. Once after a restart is normal.",
			Queries: one(`sum(`+grown(`sqlwatch_replica_discontinuities_total{@db}`, "$__range")+`) or vector(0)`,
				"discontinuities")},
	}}
}

func replicationFreshness() Row {
	return Row{Title: "How far behind", Panels: []Panel{
		{Title: "Freshness", Kind: TimeSeries, Unit: "s", Min: number(0), OpensDatabase: true,
			Description: "Age of what each replica holds, beside what was promised (sync_every). While nothing is written it " +
				"stays near 0.",
			Queries: []Query{
				{freshness, "{{db}} in {{replica}}"},
				{`max(sqlwatch_replica_objective_seconds{@db})`, "promised"},
			}},
		{Title: "Lag", Kind: TimeSeries, Unit: "s", Min: number(0), OpensDatabase: true,
			Description: "Age of the oldest commit that is not durable in the replica; 0 when there is none.",
			Queries:     one(`sqlwatch_replica_lag_seconds{@db}`, "{{db}} in {{replica}}")},
		{Title: "Not stored yet", Kind: TimeSeries, Unit: "bytes", Min: number(0), OpensDatabase: true,
			Description: "Bytes in the spool that the replica does not have.",
			Queries:     one(`sqlwatch_replica_pending_bytes{@db}`, "{{db}} in {{replica}}")},
		{Title: "Batches stored", Kind: TimeSeries, Unit: "short", Min: number(0), OpensDatabase: true,
			Description: "Captures that became durable in the replica (TXIDs). 0 while the application writes nothing.",
			Queries:     one(`clamp_min(delta(sqlwatch_replica_txid{@db}[$__rate_interval]), 0)`, "{{db}} in {{replica}}")},
	}}
}

func replicationBudget() Row {
	return Row{Title: "Error budget", Panels: []Panel{
		{Title: "Time late", Kind: TimeSeries, Unit: "percentunit", Min: number(0), Steps: warn(0.006, 0.0144),
			Description: "Share of the last hour and six hours in which the replica was later than twice its objective and 3 " +
				"seconds. The budget is 0.1 %. From the recording rules in alerts/.",
			Queries: []Query{
				{`sqlwatch:replica_objective_missed:ratio_1h{@db}`, "{{db}} in {{replica}}, 1 h"},
				{`sqlwatch:replica_objective_missed:ratio_6h{@db}`, "{{db}} in {{replica}}, 6 h"},
			}},
		{Title: "Budget left of 30 days", Kind: TimeSeries, Unit: "percentunit", Max: number(1),
			Description: "1 is all of it, below 0 it is overdrawn. From the recording rules in alerts/.",
			Queries:     one(`sqlwatch:replica_error_budget:remaining_ratio_30d{@db}`, "{{db}} in {{replica}}")},
	}}
}

func replicationRestore() Row {
	return Row{Title: "Can it be restored?", Panels: []Panel{
		{Title: "Reaches back", Kind: TimeSeries, Unit: "s", Min: number(0),
			Description: "The oldest state that can be restored, as an age. It grows up to retention.keep.",
			Queries: one(`time() - (sqlwatch_replica_restore_point_oldest_timestamp_seconds{@db} > 0)`,
				"{{db}} in {{replica}}")},
		{Title: "Time since the last snapshot check", Kind: TimeSeries, Unit: "s", Min: number(0),
			Description: "Time since the last snapshot check that succeeded, beside the configured time between checks. A " +
				"check takes a snapshot if one is needed: a restore begins with a snapshot and adds what came after it, so " +
				"without a new one it takes longer and longer. An idle database needs no check.",
			Queries: []Query{
				{`time() - (sqlwatch_replica_snapshot_last_success_timestamp_seconds{@db} > 0)`, "{{db}} in {{replica}}"},
				{`min(sqlwatch_replica_snapshot_interval_seconds{@db})`, "configured"},
			}},
		{Title: "Time to restore", Kind: TimeSeries, Unit: "s", Min: number(0),
			Description: "How long the last restore drill took: the measured time to recover.",
			Queries:     one(`sqlwatch_verify_duration_seconds{@db} > 0`, "{{db}} from {{replica}}")},
		{Title: "Drills that failed", Kind: TimeSeries, Unit: "short", Min: number(0),
			Description: "Restore drills whose result was not a sound database equal to the original. Anything but 0 needs a " +
				"person.",
			Queries: one(`sum by (db, replica) (`+grown(`sqlwatch_verify_failures_total{@db}`, "$__rate_interval")+`)`,
				"{{db}} from {{replica}}")},
		{Title: "Discontinuities", Kind: TimeSeries, Unit: "short", Min: number(0),
			Description: "By reason. The replica is complete after each, but the states in between cannot be restored.",
			Queries: one(`sum by (db, reason) (`+grown(`sqlwatch_replica_discontinuities_total{@db}`, "$__rate_interval")+
				`)`,
				"{{db}}: {{reason}}")},
		{Title: "Stored", Kind: TimeSeries, Unit: "bytes", Min: number(0),
			Description: "Bytes of all files that the replica holds.",
			Queries:     one(`sqlwatch_replica_stored_bytes{@db}`, "{{db}} in {{replica}}")},
	}}
}

// replicationCustody shows whether sqlwatch alone writes to the replica, and whether it is
// complete.
func replicationCustody() Row {
	return Row{Title: "Whose is it, and is it whole?", Panels: []Panel{
		{Title: "Not written to", Kind: TimeSeries, Unit: "short", Min: number(0),
			Description: "1 while the replica holds another history and is left alone; sqlwatch status says which.",
			Queries:     one(`sqlwatch_replica_refused{@db}`, "{{db}} to {{replica}}")},
		{Title: "Refuses a second writer", Kind: TimeSeries, Unit: "short", Min: number(0),
			Description: "1 where the store honours conditional writes; where it does not, two writers are told apart by the " +
				"lease alone.",
			Queries: one(`sqlwatch_replica_conditional_writes{@db}`, "{{db}} to {{replica}}")},
		{Title: "Files lost", Kind: TimeSeries, Unit: "short", Min: number(0),
			Description: "Files found gone, corrupt or unreadable since the start: the past has gaps there.",
			Queries:     one(`sqlwatch_replica_lost_files{@db}`, "{{db}} to {{replica}}")},
	}}
}

func replicationRequests() Row {
	return Row{Title: "Requests to the store", Panels: []Panel{
		{Title: "Uploaded", Kind: TimeSeries, Unit: "Bps", Min: number(0),
			Description: "Bytes stored per second.",
			Queries: one(`sum by (db, replica) (rate(sqlwatch_replica_uploaded_bytes_total{@db}[$__rate_interval]))`,
				"{{db}} to {{replica}}")},
		{Title: "Requests", Kind: TimeSeries, Unit: "reqps", Min: number(0),
			Description: "Every request that was sent, retries included: what the provider bills. An idle database sends none.",
			Queries: one(`sum by (operation) (rate(sqlwatch_replica_operations_total{@db}[$__rate_interval]))`,
				"{{operation}}")},
		{Title: "Requests that failed", Kind: TimeSeries, Unit: "reqps", Min: number(0),
			Description: "By reason. That there is nothing yet, or already, is an answer and not counted here.",
			Queries: one(
				`sum by (operation, reason) (rate(sqlwatch_replica_operation_failures_total{@instance}[$__rate_interval])) > 0`,
				"{{operation}}: {{reason}}")},
		{Title: "Duration of requests", Kind: TimeSeries, Unit: "s", Min: number(0),
			Description: "95 of 100 requests took less.",
			Queries: one(
				`histogram_quantile(0.95, sum by (le, operation) `+
					`(rate(sqlwatch_replica_operation_duration_seconds_bucket{@instance}[$__rate_interval])))`, "{{operation}}")},
	}}
}
