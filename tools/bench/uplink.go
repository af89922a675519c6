package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	uplinkRate    = 7e6 / 8   // bytes a second: a line of 7 Mbit/s
	uplinkCount   = 60        // number of databases
	uplinkSize    = 3_000_000 // bytes of each database, on average
	uplinkCommits = 5         // per second, in the busy database
)

// line is a slow connection to a server: a TCP proxy that lets uplinkRate bytes a second pass to
// the server, shared by all connections in the order of their requests. The other direction is
// not limited.
type line struct {
	url      string
	listener net.Listener

	mu      sync.Mutex
	down    bool              // nothing gets through
	open    map[net.Conn]bool // connections under way
	free    time.Time         // when everything accepted so far will be through
	seen    carried
	arrived map[int64]int // number of connections by second, in Unix time
}

// carried is what a line has carried: the bytes sent, and how long it was idle.
type carried struct {
	sent int64
	idle time.Duration
}

func (c carried) since(before carried) carried {
	return carried{c.sent - before.sent, c.idle - before.idle}
}

// newLine returns a line to an address.
func newLine(target string) (*line, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	x := &line{url: "http://" + l.Addr().String(), listener: l, free: time.Now(), open: map[net.Conn]bool{},
		arrived: map[int64]int{}}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			go x.carry(conn.(*net.TCPConn), target)
		}
	}()
	return x, nil
}

func (x *line) close() { x.listener.Close() }

// carry serves one connection. Its receive buffer is small, as in a router.
func (x *line) carry(from *net.TCPConn, target string) {
	defer from.Close()
	if !x.enter(from) {
		return
	}
	defer x.leave(from)
	conn, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer conn.Close()
	to := conn.(*net.TCPConn)
	_ = from.SetReadBuffer(32 << 10)
	go func() {
		_, _ = from.ReadFrom(to)
		_ = from.CloseWrite()
	}()
	for packet := make([]byte, 4<<10); ; {
		n, err := from.Read(packet)
		if n > 0 {
			x.wait(n)
			if _, err := to.Write(packet[:n]); err != nil {
				return
			}
		}
		if err != nil {
			_ = to.CloseWrite()
			return
		}
	}
}

// enter counts a connection, and returns false while the line is down.
func (x *line) enter(conn net.Conn) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.arrived[time.Now().Unix()]++
	if !x.down {
		x.open[conn] = true
	}
	return !x.down
}

func (x *line) leave(conn net.Conn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.open, conn)
}

// fail breaks the line, with all that is under way on it, or repairs it.
func (x *line) fail(down bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.down = down; !down {
		x.free = time.Now() // the time that it was down does not count as idle
	}
	for conn := range x.open {
		conn.Close()
	}
}

// busiest returns how many connections arrived since a time: in the busiest second, and per
// second on average.
func (x *line) busiest(since time.Time) (most, mean float64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for second, n := range x.arrived {
		if second >= since.Unix() {
			most, mean = max(most, float64(n)), mean+float64(n)
		}
	}
	return most, mean / time.Since(since).Seconds()
}

// wait waits until n more bytes are through.
func (x *line) wait(n int) {
	x.mu.Lock()
	now := time.Now()
	if x.free.Before(now) {
		x.seen.idle += now.Sub(x.free)
		x.free = now
	}
	x.free = x.free.Add(time.Duration(float64(n) / uplinkRate * float64(time.Second)))
	x.seen.sent += int64(n)
	until := x.free
	x.mu.Unlock()
	time.Sleep(time.Until(until))
}

func (x *line) now() carried {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.seen
}

