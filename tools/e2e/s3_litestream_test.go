package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// litestream is a real Litestream, configured for one database and prefix.
type litestream struct {
	t               *testing.T
	program, config string
	env             []string
}

// withLitestream finds Litestream 0.5 through $LITESTREAM or PATH; without it the test is
// skipped.
func withLitestream(t *testing.T, server *s3Server, db, prefix string) *litestream {
	t.Helper()
	program := os.Getenv("LITESTREAM")
	if program == "" {
		var err error
		if program, err = exec.LookPath("litestream"); err != nil {
			t.Skip("Litestream is not installed: put litestream 0.5 into PATH, or name it with $LITESTREAM")
		}
	}
	if version := output(t, program, "version"); !strings.Contains(version, "0.5.") {
		t.Skipf("%s is Litestream %s, not 0.5", program, strings.TrimSpace(version))
	}
	l := &litestream{t: t, program: program}
	l.config = write(t, t.TempDir(), "litestream.yml", fmt.Sprintf(`dbs:
  - path: %s
    replica: {type: s3, bucket: %s, path: %s, endpoint: %q,
              region: us-east-1, force-path-style: true, sync-interval: 1s}
`, db, s3Bucket, prefix, server.url()))
	// Litestream 0.5.18 cannot restore from S3 if AWS_CA_BUNDLE is set.
	l.env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "AWS_") })
	l.env = append(l.env, "AWS_ACCESS_KEY_ID="+s3KeyID, "AWS_SECRET_ACCESS_KEY="+s3Secret)
	return l
}

// replicate runs Litestream's daemon during a function, lets it finish its last sync, and returns
// its log.
func (l *litestream) replicate(during func()) string {
	l.t.Helper()
	cmd := exec.Command(l.program, "replicate", "-config", l.config)
	cmd.Env = l.env
	log, err := os.Create(filepath.Join(l.t.TempDir(), "litestream.log"))
	must(l.t, err)
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	must(l.t, cmd.Start())
	defer cmd.Wait()
	defer cmd.Process.Signal(syscall.SIGINT)
	during()
	text, err := os.ReadFile(log.Name())
	must(l.t, err)
	return string(text)
}

// wantBoth returns an error unless both programs restore what the source has now.
func (l *litestream) wantBoth(server *s3Server, db, prefix string) error {
	want := contents(l.t, db)
	out := filepath.Join(l.t.TempDir(), "theirs.db")
	cmd := exec.Command(l.program, "restore", "-config", l.config, "-o", out, db)
	cmd.Env = l.env
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("litestream restore: %w: %s", err, text)
	}
	if got := contents(l.t, out); got != want {
		return fmt.Errorf("litestream restores %s, want %s", got, want)
	}
	ours, _ := restoreS3(l.t, s3URL(server.url(), prefix))
	if got := contents(l.t, ours); got != want {
		return fmt.Errorf("sqlwatch restores %s, want %s", got, want)
	}
	return nil
}

// Litestream continues the history that sqlwatch began, and sqlwatch then continues Litestream's.
func TestS3LitestreamContinuesOurs(t *testing.T) {
	t.Parallel()
	const prefix = "v1/app"
	server, db := startS3(t), filepath.Join(t.TempDir(), "app.db")
	l := withLitestream(t, server, db, prefix)
	commits(t, db, 0.5, 100)
	body := replicated(db, s3Replica(server.url(), prefix, ""))
	d := watchS3(t, body)
	commits(t, db, 1, 100)
	synced(t, d)
	d.end(syscall.SIGTERM)
	must(t, l.wantBoth(server, db, prefix))
	l.replicate(func() {
		commits(t, db, 2, 100)
		eventually(t, 20*time.Second, "Litestream has all", func() error { return l.wantBoth(server, db, prefix) })
	})
	d = watchS3(t, body)
	synced(t, d)
	commits(t, db, 1, 100)
	synced(t, d)
	must(t, l.wantBoth(server, db, prefix))
}

