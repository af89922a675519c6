package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/notify/channel"
)

// canary stands for the token in a webhook's address.
const canary = "c4n4ry-t0k3n"

// journal collects a log.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// running returns Notifiers that run until the test ends. Webhooks that a test creates itself are
// handed over before Run begins: from then on they belong to Run.
func running(t *testing.T, own ...*notifier) (*Notifiers, *journal) {
	t.Helper()
	log := &journal{}
	n := New(slog.New(slog.NewTextHandler(log, nil)))
	for _, w := range own {
		w.firing = map[string]map[string]bool{}
		n.notifiers[w.target.Name] = w
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		n.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		if strings.Contains(log.String(), canary) {
			t.Errorf("H10: the log shows the address's token:\n%s", log)
		}
	})
	return n, log
}

// post enqueues a notice without waiting for its delivery.
func (n *Notifiers) post(t *testing.T, name string, m Notice) {
	t.Helper()
	if _, err := n.enqueue(name, m); err != nil {
		t.Fatal(err)
	}
}

func webhook(url string) channel.Target {
	return channel.Target{Name: "webhook.ops", Type: "webhook", URL: url}
}

// answering returns a Send whose result is that of answer.
func answering(answer func(channel.Message) error) channel.Send {
	return func(_ context.Context, m channel.Message) (time.Duration, error) { return 0, answer(m) }
}

func TestDelivers(t *testing.T) {
	t.Parallel()
	got := make(chan channel.Message, 2)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m channel.Message
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil || r.Method != http.MethodPost ||
			r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s of %q: %v", r.Method, r.Header.Get("Content-Type"), err)
		}
		got <- m
	}))
	defer server.Close()
	n, _ := running(t)
	if err := n.Configure([]channel.Target{webhook(server.URL + "/" + canary)}); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	notice := Notice{DB: "app", Policy: "stale", Severity: "critical", Message: "app: replica is behind", Time: at}
	if err := n.Send(t.Context(), "webhook.ops", notice); err != nil {
		t.Fatal(err)
	}
	want := channel.Message{Status: "firing", DB: "app", Databases: []string{"app"}, Firing: 1, Policy: "stale",
		Severity: "critical", Message: "app: replica is behind", Text: "[critical] app: replica is behind", Time: at}
	m := <-got
	if !strings.HasPrefix(m.ID, "msg_") {
		t.Errorf("id %q", m.ID)
	}
	if m.ID = ""; !reflect.DeepEqual(m, want) {
		t.Errorf("got %+v, want %+v", m, want)
	}
	notice.Resolved, notice.Message = true, "app: it is over"
	if err := n.Send(t.Context(), "webhook.ops", notice); err != nil {
		t.Fatal(err)
	}
	if m := <-got; m.Status != "resolved" || m.Firing != 0 || m.Text != "[resolved] app: it is over" {
		t.Errorf("got %+v", m)
	}
	if err := n.Send(t.Context(), "webhook.other", notice); !errors.Is(err, ErrUnknown) {
		t.Errorf("an unknown notifier: %v", err)
	}
}

// What happens to three hundred databases at once is one message, and so is its end; each Send
// returns the result for its notice.
func TestGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent []channel.Message
		n, _ := running(t, &notifier{target: channel.Target{Name: "ops", GroupWait: 5 * time.Second},
			send: answering(func(m channel.Message) error { sent = append(sent, m); return nil })})
		var told atomic.Int64
		tell := func(resolved bool, from, to int) {
			for i := from; i < to; i++ {
				go func() {
					if n.Send(t.Context(), "ops", Notice{DB: fmt.Sprintf("db%03d", i), Policy: "disk", Severity: "critical",
						Message: "the disk is full", Resolved: resolved}) == nil {
						told.Add(1)
					}
				}()
				synctest.Wait()
				time.Sleep(10 * time.Millisecond)
			}
		}
		tell(false, 0, 300)
		n.post(t, "ops", Notice{DB: "other", Policy: "stale", Severity: "critical", Message: "another cause"})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if len(sent) != 2 || len(sent[0].Databases) != 300 || sent[0].Firing != 300 || told.Load() != 300 ||
			sent[0].Text != "[critical] 300 databases: the disk is full\ndb000, db001, db002, db003, db004, db005, db006, "+
				"db007, db008, db009 and 290 more" {
			t.Fatalf("%d messages, %d notices told, the first: %+v", len(sent), told.Load(), sent[0])
		}
		tell(true, 0, 299)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if last := sent[len(sent)-1]; len(sent) != 3 || last.Firing != 1 || !strings.HasSuffix(last.Text,
			"It still holds for 1.") {
			t.Errorf("%d messages, the last: %+v", len(sent), last)
		}
	})
}

