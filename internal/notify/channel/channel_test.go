package channel

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// canary stands for the secrets of a target.
const canary = "c4n4ry-t0k3n"

// Addresses to which nothing may be posted are refused, when the configuration is checked or when
// they are dialled, and no text shows the address.
func TestH6_Addresses(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"file:///etc/passwd?" + canary, "http://example.org/" + canary, "gopher://example.org/" + canary,
		"https://", "https://user:" + canary + "@[", "://" + canary,
	} {
		err := Target{Name: "webhook.ops", Type: "webhook", URL: url}.Validate()
		if err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v", url, err)
		}
	}
	for _, url := range []string{"https://example.org/x", "http://localhost:1/x", "http://127.0.0.1:1/x",
		"http://[::1]:1/x"} {
		if _, err := New(Target{Type: "webhook", URL: url}); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	if _, err := New(Target{Type: "webhook", URL: "http://example.org/x", AllowHTTP: true}); err != nil {
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
	post, err := New(Target{Type: "webhook", URL: "https://169.254.169.254/" + canary})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := post(t.Context(), Message{}); !errors.Is(err, errAddress) || !errors.Is(err, ErrRefused) ||
		strings.Contains(err.Error(), canary) {
		t.Errorf("the metadata service: %v", err)
	}
}

// A key with a line break at its end, as from a Kubernetes secret, is refused when the configuration is
// checked: no message could ever be sent with it.
func TestHeaders(t *testing.T) {
	t.Parallel()
	for _, target := range []Target{
		{Type: "webhook", Headers: map[string]string{"Authorization": "Bearer " + canary + "\n"}},
		{Type: "webhook", Headers: map[string]string{"X-Api-Key": canary + "\r"}},
		{Type: "webhook", Headers: map[string]string{"X Api Key": canary}},
		{Type: "webhook", Headers: map[string]string{"": canary}},
		{Type: "ntfy", Token: canary + "\n"},
	} {
		target.Name, target.URL = "x.ops", "https://example.org/x"
		if err := target.Validate(); err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("%s %q %q: %v", target.Type, target.Headers, target.Token, err)
		}
	}
}

// taken is a request that a service received.
type taken struct {
	method, path string
	header       http.Header
	body         []byte
}

// service answers as a public service does, and keeps the requests.
func service(t *testing.T, status int) (address string, got chan taken) {
	t.Helper()
	got = make(chan taken, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got <- taken{r.Method, r.URL.Path, r.Header, body}
		w.WriteHeader(status)
	}))
	t.Cleanup(server.Close)
	return server.URL, got
}

// deliver sends one message and returns the request that the service received.
func deliver(t *testing.T, target Target, m Message, got chan taken) taken {
	t.Helper()
	send, err := New(target)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	return <-got
}

var stale = Message{ID: "msg_1", Status: Firing, DB: "app", Databases: []string{"app", "<!channel>"}, Firing: 2,
	Policy: "replica-stale", Severity: "critical", Message: "app: the replica is behind",
	Text: "[critical] 2 databases: app is behind\napp, <!channel>", Time: time.Unix(1770000000, 0).UTC()}

