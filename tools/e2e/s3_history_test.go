package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store/s3/s3test"
)

// A long run: go test -run TestS3History -s3.history 15m -s3.seed 7 -timeout 20m
var (
	s3HistoryFor  = flag.Duration("s3.history", 30*time.Second, "how long TestS3History runs")
	s3HistorySeed = flag.Uint64("s3.seed", 1, "seed of TestS3History")
)

// The history checker finds nothing wrong over S3: the daemon is killed while a third of its
// requests, and a quarter of those of the restores, go wrong in every way that networks and
// providers know. No restore may ever return a wrong state, and nothing acknowledged may be lost.
func TestS3History(t *testing.T) {
	t.Parallel()
	history, err := buildProgram(t.TempDir(), "history", "../history", ".", "-tags", "libsqlite3,sqlite_serialize")
	must(t, err)
	// Without the race detector: it must make progress between two kills.
	program, err := withoutRace()
	must(t, err)
	server := startS3(t)
	daemonSees, restoreSees := s3test.NewProxy(t, server.url()), s3test.NewProxy(t, server.url())
	daemonSees.Rate, restoreSees.Rate = 1<<20, 1<<20 // slow, but done before anybody gives up
	repairable := []s3test.Fault{s3test.Unavailable, s3test.InternalError, s3test.Reset, s3test.LostReply,
		s3test.HalfReply, s3test.WrongByte, s3test.HTML, s3test.Slow}
	var all []s3test.Fault
	for range 4 {
		all = append(append(all, repairable...), s3test.Conflict, s3test.Skewed, s3test.HalfRequest)
	}
	// A restore fetches a corrupt object a second time, but not a third: if wrong bytes were as
	// frequent as the other faults, one run in twenty would meet two of them in the same object.
	restores := []s3test.Fault{s3test.WrongByte}
	for range 8 {
		restores = append(restores, slices.DeleteFunc(slices.Clone(repairable),
			func(f s3test.Fault) bool { return f == s3test.WrongByte })...)
	}
	daemonSees.Break(chaos(*s3HistorySeed, 0.33, append(all, s3test.Hang)...)) // a hung request ends after 20 s
	restoreSees.Break(chaos(*s3HistorySeed+1, 0.25, restores...))
	healed := time.AfterFunc(*s3HistoryFor, func() { daemonSees.Break(nil) })
	defer healed.Stop()

	dir, attributes := t.TempDir(), filepath.Join(t.TempDir(), "replica.hcl")
	block := s3Replica(daemonSees.URL, "history/app", "")
	_, block, _ = strings.Cut(block, "{\n")
	block = block[:strings.LastIndex(block, "}")]
	must(t, os.WriteFile(attributes, []byte(block), 0o600))
	cmd := exec.Command(history, "-sqlwatch", program, "-dir", dir, "-seed", fmt.Sprint(*s3HistorySeed), "-duration",
		s3HistoryFor.String(),
		"-replica", attributes, "-url", s3URL(restoreSees.URL, "history/app"))
	cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+s3KeyID, "AWS_SECRET_ACCESS_KEY="+s3Secret)
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("history: %v", err)
		keepScene(t, dir, server.dir)
	}
	noCanary(t, "the history's output", string(text))
	log, err := os.ReadFile(filepath.Join(dir, "sqlwatch.log"))
	must(t, err)
	noCanary(t, "the daemon's log", string(log))
	if bytes.Contains(log, []byte("panic:")) {
		t.Errorf("a panic in the daemon's log:\n%s", tail(log, 6000))
	}
	for who, p := range map[string]*s3test.Proxy{"daemon": daemonSees, "restores": restoreSees} {
		byOperation, byFault := p.Requests(), p.Faults()
		requests, faults := total(byOperation), total(byFault)
		t.Logf("%s: %d faults in %d requests: %v %v", who, faults, requests, byFault, byOperation)
		if faults < 10 {
			t.Errorf("%s: only %d faults", who, faults)
		}
	}
	t.Logf("%s", tail(text, 4000))
}

// keepScene copies what is needed to understand a failure.
func keepScene(t *testing.T, dirs ...string) {
	t.Helper()
	kept, err := os.MkdirTemp("", "s3history")
	must(t, err)
	for _, dir := range dirs {
		must(t, exec.Command("cp", "-a", dir, kept).Run())
	}
	t.Logf("kept in %s", kept)
}
