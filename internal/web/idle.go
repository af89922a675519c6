package web

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// idle is the connections that are open and ask nothing. Beyond maxIdle of them
// the one that has done so for longest is closed: else ten thousand clients that
// only connect would keep the scraper waiting at the door.
type idle struct {
	mu      sync.Mutex
	waiting *list.List // of net.Conn, the longest first
	place   map[net.Conn]*list.Element
}

func newIdle() *idle {
	return &idle{waiting: list.New(), place: make(map[net.Conn]*list.Element)}
}

// track is a http.Server's ConnState.
func (i *idle) track(conn net.Conn, state http.ConnState) {
	if oldest := i.note(conn, state); oldest != nil {
		oldest.Close() // its own goroutine sees that and reports it closed
	}
}

// note returns a connection that is one too many, or nil.
func (i *idle) note(conn net.Conn, state http.ConnState) net.Conn {
	i.mu.Lock()
	defer i.mu.Unlock()
	if at := i.place[conn]; at != nil {
		i.waiting.Remove(at)
		delete(i.place, conn)
	}
	if state != http.StateNew && state != http.StateIdle {
		return nil
	}
	i.place[conn] = i.waiting.PushBack(conn)
	if i.waiting.Len() <= maxIdle {
		return nil
	}
	oldest := i.waiting.Remove(i.waiting.Front()).(net.Conn)
	delete(i.place, oldest)
	return oldest
}