// Field names and limits are those of the services' public documentation: Slack's incoming
// webhooks, Discord's Execute Webhook, ntfy's publishing as JSON, PagerDuty's Events API v2.
func TestFormats(t *testing.T) {
	t.Parallel()
	resolved := stale
	resolved.Status, resolved.Firing, resolved.Text = Resolved, 0, "[resolved] app"
	long := stale
	long.Text = strings.Repeat("é", 5000)
	for name, test := range map[string]struct {
		target Target
		m      Message
		status int
		path   string
		want   map[string]any // of the body's top level; nested as dotted names
		header map[string]string
	}{
		"slack": {Target{Type: "slack", URL: "/services/T0/B0/x"}, stale, 200, "/services/T0/B0/x",
			map[string]any{"text": "[critical] 2 databases: app is behind\napp, &lt;!channel&gt;"}, nil},
		"discord": {Target{Type: "discord", URL: "/api/webhooks/1/x"}, stale, 204, "/api/webhooks/1/x",
			map[string]any{"content": stale.Text, "username": "sqlwatch", "allowed_mentions.parse": []any{}}, nil},
		"discord long": {Target{Type: "discord", URL: "/api/webhooks/1/x"}, long, 204, "/api/webhooks/1/x",
			map[string]any{"content": strings.Repeat("é", 1999) + "…"}, nil},
		"ntfy": {Target{Type: "ntfy", URL: "/alerts", Token: "tk_" + canary}, stale, 200, "/",
			map[string]any{"topic": "alerts", "title": "[critical] 2 databases: replica-stale", "message": stale.Text,
				"priority": 5.0, "tags": []any{"rotating_light"}},
			map[string]string{"Authorization": "Bearer tk_" + canary}},
		"ntfy resolved": {Target{Type: "ntfy", URL: "/alerts"}, resolved, 200, "/",
			map[string]any{"topic": "alerts", "priority": 3.0, "tags": []any{"white_check_mark"}}, nil},
		"pagerduty": {Target{Type: "pagerduty", URL: "/v2/enqueue", Key: canary}, stale, 202, "/v2/enqueue",
			map[string]any{"routing_key": canary, "event_action": "trigger", "payload.severity": "critical",
				"payload.summary": stale.Text, "payload.component": "app", "payload.group": "replica-stale",
				"payload.timestamp": "2026-02-02T02:40:00Z"}, nil},
		"pagerduty resolved": {Target{Type: "pagerduty", URL: "/v2/enqueue", Key: canary}, resolved, 202, "/v2/enqueue",
			map[string]any{"routing_key": canary, "event_action": "resolve"}, nil},
		"webhook": {Target{Type: "webhook", URL: "/x", Headers: map[string]string{"X-Api-Key": canary}}, stale, 200, "/x",
			map[string]any{"id": "msg_1", "status": "firing", "db": "app", "databases": []any{"app", "<!channel>"},
				"firing": 2.0, "policy": "replica-stale", "severity": "critical", "message": stale.Message, "text": stale.Text,
				"time": "2026-02-02T02:40:00Z"}, map[string]string{"X-Api-Key": canary}},
		"template": {Target{Type: "webhook", URL: "/x", Template: `{"summary": {{ json .Text }}, "n": {{ len .Databases }}}`},
			stale, 200, "/x", map[string]any{"summary": stale.Text, "n": 2.0}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, got := service(t, test.status)
			test.target.URL = address + test.target.URL
			r := deliver(t, test.target, test.m, got)
			if r.method != http.MethodPost || r.path != test.path ||
				!strings.HasPrefix(r.header.Get("Content-Type"), "application/json") {
				t.Errorf("%s %s %v", r.method, r.path, r.header)
			}
			for k, v := range test.header {
				if r.header.Get(k) != v {
					t.Errorf("%s: %q, want %q", k, r.header.Get(k), v)
				}
			}
			var body map[string]any
			if err := json.Unmarshal(r.body, &body); err != nil {
				t.Fatalf("%v: %s", err, r.body)
			}
			for k, want := range test.want {
				outer, inner, nested := strings.Cut(k, ".")
				value := body[outer]
				if nested {
					value = value.(map[string]any)[inner]
				}
				if fmt.Sprint(value) != fmt.Sprint(want) {
					t.Errorf("%s: got %v, want %v", k, value, want)
				}
			}
		})
	}
}

// An incident that continues for some databases is not closed by the end for others.
func TestPagerDutyStaysOpen(t *testing.T) {
	t.Parallel()
	address, got := service(t, 202)
	send, err := New(Target{Type: "pagerduty", URL: address, Key: canary})
	if err != nil {
		t.Fatal(err)
	}
	m := stale
	m.Status = Resolved
	if _, err := send(t.Context(), m); err != nil || len(got) != 0 {
		t.Errorf("%v, %d requests", err, len(got))
	}
}

