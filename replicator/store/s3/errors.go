package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3/foreign"
)

var errNotS3 = foreign.ErrNotS3

// errRange reports that the answer to a range request is not the requested range.
var errRange = errors.New("the answer to a range is not that range")

// Error is a failed operation: what was done to what, why it failed, and what the operator can
// do. errors.Is matches one of package store's errors if the cause is known, and
// errors.ErrUnsupported if the provider lacks the feature.
type Error struct {
	Op   string // put, get, list, delete
	URL  string // s3://bucket/key
	Kind error  // one of package store's errors, or errors.ErrUnsupported; nil when unexpected
	Hint string // what to do next; may be empty
	Err  error
}

// Error returns it as one line.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: ", e.Op, e.URL)
	if e.Kind != nil {
		fmt.Fprintf(&b, "%v: ", e.Kind)
	}
	b.WriteString(brief(e.Err))
	if e.Hint != "" {
		b.WriteString(": " + e.Hint)
	}
	return b.String()
}

// Unwrap gives errors.Is both the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Kind == nil {
		return []error{e.Err}
	}
	return []error{e.Kind, e.Err}
}

// fail wraps err; nil stays nil.
func (s *Store) fail(op, key string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{
		Op: op, URL: s.place.url(key),
		Kind: kindOf(err), Hint: s.place.hint(op, err), Err: err,
	}
}

// brief leaves out the SDK's wrapping: code, message and status say it all.
func brief(err error) string {
	var part *partError
	if errors.As(err, &part) {
		return fmt.Sprintf("part %d of %d bytes: %s", part.number, part.size, brief(part.err))
	}
	if noCredentials(err) && strings.Contains(err.Error(), "access disabled to EC2 IMDS") {
		return "no credentials were found" // the rest would not be about anything that was configured
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		text := api.ErrorCode()
		if m := strings.TrimSpace(api.ErrorMessage()); m != "" && m != text {
			text = strings.TrimPrefix(text+": "+m, ": ")
		}
		if status := statusOf(err); status != 0 {
			text += fmt.Sprintf(" (status %d)", status)
		}
		return foreign.OneLine(text)
	}
	var network *url.Error // the SDK wraps network errors in four layers of its own
	if errors.As(err, &network) {
		return foreign.OneLine(network.Err.Error())
	}
	var cause *smithy.OperationError
	if errors.As(err, &cause) {
		return foreign.OneLine(cause.Err.Error())
	}
	return foreign.OneLine(err.Error())
}

func statusOf(err error) int {
	var response *awshttp.ResponseError
	if errors.As(err, &response) {
		return response.HTTPStatusCode()
	}
	return 0
}

