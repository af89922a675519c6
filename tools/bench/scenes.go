package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// application is the unmodified writer: it commits at a steady rate and prints each commit's
// id once it has returned.
const application = `
import sqlite3, sys, time
path, seconds, rate = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
db = sqlite3.connect(path, timeout=10, isolation_level=None)
db.execute("PRAGMA journal_mode=WAL"); db.execute("PRAGMA synchronous=NORMAL")
db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, body BLOB)")
begin = time.monotonic()
n = 0
while n < seconds * rate:
    due = begin + n / rate
    time.sleep(max(0, due - time.monotonic()))
    n += 1
    db.execute("INSERT INTO t(body) VALUES (randomblob(300))")
    print(n, flush=True)
sys.stdin.read()
`

// openAll opens databases, makes one commit in each, and keeps them open.
const openAll = `
import sqlite3, sys
held = []
for path in sys.argv[1:]:
    db = sqlite3.connect(path, timeout=10, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL"); db.execute("PRAGMA cache_size=10")
    db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, body BLOB)")
    db.execute("INSERT INTO t(body) VALUES (randomblob(300))")
    held.append(db)
print("open", flush=True)
sys.stdin.read()
`

// writer is a running application.
type writer struct {
	cmd     *exec.Cmd
	stdin   io.Closer
	commits chan commit // closed at the application's end
}

// commit is a commit that has returned to the application.
type commit struct {
	id int64
	at time.Time
}

func (st *stage) python(script string, args ...string) (*writer, io.Reader, error) {
	cmd := exec.Command("python3", append([]string{"-c", script}, args...)...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	return &writer{cmd: cmd, stdin: stdin}, stdout, st.start(cmd)
}

// write starts the application on a database.
func (st *stage) write(db string, seconds, rate float64) (*writer, error) {
	w, stdout, err := st.python(application, db, fmt.Sprint(seconds), fmt.Sprint(rate))
	if err != nil {
		return nil, err
	}
	w.commits = make(chan commit, 1<<20)
	go func() {
		defer close(w.commits)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if id, err := strconv.ParseInt(lines.Text(), 10, 64); err == nil {
				w.commits <- commit{id, time.Now()}
			}
		}
	}()
	return w, nil
}

// last reads commits until the application has made n of them, or has ended.
func (w *writer) last(n int64) (all []commit) {
	for c := range w.commits {
		if all = append(all, c); c.id >= n {
			break
		}
	}
	return all
}

// sqlite runs the system's sqlite3.
func sqlite(db, query string) (string, error) {
	out, err := exec.Command("sqlite3", db, query).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("sqlite3 %s: %w: %s", db, err, out)
	}
	return strings.TrimSpace(string(out)), err
}

// load runs the application beside the daemon, and returns what the daemon used and requested
// from its start to the end of the last sync.
func (st *stage) load(seconds, rate float64, syncEvery time.Duration) (usage, traffic, error) {
	var none usage
	db := filepath.Join(st.dir, "app.db")
	w, err := st.write(db, seconds, rate)
	if err != nil {
		return none, traffic{}, err
	}
	w.last(1)
	daemon, err := st.replicate([]string{db}, syncEvery)
	if err != nil {
		return none, traffic{}, err
	}
	w.last(int64(seconds * rate))
	// If no request has come for longer than the pause between two syncs, the last sync is over.
	st.settled(syncEvery+2*time.Second, syncEvery+30*time.Second)
	u, err := usageOf(daemon)
	if err != nil {
		return none, traffic{}, err
	}
	return u, st.proxy.traffic(), st.same(db)
}

// settled waits until no request has come for a while. If a program is never quiet, settled
// returns after the limit.
func (st *stage) settled(quiet, limit time.Duration) {
	for deadline := time.Now().Add(limit); st.proxy.quiet() < quiet && time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
	}
}

// same restores a database and checks that it has every row.
func (st *stage) same(db string) error {
	const sum = "SELECT count(*), sum(length(body)), max(id) FROM t"
	want, err := sqlite(db, sum)
	if err != nil {
		return err
	}
	out, _, err := st.restore(db)
	if err != nil {
		return err
	}
	got, err := sqlite(out, sum)
	if err == nil && got != want {
		err = fmt.Errorf("the restored database has %s, the source %s", got, want)
	}
	return err
}

