package channel

import (
	"bytes"
	"context"
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

	"golang.org/x/net/http/httpguts"
)

// Why an address is refused. No text shows the address itself.
var (
	errScheme = errors.New("url must begin with https:// (http:// is for this machine only, or with allow_http)")
	errURL    = errors.New("url cannot be parsed, or has no host")
)

// parseURL returns an address, and whether it is this machine's; else why it cannot
// be used.
func parseURL(text string, allowHTTP bool) (address *url.URL, local bool, err error) {
	address, err = url.Parse(text)
	if err != nil || address.Hostname() == "" {
		return nil, false, errURL
	}
	local = isLocal(address.Hostname())
	if address.Scheme != "https" && (address.Scheme != "http" || !local && !allowHTTP) {
		return nil, local, errScheme
	}
	return address, local, nil
}

// guardedDial returns a dialer that reaches no address that a notifier may not have.
func guardedDial(local bool) func(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: attempt, Control: func(_, to string, _ syscall.RawConn) error {
		return checkAddress(to, local)
	}}
	return dialer.DialContext
}

// newClient returns a client that follows no redirect and uses no proxy: the address
// that was checked must be the one that is reached.
func newClient(local bool) *http.Client {
	return &http.Client{
		Timeout: attempt,
		Transport: &http.Transport{
			DialContext:           guardedDial(local),
			TLSHandshakeTimeout:   attempt,
			ResponseHeaderTimeout: attempt,
			MaxIdleConns:          1,
			IdleConnTimeout:       time.Minute,
			ForceAttemptHTTP2:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
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

// checkHeader refuses what cannot be sent, such as a key from a file or a Kubernetes secret
// with a line break at its end. It shows no value.
func checkHeader(header map[string]string) error {
	for name, value := range header {
		if !httpguts.ValidHeaderFieldName(name) {
			return fmt.Errorf("headers: %q cannot be the name of a header", name)
		}
		if !httpguts.ValidHeaderFieldValue(value) {
			return fmt.Errorf("the header %s has a line break or another character that no header may have", name)
		}
	}
	return nil
}

// call is one request.
type call struct {
	method string // "": POST
	url    string
	header map[string]string
	body   []byte
}

// do makes the request once. An answer other than 2xx is an error without the
// answer's body.
func (c call) do(ctx context.Context, client *http.Client) (retryAfter time.Duration, err error) {
	if c.method == "" {
		c.method = http.MethodPost
	}
	request, err := http.NewRequestWithContext(ctx, c.method, c.url, bytes.NewReader(c.body))
	if err != nil {
		return 0, errURL
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "sqlwatch")
	for name, value := range c.header {
		request.Header.Set(name, value)
	}
	response, err := client.Do(request)
	var withURL *url.Error
	if errors.As(err, &withURL) {
		err = withURL.Err // its own text shows the address
	}
	if errors.Is(err, errAddress) {
		return 0, fmt.Errorf("%w: %w", errAddress, ErrRefused)
	}
	if err != nil {
		return 0, err
	}
	response.Body.Close()
	switch code := response.StatusCode; {
	case code/100 == 2:
		return 0, nil
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests, code/100 == 5:
		seconds, _ := strconv.ParseFloat(response.Header.Get("Retry-After"), 64) // a date, or none, is zero
		wait := time.Duration(min(max(seconds, 0), LongestWait.Seconds()) * float64(time.Second))
		return wait, fmt.Errorf("it answers %d", code)
	case code/100 == 3:
		return 0, fmt.Errorf("it answers %d, and redirects are not followed: %w", code, ErrRefused)
	default:
		return 0, fmt.Errorf("it answers %d: %w", code, ErrRefused)
	}
}
