package importer

import (
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"gopkg.in/yaml.v3"
)

// inherited lists the settings of a replica that may stand at the top level.
var inherited = []string{
	"sync-interval", "validation-interval", "access-key-id", "secret-access-key", "region", "bucket", "endpoint",
	"force-path-style",
	"skip-verify", "storage-class", "sse-customer-algorithm", "sse-customer-key", "sse-customer-key-path",
	"sse-kms-key-id", "age",
}

func replicaSettings(top *section) map[string]*yaml.Node {
	settings := map[string]*yaml.Node{}
	for _, key := range inherited {
		if node := top.take(key); node != nil {
			settings[key] = node
		}
	}
	return settings
}

// replica converts one replica of a database.
func (c *conversion) replica(s *section, defaults map[string]*yaml.Node, times schedule, d database) (replica, bool) {
	for _, key := range inherited {
		if s.fields[key] == nil && defaults[key] != nil {
			if s.fields == nil {
				s.fields = map[string]*yaml.Node{}
			}
			s.fields[key] = defaults[key]
			s.order = append(s.order, key)
		}
	}
	raw := s.text("url")
	r := replica{typ: storeType(c.env.plain(raw.text), c.env.plain(s.text("type").text)), beneath: !d.glob.empty()}
	switch r.typ {
	case "file", "s3":
	default:
		c.drop(s.name, unsupported(r.typ))
		return r, false
	}
	if why := unencrypted(s); why != "" && r.typ == "s3" {
		c.drop(s.name, why)
		return r, false
	}
	c.schedule(s, times, &r)
	name := s.text("name")
	var err error
	if r.typ == "file" {
		for _, key := range inherited {
			s.ignore(key) // inherited settings of stores that this is not
		}
		r.place, err = c.directory(s, raw)
	} else {
		err = c.bucket(s, raw, &r)
	}
	s.tell()
	if err != nil {
		c.drop(s.name, err.Error())
		return r, false
	}
	label := d.name
	if text := c.env.plain(name.text); text != "" && text != r.typ {
		label += "-" + text
	}
	r.label = c.freeName(identifier(label), func(l string) bool {
		return slices.ContainsFunc(c.replicas, func(o replica) bool { return o.typ == r.typ && o.label == l })
	})
	return r, true
}

// unencrypted says why a replica that its owner wanted encrypted is left out:
// without that what was to be secret would be uploaded as it is.
func unencrypted(s *section) string {
	if node := s.fields["age"]; node != nil && len(node.Content) > 0 {
		return "it is to be encrypted with age, and sqlwatch does not encrypt: the replica is left out"
	}
	for _, key := range []string{"sse-customer-key", "sse-customer-key-path"} {
		if node := s.fields[key]; node != nil && node.Value != "" {
			return "it is to be encrypted with a customer's key (" + key +
				"), which is not supported: the replica is left out; where the bucket's own encryption will do, remove that " +
				"line, and begin with an empty prefix"
		}
	}
	return ""
}

// identifier makes a label that replicate_to can refer to.
func identifier(label string) string {
	label = strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '-'
	}, label)
	if !hclsyntax.ValidIdentifier(label) {
		return "r" + label
	}
	return label
}

func storeType(rawURL, typ string) string {
	if u, err := url.Parse(rawURL); err == nil && u.Scheme != "" {
		return strings.ToLower(u.Scheme)
	}
	if strings.HasPrefix(rawURL, "s3://") { // an access point's ARN is no URL
		return "s3"
	}
	if typ == "" {
		return "file"
	}
	return typ
}

func unsupported(typ string) string {
	text := fmt.Sprintf("a replica of type %q is not supported; there are s3 and file", typ)
	switch typ {
	case "gs", "gcs":
		text += `: Google Cloud Storage answers as S3 too, with HMAC keys and endpoint = "https://storage.googleapis.com"`
	case "oss":
		text += `: Alibaba OSS answers as S3 too, at endpoint = "https://s3.oss-REGION.aliyuncs.com"`
	case "sftp", "webdav":
		text += ": mount it and use a file replica, or run an S3 server such as MinIO or Garage there"
	}
	return text
}

