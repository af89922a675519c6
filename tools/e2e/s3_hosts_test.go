package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store/s3/s3test"
)

// envHosts is the environment variable that makes TestTwoHosts_C14 try every combination and, if
// it is "apart", put each host into a network namespace of its own.
const envHosts = "SQLWATCH_TEST_HOSTS"

// impatient builds sqlwatch with leases of seconds and a clock that a test can set.
var impatient = sync.OnceValues(func() (string, error) {
	return buildProgram(filepath.Dir(binary), "sqlwatch-impatient", "../..", "./cmd/sqlwatch", "-tags", "shortlease")
})

// The variants of the test: what the two hosts are doing when they meet.
const (
	idle     = "idle"     // the writer has nothing to write
	busy     = "busy"     // the writer has something to write
	snapshot = "snapshot" // the writer comes back during the other's first snapshot, which takes longer than a lease
	ahead    = "ahead"    // the other's clock is 3 minutes ahead
	behind   = "behind"   // the other's clock is 3 minutes behind
	stopped  = "stopped"  // the writer is stopped by SIGSTOP and continues later
	cut      = "S3 cut"   // the writer's packets are lost in both directions, for a while
)

// Staging is started with production's configuration while production is idle, busy or stopped,
// over stores that support both conditions of a write (If-None-Match and If-Match), the first
// only, or none. Staging reports that the prefix belongs to another database and stores nothing,
// production continues, and the newest state is production's. When told to adopt, staging waits
// as long as production is alive, and then takes over. When production comes back it reports
// that, nothing more of it is acknowledged, and both histories can be restored, even if staging
// has stored no more than the first parts of a snapshot by then.
//
// The same holds if production's packets are lost instead. That variant, and all of them on
// request, runs between hosts in network namespaces of their own.
func TestTwoHosts_C14(t *testing.T) {
	t.Parallel()
	stores := map[string]s3test.Profile{
		"conditions": {Name: "conditions"},
		"create":     {Name: "create", Match: s3test.Ignored},
		"none":       {Name: "none", Create: s3test.Ignored, Match: s3test.Ignored},
	}
	short := map[string]bool{"conditions/busy": true, "create/stopped": true, "none/idle": true,
		"conditions/S3 cut": true}
	for guard, profile := range stores {
		for _, what := range []string{idle, busy, snapshot, ahead, behind, stopped, cut} {
			name := guard + "/" + what
			if os.Getenv(envHosts) == "" && !short[name] {
				continue
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				h := newHosts(t, what, profile, what == cut || os.Getenv(envHosts) == "apart")
				h.meet()
				h.takeOver()
			})
		}
	}
}

// hosts are production and staging, with the same configuration.
type hosts struct {
	t                   *testing.T
	what                string
	url                 string
	db, other           string
	production, staging *daemon
	original, program   []string      // the commands that run production and staging
	body                string        // of staging's configuration
	at                  string        // staging's address
	way                 *s3test.Proxy // between staging and the store
	wire                *netHost      // production's host, if it has a network namespace

	early string // contents of production's database at txid
	txid  uint64
}

func newHosts(t *testing.T, what string, profile s3test.Profile, apart bool) *hosts {
	t.Helper()
	program, err := impatient()
	must(t, err)
	store := s3test.NewFake(t, profile)
	const loopback = "127.0.0.1"
	h := &hosts{t: t, what: what, url: s3URL(store.URL, "v1/app"), db: filepath.Join(t.TempDir(), "app.db"),
		other: filepath.Join(t.TempDir(), "app.db"), original: []string{program}, program: []string{program}, at: loopback}
	// Each host reaches the store through a proxy of its own.
	h.way = s3test.NewProxy(t, store.URL)
	way := func(p *s3test.Proxy) string { return p.URL }
	at := loopback
	if apart {
		nw, ok := newNetwork(t)
		if !ok {
			t.Skip("no network namespaces here")
		}
		way = func(p *s3test.Proxy) string { return nw.serve(p) }
		staging := nw.host()
		h.wire = nw.host()
		h.original, h.program = h.wire.in(h.original), staging.in(h.program)
		at, h.at = h.wire.address, staging.address
	}
	commits(t, h.db, 0.5, 100)
	commits(t, h.other, 0.3, 100)
	last := len(h.program) - 1
	switch what {
	case ahead:
		h.program = append(h.program[:last:last], "env", "SQLWATCH_TEST_CLOCK=3m", program)
	case behind:
		h.program = append(h.program[:last:last], "env", "SQLWATCH_TEST_CLOCK=-3m", program)
	}
	block := func(p *s3test.Proxy) string {
		return s3ReplicaWith(way(p), s3test.Bucket, "v1/app", s3test.AccessKey, s3test.SecretKey, "")
	}
	h.production = watchS3At(t, at, h.original, replicated(h.db, block(s3test.NewProxy(t, store.URL))))
	synced(t, h.production)
	h.early = contents(t, h.db)
	_, h.txid = h.restore()
	h.body = replicated(h.other, block(h.way))
	return h
}

// restore restores into a new file.
func (h *hosts) restore(args ...string) (path string, txid uint64) {
	h.t.Helper()
	path = filepath.Join(h.t.TempDir(), "restored.db")
	a := sqlwatch(h.t, s3test.AccessKey, s3test.SecretKey,
		append(append([]string{"restore", "--json", "-o", path}, args...), h.url)...)
	var r restoration
	if err := json.Unmarshal([]byte(a.stdout), &r); err != nil || a.code != 0 {
		h.t.Fatalf("restore %v: %d, %v: %s", args, a.code, err, a.stderr)
	}
	return path, r.TXID
}

