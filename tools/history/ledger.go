package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// The application's own account of what it did: an append-only text file, one
// line an event, each written by a single write(2).
//
//	B id hash unixnano         about to commit id: it may or may not become durable
//	C id hash unixnano micros  COMMIT returned: it is durable; the whole transaction took so long, waiting included
//	R id hash unixnano         opened the database and found this state
//	P id hash sha256           what all pages together were at this state, read through a connection of its own
//	U id hash unixnano         pages may change from here on although the ledger does not (VACUUM, ALTER, a mode switch)
//	O name outcome             an operation, to be counted
//	E text                     an error that no unmodified application should ever see
const (
	eventBegin     = "B"
	eventCommit    = "C"
	eventResume    = "R"
	eventPages     = "P"
	eventUnsettled = "U"
	eventOperation = "O"
	eventError     = "E"
)

// state names one commit boundary of the ledger.
type state struct {
	ID   int64
	Hash string
}

// chain returns the hash of the row that follows prev.
func chain(prev string, id int64, body []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s|%d|", prev, id)
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}

// account is the application's log as the checker follows it. Its methods may
// be called from any goroutine.
type account struct {
	path string

	mu         sync.Mutex
	offset     int64
	begun      map[state]time.Time
	committed  map[state]time.Time // COMMIT returned, or found again after a crash
	commits    []commit            // in the order of the log
	last       state               // newest committed
	pending    state               // newest intent, when nothing has been logged after it
	pages      map[state]map[string]bool
	unsettled  map[state]bool
	operations map[string]int
	errors     []string
}

// commit is one COMMIT that returned.
type commit struct {
	id   int64
	at   time.Time
	took time.Duration
}

func newAccount(path string) *account {
	return &account{
		path: path, begun: map[state]time.Time{}, committed: map[state]time.Time{},
		pages: map[state]map[string]bool{}, unsettled: map[state]bool{}, operations: map[string]int{},
	}
}

// read takes in what was logged since. A line without its end, which the
// application is writing or was killed in the middle of, waits: the next
// process of the application ends it.
func (a *account) read() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	f, err := os.Open(a.path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	text := make([]byte, info.Size()-a.offset)
	if _, err := f.ReadAt(text, a.offset); err != nil {
		return err
	}
	text = text[:bytes.LastIndexByte(text, '\n')+1]
	for line := range strings.Lines(string(text)) {
		if err := a.take(strings.TrimSuffix(line, "\n")); err != nil {
			return fmt.Errorf("application log: %q: %w", line, err)
		}
	}
	a.offset += int64(len(text))
	return nil
}

func (a *account) take(line string) error {
	kind, rest, _ := strings.Cut(line, " ")
	switch kind {
	case "": // the end of a line that a killed process left
		return nil
	case eventError:
		a.errors = append(a.errors, rest)
		return nil
	case eventOperation:
		a.operations[rest]++
		return nil
	}
	var s state
	var third string
	var micros int64
	if n, err := fmt.Sscanf(rest, "%d %s %s %d", &s.ID, &s.Hash, &third, &micros); n < 3 {
		return err
	}
	if kind == eventPages {
		if a.pages[s] == nil {
			a.pages[s] = map[string]bool{}
		}
		a.pages[s][third] = true
		return nil
	}
	var nanos int64
	if _, err := fmt.Sscan(third, &nanos); err != nil {
		return err
	}
	at := time.Unix(0, nanos)
	switch kind {
	case eventBegin:
		a.begun[s], a.pending = at, s
	case eventUnsettled:
		a.unsettled[s] = true
	case eventCommit, eventResume:
		if _, again := a.committed[s]; !again {
			a.committed[s] = at
			a.commits = append(a.commits, commit{s.ID, at, time.Duration(micros) * time.Microsecond})
		}
		a.last, a.pending = s, state{}
	}
	return nil
}

// newest returns the newest state that is committed for certain.
func (a *account) newest() state {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last
}

// before returns the id of the newest commit that had returned before t.
func (a *account) before(t time.Time) (id int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := len(a.commits) - 1; i >= 0; i-- {
		if a.commits[i].at.Before(t) {
			return a.commits[i].id
		}
	}
	return 0
}

// begunAt returns when a state was about to be committed.
func (a *account) begunAt(s state) (at time.Time, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at, known = a.begun[s]
	return at, known
}

// committedAfter says whether any commit up to id was begun after t.
func (a *account) committedAfter(t time.Time, id int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for s, at := range a.begun {
		if _, committed := a.committed[s]; committed && s.ID <= id && at.After(t) {
			return true
		}
	}
	return false
}

// legal says whether a restored state was ever a commit boundary: committed for
// certain, or the one intent whose fate the log does not tell yet.
func (a *account) legal(s state) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, committed := a.committed[s]
	return committed || s == a.pending || s == state{}
}

// samePages compares all of a restored file with what the application itself
// read at that state. known is false where it read nothing, or where one state
// had more than one set of pages.
func (a *account) samePages(s state, sum string) (same, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.pages[s]) == 0 || a.unsettled[s] {
		return false, false
	}
	return a.pages[s][sum], true
}