// schedule reads intervals, of 0.3 from the replica and of 0.5 from above it.
func (c *conversion) schedule(s *section, times schedule, r *replica) {
	where := s.name
	r.sync = c.within(s.where("sync-interval"), "sync_every", s.duration("sync-interval", 0), 100*time.Millisecond)
	r.snapshot = c.within(where, "snapshot.every", s.duration("snapshot-interval", times.snapshot), time.Minute)
	r.keep = c.within(where, "retention.keep", s.duration("retention", times.keep), time.Hour)
	r.verify = c.within(where, "verify.every", s.duration("validation-interval", times.verify), time.Minute)
	const every, keep = 24 * time.Hour, 30 * 24 * time.Hour // sqlwatch's defaults
	snapshot := r.snapshot
	if snapshot == 0 {
		snapshot = every
	}
	switch {
	case r.keep == 0:
		c.note(where, "no retention is set: Litestream kept 24 h, sqlwatch keeps 30 days unless retention.keep says "+
			"otherwise")
	case r.keep < snapshot:
		c.note(where, fmt.Sprintf("retention.keep is raised from %s to %s, the time between snapshots", r.keep, snapshot))
		r.keep = snapshot
	}
}

// within raises a duration to the least that sqlwatch takes.
func (c *conversion) within(where, name string, d, least time.Duration) time.Duration {
	if d == 0 || d >= least {
		return d
	}
	c.note(where, fmt.Sprintf("%s is %s, the least there is, in place of %s", name, least, d))
	return least
}

func (c *conversion) directory(s *section, raw value) (value, error) {
	dir := s.text("path")
	if !raw.empty() {
		if !dir.empty() {
			return dir, fmt.Errorf("it has both url and path")
		}
		_, rest, _ := strings.Cut(raw.text, "://")
		rest, _, _ = strings.Cut(rest, "?")
		dir = value{rest}
	}
	if dir.empty() {
		return dir, fmt.Errorf("it has neither url nor path")
	}
	return c.absolute(dir)
}

// bucket reads an s3 replica from its URL or its parts; the parts win.
func (c *conversion) bucket(s *section, raw value, r *replica) error {
	r.bucket, r.place, r.region, r.server = s.text("bucket"), s.text("path"), s.text("region"), s.text("endpoint")
	r.access, r.secret = s.text("access-key-id"), s.text("secret-access-key")
	forced := s.fields["force-path-style"] != nil
	r.pathStyle = s.flag("force-path-style", !r.server.empty())
	if !raw.empty() {
		if err := c.bucketURL(s, raw.text, r, forced); err != nil {
			return err
		}
	}
	if r.bucket.empty() {
		return fmt.Errorf("it names no bucket")
	}
	if !r.server.empty() && !strings.Contains(c.env.plain(r.server.text), "://") {
		r.server.text = scheme(c.env.plain(r.server.text)) + "://" + r.server.text
	}
	r.place.text = strings.Trim(r.place.text, "/")
	c.keys(s, r)
	if r.region.empty() && r.server.empty() {
		c.note(s.name, "no region is set: Litestream asks Amazon where the bucket is, sqlwatch takes AWS_REGION or "+
			"us-east-1 and says so when that is wrong")
	}
	return nil
}

// keys decides where the credentials come from.
func (c *conversion) keys(s *section, r *replica) {
	if r.access.empty() && r.secret.empty() {
		_, own := c.Getenv("AWS_ACCESS_KEY_ID")
		if _, set := c.Getenv("LITESTREAM_ACCESS_KEY_ID"); set && !own && c.ExpandEnv {
			r.access, r.secret = value{opening + "LITESTREAM_ACCESS_KEY_ID" + closing}, value{
				opening + "LITESTREAM_SECRET_ACCESS_KEY" + closing}
		}
		return
	}
	if r.access.empty() || r.secret.empty() {
		c.drop(s.name, "of access-key-id and secret-access-key one is missing: the keys of AWS_ACCESS_KEY_ID and "+
			"AWS_SECRET_ACCESS_KEY are used")
		r.access, r.secret = value{}, value{}
		return
	}
	for _, name := range append(c.env.unset(r.access), c.env.unset(r.secret)...) {
		c.note(s.name, "the variable "+name+" is not set here: it must be where sqlwatch runs")
	}
}

