package config

import (
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/sqlwatch/sqlwatch/internal/hcldecode"
	"github.com/sqlwatch/sqlwatch/internal/notify/channel"
	"github.com/sqlwatch/sqlwatch/policy/lang"
)

// notifierAttributes has the attributes of each type of notifier; "!" means required.
var notifierAttributes = map[string][]string{
	"webhook":             {"url!", "allow_http", "headers", "secret", "template"},
	"slack":               {"url!", "allow_http"},
	"discord":             {"url!", "allow_http"},
	"ntfy":                {"url!", "allow_http", "token"},
	"pagerduty":           {"routing_key!", "url", "allow_http"},
	"email":               {"smarthost!", "from!", "to!", "username", "password", "tls"},
	"exec":                {"command!", "timeout"},
	channel.HeartbeatType: {"url!", "fail_url", "allow_http", "every"},
}

// groupWait is how long messages with one cause are collected unless the configuration says otherwise:
// within that time, something that happens to many databases at once is noticed for all of them.
const groupWait = 5 * time.Second

func (l *loading) notifier(b *hcl.Block) {
	name, typ := strings.Join(b.Labels, "."), b.Labels[0]
	if !l.define(b, "notifier "+name) {
		return
	}
	attributes, known := notifierAttributes[typ]
	if !known {
		l.Errorf(b.LabelRanges[0], "Unknown notifier", "There is no notifier of type %q.%s", typ,
			lang.Suggest(typ, channel.Types()))
		return
	}
	attributes = slices.Clone(attributes)
	if typ != channel.HeartbeatType {
		attributes = append(attributes, "group_wait", "send_resolved")
	}
	before := len(l.Diags.Errs())
	a := l.Content(b.Body, hcldecode.Attributes(attributes...)).Attributes
	secret := func(attr string) string { s, _ := l.Text(a[attr], ""); return s }
	t := channel.Target{Name: name, Type: typ,
		URL: secret("url"), FailURL: secret("fail_url"), AllowHTTP: l.Flag(a["allow_http"], false),
		Headers: l.SecretMap(a["headers"]), Secret: secret("secret"), Template: secret("template"), Token: secret("token"),
		Key: secret("routing_key"),
		Mail: channel.Mail{Host: l.Plain(a["smarthost"], ""), From: l.Plain(a["from"], ""), To: l.Texts(a["to"]),
			User: secret("username"), Password: secret("password")},
		Command:    l.SecretTexts(a["command"]),
		Timeout:    l.Duration(a["timeout"], 10*time.Second, 100*time.Millisecond, 10*time.Minute),
		Every:      l.Duration(a["every"], time.Minute, 10*time.Second, 24*time.Hour),
		GroupWait:  l.Duration(a["group_wait"], groupWait, 0, 10*time.Minute),
		NoResolved: !l.Flag(a["send_resolved"], true),
	}
	t.Mail.TLS = l.Choice(a["tls"], defaultTLS(t.Mail.Host), "starttls", "implicit", "none")
	for _, required := range []string{"url", "routing_key"} {
		if s, _ := l.Text(a[required], ""); a[required] != nil && s == "" && len(l.Diags.Errs()) == before {
			l.Errorf(a[required].Expr.Range(), "Bad address", "A notifier needs its %s; this one is empty.", required)
		}
	}
	if len(l.Diags.Errs()) == before {
		if err := t.Validate(); err != nil {
			l.Errorf(blame(b, a), "Bad notifier", "This notifier cannot be used: %v.", err)
		}
	}
	l.cfg.Notifiers[name] = Notifier{Name: name, Type: typ, Target: t, Range: b.DefRange}
}

// defaultTLS is the TLS mode that a mail server's port implies.
func defaultTLS(host string) string {
	if _, port, err := net.SplitHostPort(host); err == nil && port == "465" {
		return "implicit"
	}
	return "starttls"
}

// blame returns the place of a notifier's address or, without one, of the notifier.
func blame(b *hcl.Block, a hcl.Attributes) hcl.Range {
	for _, name := range []string{"url", "smarthost", "command", "routing_key"} {
		if a[name] != nil {
			return a[name].Expr.Range()
		}
	}
	return b.DefRange
}

// messaged returns the notifiers that a policy can name: a heartbeat receives no messages.
func (c *Config) messaged() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(c.Notifiers)),
		func(name string) bool { return c.Notifiers[name].Type == channel.HeartbeatType })
}
