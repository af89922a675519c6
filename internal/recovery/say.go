package recovery

import (
	"fmt"
	"io"
	"io/fs"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/replicator/restore"
	"github.com/sqlwatch/sqlwatch/replicator/stage"
)

// Report is a restore's result in JSON: TXIDs are numbers there, as in metrics.
type Report struct {
	restore.Result
	Database string  `json:"db,omitempty"`
	Replica  string  `json:"replica,omitempty"` // its address
	Nothing  bool    `json:"nothing,omitempty"` // nothing was replicated yet
	Error    string  `json:"error,omitempty"`
	Daemon   uint64  `json:"daemon_txid,omitempty"` // the running daemon's own cursor
	TXID     uint64  `json:"txid"`
	Size     int64   `json:"size_bytes"`
	Checksum string  `json:"checksum,omitempty"`
	Plan     float64 `json:"plan_seconds"`
	Apply    float64 `json:"apply_seconds"`
	Finish   float64 `json:"finish_seconds"`
}

// NewReport returns what --json prints of an outcome.
func NewReport(out Outcome) Report {
	r := out.Result
	report := Report{
		Result: r, Database: out.Database, Replica: out.Place, Nothing: out.Nothing, Daemon: uint64(out.Daemon),
		TXID: uint64(r.TXID), Size: r.Size(),
		Plan: r.PlanTime.Seconds(), Apply: r.ApplyTime.Seconds(), Finish: r.FinishTime.Seconds(),
	}
	if r.Checksum != 0 {
		report.Checksum = r.Checksum.String()
	}
	if out.Err != nil {
		report.Error = out.Err.Error()
	}
	return report
}

// Write says what came of it.
func (o Outcome) Write(w io.Writer) error {
	r := o.Result
	var out strings.Builder
	switch {
	case o.Nothing:
		fmt.Fprintf(&out, "%s: nothing has been replicated yet, so nothing was restored\n", o.Place)
	case r.Skipped:
		fmt.Fprintf(&out, "%s already exists, so nothing was restored\n", r.Output)
	case r.DryRun:
		fmt.Fprintf(&out, "would restore %s from %s, %s:\n", State(r), show.Count(len(r.Objects), "object"),
			show.Bytes(r.ObjectBytes))
		for _, key := range r.Objects {
			fmt.Fprintf(&out, "  %s\n", key)
		}
	default:
		fmt.Fprintf(&out, "restored %s to %s: %s\n", State(r), r.Output, show.Bytes(r.Size()))
		fmt.Fprintf(&out, "  from %s, %s, in %s; %s\n", show.Count(len(r.Objects), "object"), show.Bytes(r.ObjectBytes),
			(r.PlanTime + r.ApplyTime + r.FinishTime).Round(time.Millisecond), Proof(r))
		if r.Resumed > 0 {
			fmt.Fprintf(&out, "  resumed an interrupted restore: %s were already there\n", show.Bytes(r.Resumed))
		}
		for _, name := range r.Aside {
			fmt.Fprintf(&out, "  what was there is now %s\n", name)
		}
		for _, name := range r.Removed {
			fmt.Fprintf(&out, "  removed what an earlier restore had left: %s\n", name)
		}
	}
	if o.Daemon != 0 && !o.Nothing && !r.Skipped {
		fmt.Fprintf(&out, "  the running daemon had stored txid %d there\n", o.Daemon)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// State names a state. Replicas of Litestream 0.3 have no TXIDs.
func State(r restore.Result) string {
	when := r.Timestamp.UTC().Format(time.RFC3339Nano)
	if r.TXID == 0 {
		return "the state of " + when
	}
	return fmt.Sprintf("txid %d of %s", r.TXID, when)
}

// Proof says why the result is to be believed.
func Proof(r restore.Result) string {
	proof := "every object's checksum is right"
	if r.Compared {
		proof = "the database's checksum is the replicated one's"
	}
	switch r.Check {
	case restore.CheckQuick:
		proof += ", quick_check ok"
	case restore.CheckFull:
		proof += ", integrity_check ok"
	}
	return proof
}

// ParseOwner reads --owner and --mode.
func ParseOwner(owner, mode string) (o stage.Owner, err error) {
	name, group, grouped := strings.Cut(owner, ":")
	if owner != "" {
		id, err := numberOf(name, func(name string) (string, error) {
			u, err := user.Lookup(name)
			if err != nil {
				return "", err
			}
			return u.Uid, nil
		})
		if err != nil {
			return o, fmt.Errorf("--owner %q: %w", owner, err)
		}
		o.User = &id
	}
	if grouped {
		id, err := numberOf(group, func(name string) (string, error) {
			g, err := user.LookupGroup(name)
			if err != nil {
				return "", err
			}
			return g.Gid, nil
		})
		if err != nil {
			return o, fmt.Errorf("--owner %q: %w", owner, err)
		}
		o.Group = &id
	}
	if mode == "" {
		return o, nil
	}
	n, err := strconv.ParseUint(mode, 8, 32)
	if err != nil || n > 0o777 || n&0o600 != 0o600 {
		return o, fmt.Errorf("--mode %q: it is octal, from 0600 to 0777, and lets the owner read and write", mode)
	}
	o.Mode = fs.FileMode(n)
	return o, nil
}

// numberOf returns a number as it is and a name's number.
func numberOf(name string, byName func(string) (string, error)) (int, error) {
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	text, err := byName(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}
