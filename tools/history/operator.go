package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/mattn/go-sqlite3"
)

// The functions below are what people and machines do to the files: restore backups, remove side
// files, fill disks, set clocks.

// disks describes where the database and the state directory are, and what was put aside.
type disks struct {
	mounted bool   // each is a file system of its own, which can be filled
	backup  string // path of the database's backup; empty: none yet
	at      state  // state of the backup
	shm     []byte // an older -shm
	life    string // present life of the application
}

// backupWithWAL is the name by which -without excludes backups of two files.
const backupWithWAL = "a backup with a WAL"

// diskSize is the size of each of these file systems.
const diskSize = 512 << 20

// mount gives database and state directory small file systems of their own if that is
// permitted.
func (s *scene) mount() error {
	dir := filepath.Join(s.o.dir, "disk")
	s.db = filepath.Join(dir, "app.db")
	for _, d := range []string{dir, s.stateDir()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	for _, d := range []string{dir, s.stateDir()} {
		if syscall.Mount("history", d, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", diskSize)) != nil {
			s.unmount()
			return nil
		}
		s.files.mounted = true
	}
	return nil
}

func (s *scene) unmount() {
	if !s.files.mounted {
		return
	}
	for _, d := range []string{filepath.Dir(s.db), s.stateDir()} {
		_ = syscall.Unmount(d, syscall.MNT_DETACH)
	}
	s.files.mounted = false
}

// hole is a period in which nothing could be captured: the state directory's disk was full.
type hole struct{ from, to time.Time }

// fill fills a file system, for a while, so that only a few more pages fit. The daemon may die
// meanwhile.
func (s *scene) fill(dir string) error {
	if dir == s.stateDir() {
		h := hole{from: time.Now()}
		defer func() {
			h.to = time.Now()
			s.mu.Lock()
			s.holes = append(s.holes, h)
			s.mu.Unlock()
		}()
	} else { // only this program's own lives continue after an error
		s.stopApp(false)
		if err := s.startAs("normal"); err != nil {
			return err
		}
		time.Sleep(time.Second)
	}
	path := filepath.Join(dir, "ballast")
	var f syscall.Statfs_t
	if err := syscall.Statfs(dir, &f); err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer os.Remove(path)
	defer file.Close()
	room := int64(f.Bavail)*f.Bsize - int64(s.rng.IntN(60))<<12
	if err := syscall.Fallocate(int(file.Fd()), 0, 0, max(room, 4096)); err != nil && !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	time.Sleep(time.Duration(500+s.rng.IntN(3000)) * time.Millisecond)
	if s.rng.IntN(3) == 0 {
		return s.kill(nil)
	}
	return nil
}

// snapshots takes one snapshot after the other.
func (s *scene) snapshots(ctx context.Context) {
	for ctx.Err() == nil {
		if exec.CommandContext(ctx, s.o.sqlwatch, "snapshot", "--config", s.config, "app").Run() == nil {
			s.slow.Add(1)
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond): // the daemon is not running, or is taking a snapshot by itself
		}
	}
}

// stepClock sets the daemon's clock: an hour, two days or ten years forwards or back, or to
// the right time.
func (s *scene) stepClock() error {
	const day = 24 * time.Hour
	steps := []time.Duration{0, 0, time.Hour, -time.Hour, 2 * day, -2 * day, 3650 * day, -3650 * day}
	return os.WriteFile(s.o.clock, fmt.Append(nil, int64(steps[s.rng.IntN(len(steps))])), 0o600)
}

// note writes into the application's log what was done to its file while it was not running.
func (s *scene) note(kind string, at state) error {
	f, err := os.OpenFile(s.log, os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintf(f, "\n%s %d %s %d 0\n", kind, at.ID, at.Hash, time.Now().UnixNano())
	return err
}

// backUp copies the database through SQLite while the application is not running: an
// application that locks out all others would never let it in. With a WAL the copy consists of
// two files, like one taken by a snapshot of the disk.
func (s *scene) backUp() error {
	s.stopApp(false)
	path := filepath.Join(s.o.dir, "backup.db")
	for _, side := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path + side); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := copyDatabase(path, s.db); err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	if s.rng.IntN(3) == 0 && !s.o.leftOut(backupWithWAL) {
		if err := withWAL(path); err != nil {
			return fmt.Errorf("a backup with a WAL: %w", err)
		}
	}
	at, err := judge(path)
	if err != nil {
		return fmt.Errorf("the backup: %w", err)
	}
	if at.ID > 0 {
		s.files.backup, s.files.at = path, at
	}
	return s.startApp()
}

// copyDatabase copies a database with SQLite's backup API, in one step.
func copyDatabase(to, from string) error {
	ctx := context.Background()
	source, err1 := sql.Open("sqlite3", "file:"+from+"?_busy_timeout=5000")
	target, err2 := sql.Open("sqlite3", "file:"+to)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	defer source.Close()
	defer target.Close()
	in, err1 := source.Conn(ctx)
	out, err2 := target.Conn(ctx)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	defer in.Close()
	defer out.Close()
	return out.Raw(func(t any) error {
		return in.Raw(func(f any) error {
			b, err := t.(*sqlite3.SQLiteConn).Backup("main", f.(*sqlite3.SQLiteConn), "main")
			if err != nil {
				return err
			}
			done, err := b.Step(-1)
			if err == nil && !done {
				err = errors.New("not done")
			}
			return errors.Join(err, b.Finish())
		})
	})
}

