package importer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/sqlwatch/sqlwatch/internal/config"
)

// environment is the environment that the conversions see.
func environment(name string) (string, bool) {
	v, ok := map[string]string{
		"HOME": "/home/me", "KEY_ID": "AKIDENV", "SECRET": "canary-env-secret", "DATA": "/srv/data", "BUCKET": "from-env",
		"SYNC": "5s",
	}[name]
	return v, ok
}

func convert(t *testing.T, text string) Result {
	t.Helper()
	result, err := Convert([]byte(text), Options{Getenv: environment, ExpandEnv: true, Source: "litestream.yml",
		Absolute: func(p string) (string, error) { return filepath.Join("/work dir", p), nil }})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(result.HCL), "canary-env-secret") {
		t.Errorf("I14 a secret of the environment was written out:\n%s", result.HCL)
	}
	return result
}

// load reads what was written, as `sqlwatch check` does, and fails the test if check would fail.
func load(t *testing.T, result Result) *config.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sqlwatch.hcl")
	if err := os.WriteFile(path, result.HCL, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, diags := config.Load(path, environment)
	if diags.HasErrors() {
		t.Fatalf("%v\n%s", diags, result.HCL)
	}
	return cfg
}

// targets returns the replicas of the first database.
func targets(t *testing.T, result Result) []config.ReplicaTarget {
	t.Helper()
	all, err := load(t, result).Expand()
	if err != nil || len(all) == 0 {
		t.Fatalf("%v %v\n%s", all, err, result.HCL)
	}
	return all[0].Replicas
}

func dropped(r Result) string {
	var b strings.Builder
	for _, d := range r.Dropped {
		b.WriteString(d.Where + ": " + d.Why + "\n")
	}
	return b.String()
}

// Each form of an s3 replica, and what it means.
func TestConvertS3(t *testing.T) {
	t.Parallel()
	const aws = "us-east-1"
	tests := []struct {
		name, replica string
		want          config.S3
	}{
		{"bucket as host", "url: s3://backups/app", config.S3{Bucket: "backups", Prefix: "app"}},
		{"no path", "url: s3://backups", config.S3{Bucket: "backups"}},
		{"parts", "{type: s3, bucket: backups, path: a/b, region: eu-central-1}", config.S3{Bucket: "backups", Prefix: "a/b",
			Region: "eu-central-1"}},
		{"endpoint means path style", "{type: s3, bucket: b, path: p, endpoint: 'https://minio.example.com'}",
			config.S3{Bucket: "b", Prefix: "p", Endpoint: "https://minio.example.com", PathStyle: true}},
		{"endpoint without scheme", "{type: s3, bucket: b, path: p, endpoint: 'minio.example.com:9000'}",
			config.S3{Bucket: "b", Prefix: "p", Endpoint: "https://minio.example.com:9000", PathStyle: true}},
		{"endpoint near", "{type: s3, bucket: b, path: p, endpoint: '192.168.1.2:9000'}",
			config.S3{Bucket: "b", Prefix: "p", Endpoint: "http://192.168.1.2:9000", PathStyle: true}},
		{"path style off", "{type: s3, bucket: b, path: p, endpoint: 'https://x.example.com', force-path-style: false}",
			config.S3{Bucket: "b", Prefix: "p", Endpoint: "https://x.example.com"}},
		{"host of Amazon", "url: s3://backups.s3.eu-west-1.amazonaws.com/app", config.S3{Bucket: "backups", Prefix: "app",
			Region: "eu-west-1"}},
		{"host of Backblaze", "url: s3://my.bucket.s3.us-west-004.backblazeb2.com/app",
			config.S3{Bucket: "my.bucket", Prefix: "app", Region: "us-west-004",
				Endpoint: "https://s3.us-west-004.backblazeb2.com", PathStyle: true}},
		{"host of DigitalOcean", "url: s3://bkt.nyc3.digitaloceanspaces.com/app", config.S3{Bucket: "bkt", Prefix: "app",
			Region: "nyc3", Endpoint: "https://nyc3.digitaloceanspaces.com"}},
		{"host of Scaleway", "url: s3://bkt.s3.fr-par.scw.cloud/app", config.S3{Bucket: "bkt", Prefix: "app",
			Region: "fr-par", Endpoint: "https://s3.fr-par.scw.cloud"}},
		{"MinIO's host", "url: s3://bkt.localhost:9000/app", config.S3{Bucket: "bkt", Prefix: "app", Region: aws,
			Endpoint: "http://localhost:9000", PathStyle: true}},
		{"query", "url: 's3://bkt/app?endpoint=http://127.0.0.1:9000&region=r&forcePathStyle=true'",
			config.S3{Bucket: "bkt", Prefix: "app", Region: "r", Endpoint: "http://127.0.0.1:9000", PathStyle: true}},
		{"query without path style", "url: 's3://bkt/app?endpoint=http://127.0.0.1:9000&region=r&force-path-style=false'",
			config.S3{Bucket: "bkt", Prefix: "app", Region: "r", Endpoint: "http://127.0.0.1:9000"}},
		{"variable", "{type: s3, bucket: $BUCKET, path: 'x/${BUCKET}-y', region: r}",
			config.S3{Bucket: "from-env", Prefix: "x/from-env-y", Region: "r"}},
		{"keys of the environment", "{url: 's3://b/p', region: r, access-key-id: $KEY_ID, secret-access-key: '${SECRET}'}",
			config.S3{Bucket: "b", Prefix: "p", Region: "r", AccessKey: "AKIDENV", SecretKey: "canary-env-secret"}},
		{"keys written out", "{url: 's3://b/p', region: r, access-key-id: AKID, secret-access-key: 'a/b+c\"d'}",
			config.S3{Bucket: "b", Prefix: "p", Region: "r", AccessKey: "AKID", SecretKey: `a/b+c"d`}},
		{"template characters", "{type: s3, bucket: b, path: 'a%{b', region: r}", config.S3{Bucket: "b", Prefix: "a%{b",
			Region: "r"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			result := convert(t, "dbs:\n  - path: /srv/app.db\n    replica: {"+
				strings.TrimSuffix(strings.TrimPrefix(tt.replica, "{"), "}")+"}\n")
			replicas := targets(t, result)
			if len(replicas) != 1 || replicas[0].S3 != tt.want {
				t.Errorf("%#v, want %#v\n%s", replicas, tt.want, result.HCL)
			}
			if replicas[0].S3.SecretKey.Reveal() != tt.want.SecretKey.Reveal() {
				t.Error("another secret")
			}
			if len(result.Dropped) > 0 {
				t.Errorf("dropped: %s", dropped(result))
			}
		})
	}
}

