package config

import (
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"golang.org/x/text/unicode/norm"

	"github.com/sqlwatch/sqlwatch/internal/hcldecode"
	"github.com/sqlwatch/sqlwatch/policy"
	"github.com/sqlwatch/sqlwatch/policy/lang/marks"
)

// Defaults of what a replica block does not set.
const (
	DefaultSyncEvery     = time.Second
	DefaultSnapshotEvery = 24 * time.Hour
	DefaultSnapshotFull  = 30 * 24 * time.Hour
	DefaultRetentionKeep = 30 * 24 * time.Hour
)

const year = 366 * 24 * time.Hour

// ReplicaTemplate is one replica block. It is the same for every database except for the prefix or
// directory, which may contain the database's name.
type ReplicaTemplate struct {
	Type  string
	Name  string // with the type: "s3.main"
	Range hcl.Range

	target      ReplicaTarget  // everything that does not depend on the database
	place       *template      // prefix or dir
	fixed       *ReplicaTarget // set if it comes from a URL
	perDatabase bool           // a URL that several databases share: each goes below it, by name
}

// template is text that may depend on a database.
type template struct {
	attr  *hcl.Attribute
	scope *policy.Scope
}

// dbFacts returns the object that templates read as db.
func dbFacts(name, path cty.Value, labels map[string]string) map[string]cty.Value {
	values := map[string]cty.Value{}
	for k, v := range labels {
		values[k] = cty.StringVal(v)
	}
	return map[string]cty.Value{"db": cty.ObjectVal(map[string]cty.Value{"name": name, "path": path,
		"labels": object(values)})}
}

// template checks an attribute that may read db.*.
func (l *loading) template(a *hcl.Attribute) *template {
	if a == nil {
		return nil
	}
	unknown := cty.UnknownVal(cty.String)
	d := hcldecode.Decoder{Scope: l.Scope, Extra: dbFacts(unknown, unknown, nil)}
	d.Extra["db"] = cty.ObjectVal(map[string]cty.Value{"name": unknown, "path": unknown, "labels": cty.DynamicVal})
	if v, ok := d.Probe(a); ok && marks.IsSecret(v) {
		d.Errorf(a.Expr.Range(), "Secret out of place", "%s is shown in logs; a secret() cannot stand here.", a.Name)
	}
	l.Diags = append(l.Diags, d.Diags...)
	return &template{attr: a, scope: l.Scope}
}

func (t *template) render(db map[string]cty.Value) (string, error) {
	d := hcldecode.Decoder{Scope: t.scope, Extra: db}
	s := d.Plain(t.attr, "")
	for _, diag := range d.Diags {
		return "", fmt.Errorf("%s:%d: %s: %s", diag.Subject.Filename, diag.Subject.Start.Line, diag.Summary,
			t.scope.Scrub(diag.Detail))
	}
	return s, nil
}

func (l *loading) replica(b *hcl.Block) {
	name := strings.Join(b.Labels, ".")
	if !l.define(b, "replica "+name) {
		return
	}
	var schema *hcl.BodySchema
	switch b.Labels[0] {
	case "s3":
		schema = hcldecode.Attributes("sync_every", "bucket!", "prefix", "region", "endpoint", "path_style", "ca_file")
		schema.Blocks = []hcl.BlockHeaderSchema{{Type: "credentials"}}
	case "file":
		schema = hcldecode.Attributes("sync_every", "dir!")
	default:
		l.Errorf(b.LabelRanges[0], "Unknown replica", "A replica is of type \"s3\" or \"file\", not %q.", b.Labels[0])
		return
	}
	schema.Blocks = append(schema.Blocks, hcl.BlockHeaderSchema{Type: "snapshot"},
		hcl.BlockHeaderSchema{Type: "retention"}, hcl.BlockHeaderSchema{Type: "verify"})
	content := l.Content(b.Body, schema)
	a := content.Attributes
	r := ReplicaTemplate{Type: b.Labels[0], Name: name, Range: b.DefRange}
	r.target = ReplicaTarget{Name: name, Type: r.Type, SyncEvery: l.Duration(a["sync_every"], DefaultSyncEvery,
		100*time.Millisecond, 24*time.Hour)}
	l.schedules(&r, content, b)
	if r.Type == "s3" {
		r.place = l.template(a["prefix"])
		r.target.S3 = l.s3(a, content)
	} else {
		r.place = l.template(a["dir"])
		l.directory(a["dir"])
	}
	l.cfg.Replicas[name] = r
}

