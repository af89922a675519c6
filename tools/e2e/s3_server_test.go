package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The bucket and keys that every S3 server of these tests accepts. The secrets are canaries: no
// output of sqlwatch may ever contain one (I14).
const (
	s3Bucket       = "replicas"
	s3KeyID        = "e2e-key-id"
	s3Secret       = "canary-Zx81kQ-full"
	writerKeyID    = "e2e-writer-id"
	writerSecret   = "canary-Zx81kQ-writer"
	readerKeyID    = "e2e-reader-id"
	readerSecret   = "canary-Zx81kQ-reader"
	canary         = "canary-Zx81kQ"
	s3StartupLimit = 30 * time.Second
)

// versitygw returns the path of the S3 server, built from the module of test tools into Go's
// build cache: linking it for every run would take longer than the tests.
var versitygw = sync.OnceValues(func() (string, error) {
	cmd := exec.Command("go", "tool", "-n", "versitygw")
	cmd.Dir, cmd.Stderr = "..", os.Stderr
	path, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("build versitygw: %w", err)
	}
	return strings.TrimSpace(string(path)), nil
})

// s3Server is a versitygw on loopback that keeps its objects in a directory. It can be stopped
// and started again on the same port.
type s3Server struct {
	t                  *testing.T
	program, dir, port string
	process            *process
}

