package collector

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestSamplerP15ForeignOwner runs itself again as the user nobody, with two databases of
// root: one that everybody may read, and one that only root may.
func TestSamplerP15ForeignOwner(t *testing.T) {
	if dir := os.Getenv("COLLECTOR_TEST_CHILD"); dir != "" {
		sampleAsNobody(t, dir)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	dir := t.TempDir()
	a := walApp(t, filepath.Join(dir, "readable.db"))
	walApp(t, filepath.Join(dir, "secret.db"))
	binary := filepath.Join(dir, "collector.test")
	content, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(binary, content, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "secret.db"), 0o600); err != nil {
		t.Fatal(err)
	}
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	child := exec.Command(binary, "-test.run=^TestSamplerP15ForeignOwner$", "-test.v")
	child.Env = append(os.Environ(), "COLLECTOR_TEST_CHILD="+dir)
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	child.Dir = "/"
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
	a.run("c.close()", "c = connect()", insert) // and the application can still write
}

func sampleAsNobody(t *testing.T, dir string) {
	r, _ := newTestSampler(t, filepath.Join(dir, "readable.db"))
	s := wantState(t, r, StateForeignOwner)
	if s.Database.SizeBytes == 0 || !strings.Contains(s.Err, "uid 0") {
		t.Errorf("size and message of another user's database: %+v, %s", s.Database, s.Err)
	}
	secret, _ := newTestSampler(t, filepath.Join(dir, "secret.db"))
	s = secret.Sample(context.Background())
	if s.State != StateUnreadable || !strings.Contains(s.Err, "permission") {
		t.Errorf("D21 a file we may not read: %v, %s", s.State, s.Err)
	}
}
