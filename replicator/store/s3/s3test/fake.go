package s3test

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Fake is an S3 server in memory that answers as its Profile says. It has one bucket, Bucket, and
// accepts the keys of every Server.
type Fake struct {
	URL     string
	Profile Profile // changed only before the first request

	server   *httptest.Server
	mu       sync.Mutex
	objects  map[string]fakeObject
	versions int // of deleted or replaced objects, if the bucket keeps them
	uploads  map[string]*fakeUpload
	requests map[string]int
	signed   map[string]bool // headers that any signature has covered
	next     int
}

type fakeObject struct {
	data     []byte
	etag     string
	metadata http.Header
	modified time.Time
}

type fakeUpload struct {
	key      string
	metadata http.Header
	begun    time.Time
	algo     string
	parts    map[int]fakePart
}

type fakePart struct {
	data     []byte
	etag     string
	checksum string // base64 SHA-256, if one was sent
}

// NewFake starts a server over plain HTTP that behaves as profile says.
func NewFake(tb testing.TB, profile Profile) *Fake {
	tb.Helper()
	f := newFake(profile)
	f.server = httptest.NewServer(f)
	f.URL = f.server.URL
	tb.Cleanup(f.server.Close)
	return f
}

// NewTLSFake is NewFake over TLS. It also returns the HTTP server, which has the certificate.
func NewTLSFake(tb testing.TB, profile Profile) (*Fake, *httptest.Server) {
	tb.Helper()
	f := newFake(profile)
	f.server = httptest.NewTLSServer(f)
	f.URL = f.server.URL
	tb.Cleanup(f.server.Close)
	return f, f.server
}

func newFake(profile Profile) *Fake {
	return &Fake{Profile: profile, objects: map[string]fakeObject{}, uploads: map[string]*fakeUpload{},
		requests: map[string]int{}, signed: map[string]bool{}}
}

// Requests returns how many requests arrived, by Operation.
func (f *Fake) Requests() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.requests)
}

// Signed reports whether any signature has covered a header, by its lower-case name.
func (f *Fake) Signed(header string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.signed[header]
}

// Uploads returns how many multipart uploads are neither completed nor aborted.
func (f *Fake) Uploads() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.uploads)
}

// Object returns what is stored under a key of the bucket.
func (f *Fake) Object(key string) ([]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o, found := f.objects[key]
	return o.data, found
}

// Keys returns the keys of the bucket in order.
func (f *Fake) Keys() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.objects))
}

// Leave begins an upload that is never completed or aborted, as a crash does.
func (f *Fake) Leave(key string, begun time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next++
	f.uploads[fmt.Sprint("left", f.next)] = &fakeUpload{key: key, begun: begun, parts: map[int]fakePart{}}
}

// refusal is an error in S3's format.
type refusal struct {
	status        int
	code, message string
	extra         string // XML
}

// Error implements error.
func (r *refusal) Error() string { return r.code }

func refuse(status int, code, format string, args ...any) error {
	return &refusal{status: status, code: code, message: fmt.Sprintf(format, args...)}
}

// ServeHTTP implements http.Handler.
func (f *Fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	err := f.serve(w, r)
	var no *refusal
	if errors.As(err, &no) {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(no.status)
		if r.Method != http.MethodHead {
			fmt.Fprintf(w, "%s<Error><Code>%s</Code><Message>%s</Message>%s</Error>", xml.Header, no.code, no.message, no.extra)
		}
	}
}

