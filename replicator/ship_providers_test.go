package replicator_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/dbfile"
	"github.com/sqlwatch/sqlwatch/replicator"
	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3/s3test"
)

// endpoints are the providers' public endpoints: the store adapts to a provider by its host name. A
// proxy redirects requests for them to the fake.
var endpoints = map[string]string{
	"Amazon S3":                        "http://s3.us-east-1.amazonaws.com",
	"Backblaze B2":                     "http://s3.us-west-004.backblazeb2.com",
	"Cloudflare R2":                    "http://account.r2.cloudflarestorage.com",
	"Google Cloud Storage":             "http://storage.googleapis.com",
	"Ceph RGW (Hetzner, DigitalOcean)": "http://fsn1.your-objectstorage.com",
	"Wasabi":                           "http://s3.eu-central-1.wasabisys.com",
	"Garage":                           "http://garage.example.com:3900",
	"SeaweedFS":                        "http://seaweed.example.com:8333",
	"Tigris":                           "http://fly.storage.tigris.dev",
	"MinIO":                            "http://minio.example.com:9000",
}

// errand tells a separate process, which can be killed, what to replicate.
type errand struct{ Path, State, Endpoint string }

const errandVariable = "SQLWATCH_TEST_ERRAND"

// TestMain lets this program run as the process that TestProviders_S31 replicates with.
func TestMain(m *testing.M) {
	if text := os.Getenv(errandVariable); text != "" {
		if err := runErrand(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// runErrand replicates, and executes one command for each input line until the input ends.
func runErrand(text string) error {
	signal.Ignore(syscall.SIGPIPE)
	var e errand
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	st, err := s3.New(ctx, s3.Config{
		Bucket: s3test.Bucket, Prefix: "app", Endpoint: e.Endpoint, Region: s3test.Region, AccessKey: s3test.AccessKey,
		SecretKey: s3test.SecretKey, PathStyle: new(true), Stall: 10 * time.Second, Deadline: time.Minute,
		Backoff: 10 * time.Millisecond, PartSize: 5 << 20, Settle: 200 * time.Millisecond,
	})
	if err != nil {
		return err
	}
	files, err := dbfile.Open(e.Path)
	if err != nil {
		return err
	}
	var skew atomic.Int64
	o := replicator.Options{
		Name: "app", StateDir: e.State, Owner: "host-a", FinalSync: 20 * time.Second,
		Files: func() *dbfile.Files { return files }, Replicas: []replicator.ReplicaOptions{replica("s3.main", st)},
		Clock:  func() time.Time { return time.Now().Add(time.Duration(skew.Load())) },
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	r, err := replicator.New(o)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		answer, err := obey(ctx, r, st, &skew, strings.Fields(lines.Text()))
		if err != nil {
			answer = "failed: " + strings.ReplaceAll(err.Error(), "\n", " ")
		}
		fmt.Println(answer)
	}
	cancel()
	return errors.Join(<-done, files.Close())
}

// obey executes one command.
func obey(ctx context.Context, r *replicator.Replicator, st store.Store, skew *atomic.Int64, words []string) (string,
	error) {
	switch words[0] {
	case "sync":
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		if err := r.SyncNow(ctx); err != nil {
			return "", err
		}
		return r.Replicas()[0].TXID.String(), nil
	case "snapshot":
		return "done", r.SnapshotNow(ctx)
	case "verify":
		return "done", r.VerifyNow(ctx)
	case "later":
		d, err := time.ParseDuration(words[1])
		skew.Add(int64(d))
		return "done", err
	case "restore":
		txid, err := ltx.ParseTXID(words[2])
		if err != nil {
			return "", err
		}
		result, err := restore.Run(ctx, st, restore.Options{Output: words[1], Target: catalog.Target{TXID: txid}})
		return result.TXID.String(), err
	}
	return "", fmt.Errorf("unknown command %q", words)
}

// history is a short history of one database and its replica.
type history struct {
	t     *testing.T
	proxy string
	e     errand
	w     *writer
	rnd   *rand.Rand

	cmd   *exec.Cmd // nil while no process replicates
	stdin io.WriteCloser
	lines *bufio.Scanner

	acked map[ltx.TXID]string // the acknowledged states, as SQLite in another process dumped them
	last  ltx.TXID

	commits, kills, lost, restores int
}

// TestProviders_S31 runs a short history against the fake of each provider: an application commits;
// sqlwatch is killed, ends, or loses its state; every acknowledged state must be restorable as it
// was. SQLWATCH_TEST_HISTORY sets the number of turns, by default 3.
func TestProviders_S31(t *testing.T) {
	t.Parallel()
	turns, _ := strconv.Atoi(os.Getenv("SQLWATCH_TEST_HISTORY"))
	if turns == 0 {
		turns = 3
	}
	for i, profile := range s3test.Profiles() {
		t.Run(profile.Name, func(t *testing.T) {
			t.Parallel()
			endpoint := endpoints[profile.Name]
			if endpoint == "" {
				t.Fatal("the profile has no endpoint")
			}
			fake := s3test.NewFake(t, profile)
			path, w := database(t)
			h := &history{
				t: t, proxy: fake.URL, w: w, rnd: rand.New(rand.NewPCG(uint64(i), uint64(turns))), acked: map[ltx.TXID]string{},
				e: errand{path, filepath.Join(t.TempDir(), "state"), endpoint},
			}
			harms := h.rnd.Perm(4)
			for turn := range turns {
				h.turn(harms[turn%4])
			}
			h.start()
			for txid, want := range h.acked {
				h.wantState(txid, want)
			}
			h.end(syscall.SIGKILL)
			if n := fake.Requests()["put"]; n < len(h.acked) || len(h.acked) < turns {
				t.Errorf("%d states, %v: the test proves nothing", len(h.acked), fake.Requests())
			}
			t.Logf("%d commits, %d kills, %d lost state directories, %d restores of %d states; requests %v", h.commits, h.kills,
				h.lost, h.restores, len(h.acked), fake.Requests())
		})
	}
}

// turn is one run of sqlwatch, and how it ends.
func (h *history) turn(harm int) {
	h.t.Helper()
	h.start()
	for range 2 + h.rnd.IntN(2) {
		h.commit(20)
		h.sync()
		h.say("later 31s") // a compaction window has ended
	}
	if h.rnd.IntN(2) == 0 {
		h.want(h.say("snapshot"), "done")
	}
	h.wantState(h.last, h.acked[h.last])
	h.commit(20) // not acknowledged as durable
	switch harm {
	case 0:
		h.end(syscall.SIGTERM)
	case 1:
		h.end(syscall.SIGKILL)
	case 2: // in the middle of an upload or just after it
		if _, err := fmt.Fprintln(h.stdin, "sync"); err != nil {
			h.t.Fatal(err)
		}
		timer := time.NewTimer(time.Duration(h.rnd.IntN(60)) * time.Millisecond)
		<-timer.C
		h.end(syscall.SIGKILL)
	case 3:
		h.end(syscall.SIGKILL)
		if err := os.RemoveAll(h.e.State); err != nil {
			h.t.Fatal(err)
		}
		h.lost++
	}
	h.commit(5) // while sqlwatch is not running
}

// commit makes the application commit up to most times.
func (h *history) commit(most int) {
	h.t.Helper()
	n := 1 + h.rnd.IntN(most)
	h.w.commit(n)
	h.commits += n
}

func (h *history) start() {
	h.t.Helper()
	program, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	text, err := json.Marshal(h.e)
	if err != nil {
		h.t.Fatal(err)
	}
	h.cmd = exec.Command(program)
	h.cmd.Env = append(os.Environ(), errandVariable+"="+string(text), "HTTP_PROXY="+h.proxy, "NO_PROXY=")
	h.cmd.Stderr = logOf{h.t, new(atomic.Int32)}
	if h.stdin, err = h.cmd.StdinPipe(); err != nil {
		h.t.Fatal(err)
	}
	stdout, err := h.cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	h.lines = bufio.NewScanner(stdout)
	if err := h.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	cmd := h.cmd
	h.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
}

// end ends the process: with a signal or, for SIGTERM, in order, by closing its input.
func (h *history) end(s syscall.Signal) {
	h.t.Helper()
	if s == syscall.SIGTERM {
		h.stdin.Close()
	} else if err := h.cmd.Process.Signal(s); err != nil {
		h.t.Fatal(err)
	}
	err := h.cmd.Wait()
	var exit *exec.ExitError
	killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled()
	if killed {
		h.kills++
	} else if err != nil {
		h.t.Fatalf("the process ended by itself: %v", err)
	}
}

// say sends the process a command and returns its answer.
func (h *history) say(what string) string {
	h.t.Helper()
	if _, err := fmt.Fprintln(h.stdin, what); err != nil {
		h.t.Fatal(err)
	}
	if !h.lines.Scan() {
		h.t.Fatalf("%s: the process has ended: %v", what, h.lines.Err())
	}
	return h.lines.Text()
}

func (h *history) want(got, want string) {
	h.t.Helper()
	if got != want {
		h.t.Errorf("it answers %q, want %q", got, want)
	}
}

// sync waits until everything committed is durable, and records that state.
func (h *history) sync() {
	h.t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		answer := h.say("sync")
		txid, err := ltx.ParseTXID(answer)
		if err == nil {
			if txid < h.last {
				h.t.Errorf("txid %s after %s", txid, h.last)
			}
			h.last, h.acked[txid] = txid, dump(h.t, h.e.Path)
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("sync: %s", answer)
		}
	}
}

// wantState checks that the restored state is what it was when it was acknowledged.
func (h *history) wantState(txid ltx.TXID, want string) {
	h.t.Helper()
	h.restores++
	out := filepath.Join(h.t.TempDir(), "restored.db")
	if got := h.say("restore " + out + " " + txid.String()); got != txid.String() {
		h.t.Errorf("restore of txid %s: %s", txid, got)
		return
	}
	if got := dump(h.t, out); got != want {
		h.t.Errorf("txid %s is %q, was %q", txid, got, want)
	}
}
