package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// maxResumes is how often in a row a body may break off without a byte of progress.
const maxResumes = 5

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, store.Object, error) {
	if err := checkKey(key); err != nil {
		return nil, store.Object{}, s.fail("get", key, err)
	}
	if offset < 0 || length < -1 {
		return nil, store.Object{}, s.fail("get", key, fmt.Errorf("invalid range %d+%d", offset, length))
	}
	if length == 0 {
		object, err := s.head(ctx, key)
		return nil, object, s.fail("get", key, s.absent(ctx, key, err))
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
		return nil, store.Object{}, s.fail("get", key, s.absent(ctx, key, err))
	}
	if r.end < 0 || r.end > object.Size {
		r.end = object.Size
	}
	return r, object, nil
}

// absent distinguishes an object that may not be read from one that does not exist: Amazon
// answers AccessDenied to both if the keys may only list below a prefix. A listing decides.
func (s *Store) absent(ctx context.Context, key string, err error) error {
	if statusOf(err) != http.StatusForbidden || kindOf(err) != store.ErrAuth {
		return err
	}
	switch codeOf(err) {
	case "AccessDenied", "Forbidden", "UnknownError", "":
	default:
		return err
	}
	ctx, cancel := s.within(ctx, 0)
	defer cancel()
	page, listing := s.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &s.config.Bucket,
		Prefix: aws.String(s.place.objectKey(key)), MaxKeys: aws.Int32(1)})
	if listing != nil || len(page.Contents) > 0 {
		return err
	}
	return errAbsent
}

// errAbsent is the verdict of a listing on an object that the store denies without a reason.
var errAbsent = fmt.Errorf("%w: its listing does not have it", store.ErrNotFound)

func (s *Store) head(ctx context.Context, key string) (store.Object, error) {
	ctx, cancel := s.within(ctx, 0)
	defer cancel()
	head, err := s.describe(ctx, key)
	return head.object, err
}

// description is what a store says about an object, without its bytes.
type description struct {
	object store.Object
	mark   string // of the upload that it came from; "" if the store drops metadata
}

// describe asks about an object with HEAD. Where HEAD is refused it uses a GET of one byte,
// from then on at once: the refusal of a HEAD has no body to say why, so the GET gives the
// better error too.
func (s *Store) describe(ctx context.Context, key string) (description, error) {
	if !s.headless.Load() {
		out, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.config.Bucket,
			Key: aws.String(s.place.objectKey(key))})
		switch {
		case err == nil && aws.ToString(out.ETag) != "" && out.ContentLength != nil:
			return description{store.Object{
				Key: key, Size: *out.ContentLength, ETag: canonicalETag(out.ETag),
				Modified: aws.ToTime(out.LastModified), Metadata: unmarked(out.Metadata),
			}, out.Metadata[metaUpload]}, nil
		case err != nil && !headRefused(err):
			return description{}, err
		}
	}
	d, err := s.describeByByte(ctx, key)
	if err == nil {
		s.headless.Store(true)
	}
	return d, err
}

func headRefused(err error) bool {
	switch statusOf(err) {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusNotImplemented,
		http.StatusUnsupportedMediaType:
		return true
	}
	return false
}

func (s *Store) describeByByte(ctx context.Context, key string) (description, error) {
	input := &s3.GetObjectInput{Bucket: &s.config.Bucket, Key: aws.String(s.place.objectKey(key)),
		Range: aws.String("bytes=0-0")}
	out, err := s.client.GetObject(ctx, input)
	ranged := true
	if statusOf(err) == http.StatusRequestedRangeNotSatisfiable { // an empty object has no first byte
		input.Range, ranged = nil, false
		out, err = s.client.GetObject(ctx, input)
	}
	if err != nil {
		return description{}, err
	}
	defer out.Body.Close()
	object := store.Object{Key: key, ETag: canonicalETag(out.ETag), Modified: aws.ToTime(out.LastModified),
		Metadata: unmarked(out.Metadata)}
	object.Size, err = wholeSize(out, ranged, 0)
	if err == nil && object.ETag == "" {
		err = errNotS3
	}
	return description{object, out.Metadata[metaUpload]}, err
}

