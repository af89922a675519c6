// Package decisions keeps the decision log: one line of JSON for each change of a
// policy's mind, with what it had read, and for each action that ended.
package decisions

import (
	"encoding/json"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/journal"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
)

// limit bounds the log: some ten thousand decisions.
const limit = 16 << 20

// Path returns where the log is in a state directory.
func Path(stateDir string) string { return filepath.Join(stateDir, "decisions.jsonl") }

// Log is the decision log of a running daemon. Its methods may be called concurrently.
type Log struct {
	path  string
	lines *journal.Log
	log   *slog.Logger

	mu     sync.Mutex // guards what follows
	failed time.Time  // when the daemon's log was last told that it cannot be written
	recent map[string]watchdog.Recent
}

// New returns the log of a state directory. It opens nothing.
func New(stateDir string, log *slog.Logger) *Log {
	return &Log{path: Path(stateDir), lines: journal.New(Path(stateDir), limit), log: log}
}

// Note writes a line. That it cannot be written stops nothing.
func (l *Log) Note(e watchdog.Entry) {
	err := l.lines.Append(e)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.recent != nil {
		l.recent[e.DB] = add(l.recent[e.DB], e)
	}
	if err != nil && time.Since(l.failed) > 10*time.Minute {
		l.failed = time.Now()
		l.log.Error("the decision log could not be written", "err", err)
	}
}

// Recently returns the newest that the log says of a database.
func (l *Log) Recently(db string) watchdog.Recent {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.recent == nil {
		l.recent = map[string]watchdog.Recent{}
		if err := Read(l.path, func(e watchdog.Entry) { l.recent[e.DB] = add(l.recent[e.DB], e) }); err != nil {
			l.log.Error("the decision log could not be read; earlier decisions are not shown", "err", err)
		}
	}
	return l.recent[db]
}

// add puts an entry before the earlier ones.
func add(r watchdog.Recent, e watchdog.Entry) watchdog.Recent {
	if e.Action != nil {
		r.Actions = append([]watchdog.ActionRecord{*e.Action}, r.Actions[:min(len(r.Actions), watchdog.KeptActions-1)]...)
	}
	if e.Change != nil {
		r.Changes = append([]watchdog.ChangeRecord{*e.Change}, r.Changes[:min(len(r.Changes), watchdog.KeptChanges-1)]...)
	}
	return r
}

// Read calls each with the entries of the log at path, the oldest first.
func Read(path string, each func(watchdog.Entry)) error {
	return journal.Read(path, func(line []byte) bool {
		var e watchdog.Entry
		if json.Unmarshal(line, &e) == nil && e.DB != "" {
			each(e)
		}
		return true
	})
}
