package s3

import (
	"net/netip"
	"net/url"
	"strings"
)

// provider is what is known about an S3 implementation before the first request.
type provider struct {
	name      string
	region    string // if none is configured
	pathStyle bool   // buckets are not host names there
	oneDelete bool   // has no DeleteObjects
}

// providers is searched by the end of the endpoint's host name. All of it comes from the
// providers' documentation; what none of them documents is found out at run time (a refused
// conditional write, a missing DeleteObjects).
var providers = []struct {
	suffix string
	provider
	regionLabel int // which dot-separated label of the host is the region; -1 none
}{
	{".amazonaws.com", provider{name: amazonS3, region: "us-east-1"}, 1},
	{".backblazeb2.com", provider{name: "Backblaze B2", region: "us-west-004"}, 1}, // s3.us-west-004.backblazeb2.com
	{".r2.cloudflarestorage.com", provider{name: "Cloudflare R2", region: "auto"}, -1},
	{"storage.googleapis.com", provider{name: "Google Cloud Storage", region: "auto", oneDelete: true}, -1},
	// s3.eu-central-1.wasabisys.com
	{".wasabisys.com", provider{name: "Wasabi", region: "us-east-1"}, 1},
	// nyc3.digitaloceanspaces.com
	{".digitaloceanspaces.com", provider{name: "DigitalOcean Spaces", region: "us-east-1"}, 0},
	{".scw.cloud", provider{name: "Scaleway", region: "fr-par"}, 1},           // s3.fr-par.scw.cloud
	{".your-objectstorage.com", provider{name: "Hetzner", region: "fsn1"}, 0}, // fsn1.your-objectstorage.com
	{".cloud.ovh.net", provider{name: "OVHcloud", region: "gra"}, 1},          // s3.gra.io.cloud.ovh.net
	{".tigris.dev", provider{name: "Tigris", region: "auto"}, -1},
	{".storage.dev", provider{name: "Tigris", region: "auto"}, -1},
}

// amazon reports whether the provider follows the contract of x-amz-checksum headers: only
// Amazon does.
func (p provider) amazon() bool { return p.name == amazonS3 }

const amazonS3 = "Amazon S3"

func providerOf(endpoint string) provider {
	if endpoint == "" {
		return provider{name: amazonS3, region: "us-east-1"}
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return provider{name: "this endpoint", region: "us-east-1"}
	}
	host := strings.ToLower(u.Hostname())
	for _, p := range providers {
		if !strings.HasSuffix(host, p.suffix) {
			continue
		}
		labels := strings.Split(host, ".")
		if p.regionLabel >= 0 && len(labels) > p.regionLabel+2 {
			p.region = labels[p.regionLabel]
		}
		return p.provider
	}
	// MinIO, Garage, Ceph, versitygw and others that people run themselves: a bucket as host
	// name needs a wildcard DNS record, which few have.
	_, err = netip.ParseAddr(host)
	return provider{name: "this endpoint", region: "us-east-1", pathStyle: err == nil || !strings.Contains(host, ".") ||
		u.Port() != ""}
}
