package s3

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"

	"github.com/sqlwatch/sqlwatch/replicator/store/s3/breaker"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3/foreign"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3/wire"
)

// Shared is what stores with the same keys and certificates share: connections, trusted
// certificates, credentials. A process with a thousand databases has one of it. The zero value
// is ready to use.
type Shared struct {
	mu       sync.Mutex
	made     map[account]*access
	breakers map[string]*breaker.Breaker // by endpoint
}

// account is what must be equal for two stores to share an access.
type account struct {
	endpoint, region                   string
	accessKey, secretKey, sessionToken string
	certificates                       string // PEM, not the file's name: files change
	stall, backoff                     time.Duration
}

// access is how the requests of an account reach the store.
type access struct {
	loaded      aws.Config
	endpoint    string                // configured, or from the SDK's environment; "" is Amazon
	credentials *aws.CredentialsCache // nil if the keys are fixed
	signer      *wire.Signer
	breaker     *breaker.Breaker
}

// access returns the access for c, which is complete. A nil Shared makes a new one.
func (s *Shared) access(ctx context.Context, c Config) (*access, error) {
	var pem []byte
	if c.CAFile != "" {
		var err error
		if pem, err = os.ReadFile(c.CAFile); err != nil {
			return nil, fmt.Errorf("read certificates for s3://%s: %w", c.Bucket, err)
		}
	}
	if s == nil {
		return newAccess(ctx, c, pem)
	}
	key := account{c.Endpoint, c.Region, c.AccessKey, c.SecretKey, c.SessionToken, string(pem), c.Stall, c.Backoff}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.made[key]; a != nil {
		return a, nil
	}
	a, err := newAccess(ctx, c, pem)
	if err != nil {
		return nil, err
	}
	if s.made == nil {
		s.made, s.breakers = map[account]*access{}, map[string]*breaker.Breaker{}
	}
	s.made[key] = a
	where := place{endpoint: a.endpoint, region: a.loaded.Region}.where()
	if s.breakers[where] == nil {
		s.breakers[where] = a.breaker
	}
	a.breaker = s.breakers[where]
	return a, nil
}

func newAccess(ctx context.Context, c Config, pem []byte) (*access, error) {
	options := []func(*config.LoadOptions) error{
		config.WithHTTPClient(wire.NewClient(c.Stall)),
		config.WithRetryer(c.newRetryer),
		config.WithLogger(sdkLog(c.Log)),
	}
	if c.Region != "" {
		options = append(options, config.WithRegion(c.Region))
	}
	if c.AccessKey != "" {
		options = append(options, config.WithCredentialsProvider(fixed(&c)))
	}
	if pem != nil {
		options = append(options, func(o *config.LoadOptions) error {
			o.CustomCABundle = bytes.NewReader(pem) // a new reader: credentials are loaded more than once
			return nil
		})
	}
	loaded, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("load settings for s3://%s: %w", c.Bucket, err)
	}
	a := &access{loaded: loaded, endpoint: c.Endpoint, breaker: &breaker.Breaker{}}
	if a.endpoint == "" {
		a.endpoint = aws.ToString(s3.NewFromConfig(loaded).Options().BaseEndpoint)
	}
	p := providerOf(a.endpoint)
	if loaded.Region == "" || (c.Region == "" && a.endpoint != "") {
		a.loaded.Region = p.region
	}
	if b, ok := loaded.HTTPClient.(*awshttp.BuildableClient); ok {
		a.loaded.HTTPClient = b.Freeze() // otherwise each client of the SDK would have its own connections
	}
	a.signer = wire.NewSigner(p.amazon())
	if c.AccessKey == "" {
		if !p.amazon() && os.Getenv("AWS_EC2_METADATA_DISABLED") == "" {
			// Only Amazon has machine roles, and asking for one where nothing answers takes
			// seconds each time.
			options = append(options, config.WithEC2IMDSClientEnableState(imds.ClientDisabled))
		}
		a.credentials = aws.NewCredentialsCache(rereading{options})
		a.loaded.Credentials = a.credentials
	}
	return a, nil
}

// sdkLog passes the SDK's messages to log; the SDK would write them to standard error.
func sdkLog(log *slog.Logger) logging.Logger {
	if log == nil {
		return logging.Nop{}
	}
	return logging.LoggerFunc(func(class logging.Classification, format string, v ...any) {
		level := slog.LevelDebug
		if class == logging.Warn {
			level = slog.LevelWarn
		}
		log.Log(context.Background(), level, "the S3 library says", "text", foreign.OneLine(fmt.Sprintf(format, v...)))
	})
}