// A notifier with NoResolved sends no resolved messages, and nobody waits for it.
func TestNoResolved(t *testing.T) {
	t.Parallel()
	n, _ := running(t, &notifier{target: channel.Target{Name: "ops", NoResolved: true},
		send: answering(func(channel.Message) error { t.Error("it was told"); return nil })})
	if err := n.Send(t.Context(), "ops", Notice{DB: "app", Resolved: true}); err != nil {
		t.Error(err)
	}
}

// Redirects are not followed, an answer's body is never shown, and what is refused permanently is
// not tried again.
func TestH6_Answers(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	asked := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked[r.URL.Path]++
		mu.Unlock()
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(rw, r, "/elsewhere", http.StatusTemporaryRedirect)
		case "/forbidden":
			http.Error(rw, "internal-body", http.StatusForbidden)
		}
	}))
	defer server.Close()
	for _, path := range []string{"redirect", "forbidden"} {
		n, log := running(t)
		if err := n.Configure([]channel.Target{webhook(server.URL + "/" + path + "?token=" + canary)}); err != nil {
			t.Fatal(err)
		}
		err := n.Send(t.Context(), "webhook.ops", Notice{DB: "app", Message: "hello"})
		if !errors.Is(err, channel.ErrRefused) || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v", path, err)
		}
		if why := n.Failing()["webhook.ops"]; why == "" || strings.Contains(why, canary) {
			t.Errorf("%s: the condition says %q", path, why)
		}
		if text := log.String(); strings.Contains(text, "internal-body") || !strings.Contains(text, "hello") {
			t.Errorf("%s: the log shows %s", path, text)
		}
		mu.Lock()
		if asked["/"+path] != 1 || asked["/elsewhere"] != 0 {
			t.Errorf("%s: asked %v", path, asked)
		}
		mu.Unlock()
	}
}

// A webhook that is down is tried again with growing pauses and delays no other, and its queue is
// bounded.
func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down, up []time.Duration
		began := time.Now()
		fails := 6
		n, log := running(t,
			&notifier{target: channel.Target{Name: "down"}, send: answering(func(channel.Message) error {
				down = append(down, time.Since(began))
				if len(down) <= fails {
					return fmt.Errorf("%w: reset", io.ErrUnexpectedEOF)
				}
				return nil
			})},
			&notifier{target: channel.Target{Name: "up"}, send: answering(func(channel.Message) error {
				up = append(up, time.Since(began))
				return nil
			})})
		for i := range queueLimit {
			n.post(t, "down", Notice{Policy: fmt.Sprint(i)})
		}
		if err := n.Send(t.Context(), "down", Notice{}); !errors.Is(err, ErrFull) {
			t.Errorf("message %d: %v", queueLimit+1, err)
		}
		n.post(t, "up", Notice{})
		synctest.Wait()
		if len(up) != 1 || up[0] != 0 {
			t.Errorf("the other webhook was called at %v", up)
		}
		if n.Failing()["down"] == "" || n.Failing()["up"] != "" {
			t.Errorf("failing: %v", n.Failing())
		}
		time.Sleep(2 * time.Minute) // on the bubble's clock
		synctest.Wait()
		if len(down) != queueLimit+fails {
			t.Fatalf("%d attempts, want %d", len(down), queueLimit+fails)
		}
		for i, longest := 1, firstWait; i <= fails; i, longest = i+1, 2*longest {
			if wait := down[i] - down[i-1]; wait < longest/2 || wait > longest {
				t.Errorf("pause %d is %s, want %s to %s", i, wait, longest/2, longest)
			}
		}
		if len(n.Failing()) != 0 {
			t.Errorf("failing after it answered: %v", n.Failing())
		}
		if warnings := strings.Count(log.String(), "level=WARN"); warnings != 1 {
			t.Errorf("%d warnings for one outage:\n%s", warnings, log)
		}
	})
}

