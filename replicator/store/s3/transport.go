package s3

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3/breaker"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3/foreign"
)

// watchRequests adds our steps to the SDK's: inside its retry loop, to report each attempt;
// around it, to keep the reason of the last attempt when the deadline ends the loop; and next
// to the wire, to refuse answers that no store would give.
func (s *Store) watchRequests(stack *middleware.Stack) error {
	return errors.Join(
		stack.Finalize.Add(middleware.FinalizeMiddlewareFunc("sqlwatchFreshKeys", s.withFreshKeys), middleware.Before),
		stack.Finalize.Insert(middleware.FinalizeMiddlewareFunc("sqlwatchLastCause", keepLastCause), "Retry",
			middleware.Before),
		stack.Finalize.Insert(middleware.FinalizeMiddlewareFunc("sqlwatchObserve", s.observeAttempt), "Retry",
			middleware.After),
		stack.Finalize.Insert(middleware.FinalizeMiddlewareFunc("sqlwatchBreaker", s.whileAnswered), "Retry",
			middleware.After),
		stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("sqlwatchForeignAnswer", foreign.Refuse),
			middleware.After),
	)
}

// whileAnswered holds each attempt back while the endpoint does not answer anybody.
func (s *Store) whileAnswered(ctx context.Context, in middleware.FinalizeInput,
	next middleware.FinalizeHandler) (out middleware.FinalizeOutput, metadata middleware.Metadata, err error) {
	done, err := s.access.breaker.Enter(ctx, s.place.url(""))
	if err != nil {
		return out, metadata, err
	}
	outcome := breaker.Unknown
	defer func() { done(outcome, err) }()
	out, metadata, err = next.HandleFinalize(ctx, in)
	switch {
	case err == nil || statusOf(err) > 0 && !away(statusOf(err)):
		outcome = breaker.Answered
	case ctx.Err() == nil && !noCredentials(err) && !errors.As(err, new(*fs.PathError)): // not a body that cannot be read
		outcome = breaker.Silent
	}
	return out, metadata, err
}

// away reports whether a proxy uses this status when the store behind it does not answer.
func away(status int) bool {
	return status == http.StatusBadGateway || status == http.StatusGatewayTimeout
}

// unsent marks requests that the breaker refused: an immediate retry would be refused too.
type unsent struct{}

// IsErrorRetryable implements retry.IsErrorRetryable.
func (unsent) IsErrorRetryable(err error) aws.Ternary {
	if open := (*breaker.OpenError)(nil); errors.As(err, &open) {
		return aws.FalseTernary
	}
	return aws.UnknownTernary
}

// withFreshKeys repeats a request once if its temporary keys had expired, with the current
// ones. The SDK reads keys once for all attempts of a request.
func (s *Store) withFreshKeys(ctx context.Context, in middleware.FinalizeInput,
	next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
	out, metadata, err := next.HandleFinalize(ctx, in)
	if err == nil || s.access.credentials == nil || ctx.Err() != nil {
		return out, metadata, err
	}
	switch codeOf(err) {
	case "ExpiredToken", "TokenRefreshRequired", "RequestExpired":
	default:
		return out, metadata, err
	}
	if r, ok := in.Request.(*smithyhttp.Request); !ok || r.RewindStream() != nil {
		return out, metadata, err
	}
	return next.HandleFinalize(ctx, in)
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
		s.access.signer.Forget()
	}
	if last, ok := ctx.Value(lastCause{}).(*error); ok && err != nil && ctx.Err() == nil {
		*last = err
	}
	return out, metadata, err
}

// lastCause is the context key by which attempts report to keepLastCause.
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

// retryableNonsense repeats a request that something on the way answered in the store's place
// (an HTML page with status 200, a body that is not what the protocol says).
type retryableNonsense struct{}

// IsErrorRetryable implements retry.IsErrorRetryable.
func (retryableNonsense) IsErrorRetryable(err error) aws.Ternary {
	if isDeserialization(err) {
		return aws.TrueTernary
	}
	return aws.UnknownTernary
}
