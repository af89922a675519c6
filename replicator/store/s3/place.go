package s3

import "strings"

// place is where the objects of a Store are: the prefix of its keys, and the names in its
// messages. It is immutable.
type place struct {
	bucket, prefix   string
	endpoint, region string
	partSize         int64
	provider         provider
}

// objectKey maps a canonical key to the key in the bucket.
func (p place) objectKey(key string) string {
	if p.prefix == "" {
		return key
	}
	return p.prefix + "/" + key
}

// canonicalKey is the inverse of objectKey.
func (p place) canonicalKey(objectKey string) (string, bool) {
	if p.prefix == "" {
		return objectKey, true
	}
	return strings.CutPrefix(objectKey, p.prefix+"/")
}

func (p place) url(key string) string { return "s3://" + p.bucket + "/" + p.objectKey(key) }

// where names the place that answered, for messages.
func (p place) where() string {
	if p.endpoint != "" {
		return p.endpoint
	}
	return "Amazon S3 in " + p.region
}