// The signature is that of the Standard Webhooks specification: it equals the one in the
// specification's example, and what a receiver computes from the request.
func TestSignature(t *testing.T) {
	t.Parallel()
	key, err := signingKey("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	c := call{header: map[string]string{}, body: []byte(`{"test": 2432232314}`)}
	sign(c, key, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0))
	if got, want := c.header["webhook-signature"], "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	address, got := service(t, 200)
	r := deliver(t, Target{Type: "webhook", URL: address, Secret: "plain " + canary}, stale, got)
	at, err := strconv.ParseInt(r.header.Get("webhook-timestamp"), 10, 64)
	if err != nil || time.Since(time.Unix(at, 0)).Abs() > time.Minute {
		t.Errorf("timestamp %v, %v", at, err)
	}
	again := call{header: map[string]string{}, body: r.body}
	sign(again, []byte("plain "+canary), r.header.Get("webhook-id"), time.Unix(at, 0))
	if again.header["webhook-signature"] != r.header.Get("webhook-signature") {
		t.Error("the signature is not that of the body")
	}
}

// Heartbeats request their address while all is well, and post to its failure address otherwise.
func TestHeartbeat(t *testing.T) {
	t.Parallel()
	address, got := service(t, 200)
	target := Target{Type: HeartbeatType, URL: address + "/uuid"}
	if r := deliver(t, target, Message{Status: Resolved}, got); r.method != http.MethodGet || r.path != "/uuid" {
		t.Errorf("%s %s", r.method, r.path)
	}
	wrong := Message{Status: Firing, Text: "app: missing"}
	if r := deliver(t, target, wrong, got); r.method != http.MethodPost || r.path != "/uuid/fail" ||
		string(r.body) != "app: missing" {
		t.Errorf("%s %s %s", r.method, r.path, r.body)
	}
	target.FailURL = address + "/down?x=1"
	if r := deliver(t, target, wrong, got); r.path != "/down" {
		t.Errorf("%s", r.path)
	}
}

