package s3

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// maxEmptyPages is how many pages in a row may hold nothing new before a listing counts as
// endless. Stores that hide deleted versions send empty pages.
const maxEmptyPages = 1000

// List implements store.Store: one request for a thousand objects, no metadata. A listing
// decides what is restored and what is deleted. So a listing that is out of order, never ends,
// or lacks what this process stored there is store.ErrListing, never a shorter history.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[store.Object, error] {
	return func(yield func(store.Object, error) bool) {
		l := &listing{store: s, prefix: s.place.objectKey(prefix), must: s.newest.between(prefix, after)}
		if after != "" {
			l.last = s.place.objectKey(after)
		}
		for {
			items, more, err := l.next(ctx)
			for _, object := range items {
				if !yield(object, nil) {
					return
				}
			}
			if err == nil && !more {
				err = l.complete(ctx)
			}
			if err != nil {
				yield(store.Object{}, s.fail("list", prefix, err))
				return
			}
			if !more {
				return
			}
		}
	}
}

// paging is how the next page of a listing is requested. Each is tried when the one before
// turns out not to work.
type paging int

const (
	byStartAfter paging = iota // works for a slow consumer, for whom a token would expire
	byToken                    // where start-after is ignored
	byMarker                   // version 1 of the API, where version 2 is unknown
)

// listing is one listing under way. Its pages form one ascending sequence of keys, of which
// those up to last are skipped.
type listing struct {
	store  *Store
	prefix string // of the bucket's keys
	last   string // the last key that was yielded, or that the caller already has
	paging paging
	token  *string
	top    string // the first key of the first page
	marker string // the last key of the previous page, yielded or not
	empty  int
	must   map[string]bool // what was stored before the listing began and has not appeared yet
}

// page is what the answers of both versions of the API have in common.
type page struct {
	items     []types.Object
	truncated bool
	token     *string
	full      bool // it holds as many objects as a page can
}

// next returns what the next page adds, and whether there is another one.
func (l *listing) next(ctx context.Context) (items []store.Object, more bool, err error) {
	got, err := l.ask(ctx)
	if err != nil {
		return nil, false, err
	}
	before := l.last
	first := true
	for _, item := range got.items {
		objectKey := aws.ToString(item.Key)
		if !l.follows(objectKey, first) {
			return items, false, fmt.Errorf("%w: %q comes after %q", store.ErrListing, objectKey, max(l.marker, l.last))
		}
		l.marker, first = objectKey, false
		key, inside := l.store.place.canonicalKey(objectKey)
		if !inside || key == "" || objectKey <= l.last || !strings.HasPrefix(objectKey, l.prefix) {
			continue
		}
		l.last = objectKey
		delete(l.must, key)
		items = append(items, store.Object{
			Key: key, Size: aws.ToInt64(item.Size), ETag: canonicalETag(item.ETag), Modified: aws.ToTime(item.LastModified),
		})
	}
	progress := l.last > before
	more, err = l.turn(got, progress)
	return items, more, err
}

// follows reports whether a key is in its place. Only if start-after is ignored does a page
// begin before the end of the last one: at the top again.
func (l *listing) follows(objectKey string, first bool) bool {
	switch {
	case !first:
		return objectKey > l.marker
	case l.top == "":
		l.top = objectKey
		return true
	case l.paging == byStartAfter:
		return objectKey > l.last || objectKey == l.top
	}
	return objectKey >= l.marker || objectKey == l.top
}

// turn decides how to continue after a page.
func (l *listing) turn(got page, progress bool) (more bool, err error) {
	hasToken := aws.ToString(got.token) != ""
	if !got.truncated && !hasToken {
		// A full page that says it is the last may be cut by the store's own limit: one more
		// request behind it costs one request per thousand objects.
		return got.full && progress && l.paging != byToken, nil
	}
	if l.empty++; progress {
		l.empty = 0
	}
	if l.empty > maxEmptyPages {
		return false, fmt.Errorf("%w: %d pages in a row hold nothing new after %q", store.ErrListing, l.empty, l.last)
	}
	stuck := l.paging == byToken && hasToken && aws.ToString(l.token) == *got.token
	l.token = got.token
	switch {
	case progress && l.paging == byStartAfter:
	case progress && l.paging == byMarker:
	case hasToken && !stuck:
		l.paging = byToken
	case !hasToken && l.paging != byMarker && len(got.items) > 0:
		l.paging = byMarker // a version 1 answer, or one that cannot be continued otherwise
	case l.paging == byMarker && l.marker > l.last:
	default:
		return false, fmt.Errorf("%w: a truncated page after %q holds nothing new", store.ErrListing, l.last)
	}
	return true, nil
}

