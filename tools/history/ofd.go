package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"time"

	"github.com/ncruces/go-sqlite3"
)

// The functions below keep the ledger through an SQLite without C that locks by open file
// description. Such locks conflict with POSIX locks, but closing another descriptor does not
// release them.

// runOFD commits one row after the other until stop is closed. An error is logged and ends
// runOFD.
func runOFD(path, logPath string, pause time.Duration, stop <-chan struct{}) error {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	a := &application{log: log}
	fmt.Fprintln(log) // ends the line that a killed predecessor may have left
	db, err := sqlite3.Open("file:" + path)
	if err != nil {
		return a.fail("ofd: open", err)
	}
	defer db.Close()
	o := ofdLedger{db, a}
	if err := o.begin(); err != nil {
		return a.fail("ofd: begin", err)
	}
	for {
		select {
		case <-stop:
			if err := db.Close(); err != nil {
				return a.fail("ofd: close", err)
			}
			return nil
		case <-time.After(pause):
		}
		if err := o.commit(); err != nil {
			return a.fail("ofd: commit", err)
		}
	}
}

type ofdLedger struct {
	db *sqlite3.Conn
	a  *application
}

func (o ofdLedger) begin() error {
	if err := o.db.BusyTimeout(5 * time.Second); err != nil {
		return err
	}
	if err := o.db.Exec("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"); err != nil {
		return err
	}
	at, err := o.state()
	if err == nil {
		o.a.at = at
		o.a.event(eventResume, at)
	}
	return err
}

func (o ofdLedger) state() (s state, err error) {
	row, _, err := o.db.Prepare("SELECT id, hash FROM state")
	if err != nil {
		return s, err
	}
	defer row.Close()
	if row.Step() {
		s = state{row.ColumnInt64(0), row.ColumnText(1)}
	}
	return s, row.Err()
}

func (o ofdLedger) commit() error {
	start := time.Now()
	if err := o.db.Exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	at, err := o.state()
	if err != nil {
		return err
	}
	next, body := state{ID: at.ID + 1}, make([]byte, 60)
	if _, err := rand.Read(body); err != nil {
		return err
	}
	next.Hash = chain(at.Hash, next.ID, body)
	if err := o.db.Exec(fmt.Sprintf("INSERT INTO ledger VALUES(%d, '%s', x'%x', '%s'); UPDATE state SET id = %[1]d, "+
		"hash = '%[4]s'", next.ID, at.Hash, body, next.Hash)); err != nil {
		return err
	}
	o.a.event(eventBegin, next)
	if err := o.db.Exec("COMMIT"); err != nil {
		return err
	}
	o.a.event(eventCommit, next, time.Since(start).Microseconds())
	o.a.at = next
	return nil
}
