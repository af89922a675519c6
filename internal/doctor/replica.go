package doctor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3"
)

// How far a store's clock may differ from ours. S3 refuses requests at 15 minutes.
const (
	skewWarning  = 30 * time.Second
	skewCritical = 10 * time.Minute
)

func replicas(f Facts) []Finding {
	var all []Finding
	for _, r := range f.Replicas {
		for _, found := range r.diagnose() {
			found.Subject = r.Name
			all = append(all, found)
		}
	}
	return all
}

// diagnose reports what a round trip found, in the order of its steps.
func (r Replica) diagnose() []Finding {
	if r.Skipped != "" {
		return one("replica-not-probed", Note, "no round trip to "+r.Place+": "+r.Skipped,
			"it is unknown whether the replica can be written to", r.skippedCure())
	}
	if r.Dir.Forbidden {
		return one("replica-unwritable", Critical, fmt.Sprintf("%s does not exist and cannot be created: permission denied",
			r.Place), "nothing is replicated there",
			fmt.Sprintf("install -d -m 0700 -o %d %s", os.Geteuid(), show.Quote(strings.TrimPrefix(r.Place, "file://"))))
	}
	if r.ListErr != nil && fatal(r.ListErr) {
		return r.failure("list", r.ListErr)
	}
	var found []Finding
	for _, step := range []struct {
		op  string
		err error
	}{{"list", r.ListErr}, {"put", r.PutErr}, {"get", r.GetErr}, {"delete", r.DeleteErr}} {
		if step.err != nil {
			found = append(found, r.failure(step.op, step.err)...)
		}
		if step.err != nil && (fatal(step.err) || !errors.Is(step.err, store.ErrAuth)) {
			return found
		}
	}
	found = append(found, r.conditional()...)
	found = append(found, r.content()...)
	found = append(found, r.odd()...)
	return append(found, r.clock()...)
}

func (r Replica) skippedCure() string {
	if r.Dir.Missing {
		return "nothing to do: it is created at the first upload"
	}
	return fmt.Sprintf("sudo -u '#%d' sqlwatch doctor …", r.Dir.UID)
}

// fatal reports whether an error makes every further step fail in the same way.
func fatal(err error) bool {
	return errors.Is(err, store.ErrMisplaced) || errors.Is(err, store.ErrUnavailable) || badKeys(err)
}

// badKeys distinguishes credentials that are entirely wrong from those that lack one permission.
func badKeys(err error) bool {
	var api interface{ ErrorCode() string }
	if !errors.Is(err, store.ErrAuth) || !errors.As(err, &api) {
		return errors.Is(err, store.ErrAuth) && !errors.Is(err, os.ErrPermission)
	}
	switch api.ErrorCode() {
	case "AccessDenied", "Forbidden", "UnauthorizedAccess", "AccessDeniedException", "AllAccessDisabled":
		return false
	}
	return true
}

// failure is one failed step.
func (r Replica) failure(op string, err error) []Finding {
	what, cure := r.explain(err)
	var api interface{ ErrorCode() string }
	switch {
	case errors.As(err, &api) && api.ErrorCode() == "RequestTimeTooSkewed":
		return one("clock-skew", Critical, what, "S3 refuses requests that are 15 minutes off",
			cure+": timedatectl set-ntp true")
	case errors.Is(err, store.ErrMisplaced):
		return one("replica-misplaced", Critical, what, "nothing is replicated there, and retrying will not help", cure)
	case errors.Is(err, store.ErrAuth) && badKeys(err):
		return one("replica-credentials", Critical, what, "nothing is replicated there", cure)
	case errors.Is(err, store.ErrAuth):
		return r.forbidden(op, what, cure)
	case s3.IsFull(err), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return one("replica-full", Critical, what, "commits wait in the state directory until there is space", cure)
	case errors.Is(err, store.ErrUnavailable):
		return one("replica-unreachable", Critical, what, "commits wait in the state directory until it answers", cure)
	}
	return one("replica-failed", Critical, what, "replication will fail in the same way", cure)
}

// permissions names what each operation needs on an S3 store.
var permissions = map[string]string{"list": "s3:ListBucket", "put": "s3:PutObject", "get": "s3:GetObject",
	"delete": "s3:DeleteObject"}

