package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// healthy returns the facts of a database with which nothing is wrong.
func healthy() Facts {
	return Facts{
		Name: "app", Path: "/srv/app.db", Real: "/srv/app.db", UID: 1000,
		File: File{
			Size: 1 << 20, WALSize: 4 << 20, PageSize: 4096, WALMode: true, Engine: "3.51.3", UID: 1000, GID: 1000, Mode: 0o640,
			Links: 1,
			Dir:   "/srv", DirUID: 1000, DirGID: 1000, DirMode: 0o750,
			SideFiles: []SideFile{{Path: "/srv/app.db-wal", UID: 1000}, {Path: "/srv/app.db-shm", UID: 1000}},
		},
		WAL:   WAL{Known: true, Attached: true, Frames: 900, Backfilled: 0, LargestEver: 1010},
		Place: Place{Type: "ext4", Point: "/", Size: 100 << 30, Available: 50 << 30},
		Processes: []Process{{PID: 7, Command: "web", UID: 1000, Cmdline: "web", Cgroup: "/a"},
			{PID: 8, Command: "web", UID: 1000, Cmdline: "web", Cgroup: "/a"}},
		Replicas: []Replica{{Name: "s3.main", Place: "s3://b/p", Kind: "s3", Conditional: Honoured, Skew: time.Second,
			SkewKnown: true, Duration: time.Second}},
	}
}

// denied is an error as a store returns it, with or without a code.
type denied struct{ code string }

func (d denied) Error() string     { return "denied " + d.code }
func (d denied) ErrorCode() string { return d.code }

func storeError(kind error, code string) error {
	return fmt.Errorf("%w: %w", kind, denied{code})
}