// The status of an answer decides whether trying again is of use.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]bool{400: true, 403: true, 404: true, 410: true, 302: true, 408: false, 429: false,
		500: false, 503: false} {
		address, _ := service(t, status)
		send, err := New(Target{Type: "slack", URL: address + "/" + canary})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := send(t.Context(), stale); err == nil || errors.Is(err, ErrRefused) != want ||
			strings.Contains(err.Error(), canary) {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// Targets that can never deliver are refused before the first message.
func TestBadTargets(t *testing.T) {
	t.Parallel()
	for name, target := range map[string]Target{
		"no type":               {Type: "pager"},
		"bad template":          {Type: "webhook", URL: "https://x.example/", Template: "{{ .Nothing }}"},
		"half template":         {Type: "webhook", URL: "https://x.example/", Template: "{{ .Text "},
		"not JSON":              {Type: "webhook", URL: "https://x.example/", Template: `{"text": "{{ .Text }}"}`},
		"no JSON of some names": {Type: "webhook", URL: "https://x.example/", Template: `{"db": "{{ .DB }}"}`},
		"empty template":        {Type: "webhook", URL: "https://x.example/", Template: `{{ if eq .DB "x" }}1{{ end }}`},
		"bad secret":            {Type: "webhook", URL: "https://x.example/", Secret: "whsec_!!"},
		"no topic":              {Type: "ntfy", URL: "https://ntfy.sh/"},
		"no key":                {Type: "pagerduty"},
		"relative":              {Type: "exec", Command: []string{"notify.sh"}},
		"nothing":               {Type: "exec"},
		"no port": {Type: "email", Mail: Mail{Host: "mail.example.org", From: "a@example.org",
			To: []string{"b@example.org"}}},
		"bad sender":   {Type: "email", Mail: Mail{Host: "mail.example.org:25", From: "a b", To: []string{"b@example.org"}}},
		"nobody":       {Type: "email", Mail: Mail{Host: "mail.example.org:25", From: "a@example.org"}},
		"bad fail_url": {Type: HeartbeatType, URL: "https://x.example/", FailURL: "ftp://x"},
		"open password": {Type: "email", Mail: Mail{Host: "mail.example.org:25", From: "a@example.org",
			To: []string{"b@example.org"}, User: "u", Password: canary, TLS: "none"}},
	} {
		if err := target.Validate(); err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// No verb, encoding or log line shows the secrets.
func TestTargetsPrintTheirNames(t *testing.T) {
	t.Parallel()
	target := Target{Name: "email.ops", URL: canary, Secret: canary, Token: canary, Key: canary,
		Mail:    Mail{Password: canary},
		Headers: map[string]string{"x": canary}}
	data, err := json.Marshal(map[string]any{"t": target, "p": &target})
	if text := fmt.Sprintf("%v %+v %#v %s %q %x %s %v", target, target, target, target, target, target, data,
		target.LogValue()); err != nil || strings.Contains(text, canary) || !strings.Contains(text, "email.ops") {
		t.Errorf("%s %v", text, err)
	}
}

// post is a mail server for one connection that keeps the letters it receives.
func post(t *testing.T, recipient string) (address string, letters chan string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	letters = make(chan string, 10)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(conn, recipient, letters)
		}
	}()
	return listener.Addr().String(), letters
}

func serve(conn net.Conn, recipient string, letters chan string) {
	defer conn.Close()
	lines := bufio.NewScanner(conn)
	say := func(text string) { fmt.Fprint(conn, text+"\r\n") }
	say("220 mail.example.org ESMTP")
	for lines.Scan() {
		switch word := strings.ToUpper(strings.Fields(lines.Text() + " .")[0]); word {
		case "EHLO":
			say("250-mail.example.org\r\n250-8BITMIME\r\n250 AUTH PLAIN LOGIN")
		case "AUTH":
			if lines.Text() != "AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00ops\x00"+canary)) {
				say("535 5.7.8 wrong: " + canary)
				continue
			}
			say("235 2.7.0 good")
		case "RCPT":
			say(recipient)
		case "DATA":
			say("354 continue")
			var letter strings.Builder
			for lines.Scan() && lines.Text() != "." {
				letter.WriteString(lines.Text() + "\n")
			}
			letters <- letter.String()
			say("250 2.0.0 queued")
		case "QUIT":
			say("221 2.0.0 bye")
			return
		default:
			say("250 2.0.0 fine")
		}
	}
}