func TestConvertFile(t *testing.T) {
	t.Parallel()
	for replica, want := range map[string]string{
		"path: /var/backups/app":       "/var/backups/app",
		"url: file:///var/backups/app": "/var/backups/app",
		"path: ~/backups":              "/home/me/backups",
		"path: backups":                "/work dir/backups",
		"path: $DATA/replica":          "/srv/data/replica",
		"{type: file, path: /x}":       "/x",
	} {
		if !strings.HasPrefix(replica, "{") {
			replica = "{" + strings.Replace(replica, ": ", ": '", 1) + "'}"
		}
		replicas := targets(t, convert(t, "dbs:\n  - path: ~/app.db\n    replicas:\n      - "+replica+"\n"))
		if len(replicas) != 1 || replicas[0].Type != "file" || replicas[0].File.Dir != want {
			t.Errorf("%s: %+v, want %s", replica, replicas, want)
		}
	}
}

func TestConvertTimes(t *testing.T) {
	t.Parallel()
	t.Run("0.3", func(t *testing.T) {
		t.Parallel()
		result := convert(t, `
dbs:
  - path: /srv/app.db
    replicas:
      - {url: "s3://b/p", region: r, retention: 72h, snapshot-interval: 6h, sync-interval: 10s,
          validation-interval: 12h, retention-check-interval: 1h}
`)
		r := targets(t, result)[0]
		if r.RetentionKeep != 72*time.Hour || r.SnapshotEvery != 6*time.Hour || r.SyncEvery != 10*time.Second ||
			r.VerifyEvery != 12*time.Hour {
			t.Errorf("%+v", r)
		}
		if len(result.Dropped) > 0 {
			t.Errorf("dropped: %s", dropped(result))
		}
	})
	t.Run("0.5", func(t *testing.T) {
		t.Parallel()
		r := targets(t, convert(t, `
snapshot: {interval: 2h, retention: 48h}
validation: {interval: 24h}
sync-interval: $SYNC
dbs:
  - path: /srv/app.db
    snapshot: {retention: 96h}
    replica: {url: "s3://b/p", region: r}
`))[0]
		if r.RetentionKeep != 96*time.Hour || r.SnapshotEvery != 2*time.Hour || r.SyncEvery != 5*time.Second ||
			r.VerifyEvery != 24*time.Hour {
			t.Errorf("%+v", r)
		}
	})
	t.Run("too short ones are raised and told", func(t *testing.T) {
		t.Parallel()
		result := convert(t, "snapshot: {interval: 24h, retention: 30m}\ndbs:\n  - path: /srv/app.db\n    replica: {url: "+
			"'s3://b/p', region: r, sync-interval: 1ms}\n")
		r := targets(t, result)[0]
		if r.RetentionKeep != 24*time.Hour || r.SyncEvery != 100*time.Millisecond || len(result.Notes) < 3 {
			t.Errorf("%+v, notes %+v", r, result.Notes)
		}
	})
}

