package inventory

import (
	"context"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// Below the URL of a bucket every replica is found with a few requests, without listing all
// objects.
func TestBelow(t *testing.T) {
	t.Parallel()
	st := storetest.NewMemory()
	var want []string
	for _, place := range []string{"a", "b/deep", "b0", "c"} {
		for _, key := range []string{"0000/0000000000000001-0000000000000001.ltx", "sqlwatch/lineage"} {
			if _, err := st.Put(t.Context(), place+"/"+key, storetest.Bytes([]byte("x")), store.PutOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		want = append(want, "v1/"+place)
	}
	open := func(context.Context, config.ReplicaTarget) (store.Store, error) { return st, nil }
	found, err := Below(t.Context(), open, config.ReplicaTarget{Type: "s3", S3: config.S3{Bucket: "b", Prefix: "v1"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range found {
		got = append(got, f.S3.Prefix)
	}
	if !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}

// A directory that is a link, and a link to a replica, are where their targets are.
func TestBelow_links(t *testing.T) {
	t.Parallel()
	disk, dir := t.TempDir(), t.TempDir()
	for _, place := range []string{disk + "/moved/ltx", disk + "/here/z/ltx"} {
		if err := os.MkdirAll(place, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{dir + "/backups": disk + "/here", disk + "/here/a": disk + "/moved",
		disk + "/here/loop": disk + "/here"} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	found, err := Below(t.Context(), nil, config.ReplicaTarget{Type: "file", File: config.File{Dir: dir + "/backups"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range found {
		got = append(got, f.File.Dir)
	}
	if want := []string{dir + "/backups/a", dir + "/backups/z"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}

func TestPlaceOf(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"app/0000/0000000000000001-0000000000000001.ltx": "app", "0009/0000000000000001-0000000000000009.ltx": "",
		"a/b/sqlwatch/lease": "a/b", "old/generations/0123456789abcdef/snapshots/00000000.snapshot.lz4": "old",
	} {
		if got, ok := placeOf(key); !ok || got != want {
			t.Errorf("placeOf(%s) = %q, %v; want %q", key, got, ok, want)
		}
	}
	if place, ok := placeOf("photos/cat.jpg"); ok {
		t.Errorf("a photo is of the replica %q", place)
	}
}

// The replicas that were noted for a database are reported when the configuration no longer names
// the database.
func TestOrphans(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, name := range []string{"app", "old"} {
		target := config.DatabaseTarget{Name: name, Path: "/srv/" + name + ".db", Replicas: []config.ReplicaTarget{
			{Name: "file.copy", Type: "file", File: config.File{Dir: "/copies/" + name}}}}
		dir := filepath.Join(root, "databases", name)
		for range 2 {
			if err := Remember(dir, target); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(root, "databases", "old", "spool"), make([]byte, 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := Orphans(root, []string{"app"})
	if err != nil || len(found) != 1 || found[0].Name != "old" || found[0].Bytes < 5000 {
		t.Fatalf("found %+v, %v", found, err)
	}
	for _, want := range []string{"old is not configured", "/srv/old.db", "file.copy at file:///copies/old", "rm -r "} {
		if text := found[0].String(); !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
	if found, err := Orphans(filepath.Join(root, "none"), nil); err != nil || len(found) > 0 {
		t.Errorf("of no state directory: %+v, %v", found, err)
	}
}

// denying is a store that refuses to list what Litestream 0.3 stores.
type denying struct{ store.Store }

// List implements store.Store.
func (d denying) List(ctx context.Context, prefix, after string) iter.Seq2[store.Object, error] {
	if strings.HasPrefix(prefix, "generations/") {
		return func(yield func(store.Object, error) bool) { yield(store.Object{}, store.ErrAuth) }
	}
	return d.Store.List(ctx, prefix, after)
}

// TestLook_denied: a place whose generations may not be listed is not called empty.
func TestLook_denied(t *testing.T) {
	t.Parallel()
	r := Look(t.Context(), func(context.Context, config.ReplicaTarget) (store.Store, error) {
		return denying{storetest.NewMemory()}, nil
	}, config.ReplicaTarget{Name: "s3.r"})
	if r.Note != "" || !strings.Contains(r.Err, store.ErrAuth.Error()) {
		t.Errorf("note %q, error %q", r.Note, r.Err)
	}
}
