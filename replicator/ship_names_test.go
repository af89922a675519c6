package replicator_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/sqlwatch/sqlwatch/internal/dirwatch"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// removedLife is an application whose side files are removed while it runs. It commits some more
// and ends in order that many seconds later. It has not run long enough for capture to stand back
// for it.
const removedLife = `
import os, sqlite3, sys, time
path, pause = sys.argv[1], float(sys.argv[2])
db = sqlite3.connect(path, isolation_level=None, timeout=20)
db.execute("pragma journal_mode=wal"); db.execute("pragma wal_autocheckpoint=0")
db.execute("create table if not exists r(v)")
def commit(n):
    for _ in range(n): db.execute("insert into r values(randomblob(300))")
commit(20)
print("wrote", flush=True)
sys.stdin.readline()
os.unlink(path + "-wal"); os.unlink(path + "-shm")
gone = time.monotonic()
commit(5)
time.sleep(max(0, gone + pause - time.monotonic()))
db.close()
`

// TestShip_D15_removedThenClosed: the side files of a running application are removed, and it ends
// soon after. Without sqlwatch it loses nothing, because its last close checkpoints the unlinked
// WAL. It must not lose anything beside sqlwatch either. With SQLWATCH_ROUNDS set, each case is
// repeated 20 times.
func TestShip_D15_removedThenClosed(t *testing.T) {
	t.Parallel()
	rounds := 1
	if os.Getenv("SQLWATCH_ROUNDS") != "" {
		rounds = 20
	}
	for _, pause := range []string{"0.2", "0.05", "0.02", "0.005"} {
		if rounds == 1 && pause != "0.2" { // on a busy machine the removal may not be noticed in time
			continue
		}
		t.Run(pause, func(t *testing.T) {
			t.Parallel()
			path, w := database(t)
			h := newHost(t, path, replica("memory.a", storetest.NewMemory().Enforce(t)))
			h.options.Names = (&dirwatch.Watcher{}).Watch
			h.begin()
			w.end()
			lost := 0
			for round := 1; round <= rounds; round++ {
				a := exec.Command("python3", "-S", "-c", removedLife, path, pause)
				stdin, err := a.StdinPipe()
				if err != nil {
					t.Fatal(err)
				}
				stdout, err := a.StdoutPipe()
				if err != nil {
					t.Fatal(err)
				}
				a.Stderr = os.Stderr
				if err := a.Start(); err != nil {
					t.Fatal(err)
				}
				if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
					t.Fatal(err)
				}
				h.eventually("what it wrote is captured", func() bool { return h.sync() == nil })
				fmt.Fprintln(stdin)
				if err := a.Wait(); err != nil {
					t.Fatal(err)
				}
				out, err := exec.Command("sqlite3", "-cmd", ".timeout 20000", path,
					"select count(*) from r; delete from r; pragma quick_check").CombinedOutput()
				words := strings.Fields(string(out))
				if err != nil || len(words) != 2 || words[1] != "ok" {
					t.Fatalf("%s, %v", out, err)
				}
				if n, _ := strconv.Atoi(words[0]); n != 25 {
					t.Logf("round %d: %d rows of 25", round, n)
					lost++
				}
				h.eventually("all is captured again", func() bool { return h.sync() == nil })
			}
			if lost > 0 {
				t.Errorf("D15: the application lost commits in %d of %d rounds; without sqlwatch it loses none", lost, rounds)
			}
		})
	}
}