// directory checks a dir as far as that is possible before the databases are known.
func (l *loading) directory(a *hcl.Attribute) {
	if a == nil || l.Diags.HasErrors() {
		return
	}
	at := func(name string) string {
		dir, err := (&template{attr: a, scope: l.Scope}).render(dbFacts(cty.StringVal(name), cty.StringVal("/"+name), nil))
		if err != nil {
			return "/" // it reads labels, for instance: checked when the databases are known
		}
		return dir
	}
	switch dir := at("x"); {
	case dir == "":
		l.Errorf(a.Expr.Range(), "No place", "dir is empty: where are the copies to go? Write an absolute path, such as "+
			"\"/var/backups/sqlite/${db.name}\".")
	case !filepath.IsAbs(dir):
		l.Errorf(a.Expr.Range(), "Relative path", "%q depends on where sqlwatch is started; write an absolute path.", dir)
	}
}

// schedules reads snapshot, retention and verify.
func (l *loading) schedules(r *ReplicaTemplate, content *hcl.BodyContent, b *hcl.Block) {
	t := &r.target
	l.snapshot(t, l.Single(content.Blocks, "snapshot"))
	l.retention(t, l.Single(content.Blocks, "retention"))
	if v := l.Single(content.Blocks, "verify"); v != nil {
		t.VerifyEvery = l.Duration(l.Content(v.Body, hcldecode.Attributes("every!")).Attributes["every"], 0, time.Minute,
			10*year)
	}
	if t.RetentionKeep < t.SnapshotEvery {
		l.Errorf(b.DefRange, "Retention too short",
			"retention.keep (%s) is less than snapshot.every (%s): there would be times that cannot be restored.",
			t.RetentionKeep, t.SnapshotEvery)
	}
}

// snapshot reads the block, which may be nil. If only every is set, it means full copies.
func (l *loading) snapshot(t *ReplicaTarget, b *hcl.Block) {
	t.SnapshotEvery, t.SnapshotFull = DefaultSnapshotEvery, DefaultSnapshotFull
	if b == nil {
		return
	}
	a := l.Content(b.Body, hcldecode.Attributes("every", "full_every")).Attributes
	if t.SnapshotEvery = l.Duration(a["every"], t.SnapshotEvery, time.Minute, 10*year); a["every"] != nil {
		t.SnapshotFull = t.SnapshotEvery
	}
	t.SnapshotFull = l.Duration(a["full_every"], t.SnapshotFull, time.Minute, 10*year)
	if a["full_every"] != nil && t.SnapshotFull < t.SnapshotEvery {
		l.Errorf(a["full_every"].Expr.Range(), "Snapshots out of order",
			"full_every (%s) is less than every (%s), which is how often it is asked for.", t.SnapshotFull, t.SnapshotEvery)
	}
}

// thinning has the attributes of retention that make restore points coarser with age, in the order of
// ReplicaTarget.RetentionThin.
var thinning = []string{"every_sync", "every_30s", "every_5m"}

// retention reads the block, which may be nil.
func (l *loading) retention(t *ReplicaTarget, b *hcl.Block) {
	t.RetentionKeep = max(DefaultRetentionKeep, t.SnapshotEvery)
	if b == nil {
		return
	}
	a := l.Content(b.Body, hcldecode.Attributes(append([]string{"keep"}, thinning...)...)).Attributes
	t.RetentionKeep = l.Duration(a["keep"], t.RetentionKeep, time.Hour, 10*year)
	var before time.Duration
	for i, name := range thinning {
		if a[name] == nil {
			continue
		}
		age := l.Duration(a[name], 0, time.Hour, 10*year)
		if age < before || age > t.RetentionKeep {
			l.Errorf(a[name].Expr.Range(), "Retention out of order",
				"Restore points become coarser with age: %s <= keep, each that is given no shorter than the one before.",
				strings.Join(thinning, " <= "))
		}
		before = age
		if t.RetentionThin == nil {
			t.RetentionThin = make([]time.Duration, len(thinning))
		}
		t.RetentionThin[i] = age
	}
}

