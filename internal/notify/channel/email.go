package channel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"strconv"
	"time"

	"github.com/wneessen/go-mail"
)

// newEmail sends each message as an e-mail by the mail server of the target.
func newEmail(t Target) (Send, error) {
	host, text, err := net.SplitHostPort(t.Mail.Host)
	port, bad := strconv.Atoi(text)
	if err != nil || host == "" || bad != nil || port < 1 || port > 65535 {
		return nil, errors.New("smarthost must be host:port, such as \"smtp.example.org:587\"")
	}
	if t.Mail.User != "" && t.Mail.TLS == "none" && !isLocal(host) {
		return nil, errors.New("a password is not sent without tls")
	}
	if _, err := compose(t, sample); err != nil {
		return nil, err
	}
	options := []mail.Option{mail.WithPort(port), mail.WithTimeout(attempt),
		mail.WithDialContextFunc(guardedDial(isLocal(host)))}
	switch t.Mail.TLS {
	case "implicit":
		options = append(options, mail.WithSSL())
	case "none":
		options = append(options, mail.WithTLSPolicy(mail.NoTLS))
	default:
		options = append(options, mail.WithTLSPolicy(mail.TLSMandatory))
	}
	if t.Mail.User != "" {
		how := mail.SMTPAuthAutoDiscover
		if t.Mail.TLS == "none" {
			how = mail.SMTPAuthPlainNoEnc // to this machine only, see above
		}
		options = append(options, mail.WithSMTPAuth(how), mail.WithUsername(t.Mail.User),
			mail.WithPassword(t.Mail.Password))
	}
	if _, err := mail.NewClient(host, options...); err != nil {
		return nil, fmt.Errorf("smarthost: %w", err)
	}
	return func(ctx context.Context, m Message) (time.Duration, error) {
		client, err := mail.NewClient(host, options...) // one for each: a client is one connection
		if err != nil {
			return 0, err
		}
		letter, err := compose(t, m)
		if err != nil {
			return 0, fmt.Errorf("%w: %w", err, ErrRefused)
		}
		bounded, cancel := context.WithTimeout(ctx, 3*attempt)
		defer cancel()
		err = client.DialAndSendWithContext(bounded, letter)
		if lasting(err) {
			err = fmt.Errorf("%w: %w", err, ErrRefused)
		}
		return 0, err
	}, nil
}

// compose writes the letter.
func compose(t Target, m Message) (*mail.Msg, error) {
	letter := mail.NewMsg()
	if err := letter.From(t.Mail.From); err != nil {
		return nil, fmt.Errorf("from: %w", err)
	}
	if len(t.Mail.To) == 0 {
		return nil, errors.New("to is empty")
	}
	if err := letter.To(t.Mail.To...); err != nil {
		return nil, fmt.Errorf("to: %w", err)
	}
	letter.Subject(atMost(200, m.Title()))
	letter.SetDateWithValue(time.Now())
	letter.SetMessageID()
	letter.SetGenHeader("Auto-Submitted", "auto-generated") // nobody's absence answers
	letter.SetUserAgent("sqlwatch")
	letter.SetBodyString(mail.TypeTextPlain, m.Text+"\n")
	return letter, nil
}

// lasting reports whether trying again is of no use: the server said so.
func lasting(err error) bool {
	var answer *textproto.Error
	if errors.As(err, &answer) {
		return answer.Code/100 == 5
	}
	var failed *mail.SendError
	if errors.As(err, &failed) {
		return failed.ErrorCode()/100 == 5
	}
	return errors.Is(err, errAddress)
}