// C5: sqlwatch refuses a prefix of Litestream and says what to do. With --adopt it continues
// Litestream's history, and all of that can be restored.
func TestS3AdoptsLitestreams_C5(t *testing.T) {
	t.Parallel()
	const prefix = "v1/app"
	server, db := startS3(t), filepath.Join(t.TempDir(), "app.db")
	l := withLitestream(t, server, db, prefix)
	commits(t, db, 0.5, 100)
	l.replicate(func() {
		eventually(t, 30*time.Second, "Litestream has all",
			func() error { commits(t, db, 0.2, 50); time.Sleep(time.Second); return l.wantBoth(server, db, prefix) })
	})
	early := contents(t, db)
	_, theirs := restoreS3(t, s3URL(server.url(), prefix))
	before := server.objects(prefix)
	d := watchS3(t, replicated(db, s3Replica(server.url(), prefix, "")))
	eventually(t, 20*time.Second, "the refusal", func() error {
		if lastMatch(d.output(t), "--adopt") == "" {
			return errors.New("no line names --adopt")
		}
		return nil
	})
	d.end(syscall.SIGTERM)
	if after := server.objects(prefix); !slices.Equal(before, after) {
		t.Errorf("a foreign prefix was changed from %q to %q", before, after)
	}
	adopted := start(t, binary, "run", "--config", d.config, "--adopt", "app")
	d.process = adopted
	synced(t, d)
	commits(t, db, 1, 100)
	synced(t, d)
	must(t, l.wantBoth(server, db, prefix))
	for flag, value := range map[string]string{"--txid": fmt.Sprint(theirs.TXID),
		"--timestamp": theirs.Timestamp.Format(time.RFC3339Nano)} {
		path, _ := restoreS3(t, s3URL(server.url(), prefix), flag, value)
		if got := contents(t, path); got != early {
			t.Errorf("what Litestream had stored, by %s: %s, want %s", flag, got, early)
		}
	}
}

// Litestream begins to write to a prefix that sqlwatch uses: sqlwatch stops replicating there and
// says why, and what it had stored can be restored.
func TestS3LitestreamBesideUs_C4(t *testing.T) {
	t.Parallel()
	const prefix = "v1/app"
	server, db, other := startS3(t), filepath.Join(t.TempDir(), "app.db"), filepath.Join(t.TempDir(), "other.db")
	l := withLitestream(t, server, other, prefix)
	commits(t, db, 0.5, 100)
	commits(t, other, 0.5, 50)
	d := watchS3(t, replicated(db, s3Replica(server.url(), prefix, "")))
	commits(t, db, 1, 100)
	synced(t, d)
	early := contents(t, db)
	_, ours := restoreS3(t, s3URL(server.url(), prefix))
	l.replicate(func() {
		eventually(t, 60*time.Second, "sqlwatch stops", func() error {
			commits(t, db, 0.5, 20)
			commits(t, other, 0.5, 20)
			if lastMatch(d.output(t), "prefix of its own") == "" {
				return errors.New("it goes on")
			}
			return nil
		})
	})
	t.Log(lastMatch(d.output(t), "level=ERROR"))
	path, _ := restoreS3(t, s3URL(server.url(), prefix), "--txid", fmt.Sprint(ours.TXID))
	if got := contents(t, path); got != early {
		t.Errorf("our history: %s, want %s", got, early)
	}
}

// sqlwatch and Litestream replicate the same database, each to a prefix of its own, and restart
// the WAL under each other. The application notices nothing, doctor says what is wrong, our
// replica holds what the database does, and a discontinuity costs a comparison, not a new
// snapshot.
func TestS3LitestreamOnOneDatabase_C4(t *testing.T) {
	t.Parallel()
	const prefix = "v1/ours"
	server, db := startS3(t), filepath.Join(t.TempDir(), "app.db")
	l := withLitestream(t, server, db, "v1/theirs")
	commits(t, db, 0.5, 100)
	d := watchS3(t, replicated(db, s3Replica(server.url(), prefix, "")))
	l.replicate(func() {
		for range 5 {
			commits(t, db, 2, 300)
		}
		if a := sqlwatch(t, s3KeyID, s3Secret, "doctor", db); a.code != 2 || !strings.Contains(a.stdout, "two-replicators") {
			t.Errorf("doctor, exit %d, does not name the second replicator:\n%s", a.code, a.stdout)
		}
		eventually(t, 60*time.Second, "our replica holds what the database does", func() error {
			if err := syncS3(t, d); err != nil {
				return err
			}
			path, _ := restoreS3(t, s3URL(server.url(), prefix))
			// Litestream writes a row of its own every second, so only the application's rows are
			// compared.
			rows := func(db string) string { return output(t, "sqlite3", db, ".sha3sum t", "PRAGMA integrity_check") }
			if got, want := rows(path), rows(db); got != want {
				return fmt.Errorf("restored %s, want %s", got, want)
			}
			return nil
		})
	})
	snapshots := 0
	for _, key := range server.objects(prefix) {
		if strings.Contains(key, "/0009/") && strings.HasSuffix(key, ".ltx") { // not the list of page checksums beside it
			snapshots++
		}
	}
	if snapshots != 1 {
		t.Errorf("%d snapshots, want the first only", snapshots)
	}
	page, err := get(d.url + "/metrics")
	must(t, err)
	t.Log(lastMatch(page, `sqlwatch_replica_discontinuities_total{db="app",reason="wal_reset"}`))
}