func (l *listing) ask(ctx context.Context) (page, error) {
	ctx, cancel := l.store.within(ctx, 0)
	defer cancel()
	if l.paging != byMarker {
		got, err := l.askV2(ctx)
		if !lacksVersion2(err) {
			return got, err
		}
		l.paging, l.marker = byMarker, ""
	}
	return l.askV1(ctx)
}

func (l *listing) askV2(ctx context.Context) (page, error) {
	input := &s3.ListObjectsV2Input{Bucket: &l.store.config.Bucket, Prefix: &l.prefix, MaxKeys: l.store.page}
	switch {
	case l.paging == byToken:
		input.ContinuationToken = l.token
	case l.last != "":
		input.StartAfter = &l.last
	}
	out, err := l.store.client.ListObjectsV2(ctx, input)
	if err != nil {
		return page{}, err
	}
	// The XML decoder turns any well-formed page into an empty listing.
	if aws.ToString(out.Name) != l.store.config.Bucket && out.KeyCount == nil {
		return page{}, errNotS3
	}
	return page{out.Contents, aws.ToBool(out.IsTruncated), out.NextContinuationToken,
		isFull(len(out.Contents), out.MaxKeys)}, nil
}

func (l *listing) askV1(ctx context.Context) (page, error) {
	input := &s3.ListObjectsInput{Bucket: &l.store.config.Bucket, Prefix: &l.prefix}
	if from := max(l.last, l.marker); from != "" {
		input.Marker = &from
	}
	out, err := l.store.client.ListObjects(ctx, input)
	if err != nil {
		return page{}, err
	}
	if aws.ToString(out.Name) != l.store.config.Bucket && out.MaxKeys == nil {
		return page{}, errNotS3
	}
	return page{out.Contents, aws.ToBool(out.IsTruncated), nil, isFull(len(out.Contents), out.MaxKeys)}, nil
}

// isFull reports whether a page holds as many objects as the store returns at a time: the
// number that it names, or else a round number.
func isFull(n int, limit *int32) bool {
	return n > 0 && (n == int(aws.ToInt32(limit)) || n >= 1000 || n%100 == 0)
}

// lacksVersion2 reports whether a store knows only version 1 of listing.
func lacksVersion2(err error) bool {
	if err == nil || codeOf(err) == "InvalidRange" {
		return false
	}
	return errors.Is(kindOf(err), errors.ErrUnsupported) || codeOf(err) == "InvalidArgument" ||
		statusOf(err) == http.StatusMethodNotAllowed
}

// complete compares a finished listing with what this process has stored: the newest object of
// each directory. One that did not appear is requested by itself; if the store has it, the
// listing was incomplete.
func (l *listing) complete(ctx context.Context) error {
	for key := range l.must {
		looking, cancel := l.store.within(ctx, 0)
		head, err := l.store.describe(looking, key)
		cancel()
		if kindOf(err) == store.ErrNotFound {
			l.store.newest.forget(key)
			continue
		}
		if err != nil {
			return err
		}
		return fmt.Errorf("%w: it ends at %q and lacks %s, which was stored at %s", store.ErrListing, l.last, key,
			head.object.Modified.UTC().Format(time.RFC3339))
	}
	return nil
}

// newest remembers, for every directory of keys, the highest key that this process has stored:
// a listing must show it.
type newest struct {
	mu   sync.Mutex
	keys map[string]string // by directory: "0000/"
}

func directory(key string) string { return key[:strings.LastIndexByte(key, '/')+1] }

func (n *newest) stored(key string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.keys == nil {
		n.keys = map[string]string{}
	}
	if dir := directory(key); key > n.keys[dir] {
		n.keys[dir] = key
	}
}

func (n *newest) forget(key string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if dir := directory(key); n.keys[dir] == key {
		delete(n.keys, dir)
	}
}

// between returns those that have the prefix and come after the given key.
func (n *newest) between(prefix, after string) map[string]bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	found := make(map[string]bool, len(n.keys))
	for _, key := range n.keys {
		if strings.HasPrefix(key, prefix) && key > after {
			found[key] = true
		}
	}
	return found
}
