package s3

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go/middleware"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3/foreign"
)

// newHTTPClient has one deadline that covers every way an attempt can hang
// (connect, handshake, an upload nobody reads, a reply that never comes, a
// download that stops): no byte has moved on the connection for stall. A slow
// link that moves is never cut.
func newHTTPClient(stall time.Duration) *awshttp.BuildableClient {
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
		t.DisableCompression = true // bytes must be the stored bytes
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

// Write implements net.Conn. A long upload is progress too: it also extends the
// read that waits for the reply. It goes out in blocks, so that a slow link has
// the whole of stall for each.
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

// watchRequests puts us around and inside the SDK's retry loop: inside to report
// each attempt, around to keep the reason of the last one when the deadline ends
// the loop, and next to the wire to refuse what no store would say.
func (s *Store) watchRequests(stack *middleware.Stack) error {
	return errors.Join(
		stack.Finalize.Insert(middleware.FinalizeMiddlewareFunc("sqlwatchLastCause", keepLastCause), "Retry",
			middleware.Before),
		stack.Finalize.Insert(middleware.FinalizeMiddlewareFunc("sqlwatchObserve", s.observeAttempt), "Retry",
			middleware.After),
		stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("sqlwatchForeignAnswer", foreign.Refuse),
			middleware.After),
	)
}

func (s *Store) observeAttempt(ctx context.Context, in middleware.FinalizeInput,
	next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
	start := time.Now()
	out, metadata, err := next.HandleFinalize(ctx, in)
	s.config.Observe(store.Request{
		Operation: operationName(awsmiddleware.GetOperationName(ctx)),
		Reason:    reason(err),
		Duration:  time.Since(start),
	})
	if s.access.credentials != nil && kindOf(err) == store.ErrAuth {
		s.access.credentials.Invalidate() // the next operation reads rotated keys
		s.access.signer.forget()
	}
	if last, ok := ctx.Value(lastCause{}).(*error); ok && err != nil && ctx.Err() == nil {
		*last = err
	}
	return out, metadata, err
}

// lastCause is the context key under which keepLastCause hears of attempts.
type lastCause struct{}

func keepLastCause(ctx context.Context, in middleware.FinalizeInput,
	next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
	var last error
	out, metadata, err := next.HandleFinalize(context.WithValue(ctx, lastCause{}, &last), in)
	if err != nil && ctx.Err() != nil && last != nil {
		err = fmt.Errorf("%w: %w", last, ctx.Err())
	}
	return out, metadata, err
}

// operationName is the word that metrics use for an SDK operation.
func operationName(sdk string) string {
	switch sdk {
	case "PutObject":
		return "put"
	case "GetObject":
		return "get"
	case "HeadObject":
		return "head"
	case "ListObjectsV2", "ListObjects", "ListMultipartUploads", "ListObjectVersions", "GetBucketVersioning":
		return "list"
	case "DeleteObject", "DeleteObjects":
		return "delete"
	}
	return "multipart" // create, part, complete, abort
}

// retryableNonsense repeats a request that something on the way answered in the
// store's place (an HTML page with status 200, a body that is not what the protocol says).
type retryableNonsense struct{}

// IsErrorRetryable implements retry.IsErrorRetryable.
func (retryableNonsense) IsErrorRetryable(err error) aws.Ternary {
	if isDeserialization(err) {
		return aws.TrueTernary
	}
	return aws.UnknownTernary
}
