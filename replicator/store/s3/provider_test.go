package s3

import (
	"strings"
	"testing"
)

// TestProviders: the rules from the providers' documentation are applied by the endpoint's host
// name.
func TestProviders(t *testing.T) {
	t.Parallel()
	for endpoint, want := range map[string]provider{
		"":                                       {name: "Amazon S3", region: "us-east-1"},
		"https://s3.eu-west-3.amazonaws.com":     {name: "Amazon S3", region: "eu-west-3"},
		"https://s3.us-east-005.backblazeb2.com": {name: "Backblaze B2", region: "us-east-005"},
		"https://0123.r2.cloudflarestorage.com":  {name: "Cloudflare R2", region: "auto"},
		"https://storage.googleapis.com":         {name: "Google Cloud Storage", region: "auto", oneDelete: true},
		"https://s3.fr-par.scw.cloud":            {name: "Scaleway", region: "fr-par"},
		"https://nyc3.digitaloceanspaces.com":    {name: "DigitalOcean Spaces", region: "nyc3"},
		"http://127.0.0.1:9000":                  {name: "this endpoint", region: "us-east-1", pathStyle: true},
		"http://minio:9000":                      {name: "this endpoint", region: "us-east-1", pathStyle: true},
		"https://objects.example.org":            {name: "this endpoint", region: "us-east-1"},
	} {
		if got := providerOf(endpoint); got != want {
			t.Errorf("%q: %+v, want %+v", endpoint, got, want)
		}
	}
}

// TestHint_B2: a common mistake with Backblaze, the endpoint of another region, is explained.
func TestHint_B2(t *testing.T) {
	t.Parallel()
	st, err := New(t.Context(), Config{Bucket: "b", Endpoint: "s3.us-west-004.backblazeb2.com", AccessKey: "a",
		SecretKey: "s"})
	if err != nil {
		t.Fatal(err)
	}
	hint := st.place.hintForCode("list", "NoSuchBucket", nil)
	for _, want := range []string{`no bucket "b"`, "https://s3.us-west-004.backblazeb2.com", "its own region's endpoint"} {
		if !strings.Contains(hint, want) {
			t.Errorf("%q does not say %q", hint, want)
		}
	}
}
