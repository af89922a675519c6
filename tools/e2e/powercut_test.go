package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// cutApplication is the application of the power cuts. Each row has the number of the incarnation
// that inserted it, and a state row counts the rows. Each commit is announced in a file that
// survives the power cut.
const cutApplication = `
import os, random, sqlite3, sys, time
path, log, inc, synchronous = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
say = lambda *words: os.write(out, (" ".join(map(str, words)) + "\n").encode())
db = sqlite3.connect(path, timeout=5, isolation_level=None)
db.execute("PRAGMA journal_mode=WAL")
db.execute("PRAGMA synchronous=" + synchronous)
db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, inc INT, body BLOB)")
db.execute("CREATE TABLE IF NOT EXISTS state(one INTEGER PRIMARY KEY, n INT)")
db.execute("INSERT OR IGNORE INTO state VALUES(1, 0)")
at = db.execute("SELECT n FROM state").fetchone()[0]
say("R", at)
while True:
    at += 1
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO t VALUES(?, ?, ?)", (at, inc, random.randbytes(random.choice((40, 300, 9000)))))
    db.execute("UPDATE state SET n = ?", (at,))
    if at % 50 == 0:
        db.execute("UPDATE t SET body = randomblob(length(body)) WHERE id > ?", (at - 100,))
    say("B", at, inc)
    db.execute("COMMIT")
    say("C", at)
    if at % 1000 == 0:
        db.execute("VACUUM")
    time.sleep(0.003)
`

// The file system that holds the state directory and the replica, and in the second variant the
// application's database as well, loses power again and again. What was acknowledged is restored,
// every restored state was once committed, and replication continues when the power is back.
func TestPowerCut(t *testing.T) {
	rounds := 5
	if s := os.Getenv(envRounds); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		rounds = n
	}
	for name, everything := range map[string]bool{"P10_S26_application_elsewhere": false,
		"P10_S26_application_too": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCutScene(t, everything)
			for n := range rounds {
				c.round(n)
			}
			t.Logf("%d power cuts, %d acknowledged syncs, %d restores, %d rows, %d rows of the application's own lost to it",
				rounds, c.syncs, c.restores, len(c.history), c.lost)
		})
	}
}

// cutScene is a file system that loses power, and the processes that work on it.
type cutScene struct {
	t                 *testing.T
	rng               *rand.Rand
	program           string // sqlwatch without the race detector, as users have it
	host, disk, image string
	db, log, config   string
	listen            string

	app, daemon *exec.Cmd
	logged      int64 // bytes of the log that follow has read
	history     []int // incarnation of each row that was announced, by id-1
	committed   int   // rows that are certain to be committed
	acked       int   // rows that were reported to be durable in the replica
	incarnation int
	resumed     int // incarnations that have opened the database
	syncs       int
	restores    int
	lost        int
}

func newCutScene(t *testing.T, everything bool) *cutScene {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a file system to cut its power needs root")
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	host := t.TempDir()
	c := &cutScene{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), host: host,
		disk: filepath.Join(host, "disk"), image: filepath.Join(memory(t), "image"), log: filepath.Join(host, "log"),
		listen: "127.0.0.1:" + freePort(t),
	}
	var err error
	if c.program, err = withoutRace(); err != nil {
		t.Fatal(err)
	}
	c.db = filepath.Join(host, "app.db")
	if everything {
		c.db = filepath.Join(c.disk, "app.db")
	}
	if err := errors.Join(os.Mkdir(c.disk, 0o700), os.WriteFile(c.image, nil, 0o600),
		os.Truncate(c.image, 1<<30)); err != nil {
		t.Fatal(err)
	}
	output(t, "mkfs.ext4", "-q", "-F", c.image)
	if text, err := exec.Command("mount", "-o", "loop", c.image, c.disk).CombinedOutput(); err != nil {
		t.Skipf("this machine mounts no loop device: %v: %s", err, text)
	}
	t.Cleanup(func() {
		c.kill()
		_ = exec.Command("umount", c.disk).Run()
		if t.Failed() {
			text, _ := os.ReadFile(filepath.Join(host, "daemon.log"))
			t.Logf("the daemon's log:\n%s", tail(text, 15000))
		}
	})
	c.config = write(t, host, "sqlwatch.hcl", fmt.Sprintf(`
server {
  listen    = %q
  admin     = "unix://%s/admin.sock"
  state_dir = "%s/state"
}
database "app" {
  path         = %q
  replicate_to = [replica.file.r]
  restart {
    at = "2MB"
  }
}
replica "file" "r" {
  dir        = "%s/replica"
  sync_every = "100ms"
}
`, c.listen, host, c.disk, c.db, c.disk))
	output(t, c.program, "check", c.config)
	return c
}