func (l *loading) s3(a hcl.Attributes, content *hcl.BodyContent) S3 {
	s := S3{
		Bucket:    l.Plain(a["bucket"], ""),
		Region:    l.Plain(a["region"], ""),
		Endpoint:  l.Plain(a["endpoint"], ""),
		PathStyle: l.Flag(a["path_style"], false),
		CAFile:    l.Plain(a["ca_file"], ""),
	}
	s.HostStyle = a["path_style"] != nil && !s.PathStyle
	if err := checkEndpoint(s.Endpoint); err != nil {
		l.Errorf(a["endpoint"].Expr.Range(), "Bad endpoint", "%v.", err)
	}
	if strings.ContainsAny(s.Bucket, "/?#") || strings.Contains(s.Bucket, "://") {
		l.Errorf(a["bucket"].Expr.Range(), "Bad bucket",
			"bucket is a name alone: what follows it belongs into prefix, and the server's address into endpoint.")
	}
	if s.Bucket == "" && a["bucket"] != nil && !l.Diags.HasErrors() {
		l.Errorf(a["bucket"].Expr.Range(), "No bucket", "bucket must not be empty.")
	}
	if c := l.Single(content.Blocks, "credentials"); c != nil {
		ca := l.Content(c.Body, hcldecode.Attributes("access_key!", "secret_key!", "session_token")).Attributes
		read := func(name string) Secret {
			v, _ := l.Text(ca[name], "")
			l.env.conceal(v)
			switch {
			case ca[name] == nil || l.Diags.HasErrors():
			case name == "secret_key" && !strings.ContainsFunc(v, unicode.IsControl): // never sent: it only signs
			case strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
				l.Errorf(ca[name].Expr.Range(), "Bad key", "%s has a line break or another character that no request can carry.",
					name)
			}
			return Secret(v)
		}
		s.AccessKey, s.SecretKey, s.SessionToken = read("access_key"), read("secret_key"), read("session_token")
	}
	return s
}

// For returns the replica for one database.
func (r ReplicaTemplate) For(name, dbPath string, labels map[string]string) (ReplicaTarget, error) {
	if r.fixed != nil {
		t := *r.fixed
		if r.perDatabase {
			t.S3.Prefix, t.File.Dir = join(t.S3.Prefix, name), path.Join(t.File.Dir, name)
		}
		return t.normal()
	}
	t := r.target
	if r.place == nil {
		return t.normal()
	}
	place, err := r.place.render(dbFacts(cty.StringVal(name), cty.StringVal(dbPath), labels))
	if err != nil {
		return t, err
	}
	if r.Type == "s3" {
		t.S3.Prefix = place
	} else {
		t.File.Dir = place
	}
	return t.normal()
}

func join(prefix, name string) string { return strings.Trim(prefix+"/"+name, "/") }

// normal normalizes the place, so that equal places compare as equal.
func (t ReplicaTarget) normal() (ReplicaTarget, error) {
	if t.Type == "file" {
		t.S3 = S3{}
		if !filepath.IsAbs(t.File.Dir) {
			return t, fmt.Errorf("replica %s: the directory %q is not absolute", t.Name, t.File.Dir)
		}
		t.File.Dir = asOnDisk(filepath.Clean(t.File.Dir))
		return t, nil
	}
	t.File = File{}
	t.S3.Prefix = norm.NFC.String(strings.Trim(t.S3.Prefix, "/")) // like all text of a configuration
	for _, element := range strings.Split(t.S3.Prefix, "/") {
		if element == "." || element == ".." || element == "" && t.S3.Prefix != "" {
			return t, fmt.Errorf("replica %s: the prefix %q has an element %q", t.Name, t.S3.Prefix, element)
		}
	}
	if n := len(t.S3.Prefix); n > longestPrefix {
		return t, fmt.Errorf("replica %s: the prefix %.40q… has %d bytes: with more than %d, the keys below it are "+
			"longer than a store allows", t.Name, t.S3.Prefix, n, longestPrefix)
	}
	return t, nil
}

// longestPrefix leaves room for the longest key of a replica in the 1,024 bytes that Amazon S3 allows.
const longestPrefix = 1024 - len("/sqlwatch/sums/0009/0000000000000001-0000000000000001")

// location returns what two replicas must not share: the store and the place. The place ends in a
// slash, so that one inside another has it as a prefix.
func (t ReplicaTarget) location() string {
	if t.Type == "file" {
		return "file://" + strings.TrimSuffix(t.File.Dir, "/") + "/"
	}
	l := "s3://" + t.S3.Endpoint + "|" + t.S3.Bucket + "/"
	if t.S3.Prefix != "" {
		l += t.S3.Prefix + "/"
	}
	return l
}

// Place returns the replica's address for messages, as a URL without credentials and parameters:
// ParseReplicaURL reads it.
func (t ReplicaTarget) Place() string {
	if t.Type == "file" {
		return "file://" + asURL(t.File.Dir)
	}
	return strings.TrimSuffix("s3://"+t.S3.Bucket+"/"+asURL(t.S3.Prefix), "/")
}

// asURL escapes what has another meaning in a URL, and blanks.
func asURL(path string) string {
	var out strings.Builder
	for _, b := range []byte(path) {
		if b <= ' ' || b == 0x7f || strings.IndexByte("%#?", b) >= 0 {
			fmt.Fprintf(&out, "%%%02X", b)
		} else {
			out.WriteByte(b)
		}
	}
	return out.String()
}