// withWAL changes the copy in a way that stays in its WAL and does not change the ledger.
func withWAL(path string) error {
	db, err := sql.Open("sqlite3", "file:"+path)
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	var mode string
	if err := db.QueryRow("PRAGMA journal_mode=WAL").Scan(&mode); err != nil {
		return err
	}
	if _, err := db.Exec("CREATE TABLE IF NOT EXISTS restored(x); INSERT INTO restored VALUES(1)"); err != nil {
		return err
	}
	for _, side := range []string{"", "-wal"} { // while the connection is open: closing it would checkpoint the WAL
		if out, err := exec.Command("cp", path+side, path+".copy"+side).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	if err := db.Close(); err != nil {
		return err
	}
	for _, side := range []string{"", "-wal"} {
		if err := os.Rename(path+".copy"+side, path+side); err != nil {
			return err
		}
	}
	return nil
}

// restoreOver puts the backup in the file's place while the application is not running, and
// starts the application, which must find the backup and nothing else. If there is no backup, it
// takes one instead.
func (s *scene) restoreOver() error {
	if s.files.backup == "" {
		return s.backUp()
	}
	clean := s.rng.IntN(4) > 0
	s.stopApp(!clean)
	if s.rng.IntN(3) == 0 {
		s.endDaemon(syscall.SIGTERM)
		defer s.startDaemon()
	}
	time.Sleep(time.Duration(1000+s.rng.IntN(2000)) * time.Millisecond)
	// After a clean end there are no side files, and the operator does not look for any. A killed
	// application leaves its WAL, or its hot journal if it was in rollback mode: whoever restores
	// has to remove it, and so has an operator who sees one after a clean end.
	stale := false
	if info, err := os.Stat(s.db + "-wal"); err == nil && info.Size() > 0 {
		stale = true
		if clean {
			s.harms["a WAL was left after a clean end"]++
		}
	}
	if err := s.note(eventUnsettled, s.files.at); err != nil {
		return err
	}
	if err := s.note(eventBegin, s.files.at); err != nil {
		return err
	}
	if stale || !clean {
		for _, side := range []string{"-wal", "-shm", "-journal"} {
			if err := os.Remove(s.db + side); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	if err := s.putInPlace(); err != nil {
		return err
	}
	if err := s.note(eventCommit, s.files.at); err != nil {
		return err
	}
	s.files.backup = ""
	time.Sleep(time.Duration(s.rng.IntN(2000)) * time.Millisecond)
	return s.startApp()
}

// putInPlace moves the backup over the database, or copies it into the same file.
func (s *scene) putInPlace() error {
	into := s.rng.IntN(2) == 0
	for _, side := range []string{"-wal", ""} {
		from := s.files.backup + side
		if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		to := s.db + side
		if !into {
			to += ".new" // the backup is on another file system: mv copies, and the name changes at once
		}
		if out, err := exec.Command("cp", from, to).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		if !into {
			if err := os.Rename(to, s.db+side); err != nil {
				return err
			}
		}
	}
	if s.o.verbose {
		fmt.Printf("history: %s: %s put in place, into the same file: %v\n", time.Now().UTC().Format("15:04:05.000"),
			s.files.backup, into)
	}
	if into {
		s.harms["copied over"]++
	} else {
		s.harms["moved over"]++
	}
	return nil
}

// removeSideFiles removes -shm, and perhaps -wal, under an application with one connection, like
// somebody who takes them for leftovers. Without sqlwatch the application continues with the
// files that it has open, and loses nothing when it ends.
func (s *scene) removeSideFiles() error {
	s.stopApp(false)
	before := s.ledgerSize()
	if err := s.startAs("single"); err != nil {
		return err
	}
	if !s.hasOpened(before) { // the WAL may still hold the only copy of the last process's commits
		return nil
	}
	time.Sleep(time.Duration(300+s.rng.IntN(700)) * time.Millisecond)
	if s.rng.IntN(2) == 0 {
		_ = os.Remove(s.db + "-wal")
	}
	_ = os.Remove(s.db + "-shm")
	for range s.rng.IntN(3) {
		time.Sleep(time.Duration(s.rng.IntN(1500)) * time.Millisecond)
		if err := s.kill(nil); err != nil {
			return err
		}
	}
	time.Sleep(time.Duration(s.rng.IntN(2500)) * time.Millisecond)
	s.stopApp(false)
	return s.startApp()
}

// ledgerSize returns the length of the application's log.
func (s *scene) ledgerSize() int64 {
	info, err := os.Stat(s.log)
	if err != nil {
		return 0
	}
	return info.Size()
}

// hasOpened waits until the application's log shows, after from, that it has opened the database.
func (s *scene) hasOpened(from int64) bool {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		text, err := os.ReadFile(s.log)
		if err == nil && int64(len(text)) > from && strings.Contains(string(text[from:]), eventResume+" ") {
			return true
		}
	}
	return false
}

// oldShm leaves a wal-index that is older than the WAL, as a power cut can.
func (s *scene) oldShm() error {
	text, err := os.ReadFile(s.db + "-shm")
	if err != nil || s.files.shm == nil {
		s.files.shm = text
		return nil
	}
	s.endDaemon(syscall.SIGKILL)
	s.kills++
	s.stopApp(true)
	if _, err := os.Stat(s.db + "-wal"); err == nil {
		if err := os.WriteFile(s.db+"-shm", s.files.shm, 0o600); err != nil {
			return err
		}
	}
	s.files.shm = nil
	if s.rng.IntN(2) == 0 {
		if err := s.startDaemon(); err != nil {
			return err
		}
		time.Sleep(time.Duration(s.rng.IntN(1500)) * time.Millisecond)
		return s.startApp()
	}
	if err := s.startApp(); err != nil {
		return err
	}
	time.Sleep(time.Duration(s.rng.IntN(500)) * time.Millisecond)
	return s.startDaemon()
}