// memory returns a directory for the disk image, in memory if possible. There the disk is faster
// and otherwise the same: what ext4 has not written to it when the power fails is lost.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "sqlwatch-powercut")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// round lets application and daemon work until a random moment, cuts the power, and checks what
// is left when the power is back.
func (c *cutScene) round(n int) {
	c.t.Helper()
	synchronous := []string{"NORMAL", "FULL"}[c.rng.IntN(2)]
	c.incarnation++
	c.app = c.spawn("application", "python3", "-c", cutApplication, c.db, c.log, strconv.Itoa(c.incarnation), synchronous)
	c.daemon = c.spawn("daemon", c.program, "run", "--config", c.config)

	// What the application itself lost in the last power cut is known only when it has opened its
	// database.
	eventually(c.t, 30*time.Second, "application opens its database", func() error {
		if c.follow(); c.resumed < c.incarnation {
			return errors.New("not yet")
		}
		return nil
	})
	// The application may have lost its newest commits while the replica has them: with the first
	// sync after the cut the replica follows the application.
	eventually(c.t, 30*time.Second, fmt.Sprintf("round %d: sync after the power came back", n), c.sync)
	c.judge(fmt.Sprintf("round %d, with power", n))

	ended := make(chan struct{})
	until := time.Now().Add(time.Duration(c.rng.IntN(700)) * time.Millisecond)
	flags := []uint32{2, 2, 2, 1, 1, 0}[c.rng.IntN(6)]
	time.AfterFunc(time.Until(until), func() {
		defer close(ended)
		c.cut(flags)
		time.Sleep(50 * time.Millisecond) // time for an acknowledgement that must not come
		c.kill()                          // which ends a sync under way
	})
	// Syncs continue while the power fails: one that is acknowledged although its fsync came
	// too late is found below.
	for time.Now().Before(until) {
		if c.sync() != nil {
			time.Sleep(5 * time.Millisecond)
		}
	}
	<-ended
	output(c.t, "umount", c.disk)
	output(c.t, "mount", "-o", "loop", c.image, c.disk)
	c.judge(fmt.Sprintf("round %d, after the power cut", n))
}

func (c *cutScene) spawn(name string, program string, args ...string) *exec.Cmd {
	c.t.Helper()
	log, err := os.OpenFile(filepath.Join(c.host, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	return cmd
}

func (c *cutScene) kill() {
	for _, cmd := range []*exec.Cmd{c.app, c.daemon} {
		if cmd != nil && cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
}

// cut stops the file system like a power cut: what is not on the disk is lost. Flags: 0 after
// writing everything, 1 after writing the journal, 2 at once.
func (c *cutScene) cut(flags uint32) {
	const ext4Shutdown = 0x8004587d // EXT4_IOC_SHUTDOWN
	dir, err := os.Open(c.disk)
	if err != nil {
		c.t.Error(err)
		return
	}
	defer dir.Close()
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, dir.Fd(), ext4Shutdown,
		uintptr(unsafe.Pointer(&flags))); errno != 0 {
		c.t.Errorf("cut the power: %v", errno)
	}
}

// sync asks the daemon to make everything durable, and records what it acknowledged.
func (c *cutScene) sync() error {
	c.follow()
	before := c.committed
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second) // on a dead disk it would wait for ever
	defer cancel()
	if text, err := exec.CommandContext(ctx, c.program, "sync", "--wait", "--config", c.config,
		"app").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}
	c.acked = before
	c.syncs++
	return nil
}

// follow reads what the application has announced since the last call.
func (c *cutScene) follow() {
	c.t.Helper()
	f, err := os.Open(c.log)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Seek(c.logged, 0); err != nil {
		c.t.Fatal(err)
	}
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return // the line is not complete yet, and is read again
		}
		c.logged += int64(len(line))
		var kind string
		var id, incarnation int
		_, _ = fmt.Sscan(line, &kind, &id, &incarnation)
		switch kind {
		case "R":
			c.resumed++
			c.lost += c.committed - min(c.committed, id)
			c.history, c.committed = c.history[:id], id
		case "B":
			c.history = append(c.history[:id-1], incarnation)
		case "C":
			c.committed = id
		}
	}
}

// judge restores, and checks that the result is a prefix of what the application did, at least as
// long as what was acknowledged.
func (c *cutScene) judge(when string) {
	c.t.Helper()
	target := filepath.Join(c.host, "restored.db")
	output(c.t, c.program, "restore", "--force", "-o", target, "file://"+filepath.Join(c.disk, "replica"))
	c.restores++
	c.follow()
	text := output(c.t, "sqlite3", "file:"+target+"?immutable=1",
		"PRAGMA integrity_check; SELECT n FROM state; SELECT inc FROM t ORDER BY id")
	lines := strings.Fields(text)
	if len(lines) < 2 || lines[0] != "ok" {
		c.t.Fatalf("%s: the restored database says %.200q", when, text)
	}
	rows := lines[2:]
	if lines[1] != strconv.Itoa(len(rows)) || len(rows) > len(c.history) {
		c.t.Fatalf("%s: the restored database has %d rows, its state row says %s, the application announced %d", when,
			len(rows), lines[1], len(c.history))
	}
	for i, incarnation := range rows {
		if incarnation != strconv.Itoa(c.history[i]) {
			c.t.Fatalf("%s: restored row %d is of incarnation %s, the application's is of %d", when, i+1, incarnation,
				c.history[i])
		}
	}
	if len(rows) < c.acked {
		c.t.Fatalf("%s: %d rows restored, %d were acknowledged", when, len(rows), c.acked)
	}
}