func underLoad(st *stage) ([]figure, error) {
	u, seen, err := st.load(20, 200, time.Second)
	return []figure{
		{"CPU", u.cpu.Seconds(), "s"}, {"largest RSS", u.peak, "MB"}, {"PUTs", float64(seen.puts), ""},
		{"requests", float64(seen.requests), ""}, {"uploaded", float64(seen.uploaded) / 1e6, "MB"},
	}, err
}

func syncedSeldom(st *stage) ([]figure, error) {
	u, seen, err := st.load(60, 20, 30*time.Second)
	return []figure{{"CPU", u.cpu.Seconds(), "s"}, {"PUTs", float64(seen.puts), ""},
		{"requests", float64(seen.requests), ""}}, err
}

// lossOnKill kills daemon and application together, five times, and measures the age of the
// oldest commit that a restore lacks.
func lossOnKill(st *stage) ([]figure, error) {
	const rounds = 5
	rng := rand.New(rand.NewPCG(1, 1))
	var losses []float64
	for i := range rounds {
		db := filepath.Join(st.dir, fmt.Sprintf("app%d.db", i))
		w, err := st.write(db, 60, 200)
		if err != nil {
			return nil, err
		}
		w.last(1)
		daemon, err := st.replicate([]string{db}, time.Second)
		if err != nil {
			return nil, err
		}
		all := w.last(int64(1200 + rng.IntN(200)))
		st.end(daemon, syscall.SIGKILL)
		st.end(w.cmd, syscall.SIGKILL)
		killed := time.Now()
		all = append(all, w.last(1<<62)...)
		out, _, err := st.restore(db)
		if err != nil {
			return nil, err
		}
		text, err := sqlite(out, "SELECT coalesce(max(id), 0) FROM t")
		if err != nil {
			return nil, err
		}
		have, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, err
		}
		loss := 0.0
		for _, c := range all {
			if c.id > have {
				loss = killed.Sub(c.at).Seconds()
				break
			}
		}
		losses = append(losses, loss)
	}
	slices.Sort(losses)
	return []figure{{"age of the oldest lost commit, median of 5", losses[rounds/2], "s"},
		{"longest", losses[rounds-1], "s"}}, nil
}

// hold creates n databases, which processes keep open and idle.
func (st *stage) hold(n int) ([]string, error) {
	var databases []string
	for i := range n {
		databases = append(databases, filepath.Join(st.dir, fmt.Sprintf("db%04d.db", i)))
	}
	const each = 250 // few enough for one process's descriptors
	for part := range slices.Chunk(databases, each) {
		_, stdout, err := st.python(openAll, part...)
		if err != nil {
			return nil, err
		}
		if _, err := stdout.Read(make([]byte, 8)); err != nil {
			return nil, fmt.Errorf("the application opened nothing: %w", err)
		}
	}
	return databases, nil
}

// watchIdle waits until a daemon is at rest, and measures what it uses and requests from then on.
func (st *stage) watchIdle(n int) (daemon *exec.Cmd, before, after usage, seen traffic, err error) {
	databases, err := st.hold(n)
	if err != nil {
		return nil, before, after, seen, err
	}
	if daemon, err = st.replicate(databases, time.Second); err != nil {
		return nil, before, after, seen, err
	}
	// Wait for the first uploads, then for the first compactions, which follow half a minute later.
	atLeast := func() (bool, error) { return st.proxy.traffic().puts >= n, nil }
	if err = within(4*time.Minute, "the first uploads of all databases", atLeast); err != nil {
		return daemon, before, after, seen, err
	}
	st.settled(35*time.Second, 2*time.Minute)
	began := st.proxy.traffic()
	if before, err = usageOf(daemon); err != nil {
		return daemon, before, after, seen, err
	}
	time.Sleep(st.o.idleFor)
	after, err = usageOf(daemon)
	return daemon, before, after, st.proxy.traffic().since(began), err
}

func idle(st *stage) ([]figure, error) {
	_, before, after, seen, err := st.watchIdle(100)
	return []figure{
		{fmt.Sprintf("requests in %s", st.o.idleFor), float64(seen.requests), ""},
		{"CPU", 100 * (after.cpu - before.cpu).Seconds() / st.o.idleFor.Seconds(), "% of a core"},
		{"RSS", after.rss, "MB"},
	}, err
}

