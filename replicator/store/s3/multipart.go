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

	"github.com/sqlwatch/sqlwatch/internal/fault"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

const (
	partBuffers  = 2       // one fills while the other is sent: the memory of an upload of any size
	maxParts     = 10000   // of one upload, at every provider
	planParts    = 9000    // so that a database that grows meanwhile still fits
	largestPart  = 5 << 30 // at every provider
	partRounding = 1 << 20
)

// parts is a body that is sent in pieces of the given size, the last one smaller; first is
// already full.
type parts struct {
	size  int64
	first []byte
	rest  io.Reader
	pace  store.Pace
}

// partSize returns how large the parts of a body of at most atMost bytes are: all of one size,
// as Cloudflare R2 requires, and large enough not to exceed the number of parts.
func (s *Store) partSize(atMost int64) (int64, error) {
	size := max(s.config.PartSize, (atMost+planParts-1)/planParts)
	if size > s.config.PartSize {
		size = (size + partRounding - 1) / partRounding * partRounding
	}
	if size > largestPart {
		return 0, fmt.Errorf("%d bytes are more than %d parts of 5 GiB: S3 cannot hold that in one object", atMost, planParts)
	}
	return size, nil
}

// putParts uploads the whole body.
func (s *Store) putParts(ctx context.Context, key string, body parts, opts store.PutOptions) (store.Object, error) {
	mark := rand.Text()
	opening, cancel := s.within(ctx, 0)
	defer cancel()
	input := &s3.CreateMultipartUploadInput{
		Bucket: &s.config.Bucket, Key: aws.String(s.place.objectKey(key)),
		ContentType: aws.String(contentType), Metadata: marked(opts.Metadata, mark),
	}
	if s.provider.amazon() {
		input.ChecksumAlgorithm, input.ChecksumType = types.ChecksumAlgorithmSha256, types.ChecksumTypeComposite
	}
	created, err := s.client.CreateMultipartUpload(opening, input)
	if err != nil {
		return store.Object{}, err
	}
	if aws.ToString(created.UploadId) == "" {
		return store.Object{}, errNotS3
	}
	u := &upload{store: s, key: s.place.objectKey(key), id: created.UploadId, partSize: body.size}
	s.uploads.Store(*u.id, true)
	defer s.uploads.Delete(*u.id)
	if err := u.send(ctx, body); err != nil {
		return store.Object{}, errors.Join(u.gone(err), u.abort(ctx))
	}
	object, err := u.finish(ctx, key, mark, opts)
	return object, u.gone(err)
}

// errGone reports that an upload was aborted while it was under way: by a lifecycle rule or a
// sweep.
var errGone = errors.New("the upload's parts are gone: a lifecycle rule, or somebody, aborted it")

// gone reports whether err says that the upload, not the object, no longer exists.
func (u *upload) gone(err error) error {
	if kindOf(err) != store.ErrNotFound {
		return err
	}
	return fmt.Errorf("%w: %s", errGone, brief(err))
}

// upload is one multipart upload under way.
type upload struct {
	store    *Store
	key      string
	id       *string
	partSize int64
	parts    []types.CompletedPart
	size     int64
}

// send uploads the parts.
func (u *upload) send(ctx context.Context, body parts) error {
	group, ctx := errgroup.WithContext(ctx)
	free := make(chan []byte, partBuffers)
	for range partBuffers - 1 {
		free <- nil // allocated when needed
	}
	stored := make(chan types.CompletedPart, maxParts)
	part, number := body.first, int32(1)
	var readErr error
	for len(part) > 0 {
		if number > maxParts {
			readErr = fmt.Errorf("the body is longer than %d parts of %d bytes: nothing announced its size", maxParts,
				u.partSize)
			break
		}
		u.size += int64(len(part))
		sending, n := part, number
		group.Go(func() error {
			defer func() { free <- sending[:0] }()
			return fault.Guard(func() error {
				done, err := u.sendPart(ctx, n, sending, body.pace)
				if err == nil {
					stored <- done
				}
				return err
			})
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
		if part, readErr = fill(buffer, u.partSize, body.rest); readErr != nil {
			break
		}
	}
	err := group.Wait()
	close(stored)
	u.parts = make([]types.CompletedPart, number-1)
	for p := range stored {
		u.parts[*p.PartNumber-1] = p
	}
	return errors.Join(readErr, err)
}

// fill reads the next part into buffer; an empty part is the end. The buffer grows with what
// is read: when a thousand databases take their first snapshots at once, most are small. Only
// io.EOF itself ends a stream: a source that was cut off may return io.ErrUnexpectedEOF.
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

func (u *upload) sendPart(ctx context.Context, number int32, part []byte, pace store.Pace) (types.CompletedPart,
	error) {
	ctx, cancel := u.store.within(ctx, int64(len(part)))
	defer cancel()
	guard := u.store.guardOf(part)
	out, err := u.store.client.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: &u.store.config.Bucket, Key: &u.key, UploadId: u.id, PartNumber: &number,
		Body: paced{bytes.NewReader(part), pace}, ContentLength: aws.Int64(int64(len(part))),
		ChecksumSHA256: guard.sha256, ContentMD5: guard.md5,
	}, guard.signed)
	if err != nil {
		return types.CompletedPart{}, &partError{number, len(part), err}
	}
	if aws.ToString(out.ETag) == "" {
		return types.CompletedPart{}, &partError{number, len(part), errNotS3}
	}
	return types.CompletedPart{PartNumber: &number, ETag: aws.String(canonicalETag(out.ETag)),
		ChecksumSHA256: guard.sha256}, nil
}

