package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A long run: go test -run TestS3History -s3.history 15m -s3.seed 7 -timeout 20m
var (
	s3HistoryFor  = flag.Duration("s3.history", 30*time.Second, "how long TestS3History runs")
	s3HistorySeed = flag.Uint64("s3.seed", 1, "seed of TestS3History")
)

// The history checker over S3: the daemon is killed while a third of its
// requests and a quarter of the restores' go wrong in every way a network and a
// provider know. No restore may ever be wrong, and nothing promised be lost.
func TestS3History(t *testing.T) {
	t.Parallel()
	history, err := buildProgram(t.TempDir(), "history", "../history", ".", "-tags", "libsqlite3,sqlite_serialize")
	must(t, err)
	// Without the race detector: it must get something done between two kills.
	program, err := buildProgram(t.TempDir(), "sqlwatch", "../..", "./cmd/sqlwatch")
	must(t, err)
	server := startS3(t)
	daemonSees, restoreSees := startS3Proxy(t, server.url()), startS3Proxy(t, server.url())
	repairable := []s3Fault{slowDown, internalError, resetBefore, lostReply, halfReply, wrongByte, html, slowReply}
	var all []s3Fault
	for range 4 {
		all = append(append(all, repairable...), conflict, skewed, halfRequest)
	}
	daemonSees.chaos(*s3HistorySeed, 0.33, append(all, hang)...) // one that hangs is given 20 s
	restoreSees.chaos(*s3HistorySeed+1, 0.25, repairable...)
	healed := time.AfterFunc(*s3HistoryFor, func() { daemonSees.breakWith(nil) })
	defer healed.Stop()

	dir, attributes := t.TempDir(), filepath.Join(t.TempDir(), "replica.hcl")
	block := s3Replica(daemonSees.url, "history/app", "")
	_, block, _ = strings.Cut(block, "{\n")
	block = block[:strings.LastIndex(block, "}")]
	must(t, os.WriteFile(attributes, []byte(block), 0o600))
	cmd := exec.Command(history, "-sqlwatch", program, "-dir", dir, "-seed", fmt.Sprint(*s3HistorySeed), "-duration",
		s3HistoryFor.String(),
		"-replica", attributes, "-url", s3URL(restoreSees.url, "history/app"))
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
	for who, p := range map[string]*s3Proxy{"daemon": daemonSees, "restores": restoreSees} {
		requests, byOperation := p.counts()
		faults, byFault := p.faults()
		t.Logf("%s: %d faults in %d requests: %v %v", who, faults, requests, byFault, byOperation)
		if faults < 10 {
			t.Errorf("%s: only %d faults", who, faults)
		}
	}
	t.Logf("%s", tail(text, 4000))
}

// keepScene copies what a failure is to be understood from.
func keepScene(t *testing.T, dirs ...string) {
	t.Helper()
	kept, err := os.MkdirTemp("", "s3history")
	must(t, err)
	for _, dir := range dirs {
		must(t, exec.Command("cp", "-a", dir, kept).Run())
	}
	t.Logf("kept in %s", kept)
}