func codeOf(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

func isDeserialization(err error) bool {
	var broken *smithy.DeserializationError
	return errors.As(err, &broken) && statusOf(err) < 300 || errors.Is(err, errNotS3)
}

// kinds maps the error codes of S3 and its relatives. A code that is not listed is judged by
// its status.
var kinds = map[string]error{
	"NoSuchKey": store.ErrNotFound, "NotFound": store.ErrNotFound, "NoSuchUpload": store.ErrNotFound,
	"PreconditionFailed":         store.ErrExists,
	"ConditionalRequestConflict": store.ErrConflict, "OperationAborted": store.ErrConflict,
	"AccessDenied": store.ErrAuth, "Forbidden": store.ErrAuth, "InvalidAccessKeyId": store.ErrAuth,
	"SignatureDoesNotMatch": store.ErrAuth,
	"ExpiredToken":          store.ErrAuth, "TokenRefreshRequired": store.ErrAuth, "InvalidToken": store.ErrAuth,
	"InvalidSecurity": store.ErrAuth,
	"AccountProblem":  store.ErrAuth, "AllAccessDisabled": store.ErrAuth, "Unauthorized": store.ErrAuth,
	"NotSignedUp":        store.ErrAuth,
	"XAdminUserNotFound": store.ErrAuth, // versitygw
	"UnauthorizedAccess": store.ErrAuth, "AccessDeniedException": store.ErrAuth,
	"NoSuchBucket": store.ErrMisplaced, "InvalidBucketName": store.ErrMisplaced, "PermanentRedirect": store.ErrMisplaced,
	"MovedPermanently":             store.ErrMisplaced,
	"AuthorizationHeaderMalformed": store.ErrMisplaced, "IllegalLocationConstraintException": store.ErrMisplaced,
	"InvalidRegion":        store.ErrMisplaced,
	"RequestTimeTooSkewed": store.ErrUnavailable, "SlowDown": store.ErrUnavailable, "RequestTimeout": store.ErrUnavailable,
	"NotImplemented": errors.ErrUnsupported, "UnsupportedArgument": errors.ErrUnsupported,
	// the body changed on the way: sent again
	"BadDigest": store.ErrUnavailable, "XAmzContentSHA256Mismatch": store.ErrUnavailable,
	"XAmzContentChecksumMismatch": store.ErrUnavailable,
}

// kindOf maps an error of the SDK to the kind that callers decide on.
func kindOf(err error) error {
	if err == nil {
		return nil
	}
	if kind, known := kinds[codeOf(err)]; known && !IsFull(err) {
		return kind
	}
	switch {
	case IsFull(err), errors.Is(err, errGone):
		return store.ErrUnavailable
	case errors.Is(err, errAbsent):
		return store.ErrNotFound
	}
	switch status := statusOf(err); {
	case status == http.StatusNotImplemented:
		return errors.ErrUnsupported
	case status >= 500, status == http.StatusTooManyRequests, status == http.StatusRequestTimeout:
		return store.ErrUnavailable
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return store.ErrAuth
	case status == http.StatusNotFound:
		return store.ErrNotFound
	case status == http.StatusPreconditionFailed:
		return store.ErrExists
	case status == http.StatusConflict:
		return store.ErrConflict
	case status >= 300 && status < 400:
		return store.ErrMisplaced
	case status >= 400:
		return nil // unexpected: the text is all there is
	}
	if noCredentials(err) {
		return store.ErrAuth
	}
	var (
		operation *smithy.OperationError
		network   net.Error
	)
	if errors.As(err, &operation) || errors.As(err, &network) || errors.Is(err, errNotS3) ||
		errors.Is(err, io.ErrUnexpectedEOF) {
		return store.ErrUnavailable // no answer, or one that could not be parsed
	}
	return nil
}

// noCredentials reports whether the SDK found no credentials at all: it has no error type for
// that.
func noCredentials(err error) bool {
	return strings.Contains(err.Error(), "get identity: ") || strings.Contains(err.Error(),
		"failed to refresh cached credentials")
}

// reason is the short word for metrics; empty means success.
func reason(err error) string {
	if err == nil {
		return ""
	}
	var timeout net.Error
	switch kind := kindOf(err); {
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) &&
		timeout.Timeout():
		return "timeout"
	case codeOf(err) == "SlowDown", statusOf(err) == http.StatusTooManyRequests:
		return "throttled"
	default:
		return store.FailureReason(kind)
	}
}

