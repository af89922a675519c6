package watchdog

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/policy"
)

const shrink = `
policy "shrink" {
  when     = wal.bytes > bytes("1MB")
  cooldown = "1h"
  checkpoint {
    stall_budget = "200ms"
    step "passive"  { repeat = 2 }
    step "truncate" { busy_timeout = "20ms" }
  }
}
`

// tuned is a policy with a tune block whose goal is out of reach.
const tuned = `
policy "tuned" {
  when = wal.bytes > bytes("1TB")
  checkpoint {
    stall_budget = "100ms"
    step "truncate" {}
  }
  tune "stall" {
    start = 0.1
    min   = 0.01
    max   = 0.2
    goal  = wal.bytes < bytes("1kB")
    mode  = "suggest"
  }
}
`

// policies parses policy blocks.
func policies(t testing.TB, text string) *policy.Set {
	t.Helper()
	parser := hclparse.NewParser()
	file, diags := parser.ParseHCL([]byte(text), "test.hcl")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	content, diags := file.Body.Content(&hcl.BodySchema{Blocks: policy.Blocks()})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	set, diags := policy.Parse(content.Blocks, &policy.Scope{Files: parser.Files(), Notifiers: []string{"webhook.ops"}})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return set
}

// scene is a simulated database: its WAL has a size, a reader may pin it, and checkpoints have
// given outcomes.
type scene struct {
	mu       sync.Mutex
	walBytes int64
	commits  uint32
	pinned   time.Time
	outcomes []sqlite.Outcome // of the next checkpoints; after them PASSIVE completes and TRUNCATE truncates
	calls    []sqlite.Mode
	samples  int
	polls    int
	opens    int
	closes   int
	onSample func()
	onOpen   func() error
	snapshot func(context.Context) error
	times    []time.Time
	clock    func() time.Time
	failWith error
}

func (s *scene) set(change func(*scene)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

func get[T any](s *scene, read func(*scene) T) T {
	s.mu.Lock()
	defer s.mu.Unlock()
	return read(s)
}

func (s *scene) Sample(context.Context) collector.Sample {
	s.mu.Lock()
	s.samples++
	s.times = append(s.times, time.Now())
	hook := s.onSample
	s.mu.Unlock()
	if hook != nil {
		hook()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sample := collector.Sample{At: s.clock(), DB: "app", State: collector.StateUp}
	sample.WAL = collector.WAL{Known: true, SizeBytes: s.walBytes, PageSize: 4096, Frames: uint32(s.walBytes / 4096),
		Change: s.commits}
	if !s.pinned.IsZero() {
		sample.Readers = collector.Readers{Active: 1, OldestFrame: 1, PinnedSince: s.pinned, OldestPID: 4711,
			OldestCommand: "python3"}
	}
	return sample
}

func (s *scene) Poll() { s.set(func(s *scene) { s.polls++ }) }

func (s *scene) Close() error {
	s.set(func(s *scene) { s.closes++ })
	return nil
}

func (s *scene) Checkpoint(_ context.Context, mode sqlite.Mode, _ sqlite.Budget) (sqlite.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, mode)
	result := sqlite.Result{Mode: mode, Outcome: sqlite.OutcomeComplete, Duration: time.Millisecond}
	if len(s.outcomes) > 0 {
		result.Outcome, s.outcomes = s.outcomes[0], s.outcomes[1:]
		if result.Outcome == sqlite.OutcomeFailed {
			return result, s.failWith
		}
		return result, nil
	}
	if mode == sqlite.Truncate {
		result.Outcome, result.Reclaimed, result.WriterStall = sqlite.OutcomeTruncated, s.walBytes, 5*time.Millisecond
		s.walBytes = 0
	}
	return result, nil
}

// target returns the scene as a target.
func (s *scene) target(name string) Target {
	if s.clock == nil {
		s.clock = time.Now
	}
	return Target{Name: name, Path: "/srv/" + name, Identity: "1", Open: func(context.Context) (Parts, error) {
		s.mu.Lock()
		s.opens++
		hook := s.onOpen
		s.mu.Unlock()
		if hook != nil {
			if err := hook(); err != nil {
				return Parts{}, err
			}
		}
		return Parts{Sampler: s, Checkpointer: s, Actions: Actions{Snapshot: s.snapshot}}, nil
	}}
}

// running is a watchdog whose Run is under way.
type running struct {
	*Watchdog
	stop  context.CancelFunc
	ended chan error
}

// run starts a watchdog; the test's end stops it.
func run(t *testing.T, o Options) *running {
	t.Helper()
	w := New(o)
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Watchdog: w, stop: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- w.Run(ctx, time.Second) }()
	t.Cleanup(func() {
		cancel()
		<-w.ended
	})
	return r
}

// end stops the watchdog and returns what Run returned.
func (r *running) end() error {
	r.stop()
	return <-r.ended
}

// eventually polls until the condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
		tick := time.NewTimer(2 * time.Millisecond)
		<-tick.C
	}
}

// journalOf collects a log.
type journalOf struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journalOf) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journalOf) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func (j *journalOf) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

var errTorn = errors.New("disk torn out")