func TestEmail(t *testing.T) {
	t.Parallel()
	address, letters := post(t, "250 2.1.5 fine")
	target := Target{Type: "email", Mail: Mail{Host: address, From: "sqlwatch@example.org", To: []string{"ops@example.org",
		"Bob <bob@example.org>"}, User: "ops", Password: canary, TLS: "none"}}
	send, err := New(target)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := send(t.Context(), stale); err != nil {
		t.Fatal(err)
	}
	letter := <-letters
	for _, want := range []string{"Subject: [critical] 2 databases: replica-stale", "From: <sqlwatch@example.org>",
		"ops@example.org", "bob@example.org", "Auto-Submitted: auto-generated", "app is behind", "Message-ID:"} {
		if !strings.Contains(letter, want) {
			t.Errorf("the letter lacks %q:\n%s", want, letter)
		}
	}
	target.Mail.Password = "another " + canary
	if send, err = New(target); err != nil {
		t.Fatal(err)
	}
	if _, err := send(t.Context(), stale); !errors.Is(err, ErrRefused) || strings.Contains(err.Error(), "another") {
		t.Errorf("a wrong password: %v", err)
	}
	for answer, lasting := range map[string]bool{"550 5.1.1 no such user": true, "451 4.3.0 later": false} {
		address, letters := post(t, answer)
		send, err := New(Target{Type: "email", Mail: Mail{Host: address, From: "a@example.org", To: []string{"b@example.org"},
			TLS: "none"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := send(t.Context(), stale); err == nil || errors.Is(err, ErrRefused) != lasting || len(letters) > 0 {
			t.Errorf("%s: %v", answer, err)
		}
	}
	// If TLS is required, nothing is sent without it.
	target.Mail.TLS = "starttls"
	if send, err = New(target); err != nil {
		t.Fatal(err)
	}
	if _, err := send(t.Context(), stale); err == nil || len(letters) > 0 {
		t.Errorf("without STARTTLS: %v", err)
	}
	// Mail cannot be used to reach the metadata service either.
	send, err = New(Target{Type: "email", Mail: Mail{Host: "169.254.169.254:25", From: "a@example.org",
		To: []string{"b@example.org"}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := send(t.Context(), stale); !errors.Is(err, ErrRefused) {
		t.Errorf("link-local: %v", err)
	}
}

func script(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "notify")
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestExec(t *testing.T) {
	t.Setenv("B2_APP_KEY", canary)
	dir := t.TempDir()
	run := func(ctx context.Context, timeout time.Duration, command ...string) error {
		t.Helper()
		send, err := New(Target{Type: "exec", Command: command, Timeout: timeout})
		if err != nil {
			t.Fatal(err)
		}
		_, err = send(ctx, stale)
		return err
	}
	name := script(t, `cat > "$1/in"; env > "$1/env"`)
	if err := run(t.Context(), time.Minute, name, dir, "$(touch "+dir+"/shell)"); err != nil {
		t.Fatal(err)
	}
	var m Message
	if data, err := os.ReadFile(filepath.Join(dir, "in")); err != nil || json.Unmarshal(data, &m) != nil ||
		m.Policy != stale.Policy || len(m.Databases) != 2 {
		t.Errorf("%s %v", data, err)
	}
	if env, err := os.ReadFile(filepath.Join(dir, "env")); err != nil || strings.Contains(string(env), canary) {
		t.Errorf("the daemon's environment is passed on: %s %v", env, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "shell")); err == nil {
		t.Error("a shell was between")
	}
	if err := run(t.Context(), time.Minute, script(t, "echo some; echo the pager is off >&2; exit 3")); err == nil ||
		!strings.Contains(err.Error(), "the pager is off") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("a script that fails: %v", err)
	}
	if err := run(t.Context(), time.Minute, "/no/such/program"); err == nil {
		t.Error("a program that is not there was run")
	}
	// A script that does not read its input, or leaves a child with our pipe behind, does no harm.
	began := time.Now()
	if err := run(t.Context(), time.Minute, script(t, "sleep 100 & echo $! > "+dir+"/child")); err != nil {
		t.Errorf("a script that leaves a child: %v", err)
	}
	gone(t, filepath.Join(dir, "child"))
	// Neither does one that hangs: it is killed with its children.
	hangs := script(t, "sleep 100 & echo $! > "+dir+"/hung; wait")
	if err := run(t.Context(), 200*time.Millisecond, hangs); err == nil || !strings.Contains(err.Error(), "in time") {
		t.Errorf("a script that hangs: %v", err)
	}
	gone(t, filepath.Join(dir, "hung"))
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
}

// gone waits until the process has ended whose pid a script wrote into a file.
func gone(t *testing.T, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	stat := "/proc/" + strings.TrimSpace(string(data)) + "/stat"
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-time.After(5 * time.Millisecond) {
		if text, err := os.ReadFile(stat); err != nil || strings.Contains(string(text), ") Z ") {
			return
		}
	}
	t.Errorf("%s continues", stat)
}