// thousand measures a daemon with many idle databases, and how long a scrape takes then.
func thousand(st *stage) ([]figure, error) {
	daemon, before, after, seen, err := st.watchIdle(st.o.databases)
	if err != nil {
		return nil, err
	}
	var scrapes []float64
	goroutines, series := 0.0, 0
	unscraped, err := usageOf(daemon)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	for range 11 {
		asked := time.Now()
		page, err := fetch("http://" + st.listen + "/metrics")
		if err != nil {
			return nil, err
		}
		scrapes = append(scrapes, float64(time.Since(asked).Milliseconds()))
		series = strings.Count(page, "\nsqlite_") + strings.Count(page, "\nsqlwatch_")
		if _, rest, ok := strings.Cut(page, "\ngo_goroutines "); ok {
			if _, err := fmt.Sscan(rest, &goroutines); err != nil {
				return nil, fmt.Errorf("go_goroutines: %w", err)
			}
		}
	}
	scraped, err := usageOf(daemon)
	if err != nil {
		return nil, err
	}
	// The cost of a scrape, however busy the processors are: the CPU time that the daemon used
	// meanwhile, less what it uses when idle.
	resting := (after.cpu - before.cpu).Seconds() / st.o.idleFor.Seconds() * time.Since(began).Seconds()
	perScrape := 1000 * ((scraped.cpu - unscraped.cpu).Seconds() - resting) / float64(len(scrapes))
	slices.Sort(scrapes)
	return []figure{
		{"series", float64(series), ""}, {"scrape, CPU", perScrape, "ms"},
		{fmt.Sprintf("requests in %s", st.o.idleFor), float64(seen.requests), ""},
		{"CPU", 100 * (after.cpu - before.cpu).Seconds() / st.o.idleFor.Seconds(), "% of a core"},
		{"RSS", after.rss, "MB"}, {"descriptors", after.descriptors, ""}, {"threads", after.threads, ""},
		{"goroutines", goroutines, ""},
		{"scrape, median of 11", scrapes[5], "ms"}, {"start to first uploads and rest, CPU", before.cpu.Seconds(), "s"},
	}, nil
}

func fetch(url string) (string, error) {
	client := http.Client{Timeout: 30 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// freshDatabase measures how many bytes are uploaded for 200 MB that do not compress, and the
// time of a restore relative to that of a plain copy.
func freshDatabase(st *stage) ([]figure, error) {
	const size = 200
	db := filepath.Join(st.dir, "app.db")
	fill := fmt.Sprintf("PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB); "+
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%d) INSERT INTO t SELECT i, "+
		"randomblob(100000) FROM n;", size*10)
	if _, err := sqlite(db, fill); err != nil {
		return nil, err
	}
	w, err := st.write(db, 1, 5) // the application stays connected, and is idle after a second
	if err != nil {
		return nil, err
	}
	w.last(5)
	daemon, err := st.replicate([]string{db}, time.Second)
	if err != nil {
		return nil, err
	}
	time.Sleep(st.o.freshFor)
	seen := st.proxy.traffic()
	u, err := usageOf(daemon)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(db)
	if err != nil {
		return nil, err
	}
	var restores, copies []float64
	for range 3 {
		out, took, err := st.restore(db)
		if err != nil {
			return nil, err
		}
		restores = append(restores, took.Seconds())
		took, err = copyAndSync(out, out+".copy")
		if err != nil {
			return nil, err
		}
		copies = append(copies, took.Seconds())
		if err := errors.Join(os.Remove(out), os.Remove(out+".copy")); err != nil {
			return nil, err
		}
	}
	slices.Sort(restores)
	slices.Sort(copies)
	return []figure{
		{fmt.Sprintf("uploaded in %s, of the file's size", st.o.freshFor), float64(seen.uploaded) / float64(info.Size()),
			"times"},
		{"largest RSS", u.peak, "MB"}, {"CPU", u.cpu.Seconds(), "s"},
		{"restore, median of 3", restores[1], "s"}, {"cp and sync of the same file, median of 3", copies[1], "s"},
		{"restore by copy", restores[1] / copies[1], "times"},
	}, st.same(db)
}

// copyAndSync copies the same bytes and makes them durable; a restore is compared with it.
func copyAndSync(from, to string) (time.Duration, error) {
	began := time.Now()
	for _, args := range [][]string{{"cp", from, to}, {"sync", to}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return 0, fmt.Errorf("%v: %w: %s", args, err, out)
		}
	}
	return time.Since(began), nil
}
