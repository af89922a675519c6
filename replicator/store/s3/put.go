package s3

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// maxWhole is the largest body of known size that is sent as one PUT: a retry sends all of it
// again.
const maxWhole = 64 << 20

// restarts is how often an upload begins again if its parts are gone, or if it met another
// writer's when it was completed.
const restarts = 2

const conflictCode = "ConditionalRequestConflict"

const contentType = "application/octet-stream"

// metaUpload marks an upload, so that after a lost reply our own object can be distinguished
// from another writer's. Callers do not see it.
const metaUpload = "sqlwatch-upload"

// Put implements store.Store. A small body is one PUT. A large one, or one of unknown size, is
// a multipart upload in bounded memory that is aborted if it fails.
//
// If a precondition fails after one of our own attempts may have been applied (its reply was
// lost), the stored object decides: if it is ours, Put succeeded.
func (s *Store) Put(ctx context.Context, key string, body store.Body, opts store.PutOptions) (store.Object, error) {
	if err := checkKey(key); err != nil {
		return store.Object{}, s.fail("put", key, err)
	}
	object, err := s.send(ctx, key, body, opts)
	// Only its owner can begin a stream again.
	for tries := 0; tries < restarts && body.Size >= 0 && ctx.Err() == nil; tries++ {
		if !errors.Is(err, errGone) && codeOf(err) != conflictCode {
			break
		}
		object, err = s.send(ctx, key, body, opts) // from the start: an interrupted upload cannot be continued
	}
	if err == nil {
		s.newest.stored(key)
	}
	if opts.Match != "" && kindOf(err) == store.ErrNotFound {
		// Amazon answers 404 if If-Match meets no object.
		return store.Object{}, &Error{Op: "put", URL: s.place.url(key), Kind: store.ErrExists, Err: err}
	}
	if (opts.Create || opts.Match != "") && refusesCondition(err) {
		return store.Object{}, &Error{Op: "put", URL: s.place.url(key), Kind: errors.ErrUnsupported,
			Hint: "this store takes no conditional writes", Err: err}
	}
	return object, s.fail("put", key, err)
}

// refusesCondition reports whether a store, or something before it, answers 400 to a
// conditional PUT. If the request was bad for another reason, it fails without the condition
// too.
func refusesCondition(err error) bool {
	if statusOf(err) != http.StatusBadRequest || kindOf(err) != nil {
		return false
	}
	switch codeOf(err) {
	case "", "InvalidArgument", "InvalidRequest", "BadRequest", "Bad Request", "InvalidHeader", "UnsupportedHeader":
		return true
	}
	return false
}

func (s *Store) send(ctx context.Context, key string, body store.Body, opts store.PutOptions) (store.Object, error) {
	if body.Size >= 0 && body.Size <= s.whole {
		return s.putWhole(ctx, key, body, opts)
	}
	size, err := s.partSize(max(body.Size, body.AtMost))
	if err != nil {
		return store.Object{}, err
	}
	r, err := body.Open()
	if err != nil {
		return store.Object{}, err
	}
	defer r.Close()
	first, err := fill(nil, size, r)
	if err != nil {
		return store.Object{}, err
	}
	if int64(len(first)) < size {
		return s.putWhole(ctx, key, store.Body{
			Size: int64(len(first)), Pace: body.Pace,
			Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(first)), nil },
		}, opts)
	}
	return s.putParts(ctx, key, parts{size: size, first: first, rest: r, pace: body.Pace}, opts)
}

func (s *Store) putWhole(ctx context.Context, key string, body store.Body, opts store.PutOptions) (store.Object,
	error) {
	guard, err := s.guardBody(body)
	if err != nil {
		return store.Object{}, err
	}
	ctx, cancel := s.within(ctx, body.Size)
	defer cancel()
	stream := &reopening{body: body}
	defer stream.Close()
	mark := rand.Text()
	attempts := 0
	out, err := s.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &s.config.Bucket, Key: aws.String(s.place.objectKey(key)),
		Body: stream, ContentLength: &body.Size, ContentType: aws.String(contentType),
		Metadata: marked(opts.Metadata, mark), IfNoneMatch: ifNoneMatch(opts), IfMatch: ifMatch(opts),
		ChecksumSHA256: guard.sha256, ContentMD5: guard.md5,
	}, counting(&attempts), guard.signed)
	switch {
	case err == nil && aws.ToString(out.ETag) != "":
		return store.Object{Key: key, Size: body.Size, ETag: canonicalETag(out.ETag), Metadata: maps.Clone(opts.Metadata)},
			nil
	case err == nil: // no ETag: the store does not return one, or this is no store
		object, ours := s.isOurs(ctx, key, body.Size, mark, "")
		if !ours {
			return store.Object{}, errNotS3
		}
		return object, nil
	case attempts > 1 && (kindOf(err) == store.ErrExists || kindOf(err) == store.ErrUnavailable):
		if object, ours := s.isOurs(ctx, key, body.Size, mark, ""); ours {
			return object, nil
		}
	}
	return store.Object{}, err
}

