// Package s3 keeps a replica in an S3-compatible bucket: Amazon S3, Backblaze B2, Cloudflare
// R2, MinIO and their relatives.
//
// Reading order: Store and Config here, put.go and multipart.go (uploads), digest.go (what
// protects their bytes), get.go (a body that breaks off is resumed), list.go and delete.go,
// errors.go (what a provider's answer means and what to do next), provider.go (what is known
// about each provider), place.go (where objects are), shared.go (what the stores of one
// process share), transport.go and package wire (counting, signatures, deadlines).
package s3

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// The defaults of Config.
const (
	DefaultStall    = 20 * time.Second // no byte moved in either direction
	DefaultDeadline = 2 * time.Minute  // one operation with all its attempts
	DefaultBackoff  = 5 * time.Second  // the longest pause between attempts
	DefaultPartSize = 8 << 20          // the smallest part of a multipart upload; also the largest single PUT of a stream
	DefaultSettle   = 10 * time.Minute // time for a completed upload to appear

	slowestLink = 128 // bytes per second of one upload among hundreds: bodies extend deadlines at this rate
	maxAttempts = 4
)

// Config says where a replica lives and how to reach it. Empty fields take the
// provider's defaults, then the SDK's own chain (environment, shared files,
// instance role).
type Config struct {
	Bucket    string // required
	Prefix    string // of every key, without slashes at its ends
	Region    string
	Endpoint  string // URL; empty: that of the SDK's environment (AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL), or Amazon
	PathStyle *bool  // http://endpoint/bucket/key, or the bucket as host name; nil: as the provider wants it

	AccessKey    string // with SecretKey; both empty: the SDK's chain, read again when it changes
	SecretKey    string
	SessionToken string

	CAFile string // PEM bundle to trust instead of the system's; AWS_CA_BUNDLE is honoured too

	Stall    time.Duration // an attempt fails after this long without a byte; 0 is DefaultStall
	Deadline time.Duration // of one operation with its retries, plus what its body needs; 0 is DefaultDeadline
	Backoff  time.Duration // the longest pause between attempts (full jitter); 0 is DefaultBackoff
	PartSize int64         // at least 5 MiB; 0 is DefaultPartSize. Larger if there would be too many parts
	Settle   time.Duration // how long a completed upload is looked for before it is given up; 0 is DefaultSettle

	// Observe is called for every request sent, each retry included. It must not block.
	Observe func(store.Request)

	Shared *Shared      // with other stores of this process; nil: with none
	Log    *slog.Logger // for messages of the SDK; nil: they are dropped
}

// Store is a store.Store in a bucket. See that interface for its promises.
// The key of an object is Config.Prefix + "/" + the canonical key.
type Store struct {
	client   *s3.Client
	access   *access
	place    place
	provider provider
	config   Config
	uploads  sync.Map // ids of multipart uploads under way, so that none is swept
	newest   newest
	whole    int64       // see maxWhole
	page     *int32      // keys of a listing's page; nil: as many as the store returns
	singly   atomic.Bool // DeleteObjects is unknown to the store
	headless atomic.Bool // the store refuses HEAD; a GET of one byte takes its place
}

var _ store.Store = (*Store)(nil)

// New checks c and loads what the SDK needs. It sends no request to the store.
func New(ctx context.Context, c Config) (*Store, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	a, err := c.Shared.access(ctx, c)
	if err != nil {
		return nil, err
	}
	c.Endpoint = a.endpoint
	if err := checkEndpoint(c.Endpoint); err != nil {
		return nil, fmt.Errorf("s3 replica s3://%s: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or endpoint_url of the shared "+
			"configuration: %w", c.Bucket, err)
	}
	st := &Store{access: a, provider: providerOf(c.Endpoint), config: c, whole: maxWhole}
	st.client = s3.NewFromConfig(a.loaded, st.clientOptions)
	st.place = place{bucket: c.Bucket, prefix: c.Prefix, endpoint: c.Endpoint, region: a.loaded.Region,
		partSize: c.PartSize, provider: st.provider}
	return st, nil
}

// Provider returns the name of the provider, as far as the endpoint reveals it.
func (s *Store) Provider() string { return s.provider.name }

// Endpoint names the server that answers: it is the same for all stores behind it.
func (s *Store) Endpoint() string { return s.place.where() }

// HeadRefused reports whether the store was found to refuse HEAD.
func (s *Store) HeadRefused() bool { return s.headless.Load() }

