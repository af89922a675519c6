package s3

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

const (
	partBuffers = 2    // one fills while one goes out: what an upload of any size costs in memory
	growEvery   = 2000 // parts after which their size doubles, so that 10,000 parts reach 240 GB and more
	maxParts    = 10000
)

// putParts uploads first and then all of r.
func (s *Store) putParts(ctx context.Context, key string, first []byte, r io.Reader, opts store.PutOptions) (store.Object, error) {
	mark := rand.Text()
	opening, cancel := s.within(ctx, 0)
	defer cancel()
	created, err := s.client.CreateMultipartUpload(opening, &s3.CreateMultipartUploadInput{
		Bucket: &s.config.Bucket, Key: aws.String(s.objectKey(key)),
		ContentType: aws.String("application/octet-stream"), Metadata: marked(opts.Metadata, mark),
	})
	if err != nil {
		return store.Object{}, err
	}
	if aws.ToString(created.UploadId) == "" {
		return store.Object{}, errNotS3
	}
	u := &upload{store: s, key: s.objectKey(key), id: created.UploadId}
	if err := u.send(ctx, first, r); err != nil {
		return store.Object{}, errors.Join(err, u.abort(ctx))
	}
	completing, cancel := s.within(ctx, 0)
	defer cancel()
	failure := u.complete(completing, opts)
	// Whatever the answer was (a lost reply, "no such upload" to a repeated
	// request), the object itself tells.
	if object, ours := s.isOurs(completing, key, u.size, mark); ours {
		return object, nil
	}
	if failure == nil {
		failure = fmt.Errorf("completed upload of %d bytes is not what the store shows", u.size)
	}
	return store.Object{}, errors.Join(failure, u.abort(ctx))
}

// upload is one multipart upload under way.
type upload struct {
	store *Store
	key   string
	id    *string
	parts []types.CompletedPart
	size  int64
}

// send uploads the parts. They are equally large, as Cloudflare demands, until
// their number would run out.
func (u *upload) send(ctx context.Context, first []byte, r io.Reader) error {
	group, ctx := errgroup.WithContext(ctx)
	free := make(chan []byte, partBuffers)
	for range partBuffers - 1 {
		free <- nil // allocated when needed
	}
	u.parts = make([]types.CompletedPart, 0, 16)
	etags := make(chan types.CompletedPart, maxParts)
	part, number := first, int32(1)
	var readErr error
	for len(part) > 0 {
		if number > maxParts {
			readErr = fmt.Errorf("more than %d parts of %d bytes: set a larger part size", maxParts, u.store.config.PartSize)
			break
		}
		u.size += int64(len(part))
		sending, n := part, number
		group.Go(func() error {
			etag, err := u.sendPart(ctx, n, sending)
			etags <- types.CompletedPart{PartNumber: &n, ETag: etag}
			free <- sending[:0]
			return err
		})
		number++
		var buffer []byte
		select {
		case buffer = <-free:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		if part, readErr = fill(buffer, u.partSize(number), r); readErr != nil {
			break
		}
	}
	err := group.Wait()
	close(etags)
	u.parts = make([]types.CompletedPart, number-1)
	for p := range etags {
		u.parts[*p.PartNumber-1] = p
	}
	return errors.Join(readErr, err)
}

func (u *upload) partSize(number int32) int64 {
	if u.store.provider.evenParts {
		return u.store.config.PartSize
	}
	return u.store.config.PartSize << ((number - 1) / growEvery)
}

// fill reads the next part into buffer; an empty one is the end. The buffer grows
// with what is read: of a thousand databases that take their first snapshots at
// once, most are small. Nothing but io.EOF itself ends a stream: a source that
// was cut off may say io.ErrUnexpectedEOF.
func fill(buffer []byte, size int64, r io.Reader) ([]byte, error) {
	part := buffer[:0]
	for int64(len(part)) < size {
		if len(part) == cap(part) {
			part = append(make([]byte, 0, min(max(int64(cap(part))*4, 64<<10), size)), part...)
		}
		n, err := r.Read(part[len(part):min(int64(cap(part)), size)])
		part = part[:len(part)+n]
		if err == io.EOF {
			return part, nil
		}
		if err != nil {
			return part, err
		}
	}
	return part, nil
}

func (u *upload) sendPart(ctx context.Context, number int32, part []byte) (*string, error) {
	ctx, cancel := u.store.within(ctx, int64(len(part)))
	defer cancel()
	out, err := u.store.client.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: &u.store.config.Bucket, Key: &u.key, UploadId: u.id, PartNumber: &number,
		Body: bytes.NewReader(part), ContentLength: aws.Int64(int64(len(part))),
	})
	if err != nil {
		return nil, fmt.Errorf("part %d: %w", number, err)
	}
	if aws.ToString(out.ETag) == "" {
		return nil, fmt.Errorf("part %d: %w", number, errNotS3)
	}
	return out.ETag, nil
}

func (u *upload) complete(ctx context.Context, opts store.PutOptions) error {
	_, err := u.store.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &u.store.config.Bucket, Key: &u.key, UploadId: u.id,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: u.parts},
		IfNoneMatch:     ifNoneMatch(opts), IfMatch: ifMatch(opts),
	})
	return err
}

// abort frees the parts, which would be stored and billed for ever. It is deaf
// to a cancelled ctx: that is the most common reason to abort.
func (u *upload) abort(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	_, err := u.store.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &u.store.config.Bucket, Key: &u.key, UploadId: u.id})
	if err == nil || kindOf(err) == store.ErrNotFound {
		return nil
	}
	return fmt.Errorf("abort the upload (its parts stay until the bucket's lifecycle rule removes them): %s", brief(err))
}
