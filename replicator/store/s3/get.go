package s3

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// maxResumes is how often in a row a body may break off without a byte of progress.
const maxResumes = 5

// Get implements replicator.Store. A whole object is compared with the SHA-256 in its metadata.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, store.Object, error) {
	if err := checkKey(key); err != nil {
		return nil, store.Object{}, s.fail("get", key, err)
	}
	if offset < 0 || length < -1 {
		return nil, store.Object{}, s.fail("get", key, fmt.Errorf("invalid range %d+%d", offset, length))
	}
	if length == 0 {
		object, err := s.head(ctx, key)
		return nil, object, s.fail("get", key, err)
	}
	r := &reader{store: s, ctx: ctx, key: key, next: offset, end: -1}
	if length > 0 {
		r.end = offset + length
	}
	object, err := r.open()
	if codeOf(err) == "InvalidRange" || statusOf(err) == 416 {
		if object, err = s.head(ctx, key); err == nil && offset > object.Size {
			err = fmt.Errorf("offset %d is beyond the %d bytes of the object", offset, object.Size)
		}
		r.body = io.NopCloser(strings.NewReader(""))
	}
	if err != nil {
		return nil, store.Object{}, s.fail("get", key, err)
	}
	if r.end < 0 || r.end > object.Size {
		r.end = object.Size
	}
	if sum := object.Metadata[store.MetaSHA256]; sum != "" && offset == 0 && r.end == object.Size {
		r.hash, r.want = sha256.New(), sum
	}
	return r, object, nil
}

func (s *Store) head(ctx context.Context, key string) (store.Object, error) {
	ctx, cancel := s.within(ctx, 0)
	defer cancel()
	out, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.config.Bucket, Key: aws.String(s.objectKey(key))})
	if err != nil {
		return store.Object{}, err
	}
	if aws.ToString(out.ETag) == "" {
		return store.Object{}, errNotS3
	}
	return described(key, out), nil
}

func described(key string, out *s3.HeadObjectOutput) store.Object {
	return store.Object{
		Key: key, Size: aws.ToInt64(out.ContentLength), ETag: aws.ToString(out.ETag),
		Modified: aws.ToTime(out.LastModified), Metadata: unmarked(out.Metadata),
	}
}

func unmarked(metadata map[string]string) map[string]string {
	m := maps.Clone(metadata)
	delete(m, metaUpload)
	return m
}

// reader is a body that survives its connection: it asks for the rest by Range,
// and with If-Match, so that it never continues in another object.
type reader struct {
	store     *Store
	ctx       context.Context // of the whole read: the reader is the caller's one operation
	key, etag string
	next, end int64 // in the object; end is exclusive
	body      io.ReadCloser
	cancel    context.CancelFunc
	fruitless int

	hash hash.Hash // nil unless the whole object is read
	want string
}

// open requests next..end and sets the body. The deadline covers the wait for
// the reply only; then the connection's own stall bound takes over.
func (r *reader) open() (store.Object, error) {
	input := &s3.GetObjectInput{Bucket: &r.store.config.Bucket, Key: aws.String(r.store.objectKey(r.key))}
	ranged := r.next > 0 || r.end >= 0
	if ranged {
		input.Range = aws.String("bytes=" + strconv.FormatInt(r.next, 10) + "-" + lastByte(r.end))
	}
	if r.etag != "" {
		input.IfMatch = &r.etag
	}
	ctx, cancel := context.WithCancel(r.ctx)
	timer := time.AfterFunc(r.store.config.Deadline, cancel)
	out, err := r.store.client.GetObject(ctx, input)
	timer.Stop()
	if err != nil {
		cancel()
		return store.Object{}, err
	}
	object := store.Object{
		Key: r.key, ETag: aws.ToString(out.ETag), Modified: aws.ToTime(out.LastModified), Metadata: unmarked(out.Metadata),
	}
	object.Size, err = wholeSize(out, ranged, r.next)
	if err == nil && object.ETag == "" {
		err = errNotS3
	}
	if err != nil {
		cancel()
		return store.Object{}, errors.Join(err, out.Body.Close())
	}
	r.etag, r.body, r.cancel = object.ETag, out.Body, cancel
	return object, nil
}

func lastByte(end int64) string {
	if end < 0 {
		return ""
	}
	return strconv.FormatInt(end-1, 10)
}

// wholeSize is the size of the object whose part came back, or an error where
// the reply is not the part that was asked for.
func wholeSize(out *s3.GetObjectOutput, ranged bool, offset int64) (int64, error) {
	if !ranged {
		if out.ContentLength == nil {
			return 0, errNotS3
		}
		return *out.ContentLength, nil
	}
	var first, last, size int64
	if _, err := fmt.Sscanf(aws.ToString(out.ContentRange), "bytes %d-%d/%d", &first, &last, &size); err != nil || first != offset || last >= size {
		return 0, fmt.Errorf("%w: asked for bytes from %d, got %q", errNotS3, offset, aws.ToString(out.ContentRange))
	}
	return size, nil
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	for {
		if r.next >= r.end {
			return 0, r.finish()
		}
		if len(p) == 0 {
			return 0, nil
		}
		var n int
		err := io.ErrUnexpectedEOF
		if r.body != nil {
			n, err = r.body.Read(p[:min(int64(len(p)), r.end-r.next)])
		}
		if n > 0 {
			r.next += int64(n)
			r.fruitless = 0
			if r.hash != nil {
				r.hash.Write(p[:n])
			}
			return n, nil // an error that came along comes again
		}
		if err == nil {
			continue
		}
		if err = r.resume(err); err != nil {
			return 0, r.store.fail("get", r.key, err)
		}
	}
}

func (r *reader) finish() error {
	if r.hash == nil {
		return io.EOF
	}
	if got := hex.EncodeToString(r.hash.Sum(nil)); got != r.want {
		return r.store.fail("get", r.key, fmt.Errorf("%w: sha256 is %s, its metadata says %s", store.ErrDamaged, got, r.want))
	}
	return io.EOF
}

// resume opens the rest after cause broke the body off.
func (r *reader) resume(cause error) error {
	r.close()
	r.fruitless++
	if r.fruitless > maxResumes {
		return fmt.Errorf("body broke off at byte %d, %d times in a row: %w", r.next, maxResumes, cause)
	}
	pause := time.NewTimer(rand.N(100 * time.Millisecond << r.fruitless))
	defer pause.Stop()
	select {
	case <-r.ctx.Done():
		return r.ctx.Err()
	case <-pause.C:
	}
	_, err := r.open()
	switch kindOf(err) {
	case store.ErrExists:
		return fmt.Errorf("%w: it was replaced while it was read", store.ErrNotFound)
	case store.ErrUnavailable:
		return nil // the next Read tries again, up to maxResumes
	}
	return err
}

func (r *reader) close() {
	if r.body != nil {
		r.body.Close() //nolint:errcheck // an abandoned download has nothing to lose
		r.body = nil
	}
	if r.cancel != nil {
		r.cancel()
		r.cancel = nil
	}
}

// Close implements io.Closer.
func (r *reader) Close() error {
	r.close()
	return nil
}