// hint says what to do next about err.
func (p place) hint(op string, err error) string {
	if text := p.hintForCode(op, codeOf(err), err); text != "" {
		return text
	}
	var (
		dns       *net.DNSError
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		expired   x509.CertificateInvalidError
		plain     tls.RecordHeaderError
	)
	switch {
	case noCredentials(err):
		return "set access_key and secret_key, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role"
	case errors.As(err, &dns):
		if strings.HasPrefix(dns.Name, p.bucket+".") {
			return fmt.Sprintf("the host name %s does not resolve: check endpoint, or set path_style = true", dns.Name)
		}
		return fmt.Sprintf("the host name %s does not resolve: check endpoint and region", dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens at the endpoint: check its host name and port, and that the server runs"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "there is no route to the endpoint: check this machine's network, and HTTPS_PROXY if one is needed"
	case errors.As(err, &authority):
		return "the server's certificate is signed by an unknown authority: name its CA file, or set AWS_CA_BUNDLE"
	case errors.As(err, &hostname):
		return "the server's certificate is for another host name: check endpoint; a bucket with dots in its name needs " +
			"path_style = true"
	case errors.As(err, &expired):
		return "the server's certificate is not valid now: check this machine's clock, then the server's certificate"
	case strings.Contains(err.Error(), "TLS handshake timeout"):
		return "the endpoint accepts connections but does not speak TLS, or is overloaded: write http:// in endpoint if " +
			"that is meant"
	case errors.As(err, &plain), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return "the endpoint does not speak TLS: write http:// in endpoint if that is meant"
	case errors.Is(err, errRange):
		return "something before the store rewrites answers to requests for a range (Content-Range): let it pass them on " +
			"as they are"
	case errors.Is(err, store.ErrListing):
		return "the store's listings cannot be relied on (directory buckets are not in order, caches are stale): use " +
			"another bucket or store, or turn the cache before it off"
	case strings.Contains(err.Error(), "FIPS and custom endpoint"),
		strings.Contains(err.Error(), "Dualstack and custom endpoint"):
		return "AWS_USE_FIPS_ENDPOINT and AWS_USE_DUALSTACK_ENDPOINT (or use_fips_endpoint, use_dualstack_endpoint of the " +
			"shared configuration) are for Amazon: unset them, or remove endpoint"
	case isDeserialization(err):
		return "something between here and the store answered (a proxy, a login page, a web console's port): check " +
			"endpoint and HTTPS_PROXY"
	}
	return ""
}

func (p place) hintForCode(op, code string, err error) string {
	where := p.where()
	if IsFull(err) {
		return p.hintForStatus(op, code, err)
	}
	switch code {
	case "NoSuchBucket", "InvalidBucketName":
		text := fmt.Sprintf("there is no bucket %q at %s: check bucket and endpoint", p.bucket, where)
		if p.provider.name == "Backblaze B2" {
			text += "; at Backblaze B2 a bucket is known only at its own region's endpoint, shown beside the bucket as " +
				"s3.REGION.backblazeb2.com"
		}
		return text
	case "PermanentRedirect", "MovedPermanently", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException",
		"InvalidRegion":
		if region := bucketRegion(err); region != "" {
			return fmt.Sprintf("the bucket is in another region: set region = %q", region)
		}
		return fmt.Sprintf("the bucket is in another region than %q: set region and endpoint to the bucket's own",
			p.region)
	case "InvalidAccessKeyId", "InvalidSecurity", "XAdminUserNotFound":
		return fmt.Sprintf("the key id is unknown at %s: check access_key and endpoint (keys of one provider or region do "+
			"not work at another)", where)
	case "SignatureDoesNotMatch":
		if header, sent, got := foreign.Rewritten(err); header != "" {
			return fmt.Sprintf("something between here and the store rewrites the header %s, which is signed, from %.60q to "+
				"%.60q: configure the proxy to forward it unchanged", header, sent, got)
		}
		return "the secret does not belong to the key id: check secret_key for a missing or extra character; where it is " +
			"right, a proxy before the store rewrites a signed header (Host, x-amz-*, Content-MD5)"
	case "ExpiredToken", "TokenRefreshRequired", "InvalidToken":
		return "the session token has expired: renew it; rotated environment files and instance roles are read again by " +
			"themselves"
	case "RequestTimeTooSkewed":
		return "this machine's clock is wrong: set it (NTP); until then requests are signed with a corrected time"
	case "AccessDenied", "Forbidden", "UnauthorizedAccess":
		return deniedHint(op)
	case "NotImplemented", "UnsupportedArgument":
		return "this provider does not offer that"
	}
	return p.hintForStatus(op, code, err)
}

func (p place) hintForStatus(op, code string, err error) string {
	switch status := statusOf(err); {
	case IsFull(err):
		return "the store is full, or a quota is used up: free space there, raise the quota or cap, or keep less " +
			"(retention.keep)"
	case status == http.StatusRequestEntityTooLarge, code == "EntityTooLarge":
		return fmt.Sprintf("something before the store takes no body of this size; uploads are in parts of %d MiB and "+
			"more: raise its limit (nginx: client_max_body_size 0;)", p.partSize>>20)
	case status == http.StatusExpectationFailed:
		return "a proxy before the store does not know Expect: 100-continue: name the endpoint in the configuration, then " +
			"none is sent"
	case status == http.StatusLengthRequired:
		return "a proxy before the store takes the Content-Length away: let it pass the header on"
	case status == http.StatusUpgradeRequired, status == http.StatusHTTPVersionNotSupported:
		return "a proxy before the store does not speak HTTP/1.1"
	case code == "" && status == http.StatusForbidden:
		return deniedHint(op)
	}
	return ""
}

// IsFull reports whether the store has no room left, or a quota is used up.
func IsFull(err error) bool {
	switch codeOf(err) {
	case "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage", "StorageFull",
		"StorageQuotaExceeded":
		return true
	}
	var api smithy.APIError
	capped := errors.As(err, &api) && strings.Contains(api.ErrorMessage(), "cap exceeded") // Backblaze B2, as AccessDenied
	return capped || statusOf(err) == http.StatusInsufficientStorage
}

func deniedHint(op string) string {
	switch op {
	case "put":
		return "the keys may not write here: they need s3:PutObject on this prefix (read-only keys can only restore)"
	case "delete":
		return "the keys or an object lock forbid deleting: retention cannot remove old files; replication continues"
	case "list":
		return "the keys may not list the bucket: they need s3:ListBucket on it"
	}
	return "the keys may not read here: they need s3:GetObject on this prefix"
}

func bucketRegion(err error) string {
	var response *awshttp.ResponseError
	if errors.As(err, &response) && response.Response != nil {
		return response.Response.Header.Get("X-Amz-Bucket-Region")
	}
	return ""
}
