// Package merge combines several LTX files into one.
package merge

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/superfly/ltx"

	"github.com/sqlwatch/sqlwatch/internal/durable"
	"github.com/sqlwatch/sqlwatch/replicator/moment"
	"github.com/sqlwatch/sqlwatch/replicator/store"
)

// Merged is a combined LTX file in a temporary file.
type Merged struct {
	Body     store.Body
	Min, Max ltx.TXID
	file     *durable.File
}

// Files combines contiguous LTX files into a temporary file in dir. Only one of
// the inputs' pages is in memory at a time. The caller calls Discard.
func Files(ctx context.Context, dir, name string, inputs []io.Reader) (_ *Merged, err error) {
	file, err := durable.Create(filepath.Join(dir, name), 0o600)
	if err != nil {
		return nil, fmt.Errorf("merge files: %w", err)
	}
	m := &Merged{file: file}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("merge files: %w", err), m.Discard())
		}
	}()
	sha := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(file, sha), 1<<16)
	c, err := ltx.NewCompactor(out, inputs)
	if err != nil {
		return nil, err
	}
	c.HeaderFlags = ltx.HeaderFlagNoChecksum
	c.SetSpillDir(dir)
	if err := c.Compact(ctx); err != nil {
		return nil, err
	}
	if err := out.Flush(); err != nil {
		return nil, err
	}
	info, err := os.Stat(file.TempPath())
	if err != nil {
		return nil, err
	}
	m.Min, m.Max = c.Header().MinTXID, c.Header().MaxTXID
	m.Body = store.Body{Size: info.Size(), SHA256: hex.EncodeToString(sha.Sum(nil)), Open: func() (io.ReadCloser, error) {
		return os.Open(file.TempPath())
	}}
	return m, nil
}

// Path returns the path of the temporary file.
func (m *Merged) Path() string { return m.file.TempPath() }

// Discard removes the file.
func (m *Merged) Discard() error { return m.file.Abort() }

// Notes returns the metadata of a combined file: the state after its last input, and the time
// from which the first one has the commits.
func Notes(first moment.Stamp, last map[string]string, sha256 string) map[string]string {
	out := map[string]string{store.MetaSHA256: sha256}
	for _, k := range []string{store.MetaTimestamp, store.MetaChecksum, store.MetaLineage} {
		if v := last[k]; v != "" {
			out[k] = v
		}
	}
	moment.Merged(first, moment.Of(last)).Put(out)
	return out
}
