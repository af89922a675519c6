package notify

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sqlwatch/sqlwatch/internal/notify/channel"
)

// Every way in which a notification can end is counted once, with its reason.
func TestMetricsTellWhatBecameOfNotifications(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(slog.New(slog.DiscardHandler))
		answers := map[string]error{"works": nil, "refuses": fmt.Errorf("%d: %w", 403, channel.ErrRefused),
			"silent": io.ErrUnexpectedEOF}
		n.notifiers = map[string]*notifier{}
		for name, answer := range answers {
			n.metrics.zero(name)
			n.notifiers[name] = &notifier{target: channel.Target{Name: name}, firing: map[string]map[string]bool{},
				send: answering(func(channel.Message) error { return answer })}
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- n.Run(ctx) }()
		for name := range answers {
			n.post(t, name, Notice{})
		}
		synctest.Wait()
		wantMetrics(t, n, "works 1 0 0 0 0 0", "refuses 0 1 0 0 0 0", "silent 0 0 0 0 0 1")

		time.Sleep(keepTrying + 2*longWait) // on the bubble's clock
		synctest.Wait()
		wantMetrics(t, n, "silent 0 0 1 0 0 0")

		for i := range queueLimit + 2 {
			if _, err := n.enqueue("silent", Notice{Policy: fmt.Sprint(i)}); (err == nil) != (i < queueLimit) {
				t.Fatalf("message %d: %v", i, err)
			}
		}
		wantMetrics(t, n, fmt.Sprintf("silent 0 0 1 2 0 %d", queueLimit))
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		wantMetrics(t, n, fmt.Sprintf("silent 0 0 1 2 %d 0", queueLimit), "works 1 0 0 0 0 0")
	})
}

// wantMetrics compares notifiers' series; want has, for each, its name, the number sent, the
// numbers lost by reason, and the number waiting.
func wantMetrics(t *testing.T, n *Notifiers, want ...string) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(n)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			key := f.GetName()
			for _, l := range m.GetLabel() {
				key += " " + l.GetValue()
			}
			values[key] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	for _, w := range want {
		name, _, _ := strings.Cut(w, " ")
		got := fmt.Sprint(name, " ", values[metricSent.Name+" "+name])
		for _, reason := range lostReasons {
			got += fmt.Sprint(" ", values[metricFailures.Name+" "+name+" "+reason])
		}
		if got += fmt.Sprint(" ", values[metricWaiting.Name+" "+name]); got != w {
			t.Errorf("got %q, want %q", got, w)
		}
	}
}

// Series exist as soon as the configuration has the notifier, disappear with it, and contain no
// address.
func TestMetricsFollowTheConfiguration(t *testing.T) {
	n := New(slog.New(slog.DiscardHandler))
	configure := func(names ...string) string {
		var targets []channel.Target
		for _, name := range names {
			targets = append(targets, channel.Target{Name: name, Type: "webhook", URL: "https://hooks.example.org/" + canary})
		}
		if err := n.Configure(targets); err != nil {
			t.Fatal(err)
		}
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(n)
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(families)
	}
	page := configure("webhook.ops", "webhook.dev")
	if series := len(lostReasons) + 2; strings.Count(page, `"webhook.ops"`) != series ||
		strings.Count(page, `"webhook.dev"`) != series {
		t.Errorf("want %d series of each notifier: %s", series, page)
	}
	if strings.Contains(page, canary) || strings.Contains(page, "example") {
		t.Errorf("the address is shown: %s", page)
	}
	if page := configure("webhook.ops"); strings.Contains(page, "webhook.dev") || !strings.Contains(page, "webhook.ops") {
		t.Errorf("after one was removed: %s", page)
	}
}

func TestMetricsAreLintClean(t *testing.T) {
	n := New(slog.New(slog.DiscardHandler))
	if err := n.Configure([]channel.Target{webhook("https://hooks.example.org/")}); err != nil {
		t.Fatal(err)
	}
	problems, err := testutil.CollectAndLint(n)
	if err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}

// A message that is under way when its notifier is removed does not bring its series back, however it ends.
func TestMetricsOfARemovedNotifier(t *testing.T) {
	for name, answer := range map[string]error{"taken": nil, "refused": channel.ErrRefused, "lost": io.ErrUnexpectedEOF} {
		for _, typ := range []string{"webhook", channel.HeartbeatType} {
			t.Run(name+" by "+typ, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					release := make(chan struct{})
					n, _ := running(t, &notifier{target: channel.Target{Name: "ops", Type: typ, Every: time.Minute},
						send: answering(func(channel.Message) error { <-release; return answer })})
					n.metrics.zero("ops")
					ctx, cancel := context.WithCancel(t.Context())
					ended := make(chan error)
					go func() { ended <- n.Beat(ctx, func() Pulse { return Pulse{Alive: true} }) }()
					if typ == "webhook" {
						n.post(t, "ops", Notice{DB: "app", Policy: "p"})
					}
					time.Sleep(2 * time.Second)
					synctest.Wait()
					if err := n.Configure(nil); err != nil {
						t.Fatal(err)
					}
					close(release)
					time.Sleep(2 * keepTrying)
					synctest.Wait()
					cancel()
					<-ended
					if count := testutil.CollectAndCount(n); count != 0 {
						t.Errorf("%d series of a notifier that was removed", count)
					}
					if failing := n.Failing(); len(failing) != 0 {
						t.Errorf("it is failing: %v", failing)
					}
				})
			})
		}
	}
}
