package dashboards

// policyState numbers the states of a policy, for the words and colours of phases.
const policyState = `max by (instance, db, policy) (
  sqlwatch_policy_state{@db,state="inactive"} * 0
  or sqlwatch_policy_state{@db,state="pending"} * 1
  or sqlwatch_policy_state{@db,state="armed"} * 2
  or sqlwatch_policy_state{@db,state="running"} * 3
  or sqlwatch_policy_state{@db,state="cooldown"} * 4
  or sqlwatch_policy_state{@db,state="backoff"} * 5
)`

var phases = []Mapping{
	{0, "inactive", "text"}, {1, "pending", "yellow"}, {2, "armed", "orange"},
	{3, "running", "purple"}, {4, "cooldown", "green"}, {5, "backoff", "red"},
}

func policies() Board {
	return Board{
		UID: "sqlwatch-policy", Title: "SQLite policies",
		Description: "What the policies decided, what kept them from acting, and what their actions cost the application.",
		Rows:        []Row{policyHealth(), policyStates(), policyActions(), policyCost()},
	}
}

func policyHealth() Row {
	return Row{Title: "Is everything well?", Panels: []Panel{
		{Title: "Configuration in force", Kind: Stat, Unit: "short", Base: "red",
			Values: []Mapping{{0, "an older one", "red"}, {1, "the newest", "green"}},
			Description: "Whether the last attempt to load the configuration succeeded. If not, the one before is still in " +
				"force, and the log says what is wrong.",
			Queries: one(`min(sqlwatch_config_last_reload_successful{@instance})`, "loaded")},
		{Title: "Configuration loaded", Kind: Stat, Unit: "s", Base: "blue",
			Description: "How long ago a configuration was last taken over.",
			Queries:     one(`min(time() - sqlwatch_config_last_reload_success_timestamp_seconds{@instance})`, "ago")},
		{Title: "Waiting to act", Kind: Stat, Unit: "short", Base: "blue",
			Description: "Policies whose condition holds and that a guard keeps from acting: a window, a reader, the stall " +
				"budget. `sqlwatch why` explains each.",
			Queries: one(`count(sqlwatch_policy_state{@db,state="armed"} == 1) or vector(0)`, "armed")},
		{Title: "Backing off", Kind: Stat, Unit: "short", Steps: bad(1),
			Description: "Policies that acted without success and wait before they try again.",
			Queries:     one(`count(sqlwatch_policy_state{@db,state="backoff"} == 1) or vector(0)`, "backoff")},
		{Title: "Actions", Kind: Stat, Unit: "short", Base: "blue",
			Description: "Actions begun in the time shown.",
			Queries:     one(`sum(increase(sqlwatch_policy_actions_total{@db}[$__range])) or vector(0)`, "actions")},
		{Title: "Paused by an operator", Kind: Stat, Unit: "short", Steps: []Step{{1, "orange"}},
			Description: "Databases whose policies were told to rest with `sqlwatch pause`.",
			Queries:     one(`sum(sqlwatch_policy_paused{@db}) or vector(0)`, "paused")},
	}}
}

func policyStates() Row {
	return Row{Title: "What each policy is doing", Panels: []Panel{
		{Title: "States", Kind: States, Unit: "short", Width: gridWidth, Height: 10, Values: phases,
			Description: "inactive: its condition does not hold. pending: it holds, not for long enough. armed: it would act, " +
				"a guard refuses. running: it acts. cooldown: it has acted and rests. backoff: it acted in vain and waits.",
			Queries: one(policyState, "{{db}}: {{policy}}")},
		{Title: "Windows", Kind: States, Unit: "short", Width: gridWidth, Height: 5, Values: []Mapping{{0, "closed", "text"},
			{1, "open", "green"}},
			Description: "When the windows were open. Empty where the configuration has none.",
			Queries:     one(`max by (instance, window) (sqlwatch_policy_window_open{@db})`, "{{window}} on {{instance}}")},
	}}
}

