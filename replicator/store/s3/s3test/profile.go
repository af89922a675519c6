package s3test

import "time"

// Conditions is how a store treats the condition of a write.
type Conditions int

// The ways to treat If-None-Match and If-Match.
const (
	Honoured       Conditions = iota // 412, decided at the moment of writing
	NotKnown                         // 501
	BadRequest                       // 400
	Ignored                          // overwritten nevertheless
	CheckedTooSoon                   // checked before the body is read: two writers may both pass
)

// Listing is what is unusual about a store's listings.
type Listing int

// The kinds of listings.
const (
	Plain          Listing = iota
	NoStartAfter           // start-after is ignored, continuation tokens work
	VersionOne             // list-type=2 is taken for version 1 of the API: markers
	TokenOnly              // IsTruncated is false although there is a token
	EmptyPages             // pages without keys, only with a token, in between
	Unsorted               // not in order of key
	Capped                 // ends after one page as if that were all
	Short                  // ends after Profile.Short objects as if that were all
	RepeatingToken         // the same token for ever
)

// Profile is how one provider answers, according to its documentation or to public reports.
// The zero value answers as Amazon does, but without its checksums.
type Profile struct {
	Name    string
	Sources []string // where this behaviour is documented

	Create, Match    Conditions // of PUT
	Completion       Conditions // both conditions, of CompleteMultipartUpload
	MatchNothing     int        // status of a failed If-Match without an object; 0: 412
	Checksums        bool       // x-amz-checksum headers: verified, and required again to complete an upload
	ChecksumsRefused bool       // x-amz-checksum headers are a bad request
	EvenParts        bool       // all parts but the last must have one size
	IgnoresPayload   bool       // the signed hash of the body is not compared with the body
	Versioned        bool       // deleted objects stay as versions
	// how long completing an upload takes; the object exists only after it
	Completing time.Duration
	Flips      func(operation string, body []byte) // changes a request's body before it is checked

	Front
	Answers
	Listings
	Deletes
}

// Front is how a front end checks and changes requests before the store sees them.
type Front struct {
	Strict bool          // refuses unsigned x-amz-* and Content-Type, another region, DeleteObjects without a digest
	Clock  time.Duration // how far the store's clock is ahead; if Strict, dates more than 15 minutes off are refused
	// requests for absent objects get AccessDenied, as with keys that may list only below a prefix
	HidesAbsent     bool
	AppendsEncoding string // appended to Accept-Encoding before the signature is checked
	RewritesType    string // replaces Content-Type before the signature is checked
	MaxBody         int64  // larger bodies get 413 with a web page
	RefusesExpect   bool   // requests with an Expect header get 417
}

// Answers describes how a store answers requests for an object.
type Answers struct {
	RefusesHead   bool
	DropsMetadata bool
	ETag          func(etag, operation string) string // how the ETag is spelled
	IgnoresRange  bool                                // answers with the whole object
	ContentRange  string                              // format of the header, given first, last and size
}

// Listings describes how a store lists.
type Listings struct {
	Listing         Listing
	PageSize, Short int // 0: 1000
}

// Deletes describes how a store deletes.
type Deletes struct {
	NoDeleteObjects bool                  // DeleteObjects is refused: one object per request
	Locked          func(key string) bool // keys that cannot be deleted
	DeletesNothing  bool                  // confirms a delete without deleting
}

// Profiles returns the providers that sqlwatch knows, each with what its documentation or its users
// say. The tests contact none of them.
func Profiles() []Profile {
	return []Profile{
		{
			Name: "Amazon S3", Checksums: true, MatchNothing: 404, Front: Front{Strict: true},
			Sources: []string{
				"https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html (host, content-type and x-amz-* " +
					"must be signed; 15 minutes)",
				"https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html (Content-MD5 or a checksum is required)",
				"https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html (If-Match where nothing is: 404)",
				"https://github.com/aws/aws-sdk-go-v2/issues/3005 (a part that came with a checksum is completed with it, or " +
					"InvalidPart)",
			},
		},
		{
			Name: "Backblaze B2", Create: NotKnown, Match: NotKnown, Completion: NotKnown, ChecksumsRefused: true,
			Versioned: true,
			Sources: []string{
				"https://github.com/sathinduga/obsidian-s3-sync-and-backup/pull/84 (conditional PUT: NotImplemented)",
				"https://github.com/iterate-ch/cyberduck/issues/16107 (Unsupported header 'x-amz-checksum-sha256')",
				"https://www.backblaze.com/docs/cloud-storage-s3-compatible-api (all versions are kept unless the lifecycle says " +
					"otherwise)",
			},
		},
		{
			Name: "Cloudflare R2", EvenParts: true, Completion: Ignored,
			Sources: []string{
				"https://developers.cloudflare.com/r2/objects/multipart-objects/ (all parts except the last one must be the same " +
					"size)",
				"https://developers.cloudflare.com/r2/api/s3/api/ (PutObject has conditional operations; CompleteMultipartUpload " +
					"names none)",
			},
		},
		{
			Name: "Google Cloud Storage", Create: Ignored, Match: Ignored, Completion: Ignored,
			Deletes: Deletes{NoDeleteObjects: true}, Front: Front{AppendsEncoding: ",gzip(gfe)"},
			Sources: []string{
				"https://github.com/aws/aws-sdk-go-v2/issues/1816 (Accept-Encoding is rewritten before the signature is checked)",
				"https://github.com/minio/mc/issues/4778 (POST ?delete is not implemented for objects; since 2026 it is)",
				"https://github.com/gaul/undocumented-s3-apis/issues/4 (conditions are on generations, not ETags)",
			},
		},
		{
			Name: "Ceph RGW (Hetzner, DigitalOcean)", Completion: Ignored,
			Sources: []string{
				"https://github.com/ceph/s3-tests/issues/218 (conditional PUT is an extension of Ceph since before Amazon had it)",
				"https://github.com/ceph/s3-tests/pull/693 (conditions of CompleteMultipartUpload since 2025)",
			},
		},
		{
			Name: "Wasabi", Create: Ignored, Match: Ignored, Completion: Ignored,
			Sources: []string{"nothing is said of conditions in public: taken to be ignored"},
		},
		{
			Name: "Garage", Create: Ignored, Match: Ignored, Completion: Ignored,
			Sources: []string{"https://garagehq.deuxfleurs.fr/documentation/reference-manual/s3-compatibility/ (PutObject " +
				"names no conditions; no versions)"},
		},
		{
			Name: "SeaweedFS", Create: CheckedTooSoon, Match: CheckedTooSoon, Completion: CheckedTooSoon,
			Sources: []string{"https://github.com/seaweedfs/seaweedfs/issues/8800 (concurrent If-None-Match: * all succeed, " +
				"up to 4.16)"},
		},
		{
			Name:    "Tigris",
			Sources: []string{"https://www.tigrisdata.com/docs/objects/conditionals/ (If-Match and If-None-Match, 412)"},
		},
		{
			Name: "MinIO",
			Sources: []string{
				"https://github.com/minio/minio/pull/19448 (412 for If-None-Match of a PUT)",
				"https://github.com/minio/minio/pull/19713 (conditions of CompleteMultipartUpload)",
			},
		},
	}
}
