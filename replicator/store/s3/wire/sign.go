package wire

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// neverSigned are headers that say nothing about the request and that proxies rewrite:
// Google's front end appends ",gzip(gfe)" to Accept-Encoding before it checks the signature
// (aws-sdk-go-v2 #1816), others renumber attempts. They are sent, but the signature does not
// cover them.
var neverSigned = []string{"Accept-Encoding", "Amz-Sdk-Invocation-Id", "Amz-Sdk-Request", "Content-Type"}

// Signer replaces the SDK's signer, which caches the key that it derived from a secret under
// the key id alone: a corrected secret of the same id would be ignored until the next day.
type Signer struct {
	current atomic.Pointer[v4.Signer]
	signed  http.Header // the headers of neverSigned that are signed nevertheless; never changed
}

// NewSigner returns a signer for Amazon, which requires a signed Content-Type, or for any
// other provider.
func NewSigner(amazon bool) *Signer {
	s := &Signer{}
	if amazon {
		s.signed = http.Header{"Content-Type": nil}
	}
	s.Forget()
	return s
}

// Forget drops keys that were derived from secrets.
func (s *Signer) Forget() {
	s.current.Store(v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }))
}

// SignHTTP implements s3.HTTPSignerV4.
func (s *Signer) SignHTTP(ctx context.Context, c aws.Credentials, r *http.Request, hash, service, region string,
	at time.Time, options ...func(*v4.SignerOptions)) error {
	aside := http.Header{}
	for _, name := range neverSigned {
		if _, signed := s.signed[name]; signed || len(r.Header[name]) == 0 {
			continue
		}
		aside[name] = r.Header[name]
		delete(r.Header, name)
	}
	err := s.current.Load().SignHTTP(ctx, c, r, hash, service, region, at, options...)
	for name, values := range aside {
		r.Header[name] = values
	}
	return err
}
