package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The tests below run the recipes of docs/recipes.md, as far as that is possible on one machine.

// recipe returns the first configuration in a section of docs/recipes.md.
func recipe(t *testing.T, section string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/recipes.md")
	must(t, err)
	_, rest, found := strings.Cut(string(text), "\n## "+section+"\n")
	block := regexp.MustCompile("(?s)```hcl\n(.*?)```").FindStringSubmatch(rest)
	if !found || block == nil {
		t.Fatalf("docs/recipes.md has no configuration for %q", section)
	}
	return block[1]
}

// Two servers with one configuration, told apart by a variable: each has a place of its own in
// the bucket, `replicas` lists both, and each is restored from its own.
func TestRecipe_severalServers(t *testing.T) {
	t.Parallel()
	server := startS3(t)
	configuration := recipe(t, "Several servers on one bucket")
	for old, new := range map[string]string{
		`bucket = "backups"`: fmt.Sprintf("bucket = %q\n  endpoint = %q\n  path_style = true", s3Bucket, server.url()),
		`"eu-central-1"`:     `"us-east-1"`,
	} {
		if !strings.Contains(configuration, old) {
			t.Fatalf("the recipe lacks %s: %s", old, configuration)
		}
		configuration = strings.Replace(configuration, old, new, 1)
	}
	for _, host := range []string{"web1", "web2"} {
		dir := t.TempDir()
		db := makeWAL(t, filepath.Join(dir, "app.db"))
		output(t, "sqlite3", db, fmt.Sprintf("INSERT INTO t VALUES (NULL, '%s')", host))
		d := startDaemonIn(t, dir, []string{"env", "SQLWATCH_VAR_host=" + host, "AWS_ACCESS_KEY_ID=" + s3KeyID,
			"AWS_SECRET_ACCESS_KEY=" + s3Secret, binary}, strings.Replace(configuration, "/srv/app/app.db", db, 1))
		waitForSync(t, d.config)
	}
	keyed := func(args ...string) string {
		t.Helper()
		answer := sqlwatch(t, s3KeyID, s3Secret, args...)
		if answer.code != 0 {
			t.Fatalf("%v: %+v", args, answer)
		}
		return answer.stdout
	}
	listed := keyed("replicas", s3URL(server.url(), ""))
	for _, host := range []string{"web1", "web2"} {
		if !strings.Contains(listed, host+"/app") {
			t.Errorf("%s is not listed: %s", host, listed)
		}
		restored := filepath.Join(t.TempDir(), "restored.db")
		keyed("restore", "-o", restored, s3URL(server.url(), host+"/app"))
		if got := output(t, "sqlite3", restored, "SELECT body FROM t"); !strings.Contains(got, host) {
			t.Errorf("%s restores to %s", host, got)
		}
	}
}

// A key in a file is read again at a reload; doctor then makes a round trip with it, and nothing
// that was committed in the meantime is lost.
func TestRecipe_keysInFiles(t *testing.T) {
	t.Parallel()
	server, dir := startS3(t), t.TempDir()
	key := write(t, dir, "key", "the old one\n")
	db := makeWAL(t, filepath.Join(dir, "app.db"))
	replica := strings.Replace(s3ReplicaWith(server.url(), s3Bucket, "app", s3KeyID, "SECRET", ""), `secret("SECRET")`,
		fmt.Sprintf("secret(file(%q))", key), 1)
	d := startDaemonIn(t, dir, []string{binary}, replicated(db, replica))
	refused := func() error { return contains(d.url+"/api/v1/health", `"replica_auth_failed"`) }
	eventually(t, patience, "the old key is refused", refused)
	output(t, "sqlite3", db, "INSERT INTO t VALUES (NULL, 'in the meantime')")
	must(t, os.WriteFile(key, []byte(s3Secret+"\n"), 0o600))
	output(t, binary, "reload", "--config", d.config)
	waitForSync(t, d.config)
	if refused() == nil {
		t.Error("the new key is refused")
	}
	said, _ := exec.Command(binary, "doctor", "--settings=none", "--config", d.config, "app").CombinedOutput()
	if !strings.Contains(string(said), "s3.r: wrote, read, listed and deleted a probe") {
		t.Errorf("doctor made no round trip: %s", said)
	}
	restored := filepath.Join(t.TempDir(), "restored.db")
	output(t, binary, "restore", "--config", d.config, "-o", restored, "app")
	if got := output(t, "sqlite3", restored, "SELECT body FROM t"); !strings.Contains(got, "in the meantime") {
		t.Errorf("restored: %s", got)
	}
}
