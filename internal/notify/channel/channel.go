// Package channel delivers one message by one means: an HTTP request in the form
// that a service reads, an e-mail, or a program's standard input. It tries once;
// who calls it decides whether to try again. Addresses and keys are secret: no text
// of this package shows them.
package channel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
)

// Message is one message, about one database or many that have the same to say.
type Message struct {
	ID        string    `json:"id"`        // the same at every attempt
	Status    string    `json:"status"`    // Firing or Resolved
	DB        string    `json:"db"`        // the first of Databases
	Databases []string  `json:"databases"` // what it is about, never empty
	Firing    int       `json:"firing"`    // databases for which the policy holds now, at this notifier
	Policy    string    `json:"policy"`
	Severity  string    `json:"severity"` // info, warning or critical
	Message   string    `json:"message"`  // what the policy says, of the first database
	Text      string    `json:"text"`     // all of it in words, under the name that chat programs read
	Time      time.Time `json:"time"`
}

// What a Message says.
const (
	Firing   = "firing"
	Resolved = "resolved"
)

// Send delivers a message once. It returns nil when the other side has taken it.
// An error that is ErrRefused will be the same the next time; retryAfter is for how
// long the other side asked to be left alone. It may be called concurrently.
type Send func(ctx context.Context, m Message) (retryAfter time.Duration, err error)

// Errors of Send.
var (
	ErrRefused = errors.New("refused for good")
	errAddress = errors.New("the address is one of this machine, of the cloud's metadata or of no unicast host, which a " +
		"notifier may not have")
)

// attempt bounds one attempt over the network, from the name's look-up to the
// answer's header.
const attempt = 10 * time.Second

// LongestWait bounds what another side may ask for with Retry-After.
const LongestWait = 5 * time.Minute

// Target says how to deliver. Whatever prints one prints its name alone.
type Target struct {
	Name string // as "slack.ops"
	Type string // one of Types

	URL       string            // secret; https, or http to this machine
	FailURL   string            // of a heartbeat
	AllowHTTP bool              // http to other machines too
	Headers   map[string]string // of a webhook; secret
	Secret    string            // signs a webhook's body
	Template  string            // of a webhook's body, a Go text/template of a Message
	Token     string            // of ntfy
	Key       string            // PagerDuty's routing key

	Mail Mail // of e-mail

	Command []string      // of exec; the program's path is absolute
	Timeout time.Duration // of exec

	Every      time.Duration // of a heartbeat
	GroupWait  time.Duration // for so long messages of one cause are gathered
	NoResolved bool          // the end of a condition is not told
}

// Mail says how to send an e-mail.
type Mail struct {
	Host           string // of the mail server, host:port
	From           string
	To             []string
	User, Password string
	TLS            string // "starttls", "implicit" or "none"
}

// HeartbeatType is the type of targets that are sent no messages.
const HeartbeatType = "heartbeat"

// Types lists every type there is.
func Types() []string {
	return []string{"webhook", "slack", "discord", "ntfy", "pagerduty", "email", "exec", HeartbeatType}
}

// Format prints the name, whatever the verb.
func (t Target) Format(f fmt.State, _ rune) { io.WriteString(f, t.Name) }

// MarshalJSON writes the name.
func (t Target) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "%q", t.Name), nil }

// LogValue is the name.
func (t Target) LogValue() slog.Value { return slog.StringValue(t.Name) }

// Validate says why the target cannot be used, without showing what is secret.
func (t Target) Validate() error {
	_, err := New(t)
	return err
}

// New returns what delivers to the target. It connects to nobody.
func New(t Target) (Send, error) {
	make := map[string]func(Target) (Send, error){
		"webhook": newWebhook, "slack": newSlack, "discord": newDiscord, "ntfy": newNtfy, "pagerduty": newPagerDuty,
		"email": newEmail, "exec": newExec, HeartbeatType: newHeartbeat,
	}[t.Type]
	if make == nil {
		return nil, fmt.Errorf("there is no notifier of type %q", t.Type)
	}
	send, err := make(t)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, m Message) (time.Duration, error) {
		wait, err := send(ctx, m)
		if err != nil {
			err = &quiet{text: t.conceal(err.Error()), err: err}
		}
		return wait, err
	}, nil
}

// quiet is an error whose text shows no secret.
type quiet struct {
	text string
	err  error
}

// Error returns the text without what is secret.
func (q *quiet) Error() string { return q.text }

// Unwrap returns the error itself.
func (q *quiet) Unwrap() error { return q.err }

// conceal takes what is secret out of a text: an answer may repeat what was asked.
func (t Target) conceal(text string) string {
	secrets := []string{t.URL, t.FailURL, t.Secret, t.Token, t.Key, t.Mail.Password}
	for _, v := range t.Headers {
		secrets = append(secrets, v)
	}
	for _, s := range secrets {
		if len(s) >= 4 {
			text = strings.ReplaceAll(text, s, "(secret)")
		}
	}
	return text
}

// Title returns a message in one short line.
func (m Message) Title() string {
	about := m.DB
	if n := len(m.Databases); n > 1 {
		about = fmt.Sprintf("%d databases", n)
	}
	word := m.Severity
	if m.Status == Resolved {
		word = Resolved
	}
	return fmt.Sprintf("[%s] %s: %s", word, about, m.Policy)
}

// atMost cuts a text that a service would refuse for its length, in runes.
func atMost(limit int, text string) string {
	runes := []rune(text)
	if len(runes) <= limit {
		return text
	}
	return string(runes[:limit-1]) + "…"
}