func policyActions() Row {
	return Row{Title: "Actions and refusals", Panels: []Panel{
		{Title: "Actions", Kind: TimeSeries, Unit: "short", Min: number(0), OpensDatabase: true,
			Description: "Actions that were begun.",
			Queries: one(`sum by (db, policy, action) (increase(sqlwatch_policy_actions_total{@db}[$__rate_interval]))`,
				"{{db}}: {{policy}}, {{action}}")},
		{Title: "Actions that fell short", Kind: TimeSeries, Unit: "short", Min: number(0), OpensDatabase: true,
			Description: "Actions that did not reach their end. For checkpoints the reasons are below.",
			Queries: one(
				`sum by (db, policy, action) (`+grown(`sqlwatch_policy_action_failures_total{@db}`, "$__rate_interval")+`)`,
				"{{db}}: {{policy}}, {{action}}")},
		{Title: "Refusals", Kind: TimeSeries, Unit: "short", Min: number(0), OpensDatabase: true,
			Description: "Times that a guard began to keep a policy from acting. window: outside it. reader: somebody pins " +
				"the WAL. stall: writers would wait too long. floor: too soon or too little. turn: another policy " +
				"acts. mode: dry run.",
			Queries: one(`sum by (db, policy, guard) (`+grown(`sqlwatch_policy_refusals_total{@db}`, "$__rate_interval")+`)`,
				"{{db}}: {{policy}}, {{guard}}")},
		{Title: "Checkpoints that fell short", Kind: TimeSeries, Unit: "short", Min: number(0), OpensDatabase: true,
			Description: "By reason; see the dashboard of the database.",
			Queries: one(`sum by (db, reason) (`+grown(`sqlwatch_checkpoint_failures_total{@db}`, "$__rate_interval")+`)`,
				"{{db}}: {{reason}}")},
		{Title: "Notifications", Kind: TimeSeries, Unit: "short", Min: number(0), Width: gridWidth,
			Description: "What policies told the notifiers: taken, waiting for a notifier that does not answer, and lost, by " +
				"reason. Empty where the configuration has no notifier.",
			Queries: []Query{
				{`sum by (notifier) (increase(sqlwatch_notifications_total{@instance}[$__rate_interval]))`, "{{notifier}} took"},
				{`sum by (notifier) (sqlwatch_notifications_waiting{@instance})`, "{{notifier}}: waiting"},
				{`sum by (notifier, reason) (increase(sqlwatch_notification_failures_total{@instance}[$__rate_interval])) > 0`,
					"{{notifier}}: {{reason}}"},
			}},
	}}
}

func policyCost() Row {
	return Row{Title: "Cost and benefit", Panels: []Panel{
		{Title: "Writer stall", Kind: TimeSeries, Unit: "s", Min: number(0), OpensDatabase: true,
			Description: "How long one checkpoint made writers wait: 99th percentile.",
			Queries: one(
				`histogram_quantile(0.99, sum by (le, db) (rate(sqlwatch_writer_stall_seconds_bucket{@db}[$__rate_interval])))`,
				"{{db}}")},
		{Title: "Share of time in which writers were stalled", Kind: TimeSeries, Unit: "percentunit", Min: number(0),
			OpensDatabase: true,
			Description:   "The share of time in which writers had to wait for a checkpoint.",
			Queries:       one(`sum by (db) (rate(sqlwatch_writer_stall_seconds_sum{@db}[$__rate_interval]))`, "{{db}}")},
		{Title: "WAL space reclaimed", Kind: TimeSeries, Unit: "bytes", Min: number(0), OpensDatabase: true,
			Description: "Bytes of WAL files that TRUNCATE checkpoints returned.",
			Queries: one(`sum by (db) (increase(sqlwatch_checkpoint_reclaimed_bytes_total{@db}[$__rate_interval]))`,
				"{{db}}")},
		{Title: "WAL", Kind: TimeSeries, Unit: "bytes", Min: number(0), OpensDatabase: true,
			Description: "Size of the WAL files, for comparison.",
			Queries:     one(`max by (db) (sqlite_wal_size_bytes{@db})`, "{{db}}")},
		{Title: "Tuned values", Kind: TimeSeries, Unit: "short", OpensDatabase: true,
			Description: "What each tune block suggests, in the parameter's own unit. Empty where no policy has one.",
			Queries:     one(`max by (db, policy, parameter) (sqlwatch_tuned_value{@db})`, "{{db}}: {{policy}}, {{parameter}}")},
	}}
}
