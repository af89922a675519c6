package s3

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
)

// reread is the longest that credentials without an expiry of their own are
// trusted: a rotated file is noticed this late at most, and at once when the
// provider refuses the old keys.
const reread = 5 * time.Minute

func fixed(c *Config) aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider(c.AccessKey, c.SecretKey, c.SessionToken)
}

// rereading loads the SDK's chain anew on each retrieval. The SDK itself reads
// the environment and the shared files once per process, so keys that rotate
// under a running daemon would never be seen.
type rereading struct {
	options []func(*config.LoadOptions) error
}

// Retrieve implements aws.CredentialsProvider.
func (r rereading) Retrieve(ctx context.Context) (aws.Credentials, error) {
	loaded, err := config.LoadDefaultConfig(ctx, r.options...)
	if err != nil {
		return aws.Credentials{}, err
	}
	c, err := loaded.Credentials.Retrieve(ctx)
	if err != nil {
		return aws.Credentials{}, err
	}
	if !c.CanExpire {
		c.CanExpire, c.Expires = true, time.Now().Add(reread)
	}
	return c, nil
}
