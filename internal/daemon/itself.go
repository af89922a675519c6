package daemon

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/web"
)

// itself is what the daemon knows about its own state. Any goroutine may read it.
type itself struct {
	board   *health.Board
	faults  *web.Faults
	notices func() map[string]string // the notifiers that fail, and why

	mu      sync.Mutex
	reload  string // why the last reload was refused
	watched int
	leftOut []health.LeftOut
	state   collector.Disk // of the state directory's file system; zero before the first look
}

func newItself(notices func() map[string]string) *itself {
	return &itself{board: health.NewBoard(), faults: &web.Faults{}, notices: notices}
}

// reloaded stores the result of the last reload.
func (i *itself) reloaded(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.reload = ""; err != nil {
		i.reload = err.Error()
	}
}

// expanded stores what the configuration expands to. It returns how many files are left out.
func (i *itself) expanded(watched int, leftOut []config.LeftOut) (files int) {
	all := make([]health.LeftOut, len(leftOut))
	for n, l := range leftOut {
		all[n] = health.LeftOut{Place: l.Place, Why: l.Why, Count: l.Count}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.watched, i.leftOut = watched, all
	return health.Files(all)
}

// stateEvery is the time between two looks at the state directory's file system.
const stateEvery = 10 * time.Second

// look watches the file system of the state directory until ctx ends. If a look does
// not return, nobody waits for it.
func (i *itself) look(ctx context.Context, stateDir string) error {
	tick := time.NewTicker(stateEvery)
	defer tick.Stop()
	var looking atomic.Bool
	for {
		if looking.CompareAndSwap(false, true) {
			go func() {
				defer looking.Store(false)
				m, err := collector.DiskOf(stateDir)
				if err != nil { // those who write there report it
					return
				}
				i.mu.Lock()
				defer i.mu.Unlock()
				i.state = m
			}()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// now returns the conditions that hold now, and puts them on the board.
func (i *itself) now() web.Itself {
	i.mu.Lock()
	defer i.mu.Unlock()
	found := health.OfDaemon(health.Daemon{ReloadErr: i.reload, Databases: i.watched, LeftOut: i.leftOut,
		Faults: i.faults.Count(), LostNotices: i.notices(), State: i.state})
	return web.Itself{Conditions: i.board.Note(health.Itself, time.Now(), found), LeftOut: i.leftOut}
}

// Describe implements prometheus.Collector.
func (i *itself) Describe(ch chan<- *prometheus.Desc) { i.board.Describe(ch) }

// Collect implements prometheus.Collector.
func (i *itself) Collect(ch chan<- prometheus.Metric) {
	i.now()
	i.board.Collect(ch)
}
