package channel

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"text/template"
	"time"
)

// posting returns what makes a request of each message and sends it to the target's
// address. A request without a body is not sent.
func posting(t Target, make func(Message) (call, error)) (Send, error) {
	_, local, err := parseURL(t.URL, t.AllowHTTP)
	if err != nil {
		return nil, err
	}
	client := newClient(local)
	return func(ctx context.Context, m Message) (time.Duration, error) {
		c, err := make(m)
		if err != nil {
			return 0, fmt.Errorf("make the request: %w: %w", err, ErrRefused)
		}
		if c.body == nil {
			return 0, nil
		}
		c.url = cmp.Or(c.url, t.URL)
		return c.do(ctx, client)
	}, nil
}

// asJSON is a request with a body of JSON.
func asJSON(body any) (call, error) {
	data, err := json.Marshal(body)
	return call{body: data}, err
}

// sample stands for any message, to try a template on. A database may have the name of any file.
var sample = Message{ID: "msg_1", Status: Firing, DB: `app "1" \`, Databases: []string{`app "1" \`}, Firing: 1,
	Policy: "replica-stale", Severity: "critical", Message: "app: the \"replica\" is behind\n",
	Text: "[critical] app: the \"replica\" is behind\n"}

// newWebhook posts the message as it is, or what the template makes of it. With a
// secret it is signed as https://www.standardwebhooks.com says.
func newWebhook(t Target) (Send, error) {
	body := func(m Message) ([]byte, error) { return json.Marshal(m) }
	if t.Template != "" {
		text, err := template.New("template").Option("missingkey=error").Funcs(template.FuncMap{"json": toJSON}).
			Parse(t.Template)
		if err != nil {
			return nil, fmt.Errorf("template: %w", err)
		}
		body = func(m Message) ([]byte, error) {
			var out bytes.Buffer
			err := text.Execute(&out, m)
			return out.Bytes(), err
		}
		switch made, err := body(sample); {
		case err != nil:
			return nil, fmt.Errorf("template: %w", err)
		case len(bytes.TrimSpace(made)) == 0:
			return nil, errors.New("template makes nothing of a message")
		case !json.Valid(made) && !setsType(t.Headers):
			return nil, errors.New("template does not make JSON: write values as {{ json .Message }}, or set Content-Type " +
				"in headers")
		}
	}
	key, err := signingKey(t.Secret)
	if err != nil {
		return nil, err
	}
	if err := checkHeader(t.Headers); err != nil {
		return nil, err
	}
	return posting(t, func(m Message) (call, error) {
		c := call{header: map[string]string{}}
		var err error
		if c.body, err = body(m); err != nil {
			return c, err
		}
		for name, value := range t.Headers {
			c.header[name] = value
		}
		if key != nil {
			sign(c, key, m.ID, time.Now())
		}
		return c, nil
	})
}

// toJSON is what templates call as json.
func toJSON(v any) (string, error) {
	data, err := json.Marshal(v)
	return string(data), err
}

func setsType(headers map[string]string) bool {
	for name := range headers {
		if strings.EqualFold(name, "Content-Type") {
			return true
		}
	}
	return false
}

// signingKey returns the bytes of a secret: those behind whsec_ are base64.
func signingKey(secret string) ([]byte, error) {
	encoded, prefixed := strings.CutPrefix(secret, "whsec_")
	switch {
	case secret == "":
		return nil, nil
	case !prefixed:
		return []byte(secret), nil
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(key) == 0 {
		return nil, errors.New("secret: what follows whsec_ is not base64")
	}
	return key, nil
}

// sign adds the three headers by which a receiver knows who sent the body, and when.
func sign(c call, key []byte, id string, now time.Time) {
	at := strconv.FormatInt(now.Unix(), 10)
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", id, at, c.body)
	c.header["webhook-id"], c.header["webhook-timestamp"] = id, at
	c.header["webhook-signature"] = "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// newSlack posts to a Slack incoming webhook, or to what understands the same
// (Mattermost, Rocket.Chat).
func newSlack(t Target) (Send, error) {
	escape := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;") // a name must not call @channel
	return posting(t, func(m Message) (call, error) {
		return asJSON(map[string]any{"text": escape.Replace(atMost(4000, m.Text))})
	})
}

// newDiscord posts to a Discord webhook.
func newDiscord(t Target) (Send, error) {
	return posting(t, func(m Message) (call, error) {
		return asJSON(map[string]any{"username": "sqlwatch", "content": atMost(2000, m.Text),
			"allowed_mentions": map[string]any{"parse": []string{}}}) // a name must not call @everyone
	})
}

// newNtfy publishes to the topic that ends the address of an ntfy server.
func newNtfy(t Target) (Send, error) {
	address, _, err := parseURL(t.URL, t.AllowHTTP)
	if err != nil {
		return nil, err
	}
	topic := path.Base(address.Path)
	if strings.Trim(address.Path, "/") == "" {
		return nil, errors.New("url must end with the topic, as https://ntfy.sh/TOPIC")
	}
	header := map[string]string{}
	if t.Token != "" {
		header["Authorization"] = "Bearer " + t.Token
	}
	if err := checkHeader(header); err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	server := url.URL{Scheme: address.Scheme, User: address.User, Host: address.Host,
		Path: strings.TrimSuffix(strings.TrimSuffix(address.Path, "/"), topic)}
	return posting(t, func(m Message) (call, error) {
		priority, tag := 3, "information_source"
		switch {
		case m.Status == Resolved:
			tag = "white_check_mark"
		case m.Severity == "warning":
			priority, tag = 4, "warning"
		case m.Severity == "critical":
			priority, tag = 5, "rotating_light"
		}
		c, err := asJSON(map[string]any{"topic": topic, "title": atMost(250, m.Title()), "message": atMost(4000, m.Text),
			"priority": priority, "tags": []string{tag}})
		c.url, c.header = server.String(), header
		return c, err
	})
}

// PagerDutyURL is where events go that the configuration gives no other address.
const PagerDutyURL = "https://events.pagerduty.com/v2/enqueue"

// newPagerDuty sends events of PagerDuty's Events API v2: one incident a policy,
// resolved when it holds for no database any more.
func newPagerDuty(t Target) (Send, error) {
	if t.Key == "" {
		return nil, errors.New("routing_key is missing")
	}
	t.URL = cmp.Or(t.URL, PagerDutyURL)
	host, err := os.Hostname()
	if err != nil {
		host = "sqlwatch"
	}
	return posting(t, func(m Message) (call, error) {
		event := map[string]any{"routing_key": t.Key, "event_action": "trigger", "client": "sqlwatch",
			"dedup_key": atMost(255, "sqlwatch/"+host+"/"+m.Policy)}
		switch {
		case m.Status == Resolved && m.Firing > 0:
			return call{}, nil // the incident continues
		case m.Status == Resolved:
			event["event_action"] = "resolve"
		}
		event["payload"] = map[string]any{"summary": atMost(1024, m.Text), "source": host, "severity": m.Severity,
			"component": m.DB, "group": m.Policy, "timestamp": m.Time.Format(time.RFC3339),
			"custom_details": map[string]any{"databases": m.Databases, "firing": m.Firing, "message": m.Message}}
		return asJSON(event)
	})
}

// newHeartbeat asks for the address while all is well, and for the one that says the
// contrary, with the reason for a body, where a message comes.
func newHeartbeat(t Target) (Send, error) {
	if _, _, err := parseURL(t.URL, t.AllowHTTP); err != nil {
		return nil, err
	}
	fail := t.FailURL
	if fail == "" {
		address, _ := url.Parse(t.URL)
		fail = address.JoinPath("fail").String()
	} else if _, _, err := parseURL(fail, t.AllowHTTP); err != nil {
		return nil, fmt.Errorf("fail_url: %w", err)
	}
	return posting(t, func(m Message) (call, error) {
		if m.Status == Resolved {
			return call{method: http.MethodGet, body: []byte{}}, nil
		}
		return call{url: fail, body: []byte(atMost(10000, m.Text)), header: map[string]string{
			"Content-Type": "text/plain; charset=utf-8"}}, nil
	})
}
