package main

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mattn/go-sqlite3"
)

// The functions below are what the application does to its file as a whole.

// unsettling runs a statement that changes pages without changing the ledger.
func (a *application) unsettling(q string, args ...any) error {
	a.event(eventUnsettled, a.at)
	_, err := a.db.Exec(q, args...)
	return err
}

func (a *application) alter() error {
	n := a.rng.IntN(20)
	a.operation("alter", "ok")
	if a.rng.IntN(3) == 0 {
		return a.unsettling(fmt.Sprintf("DROP TABLE IF EXISTS extra%d", n))
	}
	if err := a.unsettling(fmt.Sprintf("CREATE TABLE IF NOT EXISTS extra%d(x)", n)); err != nil {
		return err
	}
	return a.unsettling(fmt.Sprintf("ALTER TABLE extra%d ADD COLUMN c%d", n, a.rng.Uint32()))
}

// vacuum rewrites the database, sometimes with another auto_vacuum mode.
func (a *application) vacuum() error {
	ctx := context.Background()
	conn, err := a.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if mode := a.rng.IntN(5); mode < 3 {
		if _, err := conn.ExecContext(ctx, fmt.Sprintf("PRAGMA auto_vacuum=%d", mode)); err != nil {
			return err
		}
	}
	a.event(eventUnsettled, a.at)
	a.operation("vacuum", "ok")
	_, err = conn.ExecContext(ctx, "VACUUM")
	return err
}

// look reads every page inside one read transaction and logs a hash of them all. Nobody else
// writes, so this is the newest state, byte for byte. It uses a connection of its own, if the
// life permits, which sees what is in the files and not in a cache. Then the application pauses,
// so that a batch is likely to end here.
func (a *application) look() error {
	if a.at.ID == 0 || a.life.driver != "sqlite3" {
		return nil
	}
	ctx, db := context.Background(), a.db
	if !a.life.single {
		other, err := a.life.open(a.path)
		if err != nil {
			return err
		}
		defer other.Close()
		db = other
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	var verdict string
	if err := conn.QueryRowContext(ctx, "PRAGMA quick_check(3)").Scan(&verdict); err != nil || verdict != "ok" {
		return fmt.Errorf("quick check: %q, %w", verdict, err)
	}
	var pages []byte
	err = conn.Raw(func(driver any) error {
		var err error
		pages, err = driver.(*sqlite3.SQLiteConn).Serialize("main")
		return err
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(a.log, "%s %d %s %x\n", eventPages, a.at.ID, a.at.Hash, sha256.Sum256(pages))
	time.Sleep(time.Duration(a.rng.IntN(500)) * time.Millisecond)
	return nil
}

func (a *application) reopen() error {
	if err := a.db.Close(); err != nil {
		return err
	}
	return a.open()
}

// longRead keeps a read transaction open beside the writer for up to two seconds.
func (a *application) longRead() error {
	if a.life.single {
		return nil
	}
	conn, err := a.db.Conn(context.Background())
	if err != nil {
		return err
	}
	if _, err := conn.ExecContext(context.Background(), "BEGIN DEFERRED; SELECT count(*) FROM account"); err != nil {
		return errors.Join(err, conn.Close())
	}
	hold := time.Duration(a.rng.IntN(2000)) * time.Millisecond
	a.operation("long read", "ok")
	a.readers.Go(func() {
		time.Sleep(hold)
		// If the pool was closed meanwhile (reopen), the transaction is already gone.
		_, _ = conn.ExecContext(context.Background(), "ROLLBACK")
		_ = conn.Close()
	})
	return nil
}

// replace puts a rewritten copy in the database's place, as a deployment or a restore does: with
// everything closed and the old side files removed, by one rename. It waits for its own readers,
// because a connection to the old file would delete the new file's WAL when it closes. It gives
// up if it cannot checkpoint its WAL first, because it would lose commits itself if it were
// killed before the rename.
func (a *application) replace() error {
	copyPath := a.path + ".new"
	if err := os.Remove(copyPath); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	a.readers.Wait()
	a.event(eventUnsettled, a.at)
	if _, err := a.db.Exec("VACUUM INTO ?", copyPath); err != nil {
		return err
	}
	var busy, frames, copied int
	for deadline := time.Now().Add(time.Second); ; {
		if err := a.db.QueryRow("PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &copied); err != nil {
			return err
		}
		if busy == 0 {
			break
		}
		if time.Now().After(deadline) {
			a.operation("replace file", "given up: the WAL is in use")
			return nil
		}
	}
	if err := a.db.Close(); err != nil {
		return err
	}
	for _, side := range []string{"-wal", "-shm"} {
		if err := os.Remove(a.path + side); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := os.Rename(copyPath, a.path); err != nil {
		return err
	}
	a.operation("replace file", "ok")
	return a.open()
}

// leaveWAL switches to a rollback journal, works in it, perhaps changes the page size, and
// returns to WAL mode. While sqlwatch has a connection, SQLite refuses the switch, as it does
// with any other connection, and leaveWAL gives up.
func (a *application) leaveWAL() (err error) {
	a.readers.Wait()
	if err := a.db.Close(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.open()) }()
	db, err := sql.Open("sqlite3", "file:"+a.path+"?_busy_timeout=100&_synchronous=FULL&_txlock=immediate")
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	a.event(eventUnsettled, a.at)
	var mode string
	for deadline := time.Now().Add(1500 * time.Millisecond); mode != "delete"; {
		err := db.QueryRow("PRAGMA journal_mode=DELETE").Scan(&mode)
		var code sqlite3.Error
		switch {
		case errors.As(err, &code) && code.Code == sqlite3.ErrBusy:
		case err != nil:
			return err
		}
		if time.Now().After(deadline) {
			a.operation("leave WAL", "refused: the database is in use")
			return nil
		}
	}
	if _, err := db.Exec("PRAGMA busy_timeout=5000"); err != nil {
		return err
	}
	outcome := "ok"
	if a.rng.IntN(2) == 0 {
		size := 512 << a.rng.IntN(6)
		outcome = "ok, with another page size"
		if _, err := db.Exec(fmt.Sprintf("PRAGMA page_size=%d; VACUUM", size)); err != nil {
			return err
		}
	}
	old := a.db
	a.db = db
	for range a.rng.IntN(4) {
		if err := a.transaction(1+a.rng.IntN(50), false); err != nil {
			return err
		}
	}
	a.db = old
	a.event(eventUnsettled, a.at)
	a.operation("leave WAL", outcome)
	return db.QueryRow("PRAGMA journal_mode=WAL").Scan(&mode)
}
