package doctor

import (
	"testing"
	"testing/synctest"
	"time"
)

// If many reads together take long, the machine is busy; if one read does not return, a disk does
// not answer.
func TestAnswering(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, answered := answering(func(next func()) Facts {
			for range 5 {
				next()
				time.Sleep(lookWithin - time.Second)
			}
			return Facts{Name: "app"}
		})
		if !answered || f.Name != "app" {
			t.Errorf("of a busy machine: %v, %+v", answered, f)
		}
		begun, returns := time.Now(), make(chan bool)
		_, answered = answering(func(next func()) Facts {
			next()
			<-returns
			return Facts{}
		})
		if took := time.Since(begun); answered || took != lookWithin {
			t.Errorf("of a silent disk: %v after %s", answered, took)
		}
		close(returns)
	})
}
