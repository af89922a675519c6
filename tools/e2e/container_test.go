package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// As the first process of a container, run --exec restores a database that is missing, starts the
// application, reaps orphans, forwards SIGTERM, replicates what the application wrote last, and
// exits with the application's exit code.
func TestExecAsInit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("sqlwatch.hcl", fmt.Sprintf("server {\n  listen = \"127.0.0.1:%s\"\n  admin = \"unix://%[2]s/admin.sock\"\n"+
		"  state_dir = \"%[2]s/state\"\n}\ndatabase \"app\" {\n  path = \"%[2]s/app.db\"\n"+
		"  replicate_to = [replica.file.copy]\n}\nreplica \"file\" \"copy\" {\n  dir = \"%[2]s/copy\"\n}\n", freePort(t),
		dir))
	write("app.sh", `
sqlite3 "$1/app.db" "pragma journal_mode=wal; create table if not exists t(v)" >/dev/null
sh -c '(sleep 0.3; touch "$0/orphan") & exit 0' "$1" # an orphan: the first process inherits it
trap 'sqlite3 "$1/app.db" "insert into t values (99)"; exit 7' TERM
touch "$1/ready"
while :; do sleep 0.05; done
`)
	life := func() {
		t.Helper()
		_ = os.Remove(path("ready"))
		_ = os.Remove(path("orphan"))
		p := start(t, "unshare", "--pid", "--fork", "--mount-proc", "--kill-child", binary, "--config", path("sqlwatch.hcl"),
			"run", "--no-collector.busy", "--exec", "sh "+path("app.sh")+" "+dir)
		for _, name := range []string{"ready", "orphan"} {
			eventually(t, patience, name, func() error { _, err := os.Stat(path(name)); return err })
		}
		first := children(p.cmd.Process.Pid)
		if len(first) != 1 {
			t.Fatalf("unshare has the children %v", first)
		}
		time.Sleep(time.Second) // the orphan has ended by now; nothing shows that it was reaped
		for _, pid := range children(first[0]) {
			if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && strings.Contains(string(stat),
				") Z ") {
				t.Errorf("process %d was not reaped: %s", pid, stat)
			}
		}
		if err := syscall.Kill(first[0], syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- p.cmd.Wait() }()
		select {
		case <-ended:
		case <-time.After(patience):
			t.Fatal("the first process does not end")
		}
		if code := p.cmd.ProcessState.ExitCode(); code != 7 {
			t.Errorf("exit code %d, the application's is 7\n%s", code, p.output(t))
		}
	}
	rows := func(db string) string {
		t.Helper()
		out, err := exec.Command("sqlite3", db, "select count(*) from t where v = 99").CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", db, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	life()
	output(t, binary, "restore", "file://"+path("copy"), "-o", path("restored.db"))
	if got := rows(path("restored.db")); got != "1" {
		t.Errorf("the replica has %s of the rows written last, want 1", got)
	}
	// A new machine: neither database nor state directory, only the replica.
	for _, name := range []string{"app.db", "app.db-wal", "app.db-shm", "state"} {
		if err := os.RemoveAll(path(name)); err != nil {
			t.Fatal(err)
		}
	}
	life()
	if got := rows(path("app.db")); got != "2" {
		t.Errorf("the restored database has %s of the rows written last, want 2", got)
	}
}

// children returns the pids of a process's children.
func children(pid int) (pids []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		for _, field := range strings.Fields(string(text)) {
			if n, err := strconv.Atoi(field); err == nil {
				pids = append(pids, n)
			}
		}
	}
	return pids
}
