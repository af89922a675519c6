package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// flatOut is an unmodified writer that commits as fast as it can. It prints what it measured by
// its own clock: how many commits, and how long the slow ones took.
const flatOut = `
import sqlite3, sys, time, json
path, seconds = sys.argv[1], float(sys.argv[2])
db = sqlite3.connect(path, timeout=10, isolation_level=None)
db.execute("PRAGMA journal_mode=WAL"); db.execute("PRAGMA synchronous=NORMAL")
db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, body BLOB)")
print("open", flush=True)
took, errors, clock = [], 0, time.perf_counter
begin = last = clock()
while last - begin < seconds:
    try:
        db.execute("INSERT INTO t(body) VALUES (randomblob(300))")
    except sqlite3.OperationalError:
        errors += 1
    now = clock(); took.append(now - last); last = now
took.sort()
print(json.dumps({"commits": len(took) - errors, "seconds": last - begin, "errors": errors,
    "p99": took[len(took) * 99 // 100], "longest": took[-1]}), flush=True)
sys.stdin.read()
`

// lap is what one run of the flatOut writer measured.
type lap struct {
	Commits, Seconds, Errors, P99, Longest float64
	wal                                    float64 // the largest size of the WAL, in bytes
	under                                  float64 // share of the time in which the snapshot was under way
}

func (l lap) speed() float64 { return l.Commits / l.Seconds }

// company is what a writer is measured beside: sqlwatch with a kind of replica.
type company struct {
	name    string
	kind    string              // kind of the replica
	replica func(*stage) string // its block in the configuration
	uploads string              // block in the configuration
	size    int                 // megabytes in the database at first, which do not compress
	first   bool                // the writer runs while the database is captured for the first time
}

func companies(o options) []company {
	toDirectory := func(st *stage) string {
		return fmt.Sprintf("replica \"file\" \"r\" {\n  dir = %q\n}\n", filepath.Join(st.dir, "replica"))
	}
	seconds := int(o.besideFor.Seconds())
	return []company{
		{name: "a replica in a directory", kind: "file", replica: toDirectory},
		{name: "a replica in S3 on the same processors", kind: "s3",
			replica: func(st *stage) string { return st.s3Replica(time.Second) }},
		{name: "a snapshot at 2.5 MB/s", kind: "file", replica: toDirectory,
			uploads: "uploads {\n  bandwidth = \"2.5MB\"\n}\n", size: max(1, seconds*5/2), first: true},
		{name: fmt.Sprintf("the first capture of %d MB", o.besideMB), kind: "file",
			replica: toDirectory, size: o.besideMB, first: true},
	}
}

// beside measures a writer at full speed beside each company, and alone before and after: each
// ratio compares runs of the same machine a moment apart.
func beside(st *stage) ([]figure, error) {
	var figures []figure
	for i, c := range companies(st.o) {
		var speeds, longest, longestAlone, p99, wal, under []float64
		errorsSeen := 0.0
		for round := range st.o.rounds {
			var laps [3]lap
			for turn := range laps {
				sub := *st
				sub.running = nil
				sub.dir = filepath.Join(st.dir, fmt.Sprintf("%d-%d-%d", i, round, turn))
				sub.prefix = fmt.Sprintf("%s-%d-%d", st.prefix, i, round)
				var err error
				if laps[turn], err = sub.lap(c, turn == 1); err != nil {
					return nil, fmt.Errorf("%s: %w", c.name, err)
				}
			}
			before, with, after := laps[0], laps[1], laps[2]
			speeds = append(speeds, with.speed()/((before.speed()+after.speed())/2))
			p99 = append(p99, with.P99/((before.P99+after.P99)/2))
			longest = append(longest, with.Longest*1000)
			longestAlone = append(longestAlone, max(before.Longest, after.Longest)*1000)
			wal = append(wal, with.wal/1e6)
			under = append(under, 100*with.under)
			errorsSeen += with.Errors
		}
		for _, f := range []figure{
			{"speed, median", median(speeds), "of alone"}, {"lowest", slices.Min(speeds), "of alone"},
			{"p99 of a commit, median", median(p99), "times alone"},
			{"longest commit", slices.Max(longest), "ms"}, {"longest commit alone", slices.Max(longestAlone), "ms"},
			{"largest WAL", slices.Max(wal), "MB"}, {"errors", errorsSeen, ""},
		} {
			figures = append(figures, figure{c.name + ": " + f.What, f.Value, f.Unit})
		}
		if c.first {
			figures = append(figures, figure{c.name + ": under way, of the writer's time", median(under), "%"})
		}
	}
	return figures, nil
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// lap runs the writer once on a new database.
func (st *stage) lap(c company, accompanied bool) (l lap, err error) {
	if err := os.MkdirAll(st.dir, 0o700); err != nil {
		return l, err
	}
	defer st.clear()
	db := filepath.Join(st.dir, "app.db")
	if err := fill(db, c.size); err != nil {
		return l, err
	}
	if accompanied && !c.first {
		if err := st.accompany(c, db); err != nil {
			return l, err
		}
		if err := within(time.Minute, "the first snapshot", st.snapshotTaken); err != nil {
			return l, err
		}
	}
	_, stdout, err := st.python(flatOut, db, fmt.Sprint(st.o.besideFor.Seconds()))
	if err != nil {
		return l, err
	}
	answers := json.NewDecoder(stdout)
	if _, err := io.ReadFull(stdout, make([]byte, len("open\n"))); err != nil {
		return l, fmt.Errorf("the application opened nothing: %w", err)
	}
	if accompanied && c.first {
		if err := st.accompany(c, db); err != nil {
			return l, err
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- answers.Decode(&l) }()
	looks, under, largest := 0.0, 0.0, int64(0)
	for {
		select {
		case err := <-ended:
			l.wal, l.under = float64(largest), under/max(1, looks)
			return l, err
		case <-time.After(100 * time.Millisecond):
		}
		if info, err := os.Stat(db + "-wal"); err == nil {
			largest = max(largest, info.Size())
		}
		if accompanied && c.first {
			looks++
			if taken, _ := st.snapshotTaken(); !taken {
				under++
			}
		}
	}
}

// fill creates a database of this many megabytes that do not compress, with nobody connected.
func fill(db string, size int) error {
	_, err := sqlite(db, fmt.Sprintf("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; CREATE TABLE big(body BLOB); "+
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<=%d) INSERT INTO big SELECT "+
		"randomblob(100000) FROM n;", size*10))
	return err
}

// accompany starts a daemon for the database.
func (st *stage) accompany(c company, db string) error {
	ours, ok := st.program.(*sqlwatch)
	if !ok {
		return errors.New("only sqlwatch is measured beside a writer")
	}
	cmd, err := ours.configured(st, []string{db}, c.kind, c.replica(st)+c.uploads)
	if err != nil {
		return err
	}
	return st.start(cmd)
}

// snapshotTaken reports whether the replica has a snapshot.
func (st *stage) snapshotTaken() (bool, error) {
	page, err := fetch("http://" + st.listen + "/metrics?name[]=sqlwatch_replica_snapshot_last_success_timestamp_seconds")
	if err != nil {
		return false, nil // it is not listening yet
	}
	_, line, found := strings.Cut(page, "\nsqlwatch_replica_snapshot_last_success_timestamp_seconds{")
	_, value, _ := strings.Cut(line, "} ")
	return found && !strings.HasPrefix(value, "0\n"), nil
}