// faults each put one fault into healthy facts: the fault of one finding.
var faults = []struct {
	id       string
	severity Severity
	cure     string // a part of it
	spoil    func(f *Facts)
}{
	{"missing", Critical, "path", func(f *Facts) { f.State = StateMissing }},
	{"not-a-database", Critical, "file /srv/app.db", func(f *Facts) { f.State, f.StateErr = StateNotDatabase, "magic" }},
	{"unreadable", Critical, "stat -c %U /srv/app.db", func(f *Facts) {
		f.State, f.StateErr = StateUnreadable,
			"permission denied"
	}},
	{"schema-unreadable", Warning, "if it has a key", func(f *Facts) { f.Litestream.TablesErr = "malformed" }},
	{"empty", Note, "nothing", func(f *Facts) { f.State = StateEmpty }},
	{"journal-mode", Critical, "PRAGMA journal_mode=WAL;", func(f *Facts) { f.File.WALMode = false }},
	{"wal-reset-bug", Warning, "3.51.3", func(f *Facts) { f.File.Engine, f.File.WALResetBug = "3.40.1", true }},
	{"page-checksums", Critical, "reserve_bytes 0", func(f *Facts) { f.File.PageChecksums = true }},
	{"network-filesystem", Critical, "local disk", func(f *Facts) { f.Place.Type, f.Place.Network = "nfs4", true }},
	{"volatile-filesystem", Warning, "disk", func(f *Facts) { f.Place.Type, f.Place.Volatile = "tmpfs", true }},
	{"overlay-filesystem", Critical, "docker run -v", func(f *Facts) { f.Place.Type = "overlay" }},
	{"read-only-filesystem", Critical, "remount,rw", func(f *Facts) { f.Place.ReadOnly = true }},
	{"foreign-owner", Critical, "User=1000", func(f *Facts) { f.UID = 33 }},
	{"running-as-root", Note, "User=1000", func(f *Facts) { f.UID, f.CanChown = 0, true }},
	{"side-file-owner", Critical, "chown --reference=/srv/app.db /srv/app.db-shm",
		func(f *Facts) { f.File.SideFiles[1].UID = 0 }},
	{"world-writable", Warning, "chmod o-rwx", func(f *Facts) { f.File.Mode = 0o666 }},
	{"file-read-only", Warning, "chmod u+w", func(f *Facts) { f.File.Mode = 0o440 }},
	{"world-readable", Note, "chmod o-rwx", func(f *Facts) { f.File.Mode = 0o644 }},
	{"directory-not-writable", Warning, "chown 1000 /srv", func(f *Facts) { f.File.DirUID, f.File.DirMode = 0, 0o755 }},
	{"hard-link", Critical, "-samefile", func(f *Facts) { f.File.Links = 2 }},
	{"symlink", Warning, "/srv/app.db", func(f *Facts) { f.File.Symlink = f.Real }},
	{"symlink-directory", Note, "deploy", func(f *Facts) { f.File.SymlinkDirectory = true }},
	{"disk-full", Critical, "du -xh", func(f *Facts) { f.Place.Available = 1 << 20 }},
	{"disk-full", Critical, "du -xh", func(f *Facts) { f.Place.Available = f.Place.Size / 50 }},
	{"disk-tight", Warning, "du -xh", func(f *Facts) { f.File.Size = 60 << 30 }},
	{"wal-size", Warning, "sqlwatch checkpoint /srv/app.db", func(f *Facts) { f.File.WALSize = 65 << 20 }},
	{"autocheckpoint", Warning, "wal_autocheckpoint=1000", func(f *Facts) { f.WAL.Frames = 5000 }},
	{"pinned-reader", Warning, "sqlwatch blockers", func(f *Facts) {
		f.WAL.Frames, f.WAL.Pinned, f.WAL.PinnedFrame = 5000,
			true, 3
	}},
	{"long-writer", Warning, "BEGIN IMMEDIATE", func(f *Facts) { f.WAL.WriterStuck = true }},
	{"exclusive-locking", Warning, "locking_mode=NORMAL", func(f *Facts) { f.WAL.Exclusive = true }},
	{"wal-index", Warning, "write once", func(f *Facts) { f.WAL.IndexErr = "torn" }},
	{"wal-left-behind", Note, "-wal", func(f *Facts) { f.WAL.Attached = false }},
	{"two-replicators", Critical, "systemctl disable --now litestream",
		func(f *Facts) { f.Litestream.Process = &Process{PID: 9, Command: "litestream"} }},
	{"two-sqlwatch", Critical, "pgrep -a sqlwatch", func(f *Facts) {
		f.Processes = append(f.Processes, Process{PID: 5, Command: "sqlwatch", UID: 1000},
			Process{PID: 6, Command: "sqlwatch", UID: 1000})
	}},
	{"litestream-traces", Note, "DROP TABLE _litestream_seq;",
		func(f *Facts) { f.Litestream.Tables = []string{"_litestream_seq"} }},
	{"litestream-traces", Warning, "pgrep", func(f *Facts) {
		f.Litestream.Dirs, f.Litestream.Elsewhere = []string{
			"/srv/.app.db-litestream"}, true
	}},
	{"too-many-processes", Warning, "kill PID", func(f *Facts) { f.Expected = 1 }},
	{"old-program", Warning, "systemctl status 8", func(f *Facts) { f.Processes[1].Deleted = true }},
	{"overlapping-deployments", Warning, "Recreate", func(f *Facts) { f.Processes[1].Cgroup = "/b" }},
	{"foreign-process", Warning, "one user", func(f *Facts) { f.Processes[1].UID = 33 }},
	{"hidden-processes", Note, "--pid=host", func(f *Facts) { f.Hidden = true }},
	{"process-unexamined", Note, "readlink /proc/8/exe", func(f *Facts) { f.Unexamined = f.Processes[1:] }},
	{"replica-not-probed", Note, "sudo -u '#33'", func(f *Facts) {
		f.Replicas[0] = Replica{Skipped: "it belongs to uid 33",
			Dir: ReplicaDir{UID: 33}}
	}},
	{"replica-unwritable", Critical, "install -d",
		func(f *Facts) { f.Replicas[0] = Replica{Dir: ReplicaDir{Forbidden: true}, Place: "file:///b"} }},
	{"replica-misplaced", Critical, "check",
		func(f *Facts) { f.Replicas[0].ListErr = storeError(store.ErrMisplaced, "NoSuchBucket") }},
	{"replica-credentials", Critical, "keys",
		func(f *Facts) { f.Replicas[0].ListErr = storeError(store.ErrAuth, "InvalidAccessKeyId") }},
	{"replica-permission", Critical, "check",
		func(f *Facts) { f.Replicas[0].PutErr = storeError(store.ErrAuth, "AccessDenied") }},
	{"replica-permission", Warning, "lifecycle rule",
		func(f *Facts) { f.Replicas[0].DeleteErr = storeError(store.ErrAuth, "AccessDenied") }},
	{"replica-permission", Critical, "chown -R", func(f *Facts) {
		f.Replicas[0].Kind, f.Replicas[0].PutErr = "file", fmt.Errorf("%w: %w", store.ErrAuth, syscall.EACCES)
	}},
	{"replica-unreachable", Critical, "nothing listens", func(f *Facts) {
		f.Replicas[0].ListErr = fmt.Errorf("%w: %w", store.ErrUnavailable, syscall.ECONNREFUSED)
	}},
	{"replica-full", Critical, "free space", func(f *Facts) {
		f.Replicas[0].PutErr = fmt.Errorf("write: %w", syscall.ENOSPC)
	}},
	{"replica-failed", Critical, "check", func(f *Facts) { f.Replicas[0].GetErr = errors.New("unheard of") }},
	{"replica-conditional-writes", Warning, "only one sqlwatch", func(f *Facts) { f.Replicas[0].Conditional = Ignored }},
	{"replica-conditional-writes", Warning, "only one sqlwatch", func(f *Facts) { f.Replicas[0].Conditional = Refused }},
	{"replica-conditional-writes", Warning, "not guaranteed", func(f *Facts) { f.Replicas[0].Matching = Ignored }},
	{"replica-metadata", Warning, "x-amz-meta", func(f *Facts) { f.Replicas[0].Odd.MetadataLost = true }},
	{"replica-range", Critical, "check", func(f *Facts) { f.Replicas[0].Odd.RangeErr = errors.New("unheard of") }},
	{"replica-large", Critical, "check", func(f *Facts) { f.Replicas[0].Odd.LargeErr = errors.New("unheard of") }},
	{"replica-not-deleted", Warning, "object lock", func(f *Facts) { f.Replicas[0].Odd.NotDeleted = true }},
	{"replica-versions", Warning, "NoncurrentVersionExpiration", func(f *Facts) { f.Replicas[0].Odd.Versioned = true }},
	{"replica-head", Note, "HEAD", func(f *Facts) { f.Replicas[0].Odd.HeadRefused = true }},
	{"replica-damaged", Critical, "sqlwatch verify", func(f *Facts) { f.Replicas[0].Corrupt = true }},
	{"replica-stale-list", Warning, "caching", func(f *Facts) { f.Replicas[0].NotListed = true }},
	{"replica-foreign", Warning, "--adopt", func(f *Facts) { f.Replicas[0].Foreign = true }},
	{"replica-same-disk", Warning, "another disk", func(f *Facts) { f.Replicas[0].Dir.SameDisk = true }},
	{"clock-skew", Warning, "set-ntp", func(f *Facts) { f.Replicas[0].Skew = -time.Minute }},
	{"clock-skew", Critical, "set-ntp", func(f *Facts) { f.Replicas[0].Skew = time.Hour }},
	{"clock-skew", Critical, "set-ntp", func(f *Facts) {
		f.Replicas[0].PutErr = storeError(store.ErrUnavailable,
			"RequestTimeTooSkewed")
	}},
}

