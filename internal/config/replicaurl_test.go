package config

import (
	"strings"
	"testing"
)

// A replica's URL is read back as the same replica, whatever characters its names have.
func TestURLIsRead(t *testing.T) {
	t.Parallel()
	for _, want := range []ReplicaTarget{
		{Type: "file", File: File{Dir: "/var/backups/a b%20#1/app"}},
		{Type: "s3", S3: S3{Bucket: "backups", Prefix: "v1/app"}},
		{Type: "s3", S3: S3{Bucket: "backups", Prefix: strings.Repeat("p", longestPrefix)}},
		{Type: "s3", S3: S3{Bucket: "backups", Prefix: "v1/ä b;c&d", Endpoint: "https://s3.example.com:9000/x",
			Region: "eu-1", PathStyle: true}},
		{Type: "s3", S3: S3{Bucket: "backups", Endpoint: "http://127.0.0.1:9000", HostStyle: true}},
	} {
		got, err := ParseReplicaURL(want.URL())
		if err != nil || got.Type != want.Type || got.File != want.File || got.S3 != want.S3 {
			t.Errorf("%s is read as %+v, %v, want %+v", want.URL(), got, err, want)
		}
		got, err = ParseReplicaURL(want.Place())
		if err != nil || got.File != want.File || got.S3.Bucket != want.S3.Bucket || got.S3.Prefix != want.S3.Prefix {
			t.Errorf("%s, as messages have it, is read as %+v, %v, want %+v", want.Place(), got, err, want)
		}
	}
}