func (f *Fake) serve(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Date", time.Now().Add(f.Profile.Clock).UTC().Format(http.TimeFormat))
	op := Operation(r)
	f.mu.Lock()
	f.requests[op]++
	f.mu.Unlock()
	if f.Profile.RefusesExpect && r.Header.Get("Expect") != "" {
		w.WriteHeader(http.StatusExpectationFailed)
		return nil
	}
	if f.Profile.MaxBody > 0 && r.ContentLength > f.Profile.MaxBody {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		io.WriteString(w, "<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body>nginx</body></html>")
		return nil
	}
	if err := f.authorized(r); err != nil {
		return err
	}
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if bucket != Bucket {
		return refuse(404, "NoSuchBucket", "The specified bucket does not exist")
	}
	early := f.early(r, key)
	body, err := f.body(r, op)
	if err != nil {
		return err
	}
	if f.Profile.ChecksumsRefused {
		for name := range r.Header {
			if strings.HasPrefix(strings.ToLower(name), "x-amz-checksum") ||
				strings.EqualFold(name, "X-Amz-Sdk-Checksum-Algorithm") {
				return refuse(400, "InvalidArgument", "Unsupported header '%s' received for this API call.", strings.ToLower(name))
			}
		}
	}
	return f.dispatch(w, r, op, key, body, early)
}

func (f *Fake) dispatch(w http.ResponseWriter, r *http.Request, op, key string, body []byte, early error) error {
	q := r.URL.Query()
	switch {
	case op == "list", op == "get" && key == "" && !q.Has("uploads") && !q.Has("versioning"):
		return f.list(w, q)
	case op == "get" && q.Has("uploads"):
		return f.listUploads(w, q.Get("prefix"))
	case op == "get" && q.Has("versioning"):
		return f.versioning(w)
	case op == "get", op == "head":
		return f.get(w, r, key)
	case op == "put":
		return f.put(w, r, key, body, early)
	case op == "create":
		return f.create(w, r, key)
	case op == "part":
		return f.part(w, r, body)
	case op == "complete":
		return f.complete(w, r, key, body, early)
	case op == "abort":
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.uploads, q.Get("uploadId"))
		w.WriteHeader(http.StatusNoContent)
	case op == "delete" && r.Method == http.MethodPost:
		if f.Profile.Strict && r.Header.Get("Content-Md5") == "" && r.Header.Get("X-Amz-Checksum-Sha256") == "" &&
			r.Header.Get("X-Amz-Checksum-Crc32") == "" {
			return refuse(400, "InvalidRequest", "Missing required header for this request: Content-MD5 OR x-amz-checksum-*")
		}
		return f.deleteMany(w, body)
	case op == "delete":
		if err := f.remove(key); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		return refuse(501, "NotImplemented", "%s is not implemented", op)
	}
	return nil
}

// authorized changes the headers that the provider's front end changes, and then checks the
// signature.
func (f *Fake) authorized(r *http.Request) error {
	if f.Profile.AppendsEncoding != "" {
		r.Header.Set("Accept-Encoding", r.Header.Get("Accept-Encoding")+f.Profile.AppendsEncoding)
	}
	if f.Profile.RewritesType != "" && r.Header.Get("Content-Type") != "" {
		r.Header.Set("Content-Type", f.Profile.RewritesType)
	}
	_, after, _ := strings.Cut(r.Header.Get("Authorization"), "SignedHeaders=")
	names, _, _ := strings.Cut(after, ",")
	if f.Profile.Strict {
		if err := strict(r, strings.Split(names, ";"), f.Profile.Clock); err != nil {
			return err
		}
	}
	f.mu.Lock()
	for name := range strings.SplitSeq(names, ";") {
		f.signed[name] = true
	}
	f.mu.Unlock()
	canonical, err := checkSignature(r)
	if err != nil {
		var quoted strings.Builder
		xml.EscapeText(&quoted, []byte(canonical))
		return &refusal{403, "SignatureDoesNotMatch",
			"The request signature we calculated does not match the signature you provided.", "<CanonicalRequest>" +
				quoted.String() + "</CanonicalRequest>"}
	}
	return nil
}

// strict refuses what Amazon refuses before it checks the signature.
func strict(r *http.Request, signed []string, clock time.Duration) error {
	for name := range r.Header {
		name = strings.ToLower(name)
		if (strings.HasPrefix(name, "x-amz-") || name == "content-type") && !slices.Contains(signed, name) {
			return refuse(403, "AccessDenied", "There were headers present in the request which were not signed: %s", name)
		}
	}
	if !strings.Contains(r.Header.Get("Authorization"), "/"+Region+"/s3/aws4_request") {
		return refuse(400, "AuthorizationHeaderMalformed", "The authorization header is malformed; the region is wrong; "+
			"expecting '%s'", Region)
	}
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if off := time.Now().Add(clock).Sub(at).Abs(); err != nil || off > 15*time.Minute {
		return refuse(403, "RequestTimeTooSkewed",
			"The difference between the request time and the current time is too large.")
	}
	return nil
}