func TestDiagnose(t *testing.T) {
	t.Parallel()
	if all := Diagnose(healthy()); len(all) > 0 {
		t.Fatalf("healthy facts, and yet: %+v", all)
	}
	for _, tt := range faults {
		t.Run(tt.id, func(t *testing.T) {
			t.Parallel()
			f := healthy()
			tt.spoil(&f)
			all := Diagnose(f)
			if len(all) != 1 || all[0].ID != tt.id {
				t.Fatalf("%+v, want %s alone", all, tt.id)
			}
			checkText(t, all[0])
			if all[0].Severity != tt.severity || !strings.Contains(all[0].Cure, tt.cure) {
				t.Errorf("%s, cure %q, want %s with %q", all[0].Severity, all[0].Cure, tt.severity, tt.cure)
			}
			if want := len(all) - Faults(all); (tt.severity == Note) != (want == 1) {
				t.Errorf("%d notes among %+v", want, all)
			}
		})
	}
}

// checkText checks the form of a finding: what, why and cure are all there, on one line each, and
// the subject is the database's.
func checkText(t *testing.T, f Finding) {
	t.Helper()
	for _, text := range []string{f.What, f.Why, f.Cure} {
		if text == "" || strings.ContainsAny(text, "\n\r") || strings.HasSuffix(text, ".") {
			t.Errorf("%s: not one line without a stop: %q", f.ID, text)
		}
	}
	if f.Subject != "" && !strings.HasPrefix(f.Subject, "app") {
		t.Errorf("%s: subject %q", f.ID, f.Subject)
	}
}