// isOurs reports whether the object under key came from the upload called mark, whose answer
// had the given etag ("" if it had none). If the store drops metadata, the ETag decides.
func (s *Store) isOurs(ctx context.Context, key string, size int64, mark, etag string) (store.Object, bool) {
	head, err := s.describe(ctx, key)
	if err != nil || head.object.Size != size {
		return store.Object{}, false
	}
	if head.mark == "" && etag != "" {
		return head.object, head.object.ETag == etag
	}
	return head.object, head.mark == mark
}

// canonicalETag brings an ETag into one form: some stores write it differently in the answers
// to PUT and GET (without quotes, weak, in capital letters).
func canonicalETag(etag *string) string {
	text := strings.Trim(strings.TrimPrefix(strings.TrimSpace(aws.ToString(etag)), "W/"), `"`)
	if text == "" {
		return ""
	}
	digest, _, _ := strings.Cut(text, "-")
	if _, err := hex.DecodeString(digest); err == nil {
		text = strings.ToLower(text)
	}
	return `"` + text + `"`
}

func ifNoneMatch(opts store.PutOptions) *string {
	if opts.Create {
		return aws.String("*")
	}
	return nil
}

func ifMatch(opts store.PutOptions) *string {
	if opts.Match == "" {
		return nil
	}
	return &opts.Match
}

func marked(metadata map[string]string, mark string) map[string]string {
	m := make(map[string]string, len(metadata)+1)
	maps.Copy(m, metadata)
	m[metaUpload] = mark
	return m
}

// counting counts the attempts of one call: only a repeated request can meet its own result.
func counting(attempts *int) func(*s3.Options) {
	return func(o *s3.Options) {
		o.APIOptions = append(o.APIOptions[:len(o.APIOptions):len(o.APIOptions)], func(stack *middleware.Stack) error {
			return stack.Finalize.Insert(middleware.FinalizeMiddlewareFunc("sqlwatchCount",
				func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput,
					middleware.Metadata, error) {
					*attempts++
					return next.HandleFinalize(ctx, in)
				}), "Retry", middleware.After)
		})
	}
}

// paced is a body in memory that is sent no faster than its pace.
type paced struct {
	io.ReadSeeker
	pace store.Pace
}

// Read implements io.Reader.
func (p paced) Read(b []byte) (int, error) {
	n, err := p.ReadSeeker.Read(b[:p.pace.Chunk(len(b))])
	p.pace.Spend(n)
	return n, err
}

// reopening is a Body as the SDK wants it: seekable, although Seek supports only the start
// (where a retry opens the body again), the end and the current position.
type reopening struct {
	body    store.Body
	current io.ReadCloser
	offset  int64
}

// Read implements io.Reader.
func (r *reopening) Read(p []byte) (int, error) {
	if r.current == nil {
		opened, err := r.body.Open()
		if err != nil {
			return 0, fmt.Errorf("open upload body: %w", err)
		}
		if _, err := io.CopyN(io.Discard, opened, r.offset); err != nil {
			return 0, errors.Join(fmt.Errorf("reposition upload body: %w", err), opened.Close())
		}
		r.current = opened
	}
	n, err := r.current.Read(p[:r.body.Pace.Chunk(len(p))])
	r.offset += int64(n)
	r.body.Pace.Spend(n)
	return n, err
}

// Seek implements io.Seeker.
func (r *reopening) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.offset
	case io.SeekEnd:
		offset += r.body.Size
	}
	if offset < 0 || offset > r.body.Size {
		return r.offset, fmt.Errorf("seek upload body to %d of %d", offset, r.body.Size)
	}
	if offset != r.offset {
		if err := r.Close(); err != nil {
			return r.offset, err
		}
		r.offset = offset
	}
	return offset, nil
}

// Close implements io.Closer.
func (r *reopening) Close() error {
	if r.current == nil {
		return nil
	}
	err := r.current.Close()
	r.current = nil
	return err
}
