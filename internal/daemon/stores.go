package daemon

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/replicator/queue"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/file"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3"
	"github.com/sqlwatch/sqlwatch/replicator/store/spelled"
)

// NewStore returns the store of one replica, for a command: behind the seam, and
// sharing nothing with others.
func NewStore(ctx context.Context, t config.ReplicaTarget) (store.Store, error) {
	return (&stores{}).open(ctx, t, nil, nil)
}

// stores is what all stores of one process share. The zero value is ready.
type stores struct {
	s3      s3.Shared
	uploads *store.Budget // nil: no limits
	queue   *queue.Queue  // of the databases that wait to be read from end to end; nil: no limit
}

// open returns the store of one replica. observe and log may be nil; observe is called for every request.
func (s *stores) open(ctx context.Context, t config.ReplicaTarget, observe func(store.Request),
	log *slog.Logger) (store.Store, error) {
	switch t.Type {
	case "file":
		st, err := file.New(t.File.Dir)
		if err != nil {
			return nil, err
		}
		return store.Through(st, s.uploads.At(t.Name), observe), nil
	case "s3":
		st, err := spelled.Open(t.S3.Prefix, func(prefix string) (*s3.Store, error) {
			return s3.New(ctx, s3.Config{
				Bucket: t.S3.Bucket, Prefix: prefix, Region: t.S3.Region, Endpoint: t.S3.Endpoint, PathStyle: pathStyle(t.S3),
				AccessKey: t.S3.AccessKey.Reveal(), SecretKey: t.S3.SecretKey.Reveal(),
				SessionToken: t.S3.SessionToken.Reveal(),
				CAFile:       t.S3.CAFile, Observe: observe, Shared: &s.s3, Log: log,
			})
		})
		if err != nil {
			return nil, err
		}
		return store.Through(st, s.uploads.At(endpoint(st)), nil), nil
	}
	return nil, fmt.Errorf("replica %s: unknown type %q", t.Name, t.Type)
}

// endpoint names what answers.
func endpoint(st store.Store) string {
	if bucket, ok := store.As[*s3.Store](st); ok {
		return bucket.Endpoint()
	}
	return ""
}

// pathStyle returns the configured value, or nil if there is none.
func pathStyle(s config.S3) *bool {
	if s.PathStyle || s.HostStyle {
		return &s.PathStyle
	}
	return nil
}