var hostFaults = []struct {
	id    string
	spoil func(h *Host)
}{
	{"state-directory", func(h *Host) { h.StateDirErr = "it is not a directory" }},
	{"state-directory-read-only", func(h *Host) { h.StateDirPlace = Place{Type: "ext4", Point: "/var", ReadOnly: true} }},
	{"state-directory-open", func(h *Host) { h.StateDirMode = 0o755 }},
	{"state-directory-place", func(h *Host) { h.StateDirPlace.Type, h.StateDirPlace.Volatile = "tmpfs", true }},
	{"state-directory-full", func(h *Host) {
		h.StateDirPlace = Place{Type: "ext4", Point: "/var", Size: 1e9, Available: 1e6}
	}},
	{"left-over-state", func(h *Host) { h.LeftOver = []string{"old is not configured any more\n rm -r /x"} }},
	{"configuration", func(h *Host) { h.ConfigurationTip = []string{"other users can read it"} }},
}

func TestDiagnoseHost(t *testing.T) {
	t.Parallel()
	for _, tt := range hostFaults {
		h := Host{StateDir: "/var/lib/sqlwatch", StateDirExists: true, StateDirMode: 0o700, UID: 1000}
		if all := DiagnoseHost(h); len(all) > 0 {
			t.Fatalf("healthy host, and yet: %+v", all)
		}
		tt.spoil(&h)
		all := DiagnoseHost(h)
		if len(all) != 1 || all[0].ID != tt.id {
			t.Fatalf("%+v, want %s alone", all, tt.id)
		}
		checkText(t, all[0])
	}
}

// Every finding that the source can make has its fixture above, and is in docs/doctor.md.
func TestEveryFindingHasAFixture(t *testing.T) {
	t.Parallel()
	var tested []string
	for _, f := range faults {
		tested = append(tested, f.id)
	}
	for _, f := range hostFaults {
		tested = append(tested, f.id)
	}
	silent := Silent("app", "/srv/app.db").Findings
	checkText(t, silent[0])
	tested = append(tested, silent[0].ID)
	made := idsIn(t, regexp.MustCompile(`one\("([a-z-]+)"`), "*.go")
	documented := idsIn(t, regexp.MustCompile("(?m)^\\| `([a-z-]+)`"), "../../docs/doctor.md")
	for _, id := range made {
		if !slices.Contains(tested, id) {
			t.Errorf("%s has no fixture", id)
		}
		if !slices.Contains(documented, id) {
			t.Errorf("%s is not in docs/doctor.md", id)
		}
	}
	for _, id := range append(tested, documented...) {
		if !slices.Contains(made, id) {
			t.Errorf("%s is made by no check", id)
		}
	}
}

