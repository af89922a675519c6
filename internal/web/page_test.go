package web

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/policy"
)

// The hashes in the page's policy are those of the elements that are served.
func TestPage_V1_hashes_what_is_served(t *testing.T) {
	t.Parallel()
	h := handler(t, start(t, twoDatabases...))
	for _, target := range []string{"/", "/?db=app", "/?trouble=1", "/?q=nobody"} {
		rw := ask(h, "GET", target, nil)
		policy := rw.Header().Get("Content-Security-Policy")
		for _, element := range []string{"style", "script"} {
			all := regexp.MustCompile(`(?s)<`+element+`[^>]*>(.*?)</`+element+`>`).FindAllStringSubmatch(rw.Body.String(), -1)
			if len(all) != 1 {
				t.Fatalf("%s has %d of <%s>", target, len(all), element)
			}
			sum := sha256.Sum256([]byte(all[0][1]))
			if want := element + "-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !strings.Contains(policy,
				want) {
				t.Errorf("%s: the policy %q lacks %s", target, policy, want)
			}
		}
	}
}

// refreshed requests the changes since a state of the page.
func refreshed(t *testing.T, h http.Handler, query string) (changes, int) {
	t.Helper()
	r := httptest.NewRequest("GET", "/page?"+query, nil)
	r.Host = "localhost"
	r.Header.Set("Accept-Encoding", "gzip")
	rw := httptest.NewRecorder()
	h.ServeHTTP(rw, r)
	size := rw.Body.Len()
	packed, err := gzip.NewReader(rw.Body)
	if err != nil {
		t.Fatalf("%d %v", rw.Code, err)
	}
	text, err := io.ReadAll(packed)
	if err != nil {
		t.Fatal(err)
	}
	var c changes
	if err := json.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	return c, size
}

func TestRefresh_V2_only_what_changed(t *testing.T) {
	t.Parallel()
	w, at := startChanging(t, fleet(200)...)
	h := Handler(Options{Watchdog: w, Logger: slog.New(slog.DiscardHandler)})
	all, size := refreshed(t, h, "since=0")
	if len(all.Rows) != 200 || len(all.Order) != 200 || size > 60<<10 {
		t.Fatalf("%d rows, %d in order, %d bytes; want all within 60 KB", len(all.Rows), len(all.Order), size)
	}
	next, _ := refreshed(t, h, "since="+all.Since+"&order="+all.OrderTag)
	for id := range next.Rows {
		if strings.HasPrefix(id, "db-tenant") {
			t.Fatalf("%s is sent again though nothing has changed: %s", id, next.Rows[id])
		}
	}
	if len(next.Order) != 0 {
		t.Errorf("the order is sent again")
	}
	// Every database is busy: each row has changed.
	for name, pointer := range at {
		s := *pointer.Load()
		s.WAL.SizeBytes += int64(len(name)) * 1e6
		pointer.Store(&s)
	}
	for deadline := time.Now().Add(time.Minute); ; <-time.After(5 * time.Millisecond) {
		busy, size := refreshed(t, h, "since="+all.Since+"&order="+all.OrderTag)
		if len(busy.Rows) == 199 { // the missing database has no WAL
			if size > 60<<10 {
				t.Errorf("a refresh of 200 busy databases has %d bytes, want at most 60 KB", size)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d rows have changed, want 199", len(busy.Rows))
		}
	}
	// A store is down: all databases are in trouble, and the answer is still small.
	for _, pointer := range at {
		s := *pointer.Load()
		s.Replicas = []collector.Replica{{Name: "s3.main", Reason: "unavailable",
			Err: "dial tcp 192.0.2.1:443: connect: no route to host", FailingSince: time.Now().Add(-time.Hour), LagSeconds: 3600,
			CaughtUp: time.Now().Add(-time.Hour)}}
		pointer.Store(&s)
	}
	for deadline := time.Now().Add(time.Minute); ; <-time.After(5 * time.Millisecond) {
		down, size := refreshed(t, h, "since=0&trouble=1")
		if len(down.Rows) == 200 {
			if size > 60<<10 {
				t.Errorf("a refresh of 200 databases in trouble has %d bytes, want at most 60 KB", size)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d rows are in trouble, want 200", len(down.Rows))
		}
	}
}

// The bar of a WAL is full at the size at which a policy of the database reduces it, or, if no
// policy does, at the size that counts as oversized.
func TestPage_WALOfItsLimit(t *testing.T) {
	t.Parallel()
	app := twoDatabases[0]
	none, diags := policy.Parse(nil, &policy.Scope{})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	for limit, policies := range map[string]*policy.Set{"64 MB": policy.Defaults(), "512 MB": none} {
		w := run(t, watchdog.Options{Policies: policies, Interval: 20 * time.Millisecond,
			Targets: []watchdog.Target{{Name: app.DB, Path: "/srv/" + app.DB, Open: opens(app)}}})
		page := ask(handler(t, w), "GET", "/?db=app", nil).Body.String()
		for _, want := range []string{" % of " + limit + `"`, "limit " + limit + "<"} {
			if !strings.Contains(page, want) {
				t.Errorf("the page lacks %q", want)
			}
		}
	}
}

// What a database, its path or a reader is called turns no other words of the page around.
func TestPage_marksOfDirection(t *testing.T) {
	t.Parallel()
	w := start(t, collector.Sample{DB: "a\u202eb", Path: "/srv/\xff\u202e/a.db", State: collector.StateUp,
		Err:     "open /srv/\u202e/a.db",
		WAL:     collector.WAL{Known: true, SizeBytes: 8 << 20, PageSize: 4096, Frames: 512},
		Disk:    collector.Disk{Known: true, Mountpoint: "/srv/\u202e"},
		Readers: collector.Readers{Active: 1, PinnedSince: time.Now(), OldestPID: 4711, OldestCommand: "\u202epy"}})
	for _, target := range []string{"/", "/?db=" + url.QueryEscape("a\u202eb")} {
		page := regexp.MustCompile(`(?s)<[^>]*>`).ReplaceAllString(ask(handler(t, w), "GET", target, nil).Body.String(), " ")
		if at := strings.Index(page, "\u202e"); at >= 0 || !utf8.ValidString(page) || !strings.Contains(page, `a\u202eb`) {
			t.Errorf("%s: at %d of %q", target, at, page)
		}
	}
}
