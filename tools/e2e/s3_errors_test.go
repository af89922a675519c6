package e2e

import (
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// After a typical mistake, `doctor` and the daemon each say in one line what is wrong and what to
// do.
func TestS3SaysWhatToDo(t *testing.T) {
	t.Parallel()
	server := startS3(t)
	server.addUsers()
	nobody := "http://127.0.0.1:" + freePort(t)
	for name, c := range map[string]struct{ endpoint, bucket, keyID, secret, want string }{
		"bucket": {server.url(), "replicsa", s3KeyID, s3Secret, `there is no bucket "replicsa" at ` + server.url() +
			": check bucket and endpoint"},
		"key": {server.url(), s3Bucket, "e2e-kye-id", s3Secret, "the key id is unknown at " + server.url() +
			": check access_key and endpoint"},
		"secret":    {server.url(), s3Bucket, s3KeyID, canary + "-wrong", "check secret_key"},
		"endpoint":  {nobody, s3Bucket, s3KeyID, s3Secret, "nothing listens at the endpoint: check its host name and port"},
		"tls":       {strings.Replace(server.url(), "http:", "https:", 1), s3Bucket, s3KeyID, s3Secret, "does not speak TLS"},
		"read_only": {server.url(), s3Bucket, readerKeyID, readerSecret, "s3:PutObject"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := filepath.Join(t.TempDir(), "app.db") // of its own: daemons that share one see each other
			commits(t, db, 0.2, 50)
			d := watchS3(t, replicated(db, s3ReplicaWith(c.endpoint, c.bucket, "v1/"+name, c.keyID, c.secret, "")))
			a := sqlwatch(t, "", "", "doctor", "--settings=none", "--config", d.config, "app")
			if line := lastMatch(a.stdout, c.want); line == "" || a.code != 2 {
				t.Errorf("doctor ended with %d and does not say %q in one line:\n%s%s", a.code, c.want, a.stdout, a.stderr)
			} else {
				t.Log("doctor: ", line)
			}
			eventually(t, 40*time.Second, "the daemon says it", func() error {
				if lastMatch(d.output(t), "level=ERROR") == "" {
					return errors.New("no error is logged")
				}
				return nil
			})
			line := lastMatch(d.output(t), "level=ERROR")
			if !strings.Contains(strings.ReplaceAll(line, `\"`, `"`), c.want) {
				t.Errorf("the daemon's log does not say %q: %s", c.want, line)
			}
			t.Log("run: ", line)
			d.end(syscall.SIGKILL) // SIGTERM would try to reach the store once more
		})
	}
}

// The access policies of docs/storage.md are enough: the writer's to replicate, snapshot and
// delete, the reader's to restore (R20).
func TestS3LeastPrivilege_R20(t *testing.T) {
	t.Parallel()
	server := startS3(t)
	server.addUsers()
	db := filepath.Join(t.TempDir(), "app.db")
	commits(t, db, 0.5, 100)
	d := watchS3(t, replicated(db, s3ReplicaWith(server.url(), s3Bucket, "v1/app", writerKeyID, writerSecret, "")))
	synced(t, d)
	if a := sqlwatch(t, "", "", "snapshot", "--config", d.config, "app"); a.code != 0 {
		t.Errorf("snapshot: %d: %s", a.code, a.stderr)
	}
	a := sqlwatch(t, "", "", "doctor", "--settings=none", "--config", d.config, "app")
	if !strings.Contains(a.stdout, "wrote, read, listed and deleted a probe") || strings.Contains(a.stdout, "replica-") {
		t.Errorf("doctor is not content with the writer's permissions:\n%s", a.stdout)
	}
	if text := d.output(t); strings.Contains(text, "level=ERROR") {
		t.Errorf("the daemon met an error: %s", lastMatch(text, "level=ERROR"))
	}
	path := filepath.Join(t.TempDir(), "restored.db")
	a = sqlwatch(t, readerKeyID, readerSecret, "restore", "-o", path, s3URL(server.url(), "v1/app"))
	if a.code != 0 {
		t.Fatalf("restore: %d: %s", a.code, a.stderr)
	}
	if got, want := contents(t, path), contents(t, db); got != want {
		t.Errorf("restored %s, want %s", got, want)
	}
}