// body reads the body and compares it with the hashes in the headers.
func (f *Fake) body(r *http.Request, op string) ([]byte, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if f.Profile.Flips != nil {
		f.Profile.Flips(op, body)
	}
	sum := sha256.Sum256(body)
	announced := r.Header.Get("X-Amz-Content-Sha256")
	if !f.Profile.IgnoresPayload && len(announced) == 2*sha256.Size && announced != hex.EncodeToString(sum[:]) {
		return nil, refuse(400, "XAmzContentSHA256Mismatch",
			"The provided 'x-amz-content-sha256' header does not match what was computed.")
	}
	if want := r.Header.Get("Content-Md5"); want != "" {
		if got := md5.Sum(body); base64.StdEncoding.EncodeToString(got[:]) != want {
			return nil, refuse(400, "BadDigest", "The Content-MD5 you specified did not match what we received.")
		}
	}
	if want := r.Header.Get("X-Amz-Checksum-Sha256"); want != "" && f.Profile.Checksums &&
		base64.StdEncoding.EncodeToString(sum[:]) != want {
		return nil, refuse(400, "BadDigest", "The SHA256 you specified did not match the calculated checksum.")
	}
	return body, nil
}

// early checks the conditions before the body has arrived, if the provider does that.
func (f *Fake) early(r *http.Request, key string) error {
	if f.Profile.Create != CheckedTooSoon {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.conditions(r, key, Honoured, Honoured)
}

// conditions evaluates If-None-Match and If-Match. The caller holds mu.
func (f *Fake) conditions(r *http.Request, key string, create, match Conditions) error {
	old, exists := f.objects[key]
	if r.Header.Get("If-None-Match") != "" {
		if err := unfulfilled(create, exists); err != nil {
			return err
		}
	}
	want := r.Header.Get("If-Match")
	if want == "" || r.Method == http.MethodGet {
		return nil
	}
	if !exists && match == Honoured && f.Profile.MatchNothing != 0 {
		return refuse(f.Profile.MatchNothing, "NoSuchKey", "The specified key does not exist.")
	}
	return unfulfilled(match, !exists || strings.Trim(want, `"`) != strings.Trim(old.etag, `"`))
}

func unfulfilled(c Conditions, failed bool) error {
	switch {
	case c == NotKnown:
		return refuse(501, "NotImplemented", "A header you provided implies functionality that is not implemented")
	case c == BadRequest:
		return refuse(400, "InvalidArgument", "Unknown header")
	case c == Honoured && failed:
		return refuse(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
	}
	return nil
}

func (f *Fake) put(w http.ResponseWriter, r *http.Request, key string, body []byte, early error) error {
	if early != nil {
		return early
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.conditions(r, key, f.Profile.Create, f.Profile.Match); err != nil {
		return err
	}
	sum := md5.Sum(body)
	f.store(key, body, hex.EncodeToString(sum[:]), f.noted(r.Header))
	f.tag(w, f.objects[key].etag, "put")
	return nil
}

// store stores an object. The caller holds mu.
func (f *Fake) store(key string, data []byte, etag string, metadata http.Header) {
	if _, replaced := f.objects[key]; replaced && f.Profile.Versioned {
		f.versions++
	}
	f.objects[key] = fakeObject{data: data, etag: etag, metadata: metadata, modified: time.Now()}
}

func (f *Fake) tag(w http.ResponseWriter, etag, op string) {
	etag = `"` + etag + `"`
	if f.Profile.ETag != nil {
		etag = f.Profile.ETag(etag, op)
	}
	if etag != "" {
		w.Header().Set("ETag", etag)
	}
}

// noted returns the metadata headers of a request that are stored.
func (f *Fake) noted(header http.Header) http.Header {
	kept := http.Header{}
	for name, values := range header {
		if strings.HasPrefix(name, "X-Amz-Meta-") && !f.Profile.DropsMetadata {
			kept[name] = values
		}
	}
	return kept
}

func (f *Fake) get(w http.ResponseWriter, r *http.Request, key string) error {
	if r.Method == http.MethodHead && f.Profile.RefusesHead {
		return refuse(http.StatusMethodNotAllowed, "MethodNotAllowed", "HEAD is not allowed")
	}
	f.mu.Lock()
	o, found := f.objects[key]
	f.mu.Unlock()
	if !found && f.Profile.HidesAbsent {
		return refuse(403, "AccessDenied", "Access Denied")
	}
	if !found {
		return refuse(404, "NoSuchKey", "The specified key does not exist.")
	}
	if want := r.Header.Get("If-Match"); want != "" && !strings.EqualFold(strings.Trim(want, `"`), o.etag) {
		return refuse(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
	}
	maps.Copy(w.Header(), o.metadata)
	f.tag(w, o.etag, "get")
	w.Header().Set("Last-Modified", o.modified.UTC().Format(http.TimeFormat))
	w.Header().Set("Content-Type", "application/octet-stream")
	data, status := o.data, http.StatusOK
	if text, ranged := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ranged && !f.Profile.IgnoresRange {
		first, last, ok := span(text, len(o.data))
		if !ok {
			return refuse(416, "InvalidRange", "The requested range is not satisfiable")
		}
		format := f.Profile.ContentRange
		if format == "" {
			format = "bytes %d-%d/%d"
		}
		w.Header().Set("Content-Range", fmt.Sprintf(format, first, last, len(o.data)))
		data, status = o.data[first:last+1], http.StatusPartialContent
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(status)
	if r.Method == http.MethodGet {
		w.Write(data)
	}
	return nil
}

// span parses a range as in RFC 9110; last is inclusive.
func span(text string, size int) (first, last int, ok bool) {
	from, to, _ := strings.Cut(text, "-")
	first, err := strconv.Atoi(from)
	if last = size - 1; to != "" {
		n, err := strconv.Atoi(to)
		if err != nil {
			return 0, 0, false
		}
		last = min(n, last)
	}
	return first, last, err == nil && first < size && first <= last
}

func (f *Fake) remove(key string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Profile.Locked != nil && f.Profile.Locked(key) {
		return refuse(403, "AccessDenied", "Access Denied because object protected by object lock.")
	}
	if f.Profile.DeletesNothing {
		return nil
	}
	if _, found := f.objects[key]; found && f.Profile.Versioned {
		f.versions++
	}
	delete(f.objects, key)
	return nil
}

func (f *Fake) deleteMany(w http.ResponseWriter, body []byte) error {
	if f.Profile.NoDeleteObjects {
		return refuse(400, "NotImplemented", "POST ?delete is not implemented for objects.")
	}
	var asked struct {
		Object []struct{ Key string }
	}
	if err := xml.Unmarshal(body, &asked); err != nil {
		return refuse(400, "MalformedXML", "%v", err)
	}
	io.WriteString(w, xml.Header+"<DeleteResult>")
	for _, o := range asked.Object {
		var no *refusal
		if errors.As(f.remove(o.Key), &no) {
			fmt.Fprintf(w, "<Error><Key>%s</Key><Code>%s</Code><Message>%s</Message></Error>", o.Key, no.code, no.message)
		} else {
			fmt.Fprintf(w, "<Deleted><Key>%s</Key></Deleted>", o.Key)
		}
	}
	io.WriteString(w, "</DeleteResult>")
	return nil
}

func (f *Fake) versioning(w http.ResponseWriter) error {
	status := ""
	if f.Profile.Versioned {
		status = "<Status>Enabled</Status>"
	}
	_, err := io.WriteString(w, xml.Header+"<VersioningConfiguration>"+status+"</VersioningConfiguration>")
	return err
}
