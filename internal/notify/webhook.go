package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const requestTimeout = 10 * time.Second // for one attempt, from the name's look-up to the answer's header

// Why an address is refused. No text shows the address itself.
var (
	errScheme  = errors.New("url must begin with https:// (http:// is for this machine only, or with allow_http)")
	errURL     = errors.New("url cannot be parsed, or has no host")
	errAddress = errors.New("the address is one of this machine, of the cloud's metadata or of no unicast host, which a " +
		"webhook may not have")
)

// Validate says why the target's address cannot be used, without showing it.
func (t Target) Validate() error {
	_, err := t.parse()
	return err
}

// parse says whether the address is this machine's, and why it cannot be used.
func (t Target) parse() (local bool, err error) {
	address, err := url.Parse(t.URL)
	if err != nil || address.Hostname() == "" {
		return false, errURL
	}
	local = isLocal(address.Hostname())
	if address.Scheme != "https" && (address.Scheme != "http" || !local && !t.AllowHTTP) {
		return local, errScheme
	}
	return local, nil
}

// newPoster returns what posts a message to the target's address once.
func newPoster(t Target) (func(context.Context, Message) (time.Duration, error), error) {
	local, err := t.parse()
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: requestTimeout, Control: func(_, to string, _ syscall.RawConn) error {
		return checkAddress(to, local)
	}}
	client := &http.Client{
		Timeout: requestTimeout,
		// No proxy: the address that was checked must be the one that is reached.
		Transport: &http.Transport{
			DialContext:           dialer.DialContext,
			TLSHandshakeTimeout:   requestTimeout,
			ResponseHeaderTimeout: requestTimeout,
			MaxIdleConns:          1,
			IdleConnTimeout:       time.Minute,
			ForceAttemptHTTP2:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(ctx context.Context, m Message) (time.Duration, error) { return post(ctx, client, t.URL, m) }, nil
}

// isLocal reports whether the host as it is written is this machine.
func isLocal(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// metadata are the addresses at which clouds give away credentials, beside the
// link-local ones.
var metadata = []netip.Addr{netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("100.100.100.200"),
	netip.MustParseAddr("168.63.129.16")}

// checkAddress is asked after the name was looked up, with the very address that
// is dialled: a name that points elsewhere at the second look gains nothing.
func checkAddress(hostport string, local bool) error {
	to, err := netip.ParseAddrPort(hostport)
	if err != nil {
		return errAddress
	}
	ip := to.Addr().Unmap().WithZone("")
	if ip.IsLoopback() {
		if local {
			return nil
		}
		return errAddress
	}
	if !ip.IsGlobalUnicast() { // link-local (169.254.169.254), multicast, unspecified, broadcast
		return errAddress
	}
	for _, m := range metadata {
		if ip == m {
			return errAddress
		}
	}
	return nil
}

// post sends the message once. An answer other than 2xx is an error without the
// answer's body; errRefused says that trying again is of no use, and retryAfter
// for how long the other side asked to be left alone.
func post(ctx context.Context, client *http.Client, address string, m Message) (retryAfter time.Duration, err error) {
	body, err := json.Marshal(m)
	if err != nil {
		return 0, fmt.Errorf("encode the message: %w", errRefused)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return 0, errURL
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "sqlwatch")
	response, err := client.Do(request)
	var withURL *url.Error
	if errors.As(err, &withURL) {
		err = withURL.Err // its own text shows the address
	}
	if errors.Is(err, errAddress) {
		return 0, fmt.Errorf("%w: %w", errAddress, errRefused)
	}
	if err != nil {
		return 0, err
	}
	response.Body.Close()
	switch code := response.StatusCode; {
	case code/100 == 2:
		return 0, nil
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests, code/100 == 5:
		seconds, _ := strconv.Atoi(response.Header.Get("Retry-After")) // a date, or none, is zero
		return min(time.Duration(max(seconds, 0))*time.Second, longWait), fmt.Errorf("the webhook answers %d", code)
	case code/100 == 3:
		return 0, fmt.Errorf("the webhook answers %d, and redirects are not followed: %w", code, errRefused)
	default:
		return 0, fmt.Errorf("the webhook answers %d: %w", code, errRefused)
	}
}
