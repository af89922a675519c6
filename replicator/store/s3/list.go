package s3

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"golang.org/x/sync/errgroup"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// List implements replicator.Store: one request for each thousand objects, no
// metadata. Each page starts after the last key seen, not at a continuation
// token: a token can expire under a slow consumer.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[store.Object, error] {
	return func(yield func(store.Object, error) bool) {
		last := ""
		if after != "" {
			last = s.objectKey(after)
		}
		for {
			page, err := s.listPage(ctx, s.objectKey(prefix), last)
			if err != nil {
				yield(store.Object{}, s.fail("list", prefix, err))
				return
			}
			progress := false
			for _, item := range page.Contents {
				objectKey := aws.ToString(item.Key)
				key, inside := s.canonicalKey(objectKey)
				if !inside || key == "" || objectKey <= last {
					continue // repeated by a store that is still settling
				}
				last, progress = objectKey, true
				object := store.Object{Key: key, Size: aws.ToInt64(item.Size), ETag: aws.ToString(item.ETag), Modified: aws.ToTime(item.LastModified)}
				if !yield(object, nil) {
					return
				}
			}
			if !aws.ToBool(page.IsTruncated) {
				return
			}
			if !progress {
				yield(store.Object{}, s.fail("list", prefix, fmt.Errorf("%w: a truncated page after %q holds nothing new", errNotS3, last)))
				return
			}
		}
	}
}

func (s *Store) listPage(ctx context.Context, prefix, after string) (*s3.ListObjectsV2Output, error) {
	ctx, cancel := s.within(ctx, 0)
	defer cancel()
	input := &s3.ListObjectsV2Input{Bucket: &s.config.Bucket, Prefix: &prefix}
	if after != "" {
		input.StartAfter = &after
	}
	page, err := s.client.ListObjectsV2(ctx, input)
	if err != nil {
		return nil, err
	}
	// The XML decoder makes an empty listing of any well-formed page.
	if aws.ToString(page.Name) != s.config.Bucket && page.KeyCount == nil {
		return nil, errNotS3
	}
	return page, nil
}

// deleteBatch is the most keys that DeleteObjects takes.
const deleteBatch = 1000

// Delete implements replicator.Store: a thousand keys a request, or one where
// the provider lacks that.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := checkKey(key); err != nil {
			return s.fail("delete", key, err)
		}
	}
	for batch := range slices.Chunk(keys, deleteBatch) {
		if err := s.deleteBatch(ctx, batch); err != nil {
			return s.fail("delete", batch[0], err)
		}
	}
	return nil
}

func (s *Store) deleteBatch(ctx context.Context, keys []string) error {
	ctx, cancel := s.within(ctx, 0)
	defer cancel()
	if len(keys) == 1 || s.provider.oneDelete {
		return s.deleteSingly(ctx, keys)
	}
	ids := make([]types.ObjectIdentifier, len(keys))
	for i, key := range keys {
		ids[i].Key = aws.String(s.objectKey(key))
	}
	out, err := s.client.DeleteObjects(ctx, &s3.DeleteObjectsInput{
		Bucket: &s.config.Bucket, Delete: &types.Delete{Objects: ids},
	}, s3.WithAPIOptions(smithyhttp.AddContentChecksumMiddleware)) // older implementations want Content-MD5
	if err != nil {
		if lacksDeleteObjects(err) {
			return s.deleteSingly(ctx, keys)
		}
		return err
	}
	if len(out.Deleted)+len(out.Errors) < len(keys) {
		return s.deleteSingly(ctx, keys) // an answer that accounts for less than was asked
	}
	var failures []error
	for _, e := range out.Errors {
		if kind := kinds[aws.ToString(e.Code)]; kind != store.ErrNotFound {
			failures = append(failures, keyError{e})
		}
	}
	return errors.Join(failures...)
}

func lacksDeleteObjects(err error) bool {
	if errors.Is(kindOf(err), errors.ErrUnsupported) {
		return true
	}
	switch statusOf(err) {
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusLengthRequired:
		return true
	}
	return false
}

func (s *Store) deleteSingly(ctx context.Context, keys []string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for _, key := range keys {
		group.Go(func() error {
			_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.config.Bucket, Key: aws.String(s.objectKey(key))})
			if kindOf(err) == store.ErrNotFound && codeOf(err) != "" {
				return nil
			}
			return err
		})
	}
	return group.Wait()
}

// keyError is one refusal inside a DeleteObjects reply, as a smithy.APIError.
type keyError struct{ refusal types.Error }

// Error implements error.
func (e keyError) Error() string {
	return fmt.Sprintf("%s: %s: %s", aws.ToString(e.refusal.Key), e.ErrorCode(), e.ErrorMessage())
}

// ErrorCode implements smithy.APIError.
func (e keyError) ErrorCode() string { return aws.ToString(e.refusal.Code) }

// ErrorMessage implements smithy.APIError.
func (e keyError) ErrorMessage() string { return aws.ToString(e.refusal.Message) }

// ErrorFault implements smithy.APIError.
func (e keyError) ErrorFault() smithy.ErrorFault { return smithy.FaultUnknown }
