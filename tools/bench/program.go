package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// program is one of the two programs that are compared.
type program interface {
	name() string
	// daemon returns the command that replicates databases, each to a prefix of its own; sqlwatch
	// also listens on an address.
	daemon(st *stage, databases []string, syncEvery time.Duration) (*exec.Cmd, error)
	// restore returns the command that restores one database to out.
	restore(st *stage, database, out string) *exec.Cmd
}

// sqlwatch is the program built from this tree, or the one that -sqlwatch names.
type sqlwatch struct{ path string }

func newSqlwatch(o options) (*sqlwatch, error) {
	if o.sqlwatch != "" {
		path, err := filepath.Abs(o.sqlwatch)
		return &sqlwatch{path}, err
	}
	path := filepath.Join(o.dir, "sqlwatch")
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	if out, err := exec.Command("go", "build", "-C", root, "-trimpath", "-o", path,
		"./cmd/sqlwatch").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build sqlwatch: %w: %s", err, out)
	}
	return &sqlwatch{path}, nil
}

func (*sqlwatch) name() string { return "sqlwatch" }

func (s *sqlwatch) daemon(st *stage, databases []string, syncEvery time.Duration) (*exec.Cmd, error) {
	return s.configured(st, databases, "s3", st.s3Replica(syncEvery))
}

// configured returns the command of the daemon, with a replica of this kind, which rest
// describes.
func (s *sqlwatch) configured(st *stage, databases []string, kind, rest string) (*exec.Cmd, error) {
	var err error
	if st.listen, err = freeAddress(); err != nil {
		return nil, err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "server {\n  listen = %q\n  admin = \"unix://%[2]s/admin.sock\"\n  state_dir = "+
		"\"%[2]s/state\"\n}\n", st.listen, st.dir)
	for _, db := range databases {
		fmt.Fprintf(&text, "database %q {\n  path = %q\n  replicate_to = [replica.%s.r]\n}\n", nameOf(db), db, kind)
	}
	text.WriteString(rest)
	config := filepath.Join(st.dir, "sqlwatch.hcl")
	if err := write(config, text.String()); err != nil {
		return nil, err
	}
	return exec.Command(s.path, "run", "--config", config), nil
}

// s3Replica describes a replica in the stage's part of the bucket.
func (st *stage) s3Replica(syncEvery time.Duration) string {
	return fmt.Sprintf(`replica "s3" "r" {
  bucket     = %q
  prefix     = "%s/${db.name}"
  endpoint   = %q
  region     = "us-east-1"
  path_style = true
  sync_every = %q
}
`, bucket, st.prefix, cmp.Or(st.uplink, st.proxy.url), syncEvery)
}

func (s *sqlwatch) restore(st *stage, database, out string) *exec.Cmd {
	return exec.Command(s.path, "restore", "-o", out,
		fmt.Sprintf("s3://%s/%s/%s?endpoint=%s&region=us-east-1&path_style=true", bucket, st.prefix, nameOf(database),
			st.proxy.url))
}

// litestream is the program Litestream, version 0.5.
type litestream struct{ path, version string }

func findLitestream() (*litestream, error) {
	path := os.Getenv("LITESTREAM")
	if path == "" {
		var err error
		if path, err = exec.LookPath("litestream"); err != nil {
			return nil, errors.New("litestream is not installed: put litestream 0.5.18 into PATH, or name it with " +
				"$LITESTREAM; only sqlwatch is measured")
		}
	}
	out, err := exec.Command(path, "version").Output()
	version := strings.TrimSpace(string(out))
	if err != nil || !strings.HasPrefix(strings.TrimPrefix(version, "v"), "0.5.") {
		return nil, fmt.Errorf("%s is version %q (%v), not 0.5; only sqlwatch is measured", path, version, err)
	}
	return &litestream{path, version}, nil
}

func (*litestream) name() string { return "litestream" }

func (l *litestream) daemon(st *stage, databases []string, syncEvery time.Duration) (*exec.Cmd, error) {
	config := filepath.Join(st.dir, "litestream.yml")
	if err := write(config, l.config(st, databases, syncEvery)); err != nil {
		return nil, err
	}
	return exec.Command(l.path, "replicate", "-config", config), nil
}

