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
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
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

// running returns Notifiers at work until the test ends. Webhooks that a test
// makes itself are handed over before Run begins: from then on they are Run's.
func running(t *testing.T, own ...*webhook) (*Notifiers, *journal) {
	t.Helper()
	log := &journal{}
	n := New(slog.New(slog.NewTextHandler(log, nil)))
	for _, w := range own {
		n.webhooks[w.target.Name] = w
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

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); <-time.After(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func TestDelivers(t *testing.T) {
	got := make(chan Message, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m Message
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil || r.Method != http.MethodPost ||
			r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s of %q: %v", r.Method, r.Header.Get("Content-Type"), err)
		}
		got <- m
	}))
	defer server.Close()
	n, _ := running(t)
	if err := n.Configure([]Target{{Name: "webhook.ops", URL: server.URL + "/" + canary}}); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	want := Message{DB: "app", Policy: "stale", Severity: "critical", Message: "app: replica is behind", Time: at}
	if err := n.Send("webhook.ops", want); err != nil {
		t.Fatal(err)
	}
	want.Text = "[critical] app: replica is behind"
	if m := <-got; m != want {
		t.Errorf("got %+v, want %+v", m, want)
	}
	if err := n.Send("webhook.other", want); !errors.Is(err, ErrUnknown) {
		t.Errorf("an unknown notifier: %v", err)
	}
}

// What must not be posted to is refused, at check time or when it is dialled,
// and no text shows the address.
func TestH6_Addresses(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"file:///etc/passwd?" + canary, "http://example.org/" + canary, "gopher://example.org/" + canary,
		"https://", "https://user:" + canary + "@[", "://" + canary,
	} {
		err := New(slog.New(slog.DiscardHandler)).Configure([]Target{{Name: "webhook.ops", URL: url}})
		if err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v", url, err)
		}
	}
	for _, url := range []string{"https://example.org/x", "http://localhost:1/x", "http://127.0.0.1:1/x",
		"http://[::1]:1/x"} {
		if _, err := newPoster(Target{URL: url}); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	if _, err := newPoster(Target{URL: "http://example.org/x", AllowHTTP: true}); err != nil {
		t.Errorf("allow_http: %v", err)
	}
	for address, allowed := range map[string]bool{
		"169.254.169.254:80": false, "[fe80::1%eth0]:443": false, "[::ffff:169.254.169.254]:80": false,
		"[fd00:ec2::254]:80": false,
		"100.100.100.200:80": false, "0.0.0.0:80": false, "[::]:80": false, "224.0.0.1:80": false,
		"255.255.255.255:80": false,
		"127.0.0.1:443":      false, "[::1]:443": false, "[::ffff:127.0.0.1]:443": false, "nonsense": false,
		"93.184.216.34:443": true, "10.1.2.3:443": true, "[2606:2800:220::1]:443": true,
	} {
		if err := checkAddress(address, false); (err == nil) != allowed {
			t.Errorf("%s: %v, want allowed=%v", address, err, allowed)
		}
	}
	if err := checkAddress("127.0.0.1:80", true); err != nil {
		t.Errorf("this machine, by its own name: %v", err)
	}
	post, err := newPoster(Target{URL: "https://169.254.169.254/" + canary})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := post(t.Context(), Message{}); !errors.Is(err, errAddress) || !errors.Is(err, errRefused) ||
		strings.Contains(err.Error(), canary) {
		t.Errorf("the metadata service: %v", err)
	}
}

// Redirects are not followed, an answer's body is shown to nobody, and what is
// refused for good is not tried again.
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
		if err := n.Configure([]Target{{Name: "webhook.ops", URL: server.URL + "/" + path + "?token=" +
			canary}}); err != nil {
			t.Fatal(err)
		}
		if err := n.Send("webhook.ops", Message{DB: "app", Message: "hello"}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the message is given up", func() bool { return strings.Contains(log.String(), "given up") })
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

// A webhook that is down is tried again with growing pauses, delays no other, and
// its queue is bounded.
func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down, up []time.Duration
		began := time.Now()
		fails := 6
		n, log := running(t,
			&webhook{target: Target{Name: "down"}, post: func(context.Context, Message) (time.Duration, error) {
				down = append(down, time.Since(began))
				if len(down) <= fails {
					return 0, fmt.Errorf("%w: reset", io.ErrUnexpectedEOF)
				}
				return 0, nil
			}},
			&webhook{target: Target{Name: "up"}, post: func(context.Context, Message) (time.Duration, error) {
				up = append(up, time.Since(began))
				return 0, nil
			}})
		for i := range queueLimit {
			if err := n.Send("down", Message{Message: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := n.Send("down", Message{}); !errors.Is(err, ErrFull) {
			t.Errorf("message %d: %v", queueLimit+1, err)
		}
		if err := n.Send("up", Message{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(up) != 1 || up[0] != 0 {
			t.Errorf("the other webhook was called at %v", up)
		}
		time.Sleep(2 * time.Minute) // of the bubble's clock
		synctest.Wait()
		if len(down) != queueLimit+fails {
			t.Fatalf("%d attempts, want %d", len(down), queueLimit+fails)
		}
		for i, longest := 1, firstWait; i <= fails; i, longest = i+1, 2*longest {
			if wait := down[i] - down[i-1]; wait < longest/2 || wait > longest {
				t.Errorf("pause %d is %s, want %s to %s", i, wait, longest/2, longest)
			}
		}
		if warnings := strings.Count(log.String(), "level=WARN"); warnings != 1 {
			t.Errorf("%d warnings for one outage:\n%s", warnings, log)
		}
	})
}

// What waits at the shutdown has one more attempt; what then fails is in the log.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &journal{}
		n := New(slog.New(slog.NewTextHandler(log, nil)))
		calls := 0
		n.webhooks = map[string]*webhook{"down": {target: Target{Name: "down"},
			post: func(context.Context, Message) (time.Duration, error) {
				calls++
				return 0, io.ErrUnexpectedEOF
			}}}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- n.Run(ctx) }()
		if err := n.Send("down", Message{Message: "the last words"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if calls != 2 || !strings.Contains(log.String(), "not delivered before the shutdown") ||
			!strings.Contains(log.String(), "the last words") {
			t.Errorf("%d attempts; log:\n%s", calls, log)
		}
	})
}

// A reload that leaves a webhook as it was keeps what waits for it; one with a
// bad address changes nothing.
func TestConfigure(t *testing.T) {
	n := New(slog.New(slog.DiscardHandler))
	ops, dev := Target{Name: "ops", URL: "https://a.example/1"}, Target{Name: "dev", URL: "https://a.example/2"}
	if err := n.Configure([]Target{ops, dev}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(n.Send("ops", Message{}), n.Send("dev", Message{})); err != nil {
		t.Fatal(err)
	}
	if err := n.Configure([]Target{{Name: "ops", URL: "ftp://x"}}); err == nil {
		t.Error("a bad address was accepted")
	}
	dev.URL = "https://a.example/3"
	if err := n.Configure([]Target{ops, dev}); err != nil {
		t.Fatal(err)
	}
	if a, b := len(n.webhooks["ops"].queue), len(n.webhooks["dev"].queue); a != 1 || b != 0 {
		t.Errorf("%d wait for the same webhook, %d for the changed one; want 1 and 0", a, b)
	}
}