func (r Replica) forbidden(op, what, cure string) []Finding {
	if r.Kind == "s3" {
		what = fmt.Sprintf("the permission %s is missing: %s", permissions[op], what)
	}
	why := map[string]string{
		"list":   "sqlwatch cannot see what is stored: it can neither continue the replica nor restore it",
		"put":    "nothing is replicated there",
		"get":    "nothing can be verified or restored from here",
		"delete": "files that retention no longer needs stay, and you pay for them",
	}[op]
	severity := Critical
	if op == "delete" {
		severity = Warning
		cure += fmt.Sprintf(" (the probe object %s stays; a lifecycle rule cannot replace this permission: it does not know "+
			"which files a restore needs)", r.Odd.ProbeKey)
	}
	return one("replica-permission", severity, what, why, cure)
}

// explain returns what an error means and what to do about it.
func (r Replica) explain(err error) (what, cure string) {
	what = r.Place + ": " + err.Error()
	var st *s3.Error
	if errors.As(err, &st) && st.Hint != "" {
		return strings.TrimSuffix(what, ": "+st.Hint), st.Hint
	}
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		cure = "nothing listens at the endpoint: check its host name and port, and that the server runs"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		cure = "there is no route to the endpoint: check this machine's network, and HTTPS_PROXY if one is needed"
	case errors.As(err, &timeout) && timeout.Timeout():
		cure = "the endpoint does not answer in time: check endpoint, firewall and HTTPS_PROXY"
	case errors.Is(err, os.ErrPermission):
		cure = fmt.Sprintf("give the directory to uid %d: chown -R %d %s", os.Geteuid(), os.Geteuid(),
			show.Quote(strings.TrimPrefix(r.Place, "file://")))
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		cure = "free space at the replica"
	default:
		cure = "check endpoint, bucket, region and keys of this replica"
	}
	return what, cure
}

func (r Replica) conditional() []Finding {
	switch r.Conditional {
	case Ignored:
		return one("replica-conditional-writes", Warning,
			r.Place+": the store accepts If-None-Match but overwrites objects anyway",
			"only the lease keeps two writers from destroying each other's history",
			"make sure that only one sqlwatch uses this prefix; update the server (MinIO, Ceph and versitygw honour it in "+
				"current releases) or use another provider")
	case Refused:
		return one("replica-conditional-writes", Warning, r.Place+": the store does not support conditional writes",
			"only the lease keeps two writers from destroying each other's history",
			"make sure that only one sqlwatch uses this prefix")
	}
	if r.Matching == Ignored || r.Matching == Refused {
		return one("replica-conditional-writes", Warning, r.Place+": the store honours If-None-Match, but not If-Match",
			"files are safe, but two hosts that may both write here notice each other only within a minute, not immediately",
			"make sure that only one sqlwatch uses this prefix; docs/storage.md, Crashes, reboots and clones, says what is "+
				"not guaranteed")
	}
	return nil
}

func (r Replica) content() []Finding {
	var found []Finding
	if r.Corrupt {
		found = append(found, one("replica-damaged", Critical,
			r.Place+": the bytes that were read are not those that were written",
			"a replica that changes bytes cannot be restored",
			"something between here and the store rewrites objects (a proxy, a gateway, a failing disk): find it with "+
				"`sqlwatch verify`, and use another store meanwhile")...)
	}
	if r.NotListed {
		found = append(found, one("replica-stale-list", Warning, r.Place+": a listing did not show the object just written",
			"restores and retention rely on listings",
			"turn off caching of listings (a gateway or CDN in front of the store)")...)
	}
	if r.Foreign {
		found = append(found, one("replica-foreign", Warning,
			r.Place+" holds files that sqlwatch did not write (Litestream's?)",
			"sqlwatch refuses to write there, so that two writers never share a history",
			"give it an empty prefix, or stop the other writer and start once with: sqlwatch run --adopt=NAME, where NAME is "+
				"the database or the replica")...)
	}
	if r.Dir.SameDisk {
		found = append(found, one("replica-same-disk", Warning, r.Place+" is on the same file system as the database",
			"a replica on the same disk protects only against mistakes, not against a failure of the disk",
			"use a directory on another disk, or add an s3 replica")...)
	}
	return found
}

func (r Replica) clock() []Finding {
	skew := r.Skew.Abs()
	if !r.SkewKnown || skew < skewWarning {
		return nil
	}
	severity := Warning
	if skew >= skewCritical {
		severity = Critical
	}
	direction := "behind"
	if r.Skew < 0 {
		direction = "ahead of"
	}
	return one("clock-skew", severity, fmt.Sprintf("this machine's clock is %s %s the store's", skew.Round(time.Second),
		direction),
		"restores to a moment are off by that much, and S3 refuses requests that are 15 minutes off",
		"timedatectl set-ntp true (or start chronyd), then: timedatectl status")
}
