package doctor

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3/s3test"
)

// TestQuirks_S34: doctor finds and names what a gateway does to a replica, and leaves behind only
// what could not be deleted.
func TestQuirks_S34(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		profile s3test.Profile
		ids     string
		cure    string
	}{
		{"all well", s3test.Profile{}, "", ""},
		{"body limit", s3test.Profile{Front: s3test.Front{MaxBody: 1 << 20}}, "replica-large", "client_max_body_size"},
		{"parts with other bytes", s3test.Profile{Flips: func(op string, body []byte) {
			if op == "part" {
				body[0] ^= 1
			}
		}}, "replica-large", ""},
		{"Content-Range", s3test.Profile{Answers: s3test.Answers{ContentRange: "octets %d to %d of %d"}}, "replica-range",
			"Content-Range"},
		{"metadata", s3test.Profile{Answers: s3test.Answers{DropsMetadata: true}}, "replica-metadata", "x-amz-meta-*"},
		{"HEAD", s3test.Profile{Answers: s3test.Answers{RefusesHead: true}}, "replica-head", "pass HEAD on"},
		{"bad request for a condition", s3test.Profile{Create: s3test.BadRequest, Match: s3test.BadRequest},
			"replica-conditional-writes", "only one sqlwatch"},
		{"If-Match ignored", s3test.Profile{Match: s3test.Ignored}, "replica-conditional-writes", "only one sqlwatch"},
		{"versions", s3test.Profile{Versioned: true}, "replica-versions", "NoncurrentVersionExpiration"},
		{"deletes lie", s3test.Profile{Deletes: s3test.Deletes{DeletesNothing: true}}, "replica-not-deleted", "object lock"},
		{"start-after ignored", s3test.Profile{Listings: s3test.Listings{Listing: s3test.NoStartAfter, PageSize: 1}}, "", ""},
		{"Expect refused", s3test.Profile{Front: s3test.Front{RefusesExpect: true}}, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := s3test.NewFake(t, test.profile)
			st, err := s3.New(t.Context(), s3.Config{Bucket: s3test.Bucket, Prefix: "app", Endpoint: f.URL,
				Region: s3test.Region, AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey, Backoff: time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			seam := store.Through(st, nil, nil)
			r := Probe(context.Background(), seam, Replica{Kind: "s3"})
			r = ProbeLarge(context.Background(), seam, r)
			var ids []string
			for _, found := range r.diagnose() {
				ids = append(ids, found.ID)
				if !strings.Contains(found.Cure, test.cure) {
					t.Errorf("%+v: want %q", found, test.cure)
				}
			}
			if got := strings.Join(ids, " "); got != test.ids {
				t.Errorf("found %q, want %q: %+v", got, test.ids, r.diagnose())
			}
			if left := f.Keys(); !test.profile.DeletesNothing && len(left) > 0 || f.Uploads() > 0 {
				t.Errorf("left behind: %q, %d uploads", left, f.Uploads())
			}
		})
	}
}
