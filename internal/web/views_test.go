package web

import (
	"encoding/json"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/health"
)

// measuredScenes returns for each condition of a database the change to a measurement that causes
// it.
func measuredScenes(now time.Time) map[string]func(*collector.Sample) {
	state := func(is collector.State) func(*collector.Sample) {
		return func(s *collector.Sample) { s.State, s.Err = is, "what was found." }
	}
	failing := func(reason string) func(*collector.Sample) {
		return func(s *collector.Sample) {
			r := &s.Replicas[0]
			r.Healthy, r.Reason, r.Err, r.FailingSince = false, reason, "the store says no", now.Add(-time.Hour)
		}
	}
	replica := func(change func(*collector.Replica)) func(*collector.Sample) {
		return func(s *collector.Sample) { change(&s.Replicas[0]) }
	}
	return map[string]func(*collector.Sample){
		"missing": state(collector.StateMissing), "empty": state(collector.StateEmpty),
		"not_wal": state(collector.StateNotWAL), "not_a_database": state(collector.StateNotDatabase),
		"foreign_owner": state(collector.StateForeignOwner), "foreign_wal": state(collector.StateForeignWAL),
		"network_filesystem": state(collector.StateNetworkFS), "unreadable": state(collector.StateUnreadable),
		"write_lock_held":      func(s *collector.Sample) { s.Locks.WriteSince = now.Add(-78 * time.Second) },
		"write_lock_saturated": func(s *collector.Sample) { s.Locks.WriteRatio, s.Locks.Watched = 0.9, time.Minute },
		"reader_pinning": func(s *collector.Sample) {
			s.Readers.Active, s.Readers.PinnedSince = 1,
				now.Add(-time.Hour)
		},
		"overlapping_readers": func(s *collector.Sample) {
			s.Readers.Share, s.WAL.Frames, s.WAL.CheckpointedFrames = 1, 5000, 5000
		},
		"wal_oversized": func(s *collector.Sample) { s.WAL.SizeBytes = 600e6 },
		"checkpoint_starved": func(s *collector.Sample) {
			s.WAL.Frames, s.WAL.LagSince = 50000, now.Add(-time.Hour)
		},
		"page_checksums": func(s *collector.Sample) { s.Database.PageChecksums = true },
		"wal_reset_bug":  func(s *collector.Sample) { s.Database.WALResetBug = true },
		"disk_low": func(s *collector.Sample) {
			s.Disk = collector.Disk{Known: true, SizeBytes: 100e9, FreeBytes: 1e9, Mountpoint: "/"}
		},
		"read_only_filesystem": func(s *collector.Sample) {
			s.Disk = collector.Disk{Known: true, SizeBytes: 1e11, FreeBytes: 1e11, Mountpoint: "/srv", ReadOnly: true}
		},
		"schema_unreadable": func(s *collector.Sample) { s.Database.Encrypted = true },
		"capture_stopped": func(s *collector.Sample) {
			s.Capture.Reason, s.Capture.Err, s.Capture.Since = "failed", "disk I/O error", now.Add(-time.Hour)
		},
		"file_cut":       func(s *collector.Sample) { s.Capture.Reason = collector.CaptureFileCut },
		"index_cut":      func(s *collector.Sample) { s.Capture.Reason = collector.CaptureIndexCut },
		"spool_full":     func(s *collector.Sample) { s.Capture.Reason = collector.CaptureSpoolFull },
		"spool_filling":  func(s *collector.Sample) { s.Capture.SpoolBytes = 8e8 },
		"replica_fenced": failing("fenced"), "replica_held": failing("held"), "replica_foreign": failing("foreign"),
		"replica_auth_failed": failing("auth"), "replica_misplaced": failing("misplaced"),
		"replica_unavailable": failing("unavailable"), "replica_failing": failing("other"),
		"replica_lagging":      replica(func(r *collector.Replica) { r.LagSeconds = 600 }),
		"replica_incomplete":   replica(func(r *collector.Replica) { r.CaughtUp = time.Time{} }),
		"snapshot_too_old":     replica(func(r *collector.Replica) { r.LastSnapshot = now.Add(-100 * time.Hour) }),
		"drill_failed":         replica(func(r *collector.Replica) { r.DrillErr = "row 17 differs" }),
		"drill_overdue":        replica(func(r *collector.Replica) { r.LastVerified = now.Add(-1000 * time.Hour) }),
		"replica_files_lost":   replica(func(r *collector.Replica) { r.LostFiles = 3 }),
		"replica_maintenance":  replica(func(r *collector.Replica) { r.MaintenanceErr = "auth" }),
		"replica_weak_fencing": replica(func(r *collector.Replica) { r.WeakFencing = true }),
	}
}

// otherScenes has the conditions that do not come from a measurement, and the package whose tests
// cause them.
var otherScenes = map[string]string{
	"daemon_down": "cmd/sqlwatch", "reload_failed": "", "left_out": "", "no_databases": "", "handler_panicked": "",
	"state_directory_read_only": "",
	"notification_failed":       "", "open_failed": "internal/watchdog", "hung": "internal/watchdog",
	"restarted": "internal/watchdog", "paused": "internal/watchdog", "action_failed": "internal/watchdog",
	"policy_hindered": "internal/watchdog",
}

