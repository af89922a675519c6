package health

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// up returns a database with which nothing is wrong.
func up() Database {
	return Database{Name: "app", Path: "/srv/app.db", Now: now, Replicated: true, Sample: &collector.Sample{
		DB: "app", State: collector.StateUp,
		WAL: collector.WAL{Known: true, PageSize: 4096, Frames: 100, CheckpointedFrames: 100, LastWrite: now,
			Restarted: now.Add(-time.Hour)},
		Capture: &collector.Capture{SpoolLimitBytes: 1e9},
		Replicas: []collector.Replica{{Name: "s3.main", Healthy: true, CaughtUp: now, ObjectiveSeconds: 1,
			SnapshotEverySeconds: 86400,
			VerifyEverySeconds:   604800, LastSnapshot: now.Add(-time.Hour), LastVerified: now.Add(-time.Hour)}},
	}}
}

// in puts a database into a state.
func in(state collector.State) func(*Database) {
	return func(d *Database) { d.Sample.State, d.Found = state, true }
}

// failing makes the replica fail for a reason.
func failing(reason string) func(*Database) {
	return func(d *Database) {
		r := &d.Sample.Replicas[0]
		r.Healthy, r.Reason, r.Err, r.FailingSince = false, reason, "the store says no", now.Add(-time.Hour)
	}
}

// scenes maps each condition to what causes it.
var scenes = map[string]func(*Database){
	"missing": in(collector.StateMissing), "empty": in(collector.StateEmpty), "not_wal": in(collector.StateNotWAL),
	"not_a_database": in(collector.StateNotDatabase), "foreign_owner": in(collector.StateForeignOwner),
	"network_filesystem": in(collector.StateNetworkFS), "unreadable": in(collector.StateUnreadable),
	"open_failed":     func(d *Database) { d.OpenErr = "no such bucket" },
	"hung":            func(d *Database) { d.SilentFor = time.Hour },
	"restarted":       func(d *Database) { d.Faults = 2 },
	"write_lock_held": func(d *Database) { d.Sample.Locks.WriteSince = now.Add(-78 * time.Second) },
	"write_lock_saturated": func(d *Database) { // a measurement seldom falls between two transactions
		d.Sample.Locks.WriteRatio, d.Sample.Locks.WriteSince = 0.9, now.Add(-time.Second)
		d.Sample.Locks.Watched = time.Minute
	},
	"reader_pinning": func(d *Database) {
		d.Replicated, d.Sample.Readers.Active, d.Sample.Readers.PinnedSince = false, 1, now.Add(-time.Hour)
	},
	"overlapping_readers": func(d *Database) {
		d.Sample.Readers.Share, d.Sample.WAL.Frames, d.Sample.WAL.CheckpointedFrames = 1, 5000, 5000
	},
	"wal_oversized": func(d *Database) { d.Sample.WAL.SizeBytes = 600e6 },
	"checkpoint_starved": func(d *Database) {
		d.Sample.WAL.Frames, d.Sample.WAL.LagSince = 50000, now.Add(-time.Hour)
	},
	"schema_unreadable": func(d *Database) {
		d.Sample.Capture.Reason, d.Sample.Capture.Err = collector.CaptureSchema, "malformed database schema (i)"
	},
	"page_checksums": func(d *Database) { d.Sample.Database.PageChecksums = true },
	"wal_reset_bug":  func(d *Database) { d.Sample.Database.WALResetBug = true },
	"disk_low":       func(d *Database) { d.Sample.Disk = collector.Disk{Known: true, SizeBytes: 100e9, FreeBytes: 1e9} },
	"read_only_filesystem": func(d *Database) {
		d.Sample.Disk = collector.Disk{Known: true, SizeBytes: 1e11, FreeBytes: 1e11, Mountpoint: "/srv", ReadOnly: true}
	},
	"paused": func(d *Database) { d.PausedUntil = now.Add(time.Hour) },
	"action_failed": func(d *Database) {
		d.Failed = &Attempt{Action: "checkpoint", Policy: "shrink",
			Outcome: "pinned"}
	},
	"capture_stopped": func(d *Database) { d.Sample.Capture.Reason, d.Sample.Capture.Err = "failed", "disk I/O error" },
	"file_cut":        func(d *Database) { d.Sample.Capture.Reason = collector.CaptureFileCut },
	"index_cut":       func(d *Database) { d.Sample.Capture.Reason = collector.CaptureIndexCut },
	"spool_full":      func(d *Database) { d.Sample.Capture.Reason = collector.CaptureSpoolFull },
	"spool_filling":   func(d *Database) { d.Sample.Capture.SpoolBytes = 8e8 },
	"replica_fenced":  failing("fenced"), "replica_held": failing("held"), "replica_foreign": failing("foreign"),
	"replica_auth_failed": failing("auth"),
	"replica_misplaced":   failing("misplaced"), "replica_unavailable": failing("unavailable"),
	"replica_failing":      failing("other"),
	"replica_lagging":      func(d *Database) { d.Sample.Replicas[0].LagSeconds = 600 },
	"replica_incomplete":   func(d *Database) { d.Sample.Replicas[0].CaughtUp = time.Time{} },
	"snapshot_too_old":     func(d *Database) { d.Sample.Replicas[0].LastSnapshot = now.Add(-100 * time.Hour) },
	"replica_files_lost":   func(d *Database) { d.Sample.Replicas[0].LostFiles = 3 },
	"replica_maintenance":  func(d *Database) { d.Sample.Replicas[0].MaintenanceErr = "auth" },
	"replica_weak_fencing": func(d *Database) { d.Sample.Replicas[0].WeakFencing = true },
	"policy_hindered": func(d *Database) {
		d.Hindered = map[string]string{"shrink": "the stall budget is too small"}
	},
	"foreign_wal":   in(collector.StateForeignWAL),
	"drill_failed":  func(d *Database) { d.Sample.Replicas[0].DrillErr = "row 17 differs" },
	"drill_overdue": func(d *Database) { d.Sample.Replicas[0].LastVerified = now.Add(-1000 * time.Hour) },
}

