package lineage_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/lineage"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/storetest"
)

// TestJudge_C14: who may write to a replica, with each kind of evidence and without any.
func TestJudge_C14(t *testing.T) {
	t.Parallel()
	type E = lineage.Evidence
	for name, tt := range map[string]struct {
		e    E
		want lineage.Verdict
	}{
		"nothing there":              {E{Empty: true}, lineage.Begin},
		"named and empty, another's": {E{Empty: true, Named: true, Leased: true}, lineage.Foreign},
		"named and empty, ours":      {E{Empty: true, Named: true, Mine: true}, lineage.Begin},
		"a restart": {E{Named: true, Leased: true, Mine: true, Last: true, Holds: true},
			lineage.Continue},
		"its first start after an upgrade":          {E{Leased: true, Last: true}, lineage.Continue},
		"an upgrade, and the lease is another's":    {E{Leased: true}, lineage.Foreign},
		"another database, however quiet the lease": {E{Named: true, Leased: true}, lineage.Foreign},
		"another database, told to follow":          {E{Named: true, Leased: true, Adopted: true}, lineage.Succeed},
		"the same state by checksum":                {E{Named: true, Leased: true, Equal: true}, lineage.Continue},
		"restored from there":                       {E{Named: true, Leased: true, Noted: true}, lineage.Continue},
		"the very same file":                        {E{Named: true, Leased: true, Same: true}, lineage.Continue},
		"a clone, the original went on":             {E{Named: true, Leased: true, Mine: true}, lineage.Diverged},
		"another took the lease and wrote nothing": {E{Named: true, Leased: true, Mine: true, Holds: true},
			lineage.Continue},
		"another lineage came after ours": {E{Named: true, Leased: true, Was: true, Last: true, Holds: true, Same: true},
			lineage.Diverged},
		"and the database is what is there":  {E{Named: true, Leased: true, Was: true, Equal: true}, lineage.Continue},
		"our number, of another lineage":     {E{Named: true, Leased: true, Holds: true}, lineage.Foreign},
		"Litestream's":                       {E{}, lineage.Stranger},
		"Litestream's, adopted":              {E{Adopted: true}, lineage.Continue},
		"emptied, and what was stored since": {E{Holds: true}, lineage.Continue},
	} {
		if got := lineage.Judge(tt.e); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

// TestLineage_C14_spared: a predecessor's files are kept for its own retention, and no longer.
func TestLineage_C14_spared(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	first := lineage.Lineage{ID: "a", Keep: (72 * time.Hour).Seconds()}
	second := lineage.Lineage{ID: "b", Keep: time.Hour.Seconds()}.Succeed(first, 100, now)
	third := lineage.Lineage{ID: "c", Keep: time.Hour.Seconds()}.Succeed(second, 200, now.Add(time.Hour))
	for _, tt := range []struct {
		txid  uint64
		after time.Duration
		want  bool
	}{
		{100, 71 * time.Hour, true}, {101, 71 * time.Hour, false}, {100, 73 * time.Hour, false},
		{150, 90 * time.Minute, true}, {150, 3 * time.Hour, false}, {201, 0, false},
	} {
		if got := third.Spared(ltx.TXID(tt.txid), now.Add(tt.after)); got != tt.want {
			t.Errorf("txid %d after %v: spared %v, want %v", tt.txid, tt.after, got, tt.want)
		}
	}
	if !third.Follows("a") || !third.Follows("c") || third.Follows("") || third.Follows("d") {
		t.Error("Follows is wrong")
	}
}

// TestWrite_C14: when two hosts name a replica at the same time, one of them gets an error, whether
// or not the store honours conditions.
func TestWrite_C14(t *testing.T) {
	t.Parallel()
	for _, conditions := range []bool{true, false} {
		m := storetest.NewMemory()
		none, err := lineage.Read(t.Context(), m)
		if err != nil || none.Found {
			t.Fatalf("an empty replica: %+v, %v", none, err)
		}
		a, b := lineage.Lineage{ID: "a", By: "a"}, lineage.Lineage{ID: "b", By: "b"}
		if err := lineage.Write(t.Context(), m, a, none, conditions); err != nil {
			t.Fatal(err)
		}
		if err := lineage.Write(t.Context(), m, a, none, conditions); err != nil {
			t.Errorf("again, after a lost reply: %v", err)
		}
		if err := lineage.Write(t.Context(), m, b, none, true); !errors.Is(err, store.ErrExists) {
			t.Errorf("another lineage: %v, want ErrExists", err)
		}
		got, err := lineage.Read(t.Context(), m)
		if err != nil || got.ID != "a" {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

// TestNote_C14: a note is valid for the file that was restored, and not for another file at the
// same path.
func TestNote_C14(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := lineage.Leave(path, "a", 7); err != nil {
		t.Fatal(err)
	}
	if note, found := lineage.Find(path); !found || note.Lineage != "a" || note.TXID != 7 {
		t.Errorf("%+v, %v", note, found)
	}
	if err := errors.Join(os.Rename(path, path+".old"), os.WriteFile(path, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if note, found := lineage.Find(path); found {
		t.Errorf("another file has the note %+v", note)
	}
}
