// Package wire sends requests to a store, over connections that fail when nothing moves, with
// signatures that leave out what proxies rewrite.
package wire

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
)

// NewClient returns a client with one deadline that covers every way an attempt can hang
// (connect, handshake, an upload nobody reads, a reply that never comes, a download that
// stops): no byte has moved on the connection for stall. A slow link that moves is never cut.
// It speaks only HTTP/1.1, one request at a time per connection: with HTTP/2, a request that
// hangs is hidden by others that move.
func NewClient(stall time.Duration) *awshttp.BuildableClient {
	dialer := &net.Dialer{Timeout: min(stall, 10*time.Second), KeepAlive: 30 * time.Second}
	return awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &movingConn{conn, stall}, nil
		}
		t.TLSHandshakeTimeout = min(stall, 10*time.Second)
		t.IdleConnTimeout = max(stall/2, time.Second)
		t.MaxIdleConnsPerHost = 64  // of all stores that share it
		t.DisableCompression = true // the bytes received must be the stored bytes
		t.ForceAttemptHTTP2 = false
		t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
		if t.TLSClientConfig != nil {
			t.TLSClientConfig.NextProtos = []string{"http/1.1"}
		}
	})
}

// movingConn fails a connection on which nothing moves.
type movingConn struct {
	net.Conn
	stall time.Duration
}

// Read implements net.Conn.
func (c *movingConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// Write implements net.Conn. A long upload is progress too: it also extends the deadline of
// the read that waits for the reply. It is sent in blocks, so that a slow link has the whole
// of stall for each.
func (c *movingConn) Write(p []byte) (int, error) {
	const block = 64 << 10
	written := 0
	for {
		if err := c.SetDeadline(time.Now().Add(c.stall)); err != nil {
			return written, err
		}
		n, err := c.Conn.Write(p[written:min(written+block, len(p))])
		written += n
		if err != nil || written == len(p) {
			return written, err
		}
	}
}