// itselves maps each condition of the daemon itself to what causes it.
var itselves = map[string]Daemon{
	"daemon_down":   {Down: "no socket at /run/sqlwatch/admin.sock"},
	"reload_failed": {Databases: 1, ReloadErr: "app.hcl:3: no such block"},
	"left_out": {Databases: 1,
		LeftOut: []LeftOut{{Place: "/srv/b.db", Why: "the name is taken", Count: 1}}},
	"no_databases":              {},
	"handler_panicked":          {Databases: 1, Faults: 1},
	"state_directory_read_only": {Databases: 1, State: collector.Disk{Mountpoint: "/var", ReadOnly: true}},
	"notification_failed":       {Databases: 1, LostNotices: map[string]string{"webhook.ops": "404"}},
}

func TestEveryCondition_V3(t *testing.T) {
	t.Parallel()
	if found := OfDatabase(up()); len(found) != 0 {
		t.Errorf("a database that is all right has %v", found)
	}
	if found := OfDaemon(Daemon{Databases: 1}); len(found) != 0 {
		t.Errorf("a daemon that is all right has %v", found)
	}
	for _, kind := range Kinds() {
		found := OfDaemon(itselves[kind.ID])
		if change := scenes[kind.ID]; change != nil {
			d := up()
			change(&d)
			found = OfDatabase(d)
		}
		i := slices.IndexFunc(found, func(c Condition) bool { return c.ID == kind.ID })
		if i < 0 {
			t.Errorf("nothing brings %s about: %v", kind.ID, found)
			continue
		}
		c := found[i]
		if c.Severity != kind.Severity {
			t.Errorf("%s is %s, the reference says %s at worst", c.ID, c.Severity, kind.Severity)
		}
		for _, text := range []string{c.What, c.Why} {
			if !strings.HasSuffix(text, ".") || strings.Contains(text, "%!") || strings.ContainsAny(text, "\n\t") {
				t.Errorf("%s: %q is not a sentence", c.ID, text)
			}
		}
		if c.Cure == "" || strings.Contains(c.Cure, "DB") || strings.Contains(c.Cure, "%") {
			t.Errorf("%s: cure %q", c.ID, c.Cure)
		}
	}
}

