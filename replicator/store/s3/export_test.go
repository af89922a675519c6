package s3

import (
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/sqlwatch/sqlwatch/replicator/store/s3/wire"
)

// PretendAmazon makes the store behave as with Amazon's endpoints, which tests never contact.
func (s *Store) PretendAmazon() {
	s.provider = provider{name: amazonS3, pathStyle: true}
	s.access.signer = wire.NewSigner(true)
	s.client = s3.NewFromConfig(s.access.loaded, s.clientOptions)
}

// SetPartSize makes parts smaller than S3 accepts.
func (s *Store) SetPartSize(bytes int64) { s.config.PartSize, s.place.partSize = bytes, bytes }

// SetWhole makes bodies larger than bytes multipart uploads.
func (s *Store) SetWhole(bytes int64) { s.whole = bytes }

// SetPage makes listings return pages of that many keys.
func (s *Store) SetPage(keys int32) { s.page = &keys }

// PartSize returns the size of the parts of a body of at most atMost bytes.
func (s *Store) PartSize(atMost int64) (int64, error) { return s.partSize(atMost) }

// ForgetStored makes the store forget what it has stored, as after a restart.
func (s *Store) ForgetStored() { s.newest.keys = nil }

// UsesPathStyle reports whether the bucket is part of the path.
func (s *Store) UsesPathStyle() bool { return s.client.Options().UsePathStyle }
