package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store/s3/s3test"
)

// envHosts makes TestTwoHosts try every pairing, and go on until one has taken over.
const envHosts = "SQLWATCH_TEST_HOSTS"

// Staging is started with production's configuration while production is idle, busy
// or stopped, over stores that guard with every condition, with one, or with none:
// staging is told and stores nothing, production goes on, and the newest state is
// production's. Told to adopt, staging takes over; then production is told, nothing more
// of its is acknowledged, and both histories can be restored.
func TestTwoHosts_C14(t *testing.T) {
	t.Parallel()
	stores := map[string]s3test.Profile{
		"conditions": {Name: "conditions"},
		"create":     {Name: "create", Match: s3test.Ignored},
		"none":       {Name: "none", Create: s3test.Ignored, Match: s3test.Ignored},
	}
	short := map[string]bool{"conditions/busy": true, "create/stopped": true, "none/idle": true}
	for guard, profile := range stores {
		for _, what := range []string{"idle", "busy", "stopped"} {
			name := guard + "/" + what
			if os.Getenv(envHosts) == "" && !short[name] {
				continue
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				h := newHosts(t, profile)
				h.meet(what)
				if os.Getenv(envHosts) != "" {
					h.takeOver(what)
				}
			})
		}
	}
}

// hosts are two with one configuration.
type hosts struct {
	t                   *testing.T
	url                 string
	db, other           string
	production, staging *daemon
	body                string // of staging's configuration

	early string // contents of production's database at txid
	txid  uint64
}

func newHosts(t *testing.T, profile s3test.Profile) *hosts {
	t.Helper()
	store := s3test.NewFake(t, profile)
	h := &hosts{t: t, url: s3URL(store.URL, "v1/app"), db: filepath.Join(t.TempDir(), "app.db"),
		other: filepath.Join(t.TempDir(), "app.db")}
	commits(t, h.db, 0.5, 100)
	commits(t, h.other, 0.3, 100)
	// Each host reaches the store by a way of its own.
	block := func() string {
		return s3ReplicaWith(s3test.NewProxy(t, store.URL).URL, s3test.Bucket, "v1/app", s3test.AccessKey, s3test.SecretKey,
			"")
	}
	h.production = watchS3(t, replicated(h.db, block()))
	synced(t, h.production)
	h.early = contents(t, h.db)
	_, h.txid = h.restore()
	h.body = replicated(h.other, block())
	return h
}

// restore restores into a new file.
func (h *hosts) restore(args ...string) (path string, txid uint64) {
	h.t.Helper()
	path = filepath.Join(h.t.TempDir(), "restored.db")
	a := sqlwatch(h.t, s3test.AccessKey, s3test.SecretKey,
		append(append([]string{"restore", "--json", "-o", path}, args...),
			h.url)...)
	var r restoration
	if err := json.Unmarshal([]byte(a.stdout), &r); err != nil || a.code != 0 {
		h.t.Fatalf("restore %v: %d, %v: %s", args, a.code, err, a.stderr)
	}
	return path, r.TXID
}

// signal sends sig to production.
func (h *hosts) signal(sig syscall.Signal) {
	h.t.Helper()
	must(h.t, h.production.process.cmd.Process.Signal(sig))
}

func (h *hosts) wantLatest(db string) {
	h.t.Helper()
	path, _ := h.restore()
	if got, want := contents(h.t, path), contents(h.t, db); got != want {
		h.t.Errorf("newest state: %s, want %s", got, want)
	}
}

// meet starts staging, which has to be told, and lets production go on.
func (h *hosts) meet(what string) {
	h.t.Helper()
	if what == "stopped" {
		h.signal(syscall.SIGSTOP)
	}
	h.staging = watchS3(h.t, h.body)
	eventually(h.t, 30*time.Second, "staging is told", func() error {
		if what == "busy" {
			commits(h.t, h.db, 0.2, 50)
		}
		commits(h.t, h.other, 0.1, 20)
		if text := h.staging.output(h.t); !strings.Contains(text, "another database's history") {
			return fmt.Errorf("it says %s", lastMatch(text, "level=ERROR"))
		}
		return nil
	})
	if a := sqlwatch(h.t, s3KeyID, s3Secret, "sync", "--timeout", "3s", "--config", h.staging.config, "app"); a.code == 0 {
		h.t.Errorf("staging's sync was acknowledged: %s", a.stdout)
	}
	if what == "stopped" {
		h.signal(syscall.SIGCONT)
	}
	commits(h.t, h.db, 0.2, 50)
	synced(h.t, h.production)
	h.wantLatest(h.db)
}

// takeOver tells staging to adopt the place, while production is what it is.
func (h *hosts) takeOver(what string) {
	h.t.Helper()
	h.staging.process.end(syscall.SIGTERM)
	if what == "stopped" {
		h.signal(syscall.SIGSTOP)
	}
	h.staging.process = start(h.t, binary, "run", "--config", h.staging.config, "--adopt", "app")
	taken := time.Time{}
	eventually(h.t, 4*time.Minute, "staging takes over", func() error {
		if what == "busy" {
			commits(h.t, h.db, 0.1, 20)
		}
		err := syncS3(h.t, h.staging)
		taken = time.Now()
		return err
	})
	if what == "stopped" {
		h.signal(syscall.SIGCONT)
	}
	eventually(h.t, 2*time.Minute, "production is told", func() error {
		commits(h.t, h.db, 0.1, 20)
		if syncS3(h.t, h.production) == nil {
			return errors.New("its commits are acknowledged")
		}
		if !strings.Contains(h.production.output(h.t), "another writer") {
			return errors.New("it is not")
		}
		return nil
	})
	h.t.Logf("production was told %s after staging's first acknowledgement", time.Since(taken).Round(time.Second))
	for range 5 { // fenced it stays
		commits(h.t, h.db, 0.1, 20)
		if syncS3(h.t, h.production) == nil {
			h.t.Error("production's commits are acknowledged again")
		}
	}
	commits(h.t, h.other, 0.2, 50)
	synced(h.t, h.staging)
	h.wantLatest(h.other)
	path, _ := h.restore("--txid", fmt.Sprint(h.txid))
	if got := contents(h.t, path); got != h.early {
		h.t.Errorf("production's history: %s, want %s", got, h.early)
	}
}