// Before capture has begun, no lag is reported, because nobody has measured one.
func TestIncompleteBeforeCapture(t *testing.T) {
	t.Parallel()
	for lag, want := range map[float64]string{0: "a replica that does not answer", 90: "1 min 30 s ago"} {
		d := up()
		d.Sample.Replicas[0].CaughtUp, d.Sample.Replicas[0].LagSeconds = time.Time{}, lag
		found := OfDatabase(d)
		if len(found) != 1 || !strings.Contains(found[0].What+found[0].Why, want) ||
			strings.Contains(found[0].What, " 0 s") {
			t.Errorf("after %g s: %v", lag, found)
		}
	}
}

// Every state that is not up, and every reason for which a replica fails, has a condition.
func TestEveryStateAndReason_V3(t *testing.T) {
	t.Parallel()
	for state := collector.StateUp + 1; state.String() != "invalid"; state++ {
		d := up()
		in(state)(&d)
		if found := OfDatabase(d); len(found) == 0 {
			t.Errorf("state %s has no condition", state)
		}
	}
	for reason, trouble := range causes {
		if !slices.ContainsFunc(kinds, func(k Kind) bool { return k.ID == trouble.id }) {
			t.Errorf("%s leads to %s, which is none", reason, trouble.id)
		}
	}
}

func TestBoard(t *testing.T) {
	t.Parallel()
	b := NewBoard()
	lag := func(s Severity) []Condition {
		return []Condition{{ID: "replica_lagging", Subject: "s3.main", Severity: s}}
	}
	b.Note("app", now, lag(Warning))
	if got := b.Note("app", now.Add(time.Minute), lag(Critical)); !got[0].Since.Equal(now) {
		t.Errorf("since %v, want %v: it was there before, at another severity", got[0].Since, now)
	}
	if held := b.held[series{"app", "replica_lagging", Warning}]; held {
		t.Error("the severity before still holds")
	}
	b.Note("app", now.Add(2*time.Minute), nil)
	if got := b.Note("app", now.Add(3*time.Minute), lag(Warning)); !got[0].Since.Equal(now.Add(3 * time.Minute)) {
		t.Errorf("since %v: it had ended", got[0].Since)
	}
	b.Forget("app")
	if len(b.held) != 0 || len(b.Of("app")) != 0 {
		t.Error("something is left of what was forgotten")
	}
}

// The name of a process or a database does not control the terminal, and is one word of a shell
// command in a cure.
func TestConditions_V6_names(t *testing.T) {
	t.Parallel()
	d := up()
	d.Name = "a;reboot"
	d.Sample.Locks.WriteSince, d.Sample.Locks.WriterPID, d.Sample.Locks.WriterCommand = now.Add(-time.Hour), 7, "\x1b[2Jls"
	c := OfDatabase(d)[0]
	if strings.Contains(c.What, "\x1b") || !strings.Contains(c.Cure, "'a;reboot'") {
		t.Errorf("%+v", c)
	}
}

// docs/conditions.md lists every condition.
func TestReferenceIsInStep(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/conditions.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range Kinds() {
		if !strings.Contains(string(text), "\n## "+k.ID+"\n") && !strings.Contains(string(text), "\n### "+k.ID+"\n") {
			t.Errorf("docs/conditions.md has no section %s", k.ID)
		}
	}
	if !strings.Contains(string(text), Markdown()) {
		t.Errorf("docs/conditions.md does not hold this table:\n%s", Markdown())
	}
}

// The condition of a failed reload says what was wrong, not only that something was.
func TestReloadFailedSaysWhy(t *testing.T) {
	t.Parallel()
	found := OfDaemon(Daemon{Databases: 1,
		ReloadErr: "the configuration app.hcl has errors:\nerror: no such block\n  on app.hcl"})
	if want := "has errors: error: no such block."; !strings.HasSuffix(found[0].What, want) {
		t.Errorf("%q does not end with %q", found[0].What, want)
	}
}

// The reasons why maintenance fails, such as a wrong clock or files that may not be deleted, are
// distinguished.
func TestHindrances_V3(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]string{"clock": "clock", "auth": "forbids", "other": "log",
		"never_heard": "never heard"} {
		d := up()
		d.Sample.Replicas[0].MaintenanceErr = word
		found := OfDatabase(d)
		if len(found) != 1 || found[0].ID != "replica_maintenance" || !strings.Contains(found[0].What, want) {
			t.Errorf("%s: %v, want one that says %q", word, found, want)
		}
	}
}

