package s3test

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// LeastPart is the smallest part that a Fake accepts, except as the last one: a twentieth of
// S3's limit, which Server enforces, so that tests of large uploads need not be large.
const LeastPart = 256 << 10

func (f *Fake) create(w http.ResponseWriter, r *http.Request, key string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next++
	id := fmt.Sprint("u", f.next)
	f.uploads[id] = &fakeUpload{key: key, metadata: f.noted(r.Header), begun: time.Now(),
		algo: r.Header.Get("X-Amz-Checksum-Algorithm"), parts: map[int]fakePart{}}
	_, err := fmt.Fprintf(w,
		"%s<InitiateMultipartUploadResult>"+
			"<Bucket>%s</Bucket><Key>%s</Key><UploadId>%s</UploadId></InitiateMultipartUploadResult>",
		xml.Header, Bucket, key, id)
	return err
}

func (f *Fake) part(w http.ResponseWriter, r *http.Request, body []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.uploads[r.URL.Query().Get("uploadId")]
	n, err := strconv.Atoi(r.URL.Query().Get("partNumber"))
	if u == nil || err != nil {
		return refuse(404, "NoSuchUpload", "The specified upload does not exist.")
	}
	sum := md5.Sum(body)
	p := fakePart{data: body, etag: hex.EncodeToString(sum[:]), checksum: r.Header.Get("X-Amz-Checksum-Sha256")}
	if f.Profile.Checksums && p.checksum != "" && u.algo != "SHA256" {
		return refuse(400, "InvalidRequest", "Checksum Type mismatch occurred, expected checksum Type: %s, actual checksum "+
			"Type: sha256", u.algo)
	}
	if f.Profile.Checksums && r.Header.Get("X-Amz-Trailer") != "" {
		p.checksum = "of a trailer"
	}
	u.parts[n] = p
	f.tag(w, p.etag, "part")
	return nil
}

func (f *Fake) complete(w http.ResponseWriter, r *http.Request, key string, body []byte, early error) error {
	if early != nil {
		return early
	}
	id := r.URL.Query().Get("uploadId")
	f.mu.Lock()
	data, etag, err := f.assemble(r, id, key, body)
	if err != nil {
		f.mu.Unlock()
		return err
	}
	u := f.uploads[id]
	delete(f.uploads, id)
	finish := func() {
		f.store(key, data, etag, u.metadata)
		f.mu.Unlock()
	}
	if f.Profile.Completing > 0 { // the connection is closed, but the server continues
		f.mu.Unlock()
		go func() {
			time.Sleep(f.Profile.Completing)
			f.mu.Lock()
			finish()
		}()
		reset(w)
		return nil
	}
	finish()
	_, err = fmt.Fprintf(w,
		"%s<CompleteMultipartUploadResult>"+
			"<Bucket>%s</Bucket><Key>%s</Key><ETag>&quot;%s&quot;</ETag></CompleteMultipartUploadResult>",
		xml.Header, Bucket, key, etag)
	return err
}