// Versioned asks whether the bucket keeps deleted and replaced objects as versions. It returns
// an error if the keys may not ask.
func (s *Store) Versioned(ctx context.Context) (bool, error) {
	ctx, cancel := s.within(ctx, 0)
	defer cancel()
	out, err := s.client.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: &s.config.Bucket})
	if err != nil {
		return false, s.fail("list", "", err)
	}
	return out.Status == types.BucketVersioningStatusEnabled, nil
}

// complete fills in defaults and refuses what can never work.
func (c *Config) complete() error {
	if c.Bucket == "" {
		return errors.New("s3 replica: bucket is missing")
	}
	if (c.AccessKey == "") != (c.SecretKey == "") {
		return fmt.Errorf("s3 replica s3://%s: access_key and secret_key belong together: one of them is empty", c.Bucket)
	}
	if c.Endpoint != "" && !strings.Contains(c.Endpoint, "://") {
		c.Endpoint = "https://" + c.Endpoint
	}
	if err := checkEndpoint(c.Endpoint); err != nil {
		return fmt.Errorf("s3 replica s3://%s: %w", c.Bucket, err)
	}
	c.Prefix = strings.Trim(c.Prefix, "/")
	if c.PartSize == 0 {
		c.PartSize = DefaultPartSize
	}
	if c.PartSize < 5<<20 {
		return fmt.Errorf("s3 replica s3://%s: part size %d is below the 5 MiB that S3 demands", c.Bucket, c.PartSize)
	}
	if c.Stall <= 0 {
		c.Stall = DefaultStall
	}
	if c.Deadline <= 0 {
		c.Deadline = DefaultDeadline
	}
	if c.Backoff <= 0 {
		c.Backoff = DefaultBackoff
	}
	if c.Settle <= 0 {
		c.Settle = DefaultSettle
	}
	if c.Observe == nil {
		c.Observe = func(store.Request) {}
	}
	return nil
}

func (s *Store) clientOptions(o *s3.Options) {
	o.UsePathStyle = s.provider.pathStyle
	if s.config.PathStyle != nil {
		o.UsePathStyle = *s.config.PathStyle
	}
	if s.config.Endpoint != "" {
		o.BaseEndpoint = aws.String(s.config.Endpoint)
	}
	if !s.provider.amazon() {
		o.ContinueHeaderThresholdBytes = -1 // proxies answer 417 to Expect: 100-continue
	}
	// The checksums are ours (see guard). The SDK's own go into trailers, which providers
	// other than Amazon refuse, and over TLS it would not sign the payload.
	o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
	o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	o.HTTPSignerV4 = s.access.signer
	o.DisableLogOutputChecksumValidationSkipped = true
	o.APIOptions = append(o.APIOptions, s.watchRequests)
}

// newRetryer returns the policy for what a retry can cure: throttling, 5xx, timeouts, resets,
// and a conflicting conditional write. Its token bucket keeps a long outage from multiplying
// requests.
func (c *Config) newRetryer() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = maxAttempts
		o.MaxBackoff = c.Backoff
		o.Backoff = retry.NewExponentialJitterBackoff(c.Backoff)
		o.Retryables = append(append([]retry.IsErrorRetryable{unsent{}}, o.Retryables...), retry.RetryableErrorCode{
			Codes: map[string]struct{}{"ConditionalRequestConflict": {}, "OperationAborted": {}, "BadDigest": {},
				"XAmzContentSHA256Mismatch": {}},
		}, retryableNonsense{})
	})
}

// checkEndpoint refuses parts of a URL that would appear in messages or be dropped silently.
// The configuration has checked its own with better messages; the environment's is checked
// here.
func checkEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	switch {
	case endpoint == "":
		return nil
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return errors.New("the endpoint is not http://HOST or https://HOST")
	case u.User != nil || strings.ContainsAny(endpoint, "?#"):
		return errors.New("the endpoint has credentials or parameters in it, which do not belong there")
	}
	return nil
}

// checkKey refuses keys that leave the prefix or are not printable.
func checkKey(key string) error {
	if key == "" || len(key) > 900 || strings.HasPrefix(key, "/") || strings.HasSuffix(key, "/") {
		return fmt.Errorf("invalid key %q", key)
	}
	for _, part := range strings.Split(key, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("invalid key %q", key)
		}
	}
	for i := range len(key) {
		if key[i] <= ' ' || key[i] >= 0x7f {
			return fmt.Errorf("invalid key %q", key)
		}
	}
	return nil
}

// within bounds one operation, retries included; size is that of its body.
func (s *Store) within(ctx context.Context, size int64) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.config.Deadline+time.Duration(size/slowestLink)*time.Second)
}
