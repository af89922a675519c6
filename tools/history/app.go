package main

import (
	"context"
	"database/sql"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	_ "github.com/mattn/go-sqlite3" // linked against the system's library: see the package comment
)

// application is an ordinary program that keeps a ledger in SQLite and knows nothing of
// sqlwatch. It does what applications do, and some things that they should not do.
type application struct {
	path    string
	life    life
	log     *os.File
	rng     *rand.Rand
	db      *sql.DB
	at      state
	rows    int64 // churn rows inserted so far: the next key
	bound   int64 // number of churn rows above which more are deleted than added
	readers sync.WaitGroup
}

const schema = `
CREATE TABLE IF NOT EXISTS ledger(id INTEGER PRIMARY KEY, prev TEXT NOT NULL, body BLOB NOT NULL, hash TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS account(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS churn(id INTEGER PRIMARY KEY, body BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS state(one INTEGER PRIMARY KEY CHECK (one = 1), id INTEGER NOT NULL, hash TEXT NOT NULL,
  churn_n INTEGER NOT NULL, churn_sum INTEGER NOT NULL);
INSERT OR IGNORE INTO state VALUES(1, 0, '', 0, 0);
INSERT OR IGNORE INTO account
  WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) SELECT i, 1000 FROM n;
CREATE INDEX IF NOT EXISTS churn_crc ON churn(crc);`

// keptLedger is how many rows of the ledger remain when old ones are archived.
const keptLedger = 4000