func idsIn(t *testing.T, pattern *regexp.Regexp, glob string) (ids []string) {
	t.Helper()
	names, err := filepath.Glob(glob)
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %v", glob, err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range pattern.FindAllStringSubmatch(string(text), -1) {
			ids = append(ids, m[1])
		}
	}
	return ids
}

// The daemon does not count as one of the application's processes.
func TestOwnDaemonIsNotCounted(t *testing.T) {
	f := healthy()
	f.Expected = len(f.Processes)
	f.Processes = append(f.Processes, Process{PID: 5, Command: "sqlwatch", UID: 1000})
	if all := Diagnose(f); len(all) > 0 {
		t.Errorf("one sqlwatch beside the expected processes: %+v", all)
	}
}

// Capture holds an old read mark on purpose. That is no finding unless the WAL grows
// nevertheless, or sqlwatch has nothing to capture.
func TestOwnCapturePinsOnPurpose(t *testing.T) {
	capture, reader := Process{PID: 5, Command: "sqlwatch"}, Process{PID: 6, Command: "python3"}
	for name, tt := range map[string]struct {
		spoil func(f *Facts)
		found bool
	}{
		"capture":                {func(*Facts) {}, false},
		"a reader":               {func(f *Facts) { f.WAL.PinnedBy = reader }, true},
		"capture of a large WAL": {func(f *Facts) { f.File.WALSize = largeWAL }, true},
		"no replica":             {func(f *Facts) { f.Replicas = nil }, true},
	} {
		f := healthy()
		f.WAL.Frames, f.WAL.Pinned, f.WAL.PinnedFrame, f.WAL.PinnedBy = 5000, true, 3, capture
		tt.spoil(&f)
		if got := len(pinnedReader(f)) > 0; got != tt.found {
			t.Errorf("%s: found %v, want %v", name, got, tt.found)
		}
	}
	for _, tt := range []struct {
		a     Process
		markA uint32
		b     Process
		markB uint32
		want  bool
	}{
		{reader, 9, capture, 3, true}, {capture, 3, reader, 9, false},
		{reader, 3, reader, 9, true}, {reader, 9, reader, 3, false}, {capture, 3, capture, 9, true},
	} {
		if got := pinsRather(tt.a, tt.markA, tt.b, tt.markB); got != tt.want {
			t.Errorf("%s at %d rather than %s at %d: %v", tt.a.Command, tt.markA, tt.b.Command, tt.markB, got)
		}
	}
}

// The name of a process, or of a file that a glob matches, cannot begin a line of the report.
func TestForgedNames(t *testing.T) {
	t.Parallel()
	const forged = "x\n  critical  \x1b[31m"
	if got, want := (Process{PID: 7, Command: forged}).name(), `x\x0a  critical  \x1b[31m (pid 7)`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	f := healthy()
	f.Path, f.Real, f.File.Mode = "/srv/"+forged+".db", "/srv/"+forged+".db", 0o644
	var out strings.Builder
	report := Report{Databases: []Examined{{Name: "app", Path: f.Path, Findings: Diagnose(f)}}, Faults: 1}
	if err := report.Write(&out); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); strings.Contains(text, "\n  critical") || strings.Contains(text, "\x1b") ||
		!strings.Contains(text, `/srv/x\x0a  critical  \x1b[31m.db`) ||
		!strings.Contains(text, `cure: chmod o-rwx $'/srv/x\x0a  critical  \x1b[31m.db'`) {
		t.Errorf("the report:\n%s", text)
	}
}
