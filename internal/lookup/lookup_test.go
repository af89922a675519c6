package lookup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// A hung directory affects lookups in that directory only, is asked once, and is no longer hung
// when it answers.
func TestAHungDirectoryIsOneLook(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, answer, asked := New(), make(chan int), new(atomic.Int64)
		look := func() (int, error) { asked.Add(1); return <-answer, nil }
		for range 3 {
			if _, err := ask(d, "/hung", look); !errors.Is(err, ErrHung) {
				t.Fatalf("got %v, want ErrHung", err)
			}
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		if got, err := ask(d, "/well", func() (int, error) { return 7, nil }); got != 7 || err != nil {
			t.Errorf("beside it: %d, %v", got, err)
		}
		answer <- 1
		synctest.Wait()
		if got, err := ask(d, "/hung", func() (int, error) { return 8, nil }); got != 8 || err != nil {
			t.Errorf("once it answers: %d, %v", got, err)
		}
	})
}

// A hung disk with a thousand directories does not cost a thread for each.
func TestThreadsOfHungDisks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, answer, asked := New(), make(chan int), new(atomic.Int64)
		for i := range 2 * most {
			_, _ = ask(d, string(rune('a'+i)), func() (int, error) { asked.Add(1); return <-answer, nil })
		}
		if n := asked.Load(); n != most {
			t.Errorf("%d looks, want %d", n, most)
		}
		close(answer)
	})
}

// Glob finds what filepath.Glob finds.
func TestGlobFindsTheSame(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"a/data.db", "b/data.db", "b/other.db", "c[d/x.db", ".hidden/data.db"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/nowhere", filepath.Join(dir, "a", "link.db")); err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"*/data.db", "b/*", "*/*.db", "a/link.db", "a/data.db", "none/*.db", `c\[d/*.db`,
		"?/*", "a/./data.db", "b//*.db"} {
		pattern = dir + "/" + pattern
		want, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for i := range want {
			want[i] = filepath.Clean(want[i])
		}
		got, hung, err := New().Glob(pattern)
		if err != nil || len(hung) > 0 || !slices.Equal(got, want) {
			t.Errorf("%s: got %v, %v, %v, want %v", pattern, got, hung, err, want)
		}
	}
	if _, _, err := New().Glob("/a/["); err == nil {
		t.Error("a bad pattern is no error")
	}
}

// No lookup is begun in a directory that is to be avoided.
func TestAvoid(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := New()
	d.Avoid(dir)
	if _, err := d.Stat(filepath.Join(dir, "file")); !errors.Is(err, ErrHung) {
		t.Errorf("Stat: %v", err)
	}
	if _, err := d.Stat(filepath.Join(filepath.Dir(dir), "file")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat beside it: %v", err)
	}
}
