package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"golang.org/x/sync/errgroup"

	"github.com/sqlwatch/sqlwatch/internal/fault"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// deleteBatch is the most keys that DeleteObjects takes.
const deleteBatch = 1000

// Delete implements store.Store: a thousand keys a request, or one key a request if the
// provider lacks DeleteObjects. A refused key (a lock, a legal hold) does not stop the others;
// a store that cannot be reached, or refuses every delete, stops the rest.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := checkKey(key); err != nil {
			return s.fail("delete", key, err)
		}
		s.newest.forget(key)
	}
	var refused store.DeleteError
	for batch := range slices.Chunk(keys, deleteBatch) {
		whole := s.deleteBatch(ctx, batch, func(key string, err error) { refused.Add(key, s.fail("delete", key, err)) })
		if whole == nil {
			continue
		}
		whole = s.fail("delete", batch[0], whole)
		for _, key := range keys[len(keys)-remaining(keys, batch):] {
			refused.Add(key, whole)
		}
		break
	}
	return refused.Err(len(keys))
}

// remaining is how many of keys are left, from the first of batch on. batch is a part of keys.
func remaining(keys, batch []string) int {
	for i := range keys {
		if &keys[i] == &batch[0] {
			return len(keys) - i
		}
	}
	return 0
}

// deleteBatch deletes keys and calls refuse for each one that was refused. The error is that
// of the request as a whole.
func (s *Store) deleteBatch(ctx context.Context, keys []string, refuse func(key string, err error)) error {
	ctx, cancel := s.within(ctx, 0)
	defer cancel()
	if len(keys) == 1 || s.provider.oneDelete || s.singly.Load() {
		return s.deleteSingly(ctx, keys, refuse)
	}
	ids := make([]types.ObjectIdentifier, len(keys))
	for i, key := range keys {
		ids[i].Key = aws.String(s.place.objectKey(key))
	}
	out, err := s.client.DeleteObjects(ctx, &s3.DeleteObjectsInput{
		Bucket: &s.config.Bucket, Delete: &types.Delete{Objects: ids},
	}, s3.WithAPIOptions(smithyhttp.AddContentChecksumMiddleware)) // older implementations want Content-MD5
	if err != nil {
		if lacksDeleteObjects(err) {
			s.singly.Store(true)
			return s.deleteSingly(ctx, keys, refuse)
		}
		return err
	}
	answered := make(map[string]bool, len(keys))
	for _, d := range out.Deleted {
		answered[aws.ToString(d.Key)] = true
	}
	for _, e := range out.Errors {
		answered[aws.ToString(e.Key)] = true
		key, inside := s.place.canonicalKey(aws.ToString(e.Key))
		if kinds[aws.ToString(e.Code)] != store.ErrNotFound && inside {
			refuse(key, keyError{e})
		}
	}
	// Keys that the answer does not mention are deleted one by one.
	return s.deleteSingly(ctx, slices.DeleteFunc(slices.Clone(keys),
		func(key string) bool { return answered[s.place.objectKey(key)] }), refuse)
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

// deleteSingly is deleteBatch with a request for each key.
func (s *Store) deleteSingly(ctx context.Context, keys []string, refuse func(key string, err error)) error {
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for _, key := range keys {
		deleteOne := func() error {
			_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.config.Bucket,
				Key: aws.String(s.place.objectKey(key))})
			kind := kindOf(err)
			switch {
			case err == nil, kind == store.ErrNotFound && codeOf(err) != "":
				return nil
			case kind == store.ErrUnavailable, kind == store.ErrMisplaced, len(keys) == 1, ctx.Err() != nil:
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			refuse(key, err)
			return nil
		}
		group.Go(func() error { return fault.Guard(deleteOne) })
	}
	return group.Wait()
}

// keyError is one refusal inside a DeleteObjects reply, as a smithy.APIError.
type keyError struct{ refusal types.Error }

// Error implements error.
func (e keyError) Error() string {
	return fmt.Sprintf("%s: %s", e.ErrorCode(), e.ErrorMessage())
}

// ErrorCode implements smithy.APIError.
func (e keyError) ErrorCode() string { return aws.ToString(e.refusal.Code) }

// ErrorMessage implements smithy.APIError.
func (e keyError) ErrorMessage() string { return aws.ToString(e.refusal.Message) }

// ErrorFault implements smithy.APIError.
func (e keyError) ErrorFault() smithy.ErrorFault { return smithy.FaultUnknown }
