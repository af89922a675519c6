package journal

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

type entry struct {
	N    int    `json:"n"`
	Text string `json:"text,omitempty"`
}

func numbers(t *testing.T, path string) (all []int) {
	t.Helper()
	err := Read(path, func(line []byte) bool {
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		all = append(all, e.N)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Read returns the newest lines, in order and without a gap, and the file stays within its limit,
// even across restarts.
func TestBounds(t *testing.T) {
	t.Parallel()
	const limit = 10_000
	path := filepath.Join(t.TempDir(), "state", "decisions.jsonl")
	for n := range 2000 {
		l := New(path, limit)
		if err := l.Append(entry{N: 2 * n}, entry{N: 2*n + 1, Text: "a few words"}); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		used := int64(0)
		for _, name := range []string{path, old(path)} {
			if info, err := os.Stat(name); err == nil {
				used += info.Size()
				if info.Mode().Perm() != 0o600 {
					t.Fatalf("%s has mode %v", name, info.Mode())
				}
			}
		}
		if used > limit {
			t.Fatalf("%d bytes after %d", used, n)
		}
	}
	got := numbers(t, path)
	if len(got) < 100 || got[len(got)-1] != 3999 {
		t.Fatalf("%d lines, the last %v", len(got), got[max(0, len(got)-1):])
	}
	for i := 1; i < len(got); i++ {
		if got[i] != got[i-1]+1 {
			t.Fatalf("%d follows %d", got[i], got[i-1])
		}
	}
}

// Wherever a crash cuts a line short, the complete lines are read, and so is what is appended
// after the restart.
func TestTornLine(t *testing.T) {
	t.Parallel()
	whole := "{\"n\":1}\n{\"n\":2}\n"
	for cut := range len(whole) + 1 {
		path := filepath.Join(t.TempDir(), "j")
		if err := os.WriteFile(path, []byte(whole[:cut]), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := New(path, 1e6).Append(entry{N: 3}); err != nil {
			t.Fatal(err)
		}
		var want []int
		for n := 1; n <= 2; n++ {
			if cut >= 8*n-1 { // the closing brace was written
				want = append(want, n)
			}
		}
		if got := numbers(t, path); !slices.Equal(got, append(want, 3)) {
			t.Errorf("cut at %d: %v, want %v and 3", cut, got, want)
		}
	}
}

func TestGarbageAndConcurrency(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "j")
	if err := os.WriteFile(path, []byte(strings.Repeat("x", 3<<20)+"\n\x00\x00{\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := New(path, 100<<20)
	var writing sync.WaitGroup
	for w := range 8 {
		writing.Go(func() {
			for n := range 100 {
				if err := l.Append(entry{N: n, Text: fmt.Sprint(w)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writing.Wait()
	if got := numbers(t, path); len(got) != 800 {
		t.Errorf("%d lines", len(got))
	}
}