// everything is a Litestream configuration with almost every setting there is.
const everything = `
access-key-id: $KEY_ID
secret-access-key: $SECRET
region: eu-central-1
addr: ":9090"
exec: myapp serve
logging: {level: debug}
levels: [{interval: 30s}]
l0-retention: 5m
retention: {enabled: false}
heartbeat-url: https://example.com/ping
unheard-of: 1
dbs:
  - path: /srv/app.db
    meta-path: /srv/meta
    checkpoint-interval: 1m
    truncate-page-n: 500
    restore-if-db-not-exists: true
    replicas:
      - name: main
        url: s3://backups/app
        storage-class: STANDARD_IA
        skip-verify: true
        part-size: 5MB
      - type: sftp
        host: example.com:22
        user: u
        path: /x
      - url: gs://bucket/app
      - {type: abs, bucket: b}
      - {url: "s3://c/d", age: {recipients: [age1xyz]}}
      - path: /mnt/backup
  - path: /srv/other/app.db
  - dir: /srv/tenants
    pattern: "*.db"
    recursive: true
    watch: true
    replica: {url: "s3://backups/tenants"}
  - {}
`

func TestConvertEverything(t *testing.T) {
	t.Parallel()
	result := convert(t, everything)
	cfg := load(t, result)
	if cfg.Server.Listen != ":9090" || len(cfg.Databases) != 3 || len(cfg.Replicas) != 3 {
		t.Errorf("listen %s, %d databases, %d replicas\n%s", cfg.Server.Listen, len(cfg.Databases), len(cfg.Replicas),
			result.HCL)
	}
	if cfg.Databases[1].Name != "app-2" || cfg.Databases[2].Glob != "/srv/tenants/*.db" {
		t.Errorf("%+v", cfg.Databases)
	}
	all := dropped(result)
	for _, want := range []string{
		"exec, line 6: ", "logging, line 7: ", "levels, ", "l0-retention, ", "retention, line 10: ", "heartbeat-url",
		"unheard-of, line 12: Litestream has no such setting either",
		"dbs[0].meta-path", "dbs[0].checkpoint-interval", "dbs[0].truncate-page-n", "dbs[0].restore-if-db-not-exists",
		"dbs[0].replicas[0].storage-class", "dbs[0].replicas[0].skip-verify",
		`dbs[0].replicas[1]: a replica of type "sftp" is not supported`, "storage.googleapis.com", `type "abs"`,
		"dbs[0].replicas[4]: it is to be encrypted with age", "dbs[2].recursive", "dbs[3]: it names neither path nor dir",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("nothing is said of %s:\n%s", want, all)
		}
	}
	for _, never := range []string{"part-size", ".watch,", "access-key-id"} {
		if strings.Contains(all, never) {
			t.Errorf("%s is told, and nothing is lost:\n%s", never, all)
		}
	}
	if !strings.Contains(string(result.HCL), "# Dropped:") {
		t.Error("the head does not repeat what was dropped")
	}
	tenant, err := cfg.Replicas[cfg.Databases[2].ReplicateTo[0]].For("x", "/srv/tenants/a.db", nil)
	if err != nil || tenant.S3.Prefix != "tenants/a.db" || tenant.S3.AccessKey.Reveal() != "AKIDENV" {
		t.Errorf("%+v, %v: Litestream keeps it under tenants/a.db", tenant, err)
	}
}

