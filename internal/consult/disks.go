package consult

import (
	"os"
	"time"
)

// answerWithin is how long the disks have for a look at each file by its name.
const answerWithin = 5 * time.Second

// looksAtOnce is how many such looks are under way beside each other: each that does not
// return keeps a thread.
const looksAtOnce = 1000

// paths is a set of them.
type paths map[string]bool

// silent returns those of the paths that are on disks that do not answer. They must not be
// looked at again: whoever does waits for ever.
func silent(all []string) paths {
	left := paths{}
	for _, path := range all {
		if path != "" {
			left[path] = true
		}
	}
	asked := make([]string, 0, len(left))
	for path := range left {
		asked = append(asked, path)
	}
	answers := make(chan string, len(asked))
	go func() {
		slots := make(chan struct{}, looksAtOnce)
		for _, path := range asked {
			slots <- struct{}{}
			go func() {
				_, _ = os.Stat(path) // whatever it says
				answers <- path
				<-slots
			}()
		}
	}()
	late := time.After(answerWithin)
	for len(left) > 0 {
		select {
		case path := <-answers:
			delete(left, path)
		case <-late:
			return left
		}
	}
	return left
}

// soon reports whether do returned soon. If not it goes on, and what it writes must not be
// looked at: a read of a dead disk has no end.
func soon(do func()) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	select {
	case <-done:
		return true
	case <-time.After(answerWithin):
		return false
	}
}