// acknowledged asks a daemon whether everything committed is durable.
func (h *hosts) acknowledged(d *daemon) error {
	h.t.Helper()
	a := sqlwatch(h.t, s3KeyID, s3Secret, "sync", "--wait", "--timeout", "2s", "--config", d.config, "app")
	if a.code != 0 {
		return fmt.Errorf("sync: %d: %s", a.code, a.stderr)
	}
	return nil
}

// told waits until a daemon's log contains word, while its application continues; none of the
// application's commits may be acknowledged.
func (h *hosts) told(d *daemon, db, word string) {
	h.t.Helper()
	eventually(h.t, time.Minute, "it is told: "+word, func() error {
		if h.what == busy {
			commits(h.t, h.db, 0.2, 50)
		}
		commits(h.t, db, 0.1, 20)
		if err := h.acknowledged(d); err == nil {
			h.t.Error("its commits are acknowledged")
		}
		if text := d.output(h.t); !strings.Contains(text, word) {
			return fmt.Errorf("it says %s", lastMatch(text, "level="))
		}
		return nil
	})
}

// works checks that what is committed to a daemon's database is acknowledged, and is the newest
// state.
func (h *hosts) works(d *daemon, db string) {
	h.t.Helper()
	commits(h.t, db, 0.2, 50)
	eventually(h.t, time.Minute, "a sync", func() error { return h.acknowledged(d) })
	path, _ := h.restore()
	if got, want := contents(h.t, path), contents(h.t, db); got != want {
		h.t.Errorf("newest state: %s, want %s", got, want)
	}
}

// stop stops production in the way of this variant.
func (h *hosts) stop() {
	h.t.Helper()
	switch h.what {
	case stopped:
		must(h.t, h.production.process.cmd.Process.Signal(syscall.SIGSTOP))
	case cut:
		h.wire.pull()
	case idle, ahead: // like a machine that is shut down
		h.production.process.end(syscall.SIGTERM)
	default:
		h.production.process.end(syscall.SIGKILL)
	}
}

func (h *hosts) again() {
	h.t.Helper()
	switch h.what {
	case stopped:
		must(h.t, h.production.process.cmd.Process.Signal(syscall.SIGCONT))
	case cut:
		h.wire.plug()
	default:
		h.production.process = start(h.t, h.original[0], append(h.original[1:len(h.original):len(h.original)], "run",
			"--config", h.production.config)...)
	}
}

// meet starts staging, which must report the other database's history, and checks that production
// continues.
func (h *hosts) meet() {
	h.t.Helper()
	away := h.what == stopped || h.what == cut
	if away {
		h.stop()
	}
	h.staging = watchS3At(h.t, h.at, h.program, h.body)
	h.told(h.staging, h.other, "another database's history")
	if away {
		h.again()
	}
	h.works(h.production, h.db)
}

// takeOver tells staging to adopt the prefix, and checks that production keeps it as long as it
// is alive and has lost it afterwards.
func (h *hosts) takeOver() {
	h.t.Helper()
	h.staging.process.end(syscall.SIGTERM)
	if h.what == snapshot {
		h.way.Break(func(r *http.Request, _ int) s3test.Fault {
			if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/0009/") {
				return s3test.Hang
			}
			return s3test.None
		})
	}
	h.staging.process = start(h.t, h.program[0], append(h.program[1:len(h.program):len(h.program)], "run", "--config",
		h.staging.config, "--adopt", "app")...)
	h.told(h.staging, h.other, "another writer holds this replica's lease")
	h.works(h.production, h.db)
	h.stop()
	if h.what == snapshot {
		h.within()
	}
	eventually(h.t, time.Minute, "staging takes over", func() error { return h.acknowledged(h.staging) })
	if h.what == snapshot {
		h.stop()
	}
	if h.what == cut {
		commits(h.t, h.db, 0.1, 20)
		if h.acknowledged(h.production) == nil {
			h.t.Error("commits of a host without a network are acknowledged")
		}
	}
	taken := time.Now()
	h.again()
	h.told(h.production, h.db, "another writer has taken this replica over")
	h.t.Logf("production was told %s after staging's first acknowledgement", time.Since(taken).Round(time.Second))
	for range 3 { // it stays fenced
		commits(h.t, h.db, 0.1, 20)
		if h.acknowledged(h.production) == nil {
			h.t.Error("production's commits are acknowledged again")
		}
	}
	h.works(h.staging, h.other)
	path, _ := h.restore("--txid", fmt.Sprint(h.txid))
	if got := contents(h.t, path); got != h.early {
		h.t.Errorf("production's history: %s, want %s", got, h.early)
	}
}

// within continues production while staging's first snapshot is under way. It lets the snapshot
// through only after production has reported the takeover and the lease would have expired
// several times.
func (h *hosts) within() {
	h.t.Helper()
	tried := func(n int) func() error {
		return func() error {
			if got := h.way.Injected(s3test.Hang); got < n {
				return fmt.Errorf("%d times; it says %s", got, lastMatch(h.staging.output(h.t), "level="))
			}
			return nil
		}
	}
	eventually(h.t, time.Minute, "staging stores its first snapshot", tried(1))
	h.again()
	h.told(h.production, h.db, "another writer has taken this replica over")
	eventually(h.t, time.Minute, "staging stores it again, after half a minute", tried(2))
	h.told(h.production, h.db, "another writer has taken this replica over")
	if h.acknowledged(h.staging) == nil {
		h.t.Error("staging's snapshot is acknowledged, and is not stored")
	}
	h.way.Break(nil)
	h.way.LetGo()
}