// Names become labels that can be referred to.
func TestConvertLabels(t *testing.T) {
	t.Parallel()
	result := convert(t, "dbs:\n  - path: '/srv/1 my.app.db'\n    replica: {path: /r1}\n  - path: /srv/größe.db\n    "+
		"replica: {path: /r2}\n  - path: /srv/.db\n    replica: {path: /r3}\n")
	cfg := load(t, result)
	if len(cfg.Databases) != 3 || cfg.Databases[0].Name != "1 my.app" || len(cfg.Databases[1].ReplicateTo) != 1 {
		t.Errorf("%+v", cfg.Databases)
	}
}

// A replica that was to be encrypted is never converted to an unencrypted one.
func TestConvertEncrypted(t *testing.T) {
	t.Parallel()
	for _, setting := range []string{"sse-customer-key: k", "sse-customer-key-path: /k", "age: {recipients: [age1]}"} {
		result := convert(t, setting+"\ndbs:\n  - path: /srv/app.db\n    replica: {url: 's3://b/p', region: r}\n")
		if cfg := load(t, result); len(cfg.Replicas) != 0 || len(result.Dropped) != 1 {
			t.Errorf("%s: %d replicas, dropped %+v", setting, len(cfg.Replicas), result.Dropped)
		}
	}
}

func TestConvertGlobPlaces(t *testing.T) {
	t.Parallel()
	for replica, want := range map[string]string{"url: s3://b": "a.db",
		"{type: s3, bucket: b, path: $BUCKET}": "from-env/a.db", "url: file:///mnt/r": "/mnt/r/a.db"} {
		cfg := load(t, convert(t, "dbs:\n  - dir: /srv/t\n    pattern: '*.db'\n    replica: {"+strings.Trim(replica, "{}")+
			"}\n"))
		r, err := cfg.Replicas[cfg.Databases[0].ReplicateTo[0]].For("x", "/srv/t/a.db", nil)
		if got := r.S3.Prefix + r.File.Dir; err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", replica, got, err, want)
		}
	}
}

// Litestream takes an unset variable as empty. Here it gets an empty default, and a note if it is
// a key.
func TestConvertUnsetVariable(t *testing.T) {
	t.Parallel()
	result := convert(t, "# $COMMENT\ndbs:\n  - path: /srv/app.db\n    replica: {url: 's3://b/p', region: $NOWHERE, "+
		"access-key-id: $NO_KEY, secret-access-key: $NO_SECRET}\n")
	if r := targets(t, result)[0]; r.S3.Region != "" || r.S3.AccessKey != "" {
		t.Errorf("%+v", r.S3)
	}
	if len(result.Notes) < 2 || !strings.Contains(result.Notes[1].Why+result.Notes[2].Why+result.Notes[0].Why,
		"NO_SECRET") {
		t.Errorf("%+v", result.Notes)
	}
}

func TestConvertWithoutExpansion(t *testing.T) {
	t.Parallel()
	result, err := Convert([]byte("dbs:\n  - path: /srv/a$DATA.db\n"),
		Options{Getenv: environment, Absolute: filepath.Abs})
	if err != nil {
		t.Fatal(err)
	}
	if cfg := load(t, result); cfg.Databases[0].Path != "/srv/a$DATA.db" {
		t.Errorf("%+v", cfg.Databases)
	}
}

func TestConvertRefuses(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"empty": "", "no mapping": "- a\n- b\n", "broken": "dbs: [", "dbs is no list": "dbs: 5",
		"a database is text": "dbs: [text]",
		"a key as a list":    "{[a]: b}",
		"an alias to itself": "a: &a [*a]\ndbs: *a",
	} {
		if _, err := Convert([]byte(text), Options{Getenv: environment, ExpandEnv: true,
			Absolute: filepath.Abs}); err == nil && name != "a key as a list" {
			t.Errorf("%s is taken", name)
		}
	}
}

// FuzzConvert: whatever is converted is valid HCL, and nothing panics.
func FuzzConvert(f *testing.F) {
	f.Add(everything)
	f.Add("dbs:\n  - path: ${X\n    replica: {url: 's3://arn:aws:s3:r:1:accesspoint/x/y'}")
	f.Fuzz(func(t *testing.T, text string) {
		result, err := Convert([]byte(text), Options{Getenv: environment, ExpandEnv: true,
			Absolute: func(p string) (string, error) { return "/w/" + p, nil }})
		if err != nil {
			return
		}
		if _, diags := hclsyntax.ParseConfig(result.HCL, "x.hcl", hcl.InitialPos); diags.HasErrors() {
			t.Errorf("%v\n%s", diags, result.HCL)
		}
	})
}
