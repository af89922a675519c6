package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/replicator/catalog"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// DrillLeaves is how many bytes of the disk a drill leaves free for others.
const DrillLeaves = 256 << 20

// DrillOptions say how a restore drill is run.
type DrillOptions struct {
	Scratch   string // directory with room for the database; "" is the system's temporary directory
	Target    catalog.Target
	Check     Check // "" is CheckFull
	Exact     bool
	Reach     ltx.TXID      // see Options
	SyncEvery time.Duration // see Options
	Progress  func(done, total int64)

	// Source returns the checksum of the original database after a TXID, and
	// whether it knows it. nil: there is no original to compare with.
	Source func(ctx context.Context, txid ltx.TXID) (sum ltx.Checksum, known bool, err error)
}

// DrillResult is what a drill proved.
type DrillResult struct {
	Restore  Result        `json:"restore"`
	Compared bool          `json:"source_compared"` // with the original, and found equal
	Time     time.Duration `json:"-"`
}

// ErrDiffers says that a restored database is not what the original was.
var ErrDiffers = errors.New("the restored database differs from the original")

// Drill restores a replica into scratch, checks it, compares the result with the original if
// its checksum is known, and leaves nothing behind.
func Drill(ctx context.Context, st store.Store, o DrillOptions) (result DrillResult, err error) {
	start := time.Now()
	dir, err := os.MkdirTemp(o.Scratch, "sqlwatch-drill-")
	if err != nil {
		return DrillResult{}, fmt.Errorf("restore drill: %w", err)
	}
	defer func() {
		result.Time = time.Since(start)
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	if o.Check == "" {
		o.Check = CheckFull
	}
	result.Restore, err = Run(ctx, st, Options{
		Output: filepath.Join(dir, "drill.db"), Target: o.Target, Check: o.Check, Progress: o.Progress, Exact: o.Exact,
		SyncEvery: o.SyncEvery, Reach: o.Reach,
		Leave: DrillLeaves,
	})
	result.Restore.Output = ""
	if err != nil {
		return result, fmt.Errorf("restore drill: %w", err)
	}
	if o.Source == nil {
		return result, nil
	}
	want, known, err := o.Source(ctx, result.Restore.TXID)
	if err != nil {
		return result, fmt.Errorf("restore drill: checksum of the original: %w", err)
	}
	if known && want|ltx.ChecksumFlag != result.Restore.Checksum {
		return result, fmt.Errorf("restore drill: txid %d: %w: checksum %s, the original's %s", result.Restore.TXID,
			ErrDiffers, result.Restore.Checksum, want)
	}
	result.Compared = known
	return result, nil
}
