package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store/s3/s3test"
)

// chaos returns a function for Proxy.Break that breaks a share of all requests, chosen by the
// seed, but never the same request twice in a row: a retry gets through.
func chaos(seed uint64, share float64, faults ...s3test.Fault) func(*http.Request, int) s3test.Fault {
	rng, last := rand.New(rand.NewPCG(seed, 7)), map[string]bool{}
	return func(r *http.Request, _ int) s3test.Fault {
		key := r.Method + r.URL.String() + r.Header.Get("Range")
		if last[key] || rng.Float64() >= share {
			delete(last, key)
			return s3test.None
		}
		last[key] = true
		fault := faults[rng.IntN(len(faults))]
		if fault == s3test.WrongByte && s3test.Operation(r) == "list" {
			return s3test.HalfReply // only TLS can detect a listing with another key in it
		}
		return fault
	}
}

// total adds up what a proxy counted.
func total[K comparable](counts map[K]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

// putSubresource sends one signed request (AWS Signature Version 4) for something that sqlwatch
// itself never does: setting a bucket's policy.
func (s *s3Server) putSubresource(bucket, subresource, body string) error {
	now := time.Now().UTC()
	day, stamp, host := now.Format("20060102"), now.Format("20060102T150405Z"), "127.0.0.1:"+s.port
	sum := func(text string) string { h := sha256.Sum256([]byte(text)); return hex.EncodeToString(h[:]) }
	mac := func(key []byte, text string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	const signed = "host;x-amz-content-sha256;x-amz-date"
	request := strings.Join([]string{"PUT", "/" + bucket, subresource + "=",
		"host:" + host, "x-amz-content-sha256:" + sum(body), "x-amz-date:" + stamp, "", signed, sum(body)}, "\n")
	scope := day + "/us-east-1/s3/aws4_request"
	key := []byte("AWS4" + s3Secret)
	for _, part := range strings.Split(scope, "/") {
		key = mac(key, part)
	}
	signature := hex.EncodeToString(mac(key, strings.Join([]string{"AWS4-HMAC-SHA256", stamp, scope, sum(request)}, "\n")))
	r, err := http.NewRequest(http.MethodPut, s.url()+"/"+bucket+"?"+subresource+"=", strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("X-Amz-Content-Sha256", sum(body))
	r.Header.Set("X-Amz-Date", stamp)
	r.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s,SignedHeaders=%s,Signature=%s", s3KeyID,
		scope, signed, signature))
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 300 {
		text, _ := io.ReadAll(answer.Body)
		return fmt.Errorf("set the %s of %s: %s: %s", subresource, bucket, answer.Status, text)
	}
	return nil
}