// Messages that wait at shutdown have one more attempt; what fails then is in the log.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &journal{}
		n := New(slog.New(slog.NewTextHandler(log, nil)))
		calls := 0
		n.notifiers = map[string]*notifier{"down": {target: channel.Target{Name: "down"},
			firing: map[string]map[string]bool{},
			send: answering(func(channel.Message) error {
				calls++
				return io.ErrUnexpectedEOF
			})}}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- n.Run(ctx) }()
		told := make(chan error)
		go func() { told <- n.Send(ctx, "down", Notice{Message: "the last words"}) }()
		synctest.Wait()
		cancel()
		if err := <-told; !errors.Is(err, errEnded) {
			t.Errorf("who waited was told %v", err)
		}
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if calls != 2 || !strings.Contains(log.String(), "not delivered before the shutdown") ||
			!strings.Contains(log.String(), "the last words") {
			t.Errorf("%d attempts; log:\n%s", calls, log)
		}
	})
}

// A reload that leaves a notifier unchanged keeps its queue, one that changes its address sends
// the queue there, and one with a bad address changes nothing.
func TestConfigure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		arrived := map[string]int{}
		answer := func(place string, err error) *notifier {
			return &notifier{target: channel.Target{Name: "webhook.ops"}, firing: map[string]map[string]bool{},
				send: answering(func(channel.Message) error { arrived[place]++; return err })}
		}
		n, _ := running(t, answer("old", io.ErrUnexpectedEOF))
		told := make(chan error, 1)
		go func() { told <- n.Send(t.Context(), "webhook.ops", Notice{DB: "app", Policy: "p"}) }()
		synctest.Wait()
		if err := n.Configure([]channel.Target{webhook("ftp://x")}); err == nil {
			t.Error("a bad address was accepted")
		}
		// This is what Configure does, with a channel of the test.
		n.mu.Lock()
		old, now := n.notifiers["webhook.ops"], answer("new", nil)
		now.queue, now.firing, old.queue = old.queue, old.firing, nil
		n.notifiers["webhook.ops"] = now
		n.mu.Unlock()
		n.look()
		if err := <-told; err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if arrived["old"] != 1 || arrived["new"] != 1 {
			t.Errorf("arrived: %v", arrived)
		}
		go func() { told <- n.Send(t.Context(), "webhook.ops", Notice{DB: "app", Policy: "q"}) }()
		<-told
		n.mu.Lock()
		n.notifiers["webhook.ops"].send = answering(func(channel.Message) error { return io.ErrUnexpectedEOF })
		n.mu.Unlock()
		go func() { told <- n.Send(t.Context(), "webhook.ops", Notice{DB: "app", Policy: "r"}) }()
		synctest.Wait()
		if err := n.Configure(nil); err != nil {
			t.Fatal(err)
		}
		if err := <-told; !errors.Is(err, errGone) {
			t.Errorf("who waited for one that is gone was told %v", err)
		}
	})
}

// A heartbeat's address is requested at its interval while all is well, its failure address as
// soon as something is critical, and neither while the loop stands still.
func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // guards the lists of requests, and the pulse
		var pings, fails []time.Duration
		began := time.Now()
		n, _ := running(t, &notifier{target: channel.Target{Name: "heartbeat.hc", Type: channel.HeartbeatType,
			Every: time.Minute},
			send: answering(func(m channel.Message) error {
				mu.Lock()
				defer mu.Unlock()
				if m.Status == channel.Resolved {
					pings = append(pings, time.Since(began))
				} else {
					fails = append(fails, time.Since(began))
				}
				return nil
			})})
		pulse := Pulse{Alive: true}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			ended <- n.Beat(ctx, func() Pulse { mu.Lock(); defer mu.Unlock(); return pulse })
		}()
		pass := func(d time.Duration) {
			t.Helper()
			mu.Unlock()
			time.Sleep(d)
			synctest.Wait()
			mu.Lock()
		}
		mu.Lock()
		defer mu.Unlock()
		pass(5*time.Minute + 500*time.Millisecond)
		if len(pings) != 5 || len(fails) != 0 {
			t.Errorf("in five minutes: %v, %v", pings, fails)
		}
		pulse.Wrong = "app missing"
		pass(2 * time.Second)
		if len(fails) != 1 {
			t.Errorf("two seconds after something is critical: %v", fails)
		}
		pings, fails = nil, nil
		for range 5 * 30 { // the state changes each second
			pulse = Pulse{Alive: true}
			pass(time.Second)
			pulse.Wrong = "app missing"
			pass(time.Second)
		}
		if len(pings) > 5 || len(fails) < 4 || len(pings)+len(fails) > 5*6+1 {
			t.Errorf("in five minutes in which the state flaps: %d pings, %d fails", len(pings), len(fails))
		}
		pings, fails = make([]time.Duration, 5), make([]time.Duration, 1)
		pulse = Pulse{}
		pass(5 * time.Minute)
		if len(pings) != 5 || len(fails) != 1 {
			t.Errorf("while the loop stands still: %v, %v", pings, fails)
		}
		mu.Unlock()
		defer mu.Lock()
		if err := n.Send(ctx, "heartbeat.hc", Notice{}); !errors.Is(err, ErrUnknown) {
			t.Errorf("a notice to a heartbeat: %v", err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// An incident of several databases ends with the last of them, even if it was reported before a
// restart.
func TestAnIncidentOverARestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var sent []channel.Message
		n, _ := running(t, &notifier{target: channel.Target{Name: "ops"},
			send: answering(func(m channel.Message) error { sent = append(sent, m); return nil })})
		n.Holds("ops", "a", "disk")
		n.Holds("ops", "b", "disk")
		n.Holds("nobody", "b", "disk")
		for i, db := range []string{"a", "b"} {
			n.post(t, "ops", Notice{DB: db, Policy: "disk", Severity: "critical", Message: "over", Resolved: true})
			time.Sleep(10 * time.Second)
			synctest.Wait()
			if len(sent) != i+1 || sent[i].Firing != 1-i {
				t.Fatalf("after the end in %s: %+v", db, sent)
			}
		}
	})
}