// uplink gives a daemon that replicates a busy database 60 more at once, over a line of 7 Mbit/s.
// The ideal time is that of the databases' bytes on the line. Restores that do not use the line
// measure how far the replica of the busy database is behind meanwhile.
func uplink(st *stage) ([]figure, error) {
	busy := filepath.Join(st.dir, "busy.db")
	databases, size, err := st.ballast()
	if err != nil {
		return nil, err
	}
	ideal := float64(size) / uplinkRate
	w, err := st.write(busy, 20*ideal, uplinkCommits)
	if err != nil {
		return nil, err
	}
	w.last(1)
	slow, err := newLine(strings.TrimPrefix(st.proxy.url, "http://"))
	if err != nil {
		return nil, err
	}
	defer slow.close()
	st.uplink = slow.url
	if _, err := st.replicate(append(databases, busy), time.Second); err != nil {
		return nil, err
	}
	there := func(n int) func() (bool, error) {
		return func() (bool, error) { stored, err := st.haveBase(); return len(stored) >= n, err }
	}
	if err := within(time.Minute, "the busy one is there", there(1)); err != nil {
		return nil, err
	}
	began, before := time.Now(), slow.now()
	for _, db := range databases {
		if err := os.Rename(db+".new", db); err != nil {
			return nil, err
		}
	}
	lags, err := st.lags(busy, w, there(uplinkCount+1), time.Duration(10*ideal*float64(time.Second)))
	if err != nil {
		return nil, err
	}
	took, seen := time.Since(began).Seconds(), slow.now().since(before)
	for _, db := range databases {
		if _, _, err := st.restore(db); err != nil {
			return nil, fmt.Errorf("%s: %w", db, err)
		}
	}
	return []figure{
		{"until all are there", took, "s"}, {"by the ideal time", took / ideal, "times"},
		{"on the line, of the databases' size", float64(seen.sent) / float64(size), "times"},
		{"the line stood idle", seen.idle.Seconds(), "s"},
		{fmt.Sprintf("how far the busy one is behind, median of %d", len(lags)), lags[len(lags)/2], "s"},
		{"95th of 100", lags[len(lags)*95/100], "s"}, {"longest", lags[len(lags)-1], "s"},
	}, nil
}

// ballast creates the 60 databases, under names that nobody watches yet, and returns their paths
// and total size.
func (st *stage) ballast() (databases []string, size int64, err error) {
	for i := range uplinkCount {
		db := filepath.Join(st.dir, fmt.Sprintf("db%02d.db", i))
		rows := uplinkSize / 1_000_000 * (5 + i%11) // between half and one and a half times the average
		fill := fmt.Sprintf("PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB); "+
			"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%d) "+
			"INSERT INTO t SELECT i, randomblob(100000) FROM n;", rows)
		if _, err := sqlite(db+".new", fill); err != nil {
			return nil, 0, err
		}
		info, err := os.Stat(db + ".new")
		if err != nil {
			return nil, 0, err
		}
		databases, size = append(databases, db), size+info.Size()
	}
	return databases, size, nil
}

// lags measures how far a replica is behind until done returns true, and sorts the results.
func (st *stage) lags(
	db string, w *writer, done func() (bool, error), limit time.Duration,
) (lags []float64, err error) {
	var made []commit
	for deadline := time.Now().Add(limit); ; time.Sleep(300 * time.Millisecond) {
		lag, err := st.lag(db, w, &made)
		if err != nil {
			return nil, err
		}
		lags = append(lags, lag)
		all, err := done()
		if err != nil || all {
			slices.Sort(lags)
			return lags, err
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("not all are there after %s", limit)
		}
	}
}

// haveBase returns the databases that have a snapshot on the server.
func (st *stage) haveBase() (map[string]bool, error) {
	found, err := filepath.Glob(filepath.Join(st.objects, st.prefix, "*", "0009", "*.ltx"))
	have := map[string]bool{}
	for _, path := range found {
		have[filepath.Base(filepath.Dir(filepath.Dir(path)))] = true
	}
	return have, err
}

// lag returns the age of the oldest commit that a restore which begins now would lack; 0 if
// there is none.
func (st *stage) lag(db string, w *writer, made *[]commit) (float64, error) {
	asked := time.Now()
	out, _, err := st.restore(db)
	if err != nil {
		return 0, err
	}
	defer os.Remove(out)
	text, err := sqlite(out, "SELECT coalesce(max(id), 0) FROM t")
	if err != nil {
		return 0, err
	}
	var have int64
	if _, err := fmt.Sscan(text, &have); err != nil {
		return 0, fmt.Errorf("%s: %w", out, err)
	}
	for len(w.commits) > 0 {
		*made = append(*made, <-w.commits)
	}
	for _, c := range *made {
		if c.id > have && c.at.Before(asked) {
			return asked.Sub(c.at).Seconds(), nil
		}
	}
	return 0, nil
}

