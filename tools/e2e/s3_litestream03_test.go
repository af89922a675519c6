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

// withLitestream03 finds Litestream 0.3 through $LITESTREAM3 and configures it for a replica in
// S3; without it the test is skipped.
func withLitestream03(t *testing.T, server *s3Server, db, prefix string) *litestream {
	t.Helper()
	program := os.Getenv("LITESTREAM3")
	if program == "" {
		t.Skip("Litestream 0.3 is not installed: name it with $LITESTREAM3")
	}
	if help, _ := exec.Command(program, "restore", "-h").CombinedOutput(); strings.Contains(string(help), "-txid") {
		t.Skipf("%s is not Litestream 0.3", program)
	}
	l := &litestream{t: t, program: program, env: append(os.Environ(), "AWS_ACCESS_KEY_ID="+s3KeyID,
		"AWS_SECRET_ACCESS_KEY="+s3Secret)}
	l.config = write(t, t.TempDir(), "litestream.yml", fmt.Sprintf(`dbs:
  - path: %s
    replicas:
      - {type: s3, bucket: %s, path: %s, endpoint: %q, region: us-east-1, force-path-style: true, sync-interval: 500ms}
`, db, s3Bucket, prefix, server.url()))
	return l
}

// R24: sqlwatch refuses a prefix of Litestream 0.3 and says what to do. With --adopt it begins a
// history of its own beside Litestream's, of which it deletes nothing: moments before and after
// can be restored, a moment between the two is in doubt, and Litestream 0.3 still restores what
// it stored.
func TestS3AdoptsLitestream03_R24(t *testing.T) {
	t.Parallel()
	const prefix = "v1/app"
	server, db := startS3(t), filepath.Join(t.TempDir(), "app.db")
	l := withLitestream03(t, server, db, prefix)
	commits(t, db, 0.5, 100)
	theirs := func(want string) error {
		out := filepath.Join(t.TempDir(), "theirs.db")
		cmd := exec.Command(l.program, "restore", "-config", l.config, "-o", out, db)
		cmd.Env = l.env
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("litestream restore: %w: %s", err, text)
		}
		if got := contents(t, out); got != want {
			return fmt.Errorf("litestream restores %s, want %s", got, want)
		}
		return nil
	}
	l.replicate(func() {
		eventually(t, patience, "Litestream has all", func() error { return theirs(contents(t, db)) })
	})
	early, before := contents(t, db), server.objects(prefix)
	_, stored := restoreS3(t, s3URL(server.url(), prefix))
	eventually(t, patience, "a moment far from what Litestream stored last", func() error {
		if time.Since(stored.Timestamp) < 4*time.Second {
			return errors.New("not yet")
		}
		return nil
	})
	unwatched := time.Now()
	d := watchS3(t, replicated(db, s3Replica(server.url(), prefix, "")))
	eventually(t, patience, "the refusal", func() error {
		if lastMatch(d.output(t), "--adopt") == "" {
			return errors.New("no line names --adopt")
		}
		return nil
	})
	if err := syncS3(t, d); err == nil || !slices.Equal(server.objects(prefix), before) {
		t.Errorf("a foreign prefix: %v, %q became %q", err, before, server.objects(prefix))
	}
	d.end(syscall.SIGTERM)
	d.process = start(t, binary, "run", "--config", d.config, "--adopt", "app")
	synced(t, d)
	commits(t, db, 0.5, 100)
	synced(t, d)

	restored := func(want string, args ...string) {
		t.Helper()
		path, _ := restoreS3(t, s3URL(server.url(), prefix), args...)
		if got := contents(t, path); got != want {
			t.Errorf("restore %v: %s, want %s", args, got, want)
		}
	}
	restored(contents(t, db))
	restored(early, "--exact", "--timestamp", stored.Timestamp.Add(time.Millisecond).Format(time.RFC3339Nano))
	between := "--timestamp=" + unwatched.UTC().Format(time.RFC3339Nano)
	restored(early, between)
	if a := sqlwatch(t, s3KeyID, s3Secret, "restore", "--dry-run", "--exact", between,
		s3URL(server.url(), prefix)); a.code != 1 ||
		!strings.Contains(a.stderr, "is not known for sure") {
		t.Errorf("--exact of a moment that nobody recorded: exit %d: %s", a.code, a.stderr)
	}
	for _, key := range before {
		if !slices.Contains(server.objects(prefix), key) {
			t.Errorf("%s of Litestream 0.3 is gone", key)
		}
	}
	must(t, theirs(early))
}
