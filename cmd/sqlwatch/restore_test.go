package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/file"
)

// smallReplica replicates three states of a small database to a directory,
// a minute apart, and returns its URL.
func smallReplica(t *testing.T) (url string) {
	t.Helper()
	dir := t.TempDir()
	st, err := file.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	db := filepath.Join(t.TempDir(), "app.db")
	for i, sql := range []string{"CREATE TABLE t(v)", "INSERT INTO t VALUES ('one')", "INSERT INTO t VALUES ('two')"} {
		if out, err := exec.Command("sqlite3", db, sql).CombinedOutput(); err != nil {
			t.Fatalf("sqlite3: %v\n%s", err, out)
		}
		data, err := os.ReadFile(db)
		if err != nil {
			t.Fatal(err)
		}
		putState(t, st, ltx.TXID(i+1), data)
	}
	return "file://" + dir
}

// putState stores a state as one LTX file with all its pages.
func putState(t *testing.T, st store.Store, txid ltx.TXID, data []byte) {
	t.Helper()
	when := time.Date(2024, 3, 1, 12, int(txid), 0, 0, time.UTC)
	var buf bytes.Buffer
	enc, err := ltx.NewEncoder(&buf)
	if err == nil {
		err = enc.EncodeHeader(ltx.Header{Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: 4096,
			Commit: uint32(len(data) / 4096), MinTXID: txid, MaxTXID: txid, Timestamp: when.UnixMilli()})
	}
	for i := 0; i < len(data) && err == nil; i += 4096 {
		err = enc.EncodePage(ltx.PageHeader{Pgno: uint32(i/4096) + 1}, data[i:i+4096])
	}
	if err == nil {
		err = enc.Close()
	}
	if err == nil {
		body := store.Body{Size: int64(buf.Len()), Open: func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(buf.Bytes())), nil
		}}
		_, err = st.Put(context.Background(), store.LTXKey(0, txid, txid), body, store.PutOptions{Create: true,
			Metadata: map[string]string{store.MetaTimestamp: when.Format(time.RFC3339Nano)}})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// runCommand runs one command line of restore, snapshots or verify.
func runCommand(args ...string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	config := ""
	env := &environment{Stdout: &out, Stderr: &errs, Getenv: func(string) (string, bool) { return "", false },
		Config: &config}
	app := kingpin.New("sqlwatch", "")
	for _, register := range []func(*kingpin.Application, *environment){registerRestore, registerSnapshots,
		registerVerify} {
		register(app, env)
	}
	_, err := app.Parse(args)
	exit := &exitError{code: exitFailure}
	switch {
	case errors.As(err, &exit), err != nil:
		return out.String(), errs.String() + err.Error(), exit.code
	}
	return out.String(), errs.String(), exitOK
}

