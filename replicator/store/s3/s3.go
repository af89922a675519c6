// Package s3 keeps a replica in an S3-compatible bucket: Amazon S3, Backblaze
// B2, Cloudflare R2, MinIO and their kin.
//
// Reading order: Store and Config here, put.go (single and multipart uploads),
// get.go (a body that breaks off is resumed), list.go (List and Delete),
// errors.go (what a provider's answer means and what to do next), provider.go
// (what is known about each provider), shared.go (what the stores of one process
// have in common), transport.go (deadlines and counting).
package s3

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// The defaults of Config.
const (
	DefaultStall    = 20 * time.Second // no byte moved in either direction
	DefaultDeadline = 2 * time.Minute  // one operation with all its attempts
	DefaultBackoff  = 5 * time.Second  // the longest pause between attempts
	DefaultPartSize = 8 << 20          // of multipart uploads; also the largest single PUT of a stream

	slowestLink = 32 << 10 // bytes per second: a body extends its operation's deadline by this
	maxAttempts = 4
)

// Config says where a replica lives and how to reach it. Empty fields take the
// provider's defaults, then the SDK's own chain (environment, shared files,
// instance role).
type Config struct {
	Bucket    string // required
	Prefix    string // of every key, without slashes at its ends
	Region    string
	Endpoint  string // URL; empty is Amazon
	PathStyle bool   // force http://endpoint/bucket/key; some providers imply it

	AccessKey    string // with SecretKey; both empty is the SDK's chain, re-read when it changes
	SecretKey    string
	SessionToken string

	CAFile string // PEM bundle to trust instead of the system's; AWS_CA_BUNDLE is honoured too

	Stall    time.Duration // an attempt fails after this long without a byte; 0 is DefaultStall
	Deadline time.Duration // of one operation with its retries, plus what its body needs; 0 is DefaultDeadline
	Backoff  time.Duration // the longest pause between attempts (full jitter); 0 is DefaultBackoff
	PartSize int64         // at least 5 MiB; 0 is DefaultPartSize

	// Observe is told of every request sent, each retry included. It must not block.
	Observe func(store.Request)

	Shared *Shared // with other stores of this process; nil: with none
}

// Store is a replicator.Store in a bucket. See that interface for its promises.
// The key of an object is Config.Prefix + "/" + the canonical key.
type Store struct {
	client   *s3.Client
	access   *access
	provider provider
	config   Config
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
	st := &Store{access: a, provider: providerOf(c.Endpoint), config: c}
	st.client = s3.NewFromConfig(a.loaded, st.clientOptions)
	return st, nil
}

// Provider returns the name of the provider, as far as the endpoint tells it.
func (s *Store) Provider() string { return s.provider.name }

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
	if c.Observe == nil {
		c.Observe = func(store.Request) {}
	}
	return nil
}

func (s *Store) clientOptions(o *s3.Options) {
	o.UsePathStyle = s.config.PathStyle || s.provider.pathStyle
	if s.config.Endpoint != "" {
		o.BaseEndpoint = aws.String(s.config.Endpoint)
		// Providers other than Amazon refuse or ignore the newer checksum
		// headers; the signed SHA-256 of the payload guards the upload.
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	}
	o.HTTPSignerV4 = s.access.signer
	o.DisableLogOutputChecksumValidationSkipped = true
	o.APIOptions = append(o.APIOptions, s.watchRequests)
}

// newRetryer makes what repeats what its transport can repair: throttling, 5xx, timeouts,
// resets, and a conflicting conditional write. Its token bucket keeps a long
// outage from multiplying requests.
func (c *Config) newRetryer() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = maxAttempts
		o.MaxBackoff = c.Backoff
		o.Backoff = retry.NewExponentialJitterBackoff(c.Backoff)
		o.Retryables = append(o.Retryables, retry.RetryableErrorCode{
			Codes: map[string]struct{}{"ConditionalRequestConflict": {}, "OperationAborted": {}},
		}, retryableNonsense{})
	})
}

// objectKey maps a canonical key to the bucket's.
func (s *Store) objectKey(key string) string {
	if s.config.Prefix == "" {
		return key
	}
	return s.config.Prefix + "/" + key
}

// canonicalKey is the inverse of objectKey.
func (s *Store) canonicalKey(objectKey string) (string, bool) {
	if s.config.Prefix == "" {
		return objectKey, true
	}
	return strings.CutPrefix(objectKey, s.config.Prefix+"/")
}

// checkKey keeps keys inside the prefix and printable.
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

// within bounds one operation, its retries included; size is what its body weighs.
func (s *Store) within(ctx context.Context, size int64) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.config.Deadline+time.Duration(size/slowestLink)*time.Second)
}