func unmarked(metadata map[string]string) map[string]string {
	m := maps.Clone(metadata)
	delete(m, metaUpload)
	return m
}

// reader is a body that survives its connection: it requests the rest with Range and If-Match,
// so that it never continues in another object.
type reader struct {
	store     *Store
	ctx       context.Context // of the whole read: the reader is one operation of the caller
	key, etag string
	next, end int64 // in the object; end is exclusive
	body      io.ReadCloser
	cancel    context.CancelFunc
	fruitless int
}

// open requests next..end and sets the body. The deadline covers only the wait for the reply;
// afterwards the connection's stall limit applies.
func (r *reader) open() (store.Object, error) {
	input := &s3.GetObjectInput{Bucket: &r.store.config.Bucket, Key: aws.String(r.store.place.objectKey(r.key))}
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
		Key: r.key, ETag: canonicalETag(out.ETag), Modified: aws.ToTime(out.LastModified), Metadata: unmarked(out.Metadata),
	}
	object.Size, err = wholeSize(out, ranged, r.next)
	if err == nil && object.ETag == "" {
		err = errNotS3
	}
	if err == nil && r.etag != "" && object.ETag != r.etag { // If-Match was ignored
		err = errReplaced
	}
	if err == nil && ranged && out.ContentRange == nil { // the whole object, though a part was requested
		_, err = io.CopyN(io.Discard, out.Body, r.next)
	}
	if err != nil {
		cancel()
		return store.Object{}, errors.Join(err, out.Body.Close())
	}
	r.etag, r.body, r.cancel = object.ETag, out.Body, cancel
	return object, nil
}

// errReplaced says that another object is under the key of one that is being read.
var errReplaced = fmt.Errorf("%w: it was replaced while it was read", store.ErrNotFound)

func lastByte(end int64) string {
	if end < 0 {
		return ""
	}
	return strconv.FormatInt(end-1, 10)
}

// wholeSize returns the size of the object that a part belongs to, or an error if the reply is
// not the requested part. A store may ignore Range and answer with the whole object: then
// there is no Content-Range.
func wholeSize(out *s3.GetObjectOutput, ranged bool, offset int64) (int64, error) {
	if !ranged || out.ContentRange == nil {
		if out.ContentLength == nil || *out.ContentLength < offset {
			return 0, errNotS3
		}
		return *out.ContentLength, nil
	}
	text := *out.ContentRange
	match := contentRange.FindStringSubmatch(text)
	if match == nil {
		return 0, fmt.Errorf("%w (bytes from %d were asked for, and the Content-Range of the answer is %q)", errRange, offset,
			text)
	}
	first, err1 := strconv.ParseInt(match[1], 10, 64)
	last, err2 := strconv.ParseInt(match[2], 10, 64)
	size, err3 := strconv.ParseInt(match[3], 10, 64)
	if errors.Join(err1, err2, err3) != nil || first != offset || last < first || last >= size {
		return 0, fmt.Errorf("%w (bytes from %d were asked for, and the Content-Range of the answer is %q)", errRange, offset,
			text)
	}
	return size, nil
}

// contentRange matches the header as in RFC 9110 and as gateways write it: "bytes=", capital
// letters, extra spaces.
var contentRange = regexp.MustCompile(`(?i)^\s*bytes[ =]+(\d+)-(\d+)\s*/\s*(\d+)\s*$`)

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	for {
		if r.next >= r.end {
			return 0, io.EOF
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
			return n, nil // an error that came with the bytes comes again
		}
		if err == nil {
			continue
		}
		if err = r.resume(err); err != nil {
			return 0, r.store.fail("get", r.key, err)
		}
	}
}

// resume requests the rest after cause broke the body off.
func (r *reader) resume(cause error) error {
	r.drop()
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
		return errReplaced
	case store.ErrUnavailable:
		return nil // the next Read tries again, up to maxResumes
	}
	return err
}

func (r *reader) drop() {
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
	r.drop()
	return nil
}
