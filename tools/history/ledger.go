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

// The application's own account of what it did: an append-only text file, one line an event, each
// written by a single write(2).
//
//	B id hash unixnano         about to commit id: it may or may not become durable
//	C id hash unixnano micros  COMMIT returned: it is durable; the whole transaction took micros µs, waiting included
//	R id hash unixnano         opened the database and found this state
//	P id hash sha256           hash of all pages in this state, read through a connection of its own
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

// account is the application's log as far as the checker has read it. Its methods may be called
// from any goroutine.
//
// The database may be put back to an older state and take another course from there. So states
// are ordered by their place in the log, not by their id, and one state may have several places.
type account struct {
	path string

	mu         sync.Mutex
	offset     int64
	entries    []entry         // in the order of the log
	places     map[state][]int // indexes in entries, by state
	pending    state           // newest intent, if nothing has been logged after it
	begun      time.Time       // when that intent was logged
	pages      map[state]map[string]bool
	unsettled  map[state]bool
	operations map[string]int
	errors     []string
}

// entry is one state that the database reached: by a COMMIT that returned, after a crash, or from
// a backup that was put in its place.
type entry struct {
	state
	begun, at time.Time
	took      time.Duration
}

func newAccount(path string) *account {
	return &account{
		path: path, places: map[state][]int{},
		pages: map[state]map[string]bool{}, unsettled: map[state]bool{}, operations: map[string]int{},
	}
}

// read reads what was logged since the last call. It leaves a line that is not complete: the
// application is writing it, or was killed while it was, and the next process of the application
// ends that line.
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
	case "": // the end of a line that a killed process left incomplete
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
		a.pending, a.begun = s, at
	case eventUnsettled:
		a.unsettled[s] = true
	case eventResume:
		switch last := a.last(); {
		case s == last:
			a.pending = state{}
		case s == a.pending || last.ID == 0:
			a.add(entry{state: s, begun: a.begun, at: at})
		default: // whatever the cause, this is not the database that the application left
			a.errors = append(a.errors, fmt.Sprintf("open: found state %d %.8s where %d %.8s was left, perhaps %d", s.ID, s.Hash,
				last.ID, last.Hash, a.pending.ID))
			a.add(entry{state: s, begun: at, at: at})
		}
	case eventCommit:
		a.add(entry{state: s, begun: a.begun, at: at, took: time.Duration(micros) * time.Microsecond})
	}
	return nil
}

// add records that the database has reached a state.
func (a *account) add(e entry) {
	a.places[e.state] = append(a.places[e.state], len(a.entries))
	a.entries = append(a.entries, e)
	a.pending = state{}
}

func (a *account) last() state {
	if len(a.entries) == 0 {
		return state{}
	}
	return a.entries[len(a.entries)-1].state
}

// newest returns the newest state that the database is certain to be in, and its place.
func (a *account) newest() (state, int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last(), len(a.entries) - 1
}

// before returns the place of the newest state that had been reached before t.
func (a *account) before(t time.Time) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := len(a.entries) - 1; i >= 0; i-- {
		if a.entries[i].at.Before(t) {
			return i
		}
	}
	return -1
}

// place returns the first place of s that is not below floor and was begun no later than t.
func (a *account) place(s state, floor int, t time.Time) (int, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, i := range a.places[s] {
		if i >= floor && !a.entries[i].begun.After(t) {
			return i, true
		}
	}
	if s == a.pending && !a.begun.After(t) {
		return len(a.entries), true // committed, although the log does not show it yet
	}
	return 0, floor < 0 && s == state{}
}

// begunAfter reports whether any state up to a place was begun after t.
func (a *account) begunAfter(t time.Time, place int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.entries[:place+1] {
		if e.begun.After(t) {
			return true
		}
	}
	return false
}

// name describes the state that was expected at a place.
func (a *account) name(place int) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if place < 0 || place >= len(a.entries) {
		return fmt.Sprintf("entry %d", place)
	}
	return fmt.Sprintf("entry %d (state %d %.8s)", place, a.entries[place].ID, a.entries[place].Hash)
}

// legal reports whether a restored state was ever a commit boundary: committed for certain, or
// the one intent whose outcome is not in the log yet.
func (a *account) legal(s state) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.places[s]) > 0 || s == a.pending || s == state{}
}

// samePages compares a restored file with the pages that the application itself read in that
// state. known is false if it read none, or if the pages may have changed while the state did
// not.
func (a *account) samePages(s state, sum string) (same, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.pages[s]) == 0 || a.unsettled[s] {
		return false, false
	}
	return a.pages[s][sum], true
}