// assemble checks the list of parts and joins them. The caller holds mu.
func (f *Fake) assemble(r *http.Request, id, key string, body []byte) (data []byte, etag string, err error) {
	u := f.uploads[id]
	if u == nil {
		return nil, "", refuse(404, "NoSuchUpload", "The specified upload does not exist.")
	}
	var list struct {
		Part []struct {
			PartNumber           int
			ETag, ChecksumSHA256 string
		}
	}
	if err := xml.Unmarshal(body, &list); err != nil {
		return nil, "", refuse(400, "MalformedXML", "%v", err)
	}
	const missing = "One or more of the specified parts could not be found. The part may not have been uploaded, or the " +
		"specified entity tag may not match the part's entity tag."
	sums := md5.New()
	for i, listed := range list.Part {
		p, found := u.parts[listed.PartNumber]
		if !found || !strings.EqualFold(strings.Trim(listed.ETag, `"`), p.etag) ||
			f.Profile.Checksums && p.checksum != listed.ChecksumSHA256 {
			return nil, "", refuse(400, "InvalidPart", missing)
		}
		last := i == len(list.Part)-1
		if f.Profile.EvenParts && !last && len(p.data) != len(u.parts[list.Part[0].PartNumber].data) {
			return nil, "", refuse(400, "InvalidPart", "All non-trailing parts must have the same length.")
		}
		if !last && len(p.data) < LeastPart {
			return nil, "", refuse(400, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size")
		}
		data = append(data, p.data...)
		raw, _ := hex.DecodeString(p.etag)
		sums.Write(raw)
	}
	if err := f.conditions(r, key, f.Profile.Completion, f.Profile.Completion); err != nil {
		return nil, "", err
	}
	return data, fmt.Sprintf("%x-%d", sums.Sum(nil), len(list.Part)), nil
}

func (f *Fake) listUploads(w http.ResponseWriter, prefix string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	fmt.Fprintf(w, "%s<ListMultipartUploadsResult><Bucket>%s</Bucket><IsTruncated>false</IsTruncated>", xml.Header, Bucket)
	for id, u := range f.uploads {
		if strings.HasPrefix(u.key, prefix) {
			fmt.Fprintf(w, "<Upload><Key>%s</Key><UploadId>%s</UploadId><Initiated>%s</Initiated></Upload>", u.key, id,
				u.begun.UTC().Format(time.RFC3339))
		}
	}
	_, err := io.WriteString(w, "</ListMultipartUploadsResult>")
	return err
}

func (f *Fake) list(w http.ResponseWriter, q url.Values) error {
	var keys []string
	for _, key := range f.Keys() {
		if strings.HasPrefix(key, q.Get("prefix")) {
			keys = append(keys, key)
		}
	}
	v2 := q.Get("list-type") == "2" && f.Profile.Listing != VersionOne
	from := q.Get("marker")
	if v2 {
		if from = q.Get("continuation-token"); from == "" && f.Profile.Listing != NoStartAfter {
			from = q.Get("start-after")
		}
	}
	from, empty := strings.CutPrefix(from, "after an empty page ")
	limit := f.Profile.PageSize
	if limit == 0 {
		limit = 1000
	}
	i, found := slices.BinarySearch(keys, from)
	if found {
		i++
	}
	page := keys[i:min(i+limit, len(keys))]
	more := i+limit < len(keys)
	token := ""
	if more {
		token = page[len(page)-1]
	}
	switch f.Profile.Listing {
	case Unsorted:
		page = slices.Clone(page)
		slices.Reverse(page)
	case Capped:
		more, token = false, ""
	case Short:
		page, more, token = page[:min(len(page), f.Profile.Short)], false, ""
	case TokenOnly:
		more = false
	case EmptyPages:
		if more && !empty {
			page, token = nil, "after an empty page "+from
		}
	case RepeatingToken:
		page, more, token = nil, true, "again"
	}
	f.writePage(w, page, limit, v2, more, token)
	return nil
}

func (f *Fake) writePage(w io.Writer, page []string, limit int, v2, more bool, token string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fmt.Fprintf(w, "%s<ListBucketResult><Name>%s</Name><MaxKeys>%d</MaxKeys><IsTruncated>%v</IsTruncated>", xml.Header,
		Bucket, limit, more)
	if v2 {
		fmt.Fprintf(w, "<KeyCount>%d</KeyCount>", len(page))
		if token != "" {
			fmt.Fprintf(w, "<NextContinuationToken>%s</NextContinuationToken>", token)
		}
	}
	for _, key := range page {
		o := f.objects[key]
		fmt.Fprintf(w,
			"<Contents><Key>%s</Key><Size>%d</Size><ETag>&quot;%s&quot;</ETag><LastModified>%s</LastModified></Contents>", key,
			len(o.data), o.etag, o.modified.UTC().Format(time.RFC3339))
	}
	io.WriteString(w, "</ListBucketResult>")
}
