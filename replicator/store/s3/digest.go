package s3

import (
	"context"
	"crypto/md5" //nolint:gosec // S3's Content-MD5: against accidents, not attackers
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"

	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// guard lets a store refuse bytes that changed on the way. It has the SHA-256 that the
// signature covers, over TLS too (a load balancer that ends TLS may have bad memory), and the
// checksum that the provider is known to verify: x-amz-checksum-sha256 for Amazon, which
// requires it again when an upload is completed (aws-sdk-go-v2 #3005), Content-MD5 for all
// others.
type guard struct {
	payload string  // hex SHA-256
	sha256  *string // base64, for Amazon
	md5     *string // base64, for the others
}

// guardOf returns the guard of a body in memory.
func (s *Store) guardOf(body []byte) guard {
	sum := sha256.Sum256(body)
	if s.provider.amazon() {
		return guard{payload: hex.EncodeToString(sum[:]), sha256: base64Of(sum[:])}
	}
	other := md5.Sum(body)
	return guard{payload: hex.EncodeToString(sum[:]), md5: base64Of(other[:])}
}

// guardBody returns the guard of a body that can be opened again. It reads the body once,
// unless the announced digest is enough, and returns an error if the body is not what was
// announced.
func (s *Store) guardBody(body store.Body) (guard, error) {
	if announced, err := hex.DecodeString(body.SHA256); err == nil && len(announced) == sha256.Size &&
		s.provider.amazon() {
		return guard{payload: body.SHA256, sha256: base64Of(announced)}, nil
	}
	opened, err := body.Open()
	if err != nil {
		return guard{}, fmt.Errorf("open upload body: %w", err)
	}
	defer opened.Close()
	sum, other := sha256.New(), md5.New()
	n, err := io.Copy(io.MultiWriter(sum, other), opened)
	if err != nil {
		return guard{}, fmt.Errorf("read upload body: %w", err)
	}
	g := guard{payload: hex.EncodeToString(sum.Sum(nil))}
	switch {
	case n != body.Size:
		return guard{}, fmt.Errorf("upload body has %d bytes, not the %d it announced: %w", n, body.Size, io.ErrUnexpectedEOF)
	case body.SHA256 != "" && body.SHA256 != g.payload:
		return guard{}, fmt.Errorf("upload body has sha256 %s, not the %s it announced", g.payload, body.SHA256)
	case s.provider.amazon():
		g.sha256 = base64Of(sum.Sum(nil))
	default:
		g.md5 = sumOf(other)
	}
	return g, nil
}

func sumOf(h hash.Hash) *string { return base64Of(h.Sum(nil)) }

func base64Of(sum []byte) *string { return aws.String(base64.StdEncoding.EncodeToString(sum)) }

// signed puts the payload's hash into the signature.
func (g guard) signed(o *s3.Options) {
	o.APIOptions = append(o.APIOptions[:len(o.APIOptions):len(o.APIOptions)], func(stack *middleware.Stack) error {
		return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("sqlwatchHash",
			func(ctx context.Context, in middleware.InitializeInput,
				next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
				return next.HandleInitialize(v4.SetPayloadHash(ctx, g.payload), in)
			}), middleware.Before)
	})
}