// afterOutage measures, while 200 databases are written to and the server is down for ten
// minutes, how often the daemon connects to it meanwhile, and how soon all replicas are up to
// date once it is back.
func afterOutage(st *stage) ([]figure, error) {
	const count, round = 200, 2 * time.Second
	var databases []string
	for i := range count {
		databases = append(databases, filepath.Join(st.dir, fmt.Sprintf("db%03d.db", i)))
	}
	_, stdout, err := st.python(writeAll, append([]string{fmt.Sprint(round.Seconds())}, databases...)...)
	if err != nil {
		return nil, err
	}
	if _, err := stdout.Read(make([]byte, 8)); err != nil {
		return nil, fmt.Errorf("the application wrote nothing: %w", err)
	}
	slow, err := newLine(strings.TrimPrefix(st.proxy.url, "http://"))
	if err != nil {
		return nil, err
	}
	defer slow.close()
	st.uplink = slow.url
	daemon, err := st.replicate(databases, time.Second)
	if err != nil {
		return nil, err
	}
	upToDate := func() (bool, error) {
		n, err := st.behind(time.Now().Add(-5 * time.Second))
		return err == nil && n == 0, nil // the daemon may not answer yet
	}
	if err := within(5*time.Minute, "all are up to date", upToDate); err != nil {
		return nil, err
	}
	before, err := usageOf(daemon)
	if err != nil {
		return nil, err
	}
	broken := time.Now()
	slow.fail(true)
	time.Sleep(st.o.outage)
	most, mean := slow.busiest(broken)
	during, err := usageOf(daemon)
	if err != nil {
		return nil, err
	}
	mended, sent := time.Now(), slow.now()
	slow.fail(false)
	// One condition is that the replicas have what was committed during the outage. Another is that
	// at one moment none of the 200 is late, which on a busy machine may take as long without an
	// outage.
	stored := func() (bool, error) { n, err := st.behind(mended); return err == nil && n == 0, nil }
	if err := within(10*time.Minute, "what was committed meanwhile is there", stored); err != nil {
		return nil, err
	}
	drained, seen := time.Since(mended).Seconds(), slow.now().since(sent)
	if err := within(10*time.Minute, "all are up to date again", upToDate); err != nil {
		return nil, err
	}
	took := time.Since(mended).Seconds()
	again, _ := slow.busiest(mended)
	return []figure{
		{"while it is away, connections a second", mean, ""}, {"in the busiest second", most, ""},
		{"CPU", 100 * (during.cpu - before.cpu).Seconds() / mended.Sub(broken).Seconds(), "% of a core"},
		{"until all is there that was committed meanwhile", drained, "s"},
		{"sent until then", float64(seen.sent) / 1e6, "MB"}, {"the line stood idle until then", seen.idle.Seconds(), "s"},
		{"until none is more than 5 s behind", took, "s"},
		{"connections in the busiest second", again, ""},
	}, nil
}

// writeAll is an application that writes to many databases in turn, to each once per round.
const writeAll = `
import sqlite3, sys, time
pause = float(sys.argv[1]) / len(sys.argv[2:])
held = []
for path in sys.argv[2:]:
    db = sqlite3.connect(path, timeout=10, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL"); db.execute("PRAGMA synchronous=OFF"); db.execute("PRAGMA cache_size=10")
    db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, body BLOB)")
    held.append(db)
print("open", flush=True)
due = time.monotonic()
while True:
    for db in held:
        due += pause
        time.sleep(max(0, due - time.monotonic()))
        db.execute("INSERT INTO t(body) VALUES (randomblob(300))")
`

// behind returns how many replicas lack what was committed before a moment, by the daemon's
// metrics. It requests only that metric, and not often: a page with all metrics would cost more
// than the replication.
func (st *stage) behind(before time.Time) (int, error) {
	time.Sleep(450 * time.Millisecond)
	page, err := fetch("http://" + st.listen + "/metrics?name[]=sqlwatch_replica_caught_up_timestamp_seconds")
	if err != nil {
		return 0, err
	}
	n, limit := 0, float64(before.UnixMilli())/1000
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, "sqlwatch_replica_caught_up_timestamp_seconds{") {
			continue
		}
		_, value, _ := strings.Cut(line, "} ")
		var at float64
		if _, err := fmt.Sscan(value, &at); err != nil {
			return 0, fmt.Errorf("%s: %w", line, err)
		}
		if at < limit {
			n++
		}
	}
	return n, nil
}