func (*litestream) config(st *stage, databases []string, syncEvery time.Duration) string {
	var text strings.Builder
	text.WriteString("dbs:\n")
	for _, db := range databases {
		fmt.Fprintf(&text, `  - path: %s
    replica:
      type: s3
      bucket: %s
      path: %s/%s
      endpoint: %s
      region: us-east-1
      force-path-style: true
      sync-interval: %s
`, db, bucket, st.prefix, nameOf(db), st.proxy.url, syncEvery)
	}
	return text.String()
}

func (l *litestream) restore(st *stage, database, out string) *exec.Cmd {
	return exec.Command(l.path, "restore", "-config", filepath.Join(st.dir, "litestream.yml"), "-o", out, database)
}

// environment returns an environment with the credentials but without AWS_CA_BUNDLE: Litestream
// 0.5.18 refuses to restore if it is set, and the server speaks HTTP.
func environment() []string {
	rest := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "AWS_") })
	return append(rest, "AWS_ACCESS_KEY_ID="+accessKey, "AWS_SECRET_ACCESS_KEY="+secretKey)
}

// nameOf returns a database's name: its file's name without .db.
func nameOf(db string) string { return strings.TrimSuffix(filepath.Base(db), ".db") }

// write puts text into a new scratch file.
func write(path, text string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// stage is where one program performs one scene.
type stage struct {
	o           options
	dir, prefix string
	program     program
	proxy       *proxy
	uplink      string // the address of the store that the daemon uses instead of the proxy's, if any
	objects     string // directory in which the server keeps its objects
	listen      string // address at which sqlwatch serves its pages
	running     []*exec.Cmd
}

// start runs a command until the scene ends; its output goes to a file.
func (st *stage) start(cmd *exec.Cmd) error {
	log, err := os.OpenFile(filepath.Join(st.dir, filepath.Base(cmd.Path)+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY,
		0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Env = environment()
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return err
	}
	st.running = append(st.running, cmd)
	return nil
}

// replicate starts the program's daemon.
func (st *stage) replicate(databases []string, syncEvery time.Duration) (*exec.Cmd, error) {
	cmd, err := st.program.daemon(st, databases, syncEvery)
	if err != nil {
		return nil, err
	}
	return cmd, st.start(cmd)
}

// restore restores a database into a new file and returns how long that took.
func (st *stage) restore(database string) (out string, took time.Duration, err error) {
	out = filepath.Join(st.dir, fmt.Sprintf("restored-%d.db", time.Now().UnixNano()))
	cmd := st.program.restore(st, database, out)
	cmd.Env = environment()
	began := time.Now()
	text, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("restore: %w: %s", err, text)
	}
	return out, time.Since(began), err
}

// end signals a command and waits for its end.
func (st *stage) end(cmd *exec.Cmd, sig syscall.Signal) {
	if cmd.ProcessState != nil {
		return
	}
	_ = cmd.Process.Signal(sig)
	kill := time.AfterFunc(40*time.Second, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	_ = cmd.Wait()
}

func (st *stage) clear() {
	for _, cmd := range st.running {
		st.end(cmd, syscall.SIGKILL)
	}
	_ = os.RemoveAll(st.dir)
}

// usage is what a process has used.
type usage struct {
	cpu                  time.Duration
	rss, peak            float64 // MB
	threads, descriptors float64
}

// usageOf reads a process's usage from /proc.
func usageOf(cmd *exec.Cmd) (u usage, err error) {
	base := fmt.Sprintf("/proc/%d/", cmd.Process.Pid)
	text, err := os.ReadFile(base + "stat")
	if err != nil {
		return u, err
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	for _, i := range []int{11, 12} { // utime, stime in ticks of 10 ms
		ticks, err := strconv.Atoi(fields[i])
		if err != nil {
			return u, fmt.Errorf("%sstat: %w", base, err)
		}
		u.cpu += time.Duration(ticks) * 10 * time.Millisecond
	}
	status, err := os.ReadFile(base + "status")
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		var n float64
		if _, err := fmt.Sscan(value, &n); err != nil {
			continue // not a number
		}
		switch key {
		case "VmRSS":
			u.rss = n / 1024
		case "VmHWM":
			u.peak = n / 1024
		case "Threads":
			u.threads = n
		}
	}
	open, err := os.ReadDir(base + "fd")
	u.descriptors = float64(len(open))
	return u, err
}
