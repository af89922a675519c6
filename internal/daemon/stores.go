package daemon

import (
	"context"
	"fmt"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/file"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3"
)

// NewStore returns the store of one replica. observe, which may be nil, is told
// of every request.
func NewStore(ctx context.Context, t config.ReplicaTarget, observe func(store.Request)) (store.Store, error) {
	return sharedStore(ctx, t, nil, observe)
}

// sharedStore is NewStore for one of many: those in S3 have shared in common.
func sharedStore(ctx context.Context, t config.ReplicaTarget, shared *s3.Shared, observe func(store.Request)) (store.Store, error) {
	switch t.Type {
	case "file":
		st, err := file.New(t.File.Dir)
		if err != nil || observe == nil {
			return st, err
		}
		return store.Observed(st, observe), nil
	case "s3":
		return s3.New(ctx, s3.Config{
			Bucket: t.S3.Bucket, Prefix: t.S3.Prefix, Region: t.S3.Region, Endpoint: t.S3.Endpoint, PathStyle: pathStyle(t.S3),
			AccessKey: t.S3.AccessKey.Reveal(), SecretKey: t.S3.SecretKey.Reveal(), SessionToken: t.S3.SessionToken.Reveal(),
			CAFile: t.S3.CAFile, Observe: observe, Shared: shared,
		})
	}
	return nil, fmt.Errorf("replica %s: unknown type %q", t.Name, t.Type)
}

// pathStyle is what the configuration says of it, nil where it says nothing.
func pathStyle(s config.S3) *bool {
	if s.PathStyle || s.HostStyle {
		return &s.PathStyle
	}
	return nil
}