// finish completes the upload. Whatever the answer is (a lost reply, "no such upload" to a
// repeated request, none until the store has put a hundred GB together), the object itself
// decides: it is looked for until it is there, the answer is a refusal, or Config.Settle has
// passed. Only then is the upload given up.
func (u *upload) finish(ctx context.Context, key, mark string, opts store.PutOptions) (store.Object, error) {
	etag, failure := u.complete(ctx, opts)
	s := u.store
	end := time.Now().Add(s.config.Settle)
	if kindOf(failure) == store.ErrNotFound { // completed by an earlier request, or aborted by somebody else
		end = time.Now().Add(min(s.config.Settle, time.Minute))
	}
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 15*time.Second) {
		looking, cancel := s.within(ctx, 0)
		object, ours := s.isOurs(looking, key, u.size, mark, etag)
		cancel()
		if ours {
			return object, nil
		}
		if refused(failure) || time.Now().After(end) {
			break
		}
		select {
		case <-ctx.Done(): // the store may still be at work on it: nothing is aborted
			return store.Object{}, errors.Join(failure, ctx.Err())
		case <-time.After(pause):
		}
	}
	if failure == nil {
		failure = fmt.Errorf("the completed upload of %d bytes is not what the store shows", u.size)
	}
	aborted := u.abort(ctx)
	if object, ours := s.isOurs(ctx, key, u.size, mark, etag); ours {
		return object, nil // it was put together at the last moment
	}
	return store.Object{}, errors.Join(failure, aborted)
}

// refused reports whether waiting cannot change an answer.
func refused(err error) bool {
	switch kindOf(err) {
	case store.ErrUnavailable, store.ErrNotFound, nil:
		status := statusOf(err)
		return status >= 400 && status < 500 && kindOf(err) == nil
	}
	return true
}

func (u *upload) complete(ctx context.Context, opts store.PutOptions) (etag string, err error) {
	ctx, cancel := u.store.within(ctx, 0)
	defer cancel()
	out, err := u.store.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &u.store.config.Bucket, Key: &u.key, UploadId: u.id,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: u.parts},
		IfNoneMatch:     ifNoneMatch(opts), IfMatch: ifMatch(opts),
	})
	if err != nil {
		return "", err
	}
	return canonicalETag(out.ETag), nil
}

// abortFor bounds an abort. It is less than what a shutdown leaves after the last sync, or the database's connections
// would not be closed in order.
const abortFor = 3 * time.Second

// abort frees the parts, which would otherwise be stored and billed for ever. It ignores the
// cancellation of ctx, which is the most common reason to abort.
func (u *upload) abort(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortFor)
	defer cancel()
	err := u.store.abortUpload(ctx, u.key, *u.id)
	if err != nil {
		return fmt.Errorf("abort the upload (its parts stay until it is swept): %s", brief(err))
	}
	return nil
}

// partError names the part of an upload that failed.
type partError struct {
	number int32
	size   int
	err    error
}

// Error returns the part and why it failed.
func (e *partError) Error() string {
	return fmt.Sprintf("part %d of %d bytes: %v", e.number, e.size, e.err)
}

// Unwrap returns why it failed.
func (e *partError) Unwrap() error { return e.err }

func (s *Store) abortUpload(ctx context.Context, objectKey, id string) error {
	_, err := s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &s.config.Bucket, Key: &objectKey,
		UploadId: &id})
	if kindOf(err) == store.ErrNotFound {
		return nil
	}
	return err
}

// SweepUploads aborts the multipart uploads below the prefix that were begun before a given
// time and that no Store of this process has under way. A crash leaves such uploads behind;
// they are invisible, and they are billed. It returns how many it aborted. If a store cannot
// list uploads, or forbids it, nothing is swept.
func (s *Store) SweepUploads(ctx context.Context, before time.Time) (swept int, err error) {
	ctx, cancel := s.within(ctx, 0)
	defer cancel()
	input := &s3.ListMultipartUploadsInput{Bucket: &s.config.Bucket, Prefix: aws.String(s.place.objectKey(""))}
	for range maxEmptyPages {
		page, err := s.client.ListMultipartUploads(ctx, input)
		if err != nil {
			if kind := kindOf(err); kind == store.ErrAuth || errors.Is(kind, errors.ErrUnsupported) ||
				kind == store.ErrNotFound {
				return swept, nil
			}
			return swept, s.fail("list", "", fmt.Errorf("unfinished uploads: %w", err))
		}
		for _, left := range page.Uploads {
			key, id := aws.ToString(left.Key), aws.ToString(left.UploadId)
			_, ours := s.uploads.Load(id)
			if _, inside := s.place.canonicalKey(key); !inside || ours || left.Initiated == nil ||
				!left.Initiated.Before(before) {
				continue
			}
			if err := s.abortUpload(ctx, key, id); err != nil {
				return swept, s.fail("delete", "", fmt.Errorf("abort an upload that was begun at %s: %w",
					left.Initiated.UTC().Format(time.RFC3339), err))
			}
			swept++
		}
		if !aws.ToBool(page.IsTruncated) || aws.ToString(page.NextKeyMarker) == "" {
			return swept, nil
		}
		input.KeyMarker, input.UploadIdMarker = page.NextKeyMarker, page.NextUploadIdMarker
	}
	return swept, nil
}