// A database that has become an empty file is critical; one to which nothing was ever written is
// not. What the state of a database says is not repeated as a condition of its capture.
func TestEmptied(t *testing.T) {
	t.Parallel()
	for found, want := range map[bool]Severity{true: Critical, false: Info} {
		d := up()
		d.Found, d.Sample.State = found, collector.StateEmpty
		d.Sample.Capture.Reason, d.Sample.Capture.Err = "failed", "database is not in WAL mode"
		if all := OfDatabase(d); len(all) != 1 || all[0].ID != "empty" || all[0].Severity != want {
			t.Errorf("found before %v: %v", found, all)
		}
	}
}

// The cure for a replica in a directory that may not be written to does not mention keys.
func TestForbiddenDirectory(t *testing.T) {
	t.Parallel()
	d := up()
	failing("auth")(&d)
	d.Sample.Replicas[0].Name = "file.main"
	if all := OfDatabase(d); len(all) != 1 || strings.Contains(all[0].Why+all[0].Cure, "key") ||
		!strings.Contains(all[0].Cure, "directory") {
		t.Errorf("%v", all)
	}
}

// A directory is no network service: the conditions of a replica in one say what can be wrong
// with a directory.
func TestReplicaInDirectory(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]string{"auth": "give the directory", "misplaced": "mount its file system",
		"unavailable": "free space", "timeout": "free space"} {
		d := up()
		failing(reason)(&d)
		d.Sample.Replicas[0].Name = "file.main"
		found := OfDatabase(d)
		if len(found) == 0 || !strings.Contains(found[0].Cure, want) || strings.Contains(found[0].Why, "etwork") {
			t.Errorf("%s: %v", reason, found)
		}
	}
}

// Nothing is reported to be uploading for a database that cannot be read or is not captured.
func TestNothingIsUploadedOf(t *testing.T) {
	t.Parallel()
	for _, state := range []collector.State{collector.StateEmpty, collector.StateMissing, collector.StateUnreadable,
		collector.StateForeignWAL} {
		d := up()
		d.Sample.State, d.Sample.Replicas[0].CaughtUp = state, time.Time{}
		if all := OfDatabase(d); len(all) != 1 || all[0].ID == "replica_incomplete" {
			t.Errorf("%s: %v", state, all)
		}
	}
	for age, want := range map[time.Duration]int{8 * time.Second: 1, time.Hour: 2} {
		d := up()
		d.Sample.Replicas[0].CaughtUp, d.Sample.Replicas[0].LagSeconds = time.Time{}, age.Seconds()
		d.Sample.Capture = &collector.Capture{SpoolLimitBytes: 1e9, Reason: "failed", Since: now.Add(-age),
			Err: "capture app: database cannot be written: read-only file system"}
		all := OfDatabase(d)
		i := slices.IndexFunc(all, func(c Condition) bool { return c.ID == "replica_incomplete" })
		if len(all) != want || i < 0 || !strings.Contains(all[i].Why, "read-only file system") ||
			strings.Contains(all[i].Cure, "wait") {
			t.Errorf("not captured for %v: %+v", age, all)
		}
	}
}

// A database that waits for its turn to be read from end to end has a condition that says so. It
// has none for its first snapshot, which has not begun, or for capture, which has not stopped.
func TestQueued(t *testing.T) {
	t.Parallel()
	d := up()
	d.Sample.Capture.Reason, d.Sample.Capture.Since = collector.CaptureQueued, d.Now.Add(-time.Hour)
	d.Sample.Capture.Err = "capture app: the first capture waits for its turn: others are first"
	for _, lag := range []float64{0, 20} { // the lag is not known at first
		d.Sample.Replicas[0].CaughtUp, d.Sample.Replicas[0].LagSeconds = time.Time{}, lag
		all := OfDatabase(d)
		if len(all) != 1 || all[0].ID != "replica_incomplete" || all[0].Severity != Info ||
			!strings.HasPrefix(all[0].Why, "The first capture waits for its turn") {
			t.Errorf("%v s behind: %+v", lag, all)
		}
	}
	d.Sample.Capture.Err = "capture app: the comparison that is due waits for its turn: others are first"
	d.Sample.Replicas[0].CaughtUp, d.Sample.Replicas[0].LagSeconds = d.Now.Add(-time.Hour), 3600
	all := OfDatabase(d)
	if len(all) != 1 || all[0].ID != "replica_lagging" ||
		!strings.Contains(all[0].Why, "The comparison that is due waits") {
		t.Errorf("of one that was captured before: %+v", all)
	}
}