// Each condition that a measurement causes passes through the watchdog and appears on the page,
// in the API, in the answer to a probe, in the metrics, in a rule if something is wrong, and in
// the reference.
func TestConditionsAndViews_V3(t *testing.T) {
	t.Parallel()
	now := time.Now()
	scenes := measuredScenes(now)
	var samples []collector.Sample
	for id, change := range scenes {
		s := collector.Sample{
			At: now, DB: id, Path: "/srv/" + id + ".db", State: collector.StateUp,
			WAL: collector.WAL{Known: true, PageSize: 4096, Frames: 100, CheckpointedFrames: 100, LastWrite: now,
				Restarted: now.Add(-time.Hour)},
			Capture: &collector.Capture{SpoolLimitBytes: 1e9},
			Replicas: []collector.Replica{{Name: "s3.main", Healthy: true, CaughtUp: now, ObjectiveSeconds: 1,
				SnapshotEverySeconds: 86400, VerifyEverySeconds: 604800, LastSnapshot: now.Add(-time.Hour),
				LastVerified: now.Add(-time.Hour)}},
		}
		change(&s)
		samples = append(samples, s)
	}
	w, board, _ := startOnBoard(t, samples...)
	itself := Itself{Conditions: health.OfDaemon(health.Daemon{ReloadErr: "app.hcl:3: no such block", Faults: 1,
		State:       collector.Disk{Mountpoint: "/var", ReadOnly: true},
		LeftOut:     []health.LeftOut{{Place: "/srv/b.db", Why: "the name is taken", Count: 1}},
		LostNotices: map[string]string{"webhook.ops": "404"}})}
	board.Note(health.Itself, now, itself.Conditions)
	registry := prometheus.NewRegistry()
	registry.MustRegister(board)
	handler := Handler(Options{Watchdog: w, Gatherer: &Gatherer{rest: registry}, Itself: func() Itself { return itself },
		Logger: slog.New(slog.DiscardHandler)})
	view := func(path string) string {
		rw := httptest.NewRecorder()
		handler.ServeHTTP(rw, httptest.NewRequest(http.MethodGet, "http://localhost"+path, nil))
		if rw.Code != http.StatusOK {
			t.Fatalf("GET %s: %d", path, rw.Code)
		}
		return rw.Body.String()
	}
	unfolded := url.Values{}
	for id := range scenes {
		unfolded.Add("open", id)
	}
	page, ready, metrics := view("/?"+unfolded.Encode()), view("/-/ready"), view("/metrics")
	var api Health
	if err := json.Unmarshal([]byte(view("/api/v1/health")), &api); err != nil {
		t.Fatal(err)
	}
	conditions := map[string][]health.Condition{health.Itself: api.Conditions}
	for _, d := range api.Databases {
		conditions[d.Name] = d.Conditions
	}
	rules, err := os.ReadFile("../../alerts/sqlwatch.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, kind := range health.Kinds() {
		db := kind.ID
		if _, elsewhere := otherScenes[kind.ID]; elsewhere {
			if scenes[kind.ID] != nil {
				t.Errorf("%s has two scenes", kind.ID)
			}
			if otherScenes[kind.ID] != "" {
				continue
			}
			db = health.Itself
		}
		i := slices.IndexFunc(conditions[db], func(c health.Condition) bool { return c.ID == kind.ID })
		if i < 0 {
			t.Errorf("%s is not in /api/v1/health: %v", kind.ID, conditions[db])
			continue
		}
		seen++
		c := conditions[db][i]
		if !strings.Contains(page, "<b>"+kind.ID+"</b>") || !strings.Contains(page, template.HTMLEscapeString(c.Cure)) {
			t.Errorf("%s is not on the page, or without its cure %q", kind.ID, c.Cure)
		}
		if !strings.Contains(ready, string(c.Severity)+" "+kind.ID+": ") {
			t.Errorf("%s is not in /-/ready", kind.ID)
		}
		series := fmt.Sprintf("sqlwatch_condition{condition=%q,db=%q,severity=%q} 1\n", kind.ID, db, c.Severity)
		if !strings.Contains(metrics, series) {
			t.Errorf("no series %s", series)
		}
		if c.Severity == health.Info {
			continue
		}
		if !strings.Contains(string(rules), fmt.Sprintf("sqlwatch_condition{severity=%q} == 1", c.Severity)) {
			t.Errorf("no rule fires for %s", c.Severity)
		}
		name := map[health.Severity]string{health.Warning: "Warning", health.Critical: "Critical"}[c.Severity]
		if _, err := os.Stat(filepath.Join("../../alerts/runbooks", "SqlwatchCondition"+name+".md")); err != nil {
			t.Error(err)
		}
	}
	if seen < 35 {
		t.Errorf("only %d conditions were seen", seen)
	}
}