// An incident ends with the last database of which the other side was told: one whose message was refused does
// not keep it open, nor one whose end nobody waits for any more.
func TestIncidentsEnd(t *testing.T) {
	t.Parallel()
	var sent []channel.Message
	answer := error(nil)
	n, _ := running(t, &notifier{target: channel.Target{Name: "ops"}, send: answering(func(m channel.Message) error {
		sent = append(sent, m)
		return answer
	})}, &notifier{target: channel.Target{Name: "quiet", NoResolved: true}, send: answering(func(m channel.Message) error {
		sent = append(sent, m)
		return nil
	})})
	tell := func(name, db string, resolved bool) error {
		return n.Send(t.Context(), name, Notice{DB: db, Policy: "disk", Severity: "critical", Resolved: resolved})
	}
	answer = channel.ErrRefused
	if err := tell("ops", "refused", false); err == nil {
		t.Fatal("no error of a message that was refused")
	}
	answer = nil
	for _, resolved := range []bool{false, true} {
		if err := tell("ops", "app", resolved); err != nil {
			t.Fatal(err)
		}
	}
	if last := sent[len(sent)-1]; last.Status != channel.Resolved || last.Firing != 0 {
		t.Errorf("the end: %+v", last)
	}
	for _, m := range []struct {
		db       string
		resolved bool
	}{{"a", false}, {"a", true}, {"b", false}} {
		if err := tell("quiet", m.db, m.resolved); err != nil {
			t.Fatal(err)
		}
	}
	if last := sent[len(sent)-1]; last.Firing != 1 {
		t.Errorf("without the ends: %d databases, want b alone", last.Firing)
	}
}

// Where a policy or a database leaves the configuration, its end is told once, to those who were told of it.
func TestDrop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var sent []channel.Message
		n, _ := running(t, &notifier{target: channel.Target{Name: "ops"}, send: answering(func(m channel.Message) error {
			sent = append(sent, m)
			return nil
		})}, &notifier{target: channel.Target{Name: "other"}, send: answering(func(m channel.Message) error {
			t.Errorf("told %+v", m)
			return nil
		})})
		if err := n.Send(t.Context(), "ops", Notice{DB: "app", Policy: "disk", Severity: "critical"}); err != nil {
			t.Fatal(err)
		}
		n.Drop("app", "disk")
		n.Drop("app", "disk")
		n.Drop("app", "unknown")
		synctest.Wait()
		if last := sent[len(sent)-1]; len(sent) != 2 || last.Status != channel.Resolved || last.Firing != 0 {
			t.Errorf("sent %+v", sent)
		}
	})
}

// TestPanic_P18: a fault of sqlwatch while a message is sent is a failed attempt, which is repeated.
func TestPanic_P18(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		n, log := running(t, &notifier{target: channel.Target{Name: "ops"}, send: answering(func(channel.Message) error {
			if tries++; tries == 1 {
				panic("torn")
			}
			return nil
		})})
		if err := n.Send(t.Context(), "ops", Notice{DB: "app", Policy: "big", Severity: "warning"}); err != nil {
			t.Error(err)
		}
		if tries != 2 || !strings.Contains(log.String(), "fault of sqlwatch: torn") {
			t.Errorf("%d attempts:\n%s", tries, log)
		}
	})
}