// One look at the locks, as by a command without a daemon, is not enough to report a saturated
// write lock.
func TestSaturatedWants15Seconds(t *testing.T) {
	t.Parallel()
	for watched, want := range map[time.Duration]string{0: "", 3 * time.Second: "",
		20 * time.Second: "of the last 20 s."} {
		d := up()
		d.Sample.Locks.WriteRatio, d.Sample.Locks.Watched = 1, watched
		got := ""
		for _, c := range OfDatabase(d) {
			got += c.What
		}
		if !strings.HasSuffix(got, want) || want == "" && got != "" {
			t.Errorf("after %s: %q, want %q", watched, got, want)
		}
	}
}

// A place that stands for many files that were left out counts as that many, in the log and in
// the condition.
func TestFiles(t *testing.T) {
	t.Parallel()
	all := []LeftOut{{Place: "/srv/b.db"}, {Place: "/srv/evil", Count: 7}, {Place: "/srv/c.db", Count: 1}}
	if n := Files(all); n != 9 {
		t.Errorf("%d files, want 9", n)
	}
}

// A cure does something: none only refers to another view, which shows the same condition with
// the same cure, and doctor does not refer to itself.
func TestCuresAreNotCircular(t *testing.T) {
	t.Parallel()
	judge := func(found []Condition) {
		for _, c := range found {
			if circular.MatchString(c.Cure) {
				t.Errorf("%s: the cure %q is another view", c.ID, c.Cure)
			}
			if shown := InDoctor([]Condition{c})[0]; strings.Contains(shown.Cure, "sqlwatch doctor app") || shown.Cure == "" {
				t.Errorf("%s: in doctor the cure is %q", c.ID, shown.Cure)
			}
		}
	}
	for _, kind := range Kinds() {
		judge(OfDaemon(itselves[kind.ID]))
		if change := scenes[kind.ID]; change != nil {
			d := up()
			change(&d)
			judge(OfDatabase(d))
		}
	}
	for reason := range causes {
		for _, name := range []string{"s3.main", "file.main"} {
			d := up()
			failing(reason)(&d)
			d.Sample.Replicas[0].Name = name
			judge(OfDatabase(d))
		}
	}
	for word := range hindrances {
		d := up()
		d.Sample.Replicas[0].MaintenanceErr = word
		judge(OfDatabase(d))
	}
}

var circular = regexp.MustCompile("^(see )?`?sqlwatch (doctor|why|status)( app)?( [a-z]+)?`?( and .*)?$")

// A database whose header is plain and whose pages are encrypted is measured; if it was not to be
// replicated, nobody is harmed.
func TestEncrypted(t *testing.T) {
	t.Parallel()
	for replicated, want := range map[bool]Severity{true: Critical, false: Info} {
		d := up()
		d.Sample.Database.Encrypted, d.Replicated = true, replicated
		d.Sample.Capture.Reason, d.Sample.Capture.Since = collector.CaptureSchema, now.Add(-time.Hour)
		all := OfDatabase(d)
		if len(all) != 1 || all[0].ID != "schema_unreadable" || all[0].Severity != want ||
			!strings.Contains(all[0].What, "encrypted") || strings.Contains(all[0].Cure, "replicate_to") != replicated {
			t.Errorf("replicated %v: %+v", replicated, all)
		}
	}
}

// If only sqlwatch cannot write, the condition does not say that the application is harmed.
func TestReadOnlyHere(t *testing.T) {
	t.Parallel()
	for replicated, want := range map[bool]Severity{true: Critical, false: Warning} {
		d := up()
		d.Sample.Disk = collector.Disk{Known: true, SizeBytes: 1e11, FreeBytes: 1e11, Mountpoint: "/srv", ReadOnlyHere: true}
		d.Replicated = replicated
		all := OfDatabase(d)
		if len(all) != 1 || all[0].Severity != want || strings.Contains(all[0].Why, "cannot commit") ||
			!strings.Contains(all[0].Cure, "ReadWritePaths=") {
			t.Errorf("replicated %v: %+v", replicated, all)
		}
	}
}
