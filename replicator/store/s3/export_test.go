package s3

import (
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/sqlwatch/sqlwatch/replicator/store/s3/wire"
)

// PretendAmazon makes the store behave as it does at Amazon, whose host names no test reaches.
func (s *Store) PretendAmazon() {
	s.provider = provider{name: amazonS3, pathStyle: true}
	s.access.signer = wire.NewSigner(true)
	s.client = s3.NewFromConfig(s.access.loaded, s.clientOptions)
}

// SetPartSize makes parts smaller than S3 accepts.
func (s *Store) SetPartSize(bytes int64) { s.config.PartSize, s.place.partSize = bytes, bytes }

// SetWhole makes uploads larger than that multipart uploads.
func (s *Store) SetWhole(bytes int64) { s.whole = bytes }

// SetPage makes listings return pages of so many keys.
func (s *Store) SetPage(keys int32) { s.page = &keys }

// PartSize is how large the parts of a body of at most so many bytes are.
func (s *Store) PartSize(atMost int64) (int64, error) { return s.partSize(atMost) }

// ForgetStored makes the store forget what it has stored, as after a restart.
func (s *Store) ForgetStored() { s.newest.keys = nil }

// UsesPathStyle reports whether the bucket is a part of the path.
func (s *Store) UsesPathStyle() bool { return s.client.Options().UsePathStyle }
