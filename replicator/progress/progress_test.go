package progress

import (
	"log/slog"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// TestLost_S16: that a file is lost is forgotten only once a snapshot has made it good.
func TestLost_S16(t *testing.T) {
	t.Parallel()
	now := time.Now()
	snapshot := func(txid ltx.TXID) func(*Progress) {
		return func(p *Progress) {
			f := store.LTXFile{Level: store.SnapshotLevel, MinTXID: 1, MaxTXID: txid}
			p.Advance(f, now, now, false)
		}
	}
	lost := func(txid ltx.TXID) func(*Progress) { return func(p *Progress) { p.Lost(txid) } }
	found := func(base, tip ltx.TXID) func(*Progress) {
		return func(p *Progress) {
			p.Doubt(func(ltx.TXID) time.Time { return now })
			p.Found(catalog.Tip{Base: base, TXID: tip}, tip)
		}
	}
	for name, tt := range map[string]struct {
		met  []func(*Progress)
		want ltx.TXID
	}{
		"lost":                      {[]func(*Progress){lost(7)}, 0},
		"lost before the snapshot":  {[]func(*Progress){lost(4)}, 5},
		"lost, then examined again": {[]func(*Progress){lost(7), found(5, 9)}, 0},
		"lost, then another's snapshot was found":  {[]func(*Progress){lost(7), found(8, 9)}, 8},
		"lost, then an older snapshot was stored":  {[]func(*Progress){lost(7), snapshot(6)}, 0},
		"lost, then a snapshot was stored":         {[]func(*Progress){lost(7), snapshot(9)}, 9},
		"made good, then examined again":           {[]func(*Progress){lost(7), snapshot(9), found(9, 9)}, 9},
		"a drill failed":                           {[]func(*Progress){lost(ForEver), found(5, 9)}, 0},
		"a drill failed, a snapshot was stored":    {[]func(*Progress){lost(ForEver), snapshot(9), found(9, 9)}, 9},
		"lost, then all is gone and begins anew":   {[]func(*Progress){lost(7), found(0, 0), snapshot(1)}, 1},
		"lost twice, and the first is in a newer":  {[]func(*Progress){lost(7), lost(9), snapshot(8)}, 0},
		"lost, examined, and made good after that": {[]func(*Progress){lost(7), found(5, 9), snapshot(9)}, 9},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := New(slog.New(slog.DiscardHandler), time.Now, "memory.a", time.Second)
			p.Found(catalog.Tip{Base: 5, TXID: 9}, 9)
			for _, f := range tt.met {
				f(p)
			}
			if got := p.Snapshot(); got != tt.want {
				t.Errorf("snapshots are built on %d, want %d", got, tt.want)
			}
		})
	}
}

// TestMiss_S16: what is missing counts once, however often the replica is examined before a snapshot makes it good.
func TestMiss_S16(t *testing.T) {
	t.Parallel()
	p := New(slog.New(slog.DiscardHandler), time.Now, "memory.a", time.Second)
	for i, tt := range []struct {
		base, tip, lost ltx.TXID
		want            int
	}{
		{0, 9, 0, 1}, {0, 9, 0, 1}, // the snapshot is gone
		{9, 9, 0, 2},                             // there is one again, and then the newest file is gone
		{9, 12, ForEver, 3}, {9, 12, ForEver, 3}, // one between is gone, and no snapshot is stored yet
		{12, 12, 0, 4},
	} {
		p.Lost(tt.lost)
		p.Found(catalog.Tip{Base: tt.base, TXID: tt.tip}, tt.tip)
		p.Miss()
		if s, _, _ := p.Status(); s.LostFiles != tt.want {
			t.Errorf("look %d: %d lost files, want %d", i, s.LostFiles, tt.want)
		}
	}
}