func TestRestoreCommand(t *testing.T) {
	url := smallReplica(t)
	count := func(path string) string {
		t.Helper()
		out, err := exec.Command("sqlite3", path, "SELECT count(*) FROM t").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	for _, test := range []struct {
		args string
		rows string
		says string
	}{
		{"", "2", "restored txid 3 of 2024-03-01T12:03:00Z"},
		{"--txid 2", "1", "restored txid 2 of 2024-03-01T12:02:00Z"},
		{"--txid 0000000000000001", "0", "txid 1"},
		{"--timestamp 2024-03-01T13:02:59.5+01:00 --check full", "1", "integrity_check ok"},
		{"--check none", "2", "every object's checksum is right"},
	} {
		out := filepath.Join(t.TempDir(), "out.db")
		stdout, stderr, code := runCommand(append([]string{"restore", "-o", out, url}, strings.Fields(test.args)...)...)
		if code != exitOK || !strings.Contains(stdout, test.says) {
			t.Errorf("restore %s: exit %d\n%s%s", test.args, code, stdout, stderr)
			continue
		}
		if got := count(out); got != test.rows {
			t.Errorf("restore %s: %s rows, want %s", test.args, got, test.rows)
		}
	}
}

func TestRestoreCommandRefusals_R9(t *testing.T) {
	url := smallReplica(t)
	out := filepath.Join(t.TempDir(), "out.db")
	for _, test := range []struct{ args, says string }{
		{"--timestamp yesterday", "--timestamp"},
		{"--timestamp 2024-03-01T12:02:00", "lacks a time zone"},
		{"--timestamp 2024-03-01T12:00:00Z", "txid 1 (2024-03-01T12:01:00Z) to txid 3 (2024-03-01T12:03:00Z)"},
		{"--timestamp 2030-01-01T00:00:00Z", "outside of what can be restored"},
		{"--txid 4", "outside of what can be restored"},
		{"--txid x", "neither a number"},
		{"--txid 1 --timestamp 2024-03-01T12:02:00Z", "not both"},
		{"--check some", "none,quick,full"},
	} {
		stdout, stderr, code := runCommand(append([]string{"restore", "-o", out, url}, strings.Fields(test.args)...)...)
		if code != exitFailure || !strings.Contains(stderr, test.says) || stdout != "" {
			t.Errorf("restore %s: exit %d, %q, want %q", test.args, code, stderr, test.says)
		}
		if _, err := os.Stat(out); err == nil {
			t.Fatalf("restore %s left a file", test.args)
		}
	}
	if _, stderr, code := runCommand("restore", url); code != exitFailure || !strings.Contains(stderr, "-o FILE") {
		t.Errorf("without -o: exit %d, %s", code, stderr)
	}
	if _, stderr, code := runCommand("restore", "-o", out, "file:///nonexistent/replica"); code != exitFailure ||
		!strings.Contains(stderr, "no directory") {
		t.Errorf("a replica that is not there: exit %d, %s", code, stderr)
	}
	if _, stderr, code := runCommand("restore", "-o", out, "app"); code != exitFailure ||
		!strings.Contains(stderr, "no replica URL") {
		t.Errorf("a name without configuration: exit %d, %s", code, stderr)
	}
}

// TestRestoreCommandFirstStart restores from replicas to which nothing was replicated yet.
func TestRestoreCommandFirstStart(t *testing.T) {
	dir := t.TempDir()
	for _, url := range []string{"file://" + dir, "file://" + dir + "/not/made/yet"} {
		out := filepath.Join(t.TempDir(), "out.db")
		if _, stderr, code := runCommand("restore", "-o", out, url); code != exitFailure {
			t.Errorf("%s: exit %d, %s", url, code, stderr)
		}
		if stdout, stderr, code := runCommand("restore", "--if-replica-exists", "-o", out, url); code != exitOK ||
			!strings.Contains(stdout, "nothing has been replicated yet") {
			t.Errorf("%s with --if-replica-exists: exit %d, %s%s", url, code, stdout, stderr)
		}
		if _, err := os.Stat(out); err == nil {
			t.Error("a file was created from an empty replica")
		}
	}
}

// TestListingsOfNothing: a command that lists nothing says why.
func TestListingsOfNothing(t *testing.T) {
	dir, old := t.TempDir(), t.TempDir()
	generation := filepath.Join(old, "generations/0123456789abcdef/snapshots")
	if err := os.MkdirAll(generation, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(generation, "00000000.snapshot.lz4"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"snapshots", "wal"} {
		for place, says := range map[string]string{dir: "the replica is empty", old: "Litestream 0.3"} {
			for _, format := range []string{"--json", "--no-json"} {
				if _, stderr, code := runCommand(command, format, "file://"+place); code != exitFindings ||
					!strings.Contains(stderr, says) {
					t.Errorf("%s %s: exit %d, %s; want %q", command, format, code, stderr, says)
				}
			}
		}
	}
}

func TestRestoreCommandJSON(t *testing.T) {
	url := smallReplica(t)
	stdout, stderr, code := runCommand("restore", "--dry-run", "--json", url)
	var report struct {
		TXID    int      `json:"txid"`
		DryRun  bool     `json:"dry_run"`
		Objects []string `json:"objects"`
	}
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || code != exitOK {
		t.Fatalf("exit %d, %v\n%s%s", code, err, stdout, stderr)
	}
	if report.TXID != 3 || !report.DryRun || len(report.Objects) != 3 {
		t.Errorf("%+v", report)
	}
}

func TestListingsAndVerify(t *testing.T) {
	url := smallReplica(t)
	if stdout, stderr, code := runCommand("snapshots", url); code != exitOK || strings.Count(stdout, "\n") != 2 ||
		!strings.Contains(stdout, "2024-03-01T12:01:00Z") {
		t.Errorf("snapshots: exit %d\n%s%s", code, stdout, stderr)
	}
	if stdout, stderr, code := runCommand("wal", url); code != exitOK || strings.Count(stdout, "\n") != 4 {
		t.Errorf("wal: exit %d\n%s%s", code, stdout, stderr)
	}
	stdout, _, code := runCommand("wal", "--json", url)
	var files []listedFile
	if err := json.Unmarshal([]byte(stdout), &files); err != nil || code != exitOK || len(files) != 3 ||
		files[2].MaxTXID != 3 || files[2].Timestamp == nil {
		t.Errorf("wal --json: exit %d, %v\n%s", code, err, stdout)
	}
	scratch := t.TempDir()
	if stdout, stderr, code := runCommand("verify", "--scratch", scratch, url); code != exitOK ||
		!strings.Contains(stdout, "integrity_check ok") {
		t.Errorf("verify: exit %d\n%s%s", code, stdout, stderr)
	}
	dir := strings.TrimPrefix(url, "file://")
	if err := os.Remove(filepath.Join(dir, "ltx/0/0000000000000002-0000000000000002.ltx")); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := runCommand("verify", "--scratch", scratch, url); code != exitFindings ||
		!strings.Contains(stderr, "txids 2 to 2 are missing") {
		t.Errorf("verify of a gap: exit %d, %s", code, stderr)
	}
	if entries, err := os.ReadDir(scratch); err != nil || len(entries) != 0 {
		t.Errorf("verify left %v, %v", entries, err)
	}
}