func startS3(t *testing.T) *s3Server {
	t.Helper()
	program, err := versitygw()
	if err != nil {
		t.Fatal(err)
	}
	s := &s3Server{t: t, program: program, dir: t.TempDir(), port: freePort(t)}
	for _, d := range []string{"objects/" + s3Bucket, "users"} {
		if err := os.MkdirAll(filepath.Join(s.dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s.start()
	return s
}

func (s *s3Server) url() string { return "http://127.0.0.1:" + s.port }

// start runs the server until the test or stop ends it.
func (s *s3Server) start() {
	s.t.Helper()
	s.process = start(s.t, s.program, "--port", "127.0.0.1:"+s.port, "--access", s3KeyID, "--secret", s3Secret,
		"--iam-dir", filepath.Join(s.dir, "users"), "--quiet", "--keep-alive", "posix", filepath.Join(s.dir, "objects"))
	eventually(s.t, s3StartupLimit, "the S3 server listens", func() error {
		conn, err := net.Dial("tcp", "127.0.0.1:"+s.port)
		if err == nil {
			err = conn.Close()
		}
		return err
	})
}

// stop ends the server as a crash would.
func (s *s3Server) stop() { s.process.end(syscall.SIGKILL) }

// addUsers creates the writer and the reader of docs/storage.md, with the bucket policies from
// there.
func (s *s3Server) addUsers() {
	s.t.Helper()
	for keyID, secret := range map[string]string{writerKeyID: writerSecret, readerKeyID: readerSecret} {
		output(s.t, s.program, "admin", "--access", s3KeyID, "--secret", s3Secret, "--endpoint-url", s.url(),
			"create-user", "--access", keyID, "--secret", secret, "--role", "user")
	}
	page, err := os.ReadFile("../../docs/storage.md")
	must(s.t, err)
	var policy struct {
		Version   string
		Statement []json.RawMessage
	}
	for _, block := range strings.Split(string(page), "```json\n")[1:] {
		text, _, _ := strings.Cut(block, "```")
		text = strings.NewReplacer("BUCKET", s3Bucket, "WRITER", writerKeyID, "READER", readerKeyID).Replace(text)
		all := policy.Statement
		policy.Statement = nil // otherwise the next block is decoded into the same array
		must(s.t, json.Unmarshal([]byte(text), &policy))
		policy.Statement = append(all, policy.Statement...)
	}
	if len(policy.Statement) != 4 {
		s.t.Fatalf("docs/storage.md has %d statements, want 4", len(policy.Statement))
	}
	body, err := json.Marshal(policy)
	must(s.t, err)
	must(s.t, s.putSubresource(s3Bucket, "policy", string(body)))
}

// objects lists the keys below a prefix, as files of the server's directory.
func (s *s3Server) objects(prefix string) []string {
	s.t.Helper()
	root := filepath.Join(s.dir, "objects", s3Bucket)
	var keys []string
	err := filepath.WalkDir(filepath.Join(root, prefix), func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			key, _ := filepath.Rel(root, path)
			keys = append(keys, key)
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Fatal(err)
	}
	return keys
}

// s3Replica returns a replica block with further attributes.
func s3Replica(endpoint, prefix, attributes string) string {
	return s3ReplicaWith(endpoint, s3Bucket, prefix, s3KeyID, s3Secret, attributes)
}

func s3ReplicaWith(endpoint, bucket, prefix, keyID, secret, attributes string) string {
	return fmt.Sprintf(`replica "s3" "r" {
  bucket     = %q
  prefix     = %q
  endpoint   = %q
  region     = "us-east-1"
  path_style = true
  credentials {
    access_key = %q
    secret_key = secret(%q)
  }
  %s
}
`, bucket, prefix, endpoint, keyID, secret, attributes)
}

// replicated returns a database block, and the block of the replica that it goes to.
func replicated(db, replica string) string {
	return fmt.Sprintf("database \"app\" {\n  path         = %q\n  replicate_to = [replica.s3.r]\n}\n%s", db, replica)
}

func s3URL(endpoint, prefix string) string {
	return fmt.Sprintf("s3://%s/%s?endpoint=%s&region=us-east-1&path_style=true", s3Bucket, prefix,
		url.QueryEscape(endpoint))
}

// answer is what a command printed and its exit code.
type answer struct {
	stdout, stderr string
	code           int
}

// sqlwatch runs a command with the credentials in its environment, as somebody who restores
// from a URL does.
func sqlwatch(t *testing.T, keyID, secret string, args ...string) answer {
	t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+keyID, "AWS_SECRET_ACCESS_KEY="+secret)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("sqlwatch %v: %v", args, err)
	}
	a := answer{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	noCanary(t, "sqlwatch "+strings.Join(args, " "), a.stdout+a.stderr)
	return a
}

// noCanary checks that no secret is in what sqlwatch showed.
func noCanary(t *testing.T, where, text string) {
	t.Helper()
	if i := strings.Index(text, canary); i >= 0 {
		t.Errorf("I14: a secret in %s: …%s…", where, text[max(0, i-80):min(len(text), i+40)])
	}
}

// watchS3 starts a daemon and, when the test ends, checks that nothing it shows contains a
// secret.
func watchS3(t *testing.T, body string) *daemon {
	t.Helper()
	return watchS3As(t, []string{binary}, body)
}

// watchS3As is watchS3 of another build, or in another environment.
func watchS3As(t *testing.T, program []string, body string) *daemon {
	t.Helper()
	return watchS3At(t, "127.0.0.1", program, body)
}

// watchS3At is watchS3As on a host with another address.
func watchS3At(t *testing.T, host string, program []string, body string) *daemon {
	t.Helper()
	d := startDaemonAt(t, host, t.TempDir(), program, body)
	t.Cleanup(func() {
		for _, page := range []string{"/", "/metrics", "/api/v1/databases", "/api/v1/decisions"} {
			if text, err := get(d.url + page); err == nil {
				noCanary(t, page, text)
			}
		}
		noCanary(t, "the daemon's log", d.output(t))
	})
	return d
}

// contents returns a hash over schema and rows, and the integrity check, by the system's sqlite3.
func contents(t *testing.T, db string) string {
	t.Helper()
	return strings.TrimSpace(output(t, "sqlite3", db, ".sha3sum --schema")) + " " +
		strings.TrimSpace(output(t, "sqlite3", db, "PRAGMA integrity_check"))
}