// runApplication works until it is killed, or told to stop by closing stdin. After an error,
// which it logs, it opens the database again and continues.
//
// If opening is not 0 it begins with that many commits, a checkpoint that empties the WAL, one
// more commit, and a pause.
func runApplication(path, logPath string, l life, seed uint64, pause time.Duration, opening int,
	stop <-chan struct{}) error {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintln(log) // ends the line that a killed predecessor may have left
	a := &application{path: path, life: l, log: log, rng: rand.New(rand.NewPCG(seed, 1))}
	a.bound = []int64{3000, 3000, 20000}[a.rng.IntN(3)]
	begun := time.Now()
	if err := a.open(); err != nil {
		return a.fail(fmt.Sprintf("open (%s, after %s)", l.name, time.Since(begun).Round(time.Millisecond)), err)
	}
	if opening > 0 {
		if err := a.begin(opening); err != nil {
			return a.fail("opening", err)
		}
	}
	for failures := 0; ; {
		select {
		case <-stop:
			a.readers.Wait()
			return a.db.Close()
		case <-time.After(pause):
		}
		what, err := a.step()
		if err == nil {
			continue
		}
		err = a.fail(what, err)
		if failures++; failures > 200 {
			return err
		}
		time.Sleep(50 * time.Millisecond) // a full disk stays full for a while
		for err := a.reopen(); err != nil; err = a.open() {
			a.fail("open after an error", err)
			if failures++; failures > 200 {
				return err
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}

func (a *application) event(kind string, s state, more ...any) {
	if s.ID == 0 {
		return // nothing was committed yet
	}
	line := fmt.Sprintf("%s %d %s %d", kind, s.ID, s.Hash, time.Now().UnixNano())
	for _, m := range more {
		line += fmt.Sprint(" ", m)
	}
	fmt.Fprintln(a.log, line)
}

func (a *application) operation(name, outcome string) {
	fmt.Fprintf(a.log, "%s %s: %s\n", eventOperation, name, outcome)
}

func (a *application) fail(what string, err error) error {
	fmt.Fprintf(a.log, "%s %s: %s\n", eventError, what, strings.ReplaceAll(err.Error(), "\n", " "))
	return fmt.Errorf("%s: %w", what, err)
}

// open opens the database as an application does, and continues the ledger from the state that it
// finds in the database.
func (a *application) open() error {
	db, err := a.life.open(a.path)
	if err != nil {
		return err
	}
	a.db = db
	if err := a.ensureWAL(); err != nil {
		return err
	}
	if _, err := db.Exec(schema); err != nil {
		return err
	}
	if err := db.QueryRow("SELECT id, hash FROM state").Scan(&a.at.ID, &a.at.Hash); err != nil {
		return err
	}
	if err := db.QueryRow("SELECT coalesce(max(id), 0) FROM churn").Scan(&a.rows); err != nil {
		return err
	}
	if a.at.ID > 0 {
		a.event(eventResume, a.at)
	}
	return nil
}

// ensureWAL turns WAL mode on if it is off: in a new database, or after a predecessor was
// killed in the middle of a mode switch.
func (a *application) ensureWAL() error {
	var mode string
	if err := a.db.QueryRow("PRAGMA journal_mode").Scan(&mode); err != nil || mode == "wal" {
		return err
	}
	var s state
	if err := a.db.QueryRow("SELECT id, hash FROM state").Scan(&s.ID, &s.Hash); err == nil {
		a.event(eventUnsettled, s)
	}
	return a.db.QueryRow("PRAGMA journal_mode=WAL").Scan(&mode)
}

// begin makes n commits, resets the WAL and commits once more, all before a killed sqlwatch is
// back. If the wal-index was created just before, its counters then look like those of the time
// before the kill.
func (a *application) begin(n int) error {
	for range n {
		if err := a.transaction(1, false); err != nil {
			return err
		}
	}
	if err := a.exec("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		return err
	}
	if err := a.transaction(1, false); err != nil {
		return err
	}
	time.Sleep(time.Second)
	return nil
}

// step does one thing, chosen by the seed.
func (a *application) step() (string, error) {
	switch n := a.rng.IntN(1000); {
	case n < 800:
		return "transaction of 1", a.transaction(1, false)
	case n < 860:
		return "transaction of 50", a.transaction(50, false)
	case n < 866:
		return "transaction of 1500", a.transaction(1500, false)
	case n < 890:
		return "spill and roll back", a.transaction(400, true)
	case n < 925:
		return "delete", a.remove()
	case n < 950:
		return "look at all pages", a.look()
	case n < 954:
		return "vacuum", a.vacuum()
	case n < 960:
		return "alter", a.alter()
	case n < 964:
		return "incremental vacuum", a.unsettling("PRAGMA incremental_vacuum(50)")
	case n < 971:
		return "truncate", a.exec("PRAGMA wal_checkpoint(TRUNCATE)")
	case n < 978:
		return "passive", a.exec("PRAGMA wal_checkpoint(PASSIVE)")
	case n < 986:
		return "reopen", a.reopen()
	case n < 994:
		return "long read", a.longRead()
	case n < 997:
		return "replace file", a.replace()
	default:
		return "leave WAL", a.leaveWAL()
	}
}

func (a *application) exec(q string) error {
	_, err := a.db.Exec(q)
	return err
}

// transaction adds one ledger row, a transfer and n churn rows. With rollback, the cache is so
// small that pages spill into the WAL before the transaction is rolled back.
func (a *application) transaction(n int, rollback bool) error {
	start := time.Now()
	ctx := context.Background()
	conn, err := a.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if rollback {
		if _, err := conn.ExecContext(ctx, "PRAGMA cache_size=5"); err != nil {
			return err
		}
		defer conn.ExecContext(ctx, "PRAGMA cache_size=-2000")
	}
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	rows := a.rows
	next := state{ID: a.at.ID + 1}
	body := a.bytes(20 + a.rng.IntN(400))
	next.Hash = chain(a.at.Hash, next.ID, body)
	if _, err := tx.Exec("INSERT INTO ledger VALUES(?, ?, ?, ?)", next.ID, a.at.Hash, body, next.Hash); err != nil {
		return err
	}
	from, to, amount := 1+a.rng.IntN(50), 1+a.rng.IntN(50), a.rng.IntN(100)
	if _, err := tx.Exec("UPDATE account SET balance = balance + CASE id WHEN ?1 THEN -?3 ELSE ?3 END WHERE id IN (?1, "+
		"?2) AND ?1 <> ?2", from, to, amount); err != nil {
		return err
	}
	var sum int64
	for range n {
		rows++
		size := 10 + a.rng.IntN(200)
		if a.rng.IntN(40) == 0 {
			size = 5000 + a.rng.IntN(9000) // overflow pages
		}
		content := a.bytes(size)
		crc := int64(crc32.ChecksumIEEE(content))
		sum += crc
		if _, err := tx.Exec("INSERT INTO churn VALUES(?, ?, ?)", rows, content, crc); err != nil {
			return err
		}
	}
	if _, err := tx.Exec("UPDATE state SET id = ?, hash = ?, churn_n = churn_n + ?, churn_sum = churn_sum + ?", next.ID,
		next.Hash, n, sum); err != nil {
		return err
	}
	if rollback {
		a.operation("spill and roll back", "ok")
		return tx.Rollback()
	}
	if err := a.commit(tx, next, start); err != nil {
		return err
	}
	a.rows = rows
	return nil
}

func (a *application) commit(tx *sql.Tx, next state, start time.Time) error {
	a.event(eventBegin, next)
	if err := tx.Commit(); err != nil {
		return err
	}
	a.event(eventCommit, next, time.Since(start).Microseconds())
	a.at = next
	return nil
}

// remove deletes a range of churn rows and archives old rows of the ledger, in a ledger
// transaction of its own.
func (a *application) remove() error {
	start := time.Now()
	tx, err := a.db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var held int64
	if err := tx.QueryRow("SELECT churn_n FROM state").Scan(&held); err != nil {
		return err
	}
	low := a.rng.Int64N(a.rows + 1)
	high := low + int64(a.rng.IntN(300))
	if held > a.bound {
		low, high = 0, a.rows-a.bound/2-a.rng.Int64N(a.bound/4)
	}
	var n, sum int64
	if err := tx.QueryRow("SELECT count(*), coalesce(sum(crc), 0) FROM churn WHERE id BETWEEN ? AND ?", low, high).Scan(&n,
		&sum); err != nil {
		return err
	}
	if _, err := tx.Exec("DELETE FROM churn WHERE id BETWEEN ? AND ?", low, high); err != nil {
		return err
	}
	next := state{ID: a.at.ID + 1}
	body := a.bytes(16) // so that no two continuations of one state look the same
	next.Hash = chain(a.at.Hash, next.ID, body)
	if _, err := tx.Exec("DELETE FROM ledger WHERE id < ?", next.ID-keptLedger); err != nil {
		return err
	}
	if _, err := tx.Exec("INSERT INTO ledger VALUES(?, ?, ?, ?)", next.ID, a.at.Hash, body, next.Hash); err != nil {
		return err
	}
	if _, err := tx.Exec("UPDATE state SET id = ?, hash = ?, churn_n = churn_n - ?, churn_sum = churn_sum - ?", next.ID,
		next.Hash, n, sum); err != nil {
		return err
	}
	return a.commit(tx, next, start)
}

func (a *application) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(a.rng.Uint32())
	}
	return b
}