// scheme is http for what is near and https for everything else.
func scheme(endpoint string) string {
	host, _, _ := strings.Cut(endpoint, ":")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") || strings.HasSuffix(host, ".local") ||
		privateAddress.MatchString(host) {
		return "http"
	}
	return "https"
}

var privateAddress = regexp.MustCompile(`^(127|10)\.|^192\.168\.|^172\.(1[6-9]|2[0-9]|3[01])\.`)

// bucketURL takes s3://HOST/PATH?QUERY apart. HOST is a bucket, or a bucket
// within a provider's name.
func (c *conversion) bucketURL(s *section, raw string, r *replica, forced bool) error {
	if !r.place.empty() || !r.bucket.empty() && s.fields["bucket"] != nil && s.fields["url"] != nil &&
		s.fields["bucket"].Line >= s.fields["url"].Line {
		return fmt.Errorf("it has url together with path or bucket")
	}
	_, rest, _ := strings.Cut(raw, "://")
	rest, query, _ := strings.Cut(rest, "?")
	host, prefix, _ := strings.Cut(rest, "/")
	h := parseHost(host)
	r.bucket, r.place = value{h.bucket}, value{strings.Trim(path.Clean("/"+prefix), "/")}
	if r.region.empty() {
		r.region = value{h.region}
	}
	if r.server.empty() {
		r.server = value{h.endpoint}
		if !forced {
			r.pathStyle = h.pathStyle
		}
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return fmt.Errorf("the query of its url cannot be read")
	}
	for key := range values {
		switch v := values.Get(key); key {
		case "endpoint":
			r.server = value{v}
			if !forced {
				r.pathStyle = true
			}
		case "region":
			r.region = value{v}
		case "forcePathStyle", "force-path-style":
		default:
			if kebab := reasons[kebabCase(key)]; kebab != "" {
				c.drop(s.where("url")+", "+key, kebab)
			}
		}
	}
	for _, key := range []string{"forcePathStyle", "force-path-style"} {
		if v := values.Get(key); v != "" && !forced {
			r.pathStyle = v == "true" || v == "1"
		}
	}
	return nil
}

func kebabCase(s string) string {
	return strings.ToLower(regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(s, "$1-$2"))
}

type s3Host struct {
	bucket, region, endpoint string
	pathStyle                bool
}

// hosts are the providers whose names Litestream takes apart: a bucket, then a
// region in the second group where there is one.
var hosts = []struct {
	pattern   *regexp.Regexp
	endpoint  string // %s is the region
	pathStyle bool
}{
	{regexp.MustCompile(`^(.+)\.s3(?:[.-]([^.]+))?\.amazonaws\.com$`), "", false},
	{regexp.MustCompile(`^(.+)\.([^.]+)\.digitaloceanspaces\.com$`), "https://%s.digitaloceanspaces.com", false},
	{regexp.MustCompile(`^(.+)\.s3\.([^.]+)\.backblazeb2\.com$`), "https://s3.%s.backblazeb2.com", true},
	{regexp.MustCompile(`^(.+)\.s3\.filebase\.com$`), "https://s3.filebase.com", true},
	{regexp.MustCompile(`^(.+)\.s3\.([^.]+)\.scw\.cloud$`), "https://s3.%s.scw.cloud", false},
	{regexp.MustCompile(`^(.+)\.([^.]+)\.linodeobjects\.com$`), "https://%s.linodeobjects.com", true},
}

func parseHost(host string) s3Host {
	for _, h := range hosts {
		m := h.pattern.FindStringSubmatch(host)
		if m == nil {
			continue
		}
		out := s3Host{bucket: m[1], pathStyle: h.pathStyle, endpoint: h.endpoint}
		if len(m) > 2 {
			out.region = m[2]
		}
		if strings.Contains(h.endpoint, "%s") {
			out.endpoint = fmt.Sprintf(h.endpoint, out.region)
		}
		return out
	}
	bucket, server, found := strings.Cut(host, ".")
	if name, port, ok := strings.Cut(server, ":"); found && ok && port != "" { // bucket.localhost:9000
		return s3Host{bucket: bucket, region: "us-east-1", endpoint: scheme(name) + "://" + server, pathStyle: true}
	}
	return s3Host{bucket: host}
}
