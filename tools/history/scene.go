package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// scene is the processes and files of one run: the application, sqlwatch, and what the nemesis
// has done to them.
type scene struct {
	o       options
	rng     *rand.Rand // used by the nemesis only
	db, log string
	config  string
	listen  string
	url     string

	mu       sync.Mutex
	app      *exec.Cmd
	appStdin io.Closer
	daemon   *exec.Cmd
	exited   chan struct{} // closed when the daemon has ended
	killing  bool
	disowned bool // a harm may have removed the proof of whose history the replica holds

	call   string         // the system call that strace kills at
	kills  int            // how often the daemon was killed with SIGKILL, by us and by strace
	harms  map[string]int // how often, by name
	lives  map[string]int // how often the application was started, by life
	holes  []hole
	slow   atomic.Int64 // snapshots taken over the slow uplink
	deaths []string     // daemon exits that nobody requested

	choices []choice // the lives to choose from
	files   disks    // where the files are, and what was put aside
}

func newScene(o options) (*scene, error) {
	s := &scene{
		o: o, rng: rand.New(rand.NewPCG(o.seed, 2)),
		log:    filepath.Join(o.dir, "app.log"),
		config: filepath.Join(o.dir, "sqlwatch.hcl"), url: o.url,
		harms: map[string]int{}, lives: map[string]int{},
	}
	if err := s.mount(); err != nil {
		return nil, err
	}
	var err error
	if s.choices, err = o.choices(); err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s.listen = "127.0.0.1:" + port
	replica := fmt.Sprintf("replica \"file\" \"r\" {\n  dir = %q\n", filepath.Join(o.dir, "replica"))
	if o.replica != "" {
		attributes, err := os.ReadFile(o.replica)
		if err != nil {
			return nil, err
		}
		replica = "replica \"s3\" \"r\" {\n" + string(attributes)
	} else {
		s.url = "file://" + filepath.Join(o.dir, "replica")
	}
	kind := "file"
	if o.replica != "" {
		kind = "s3"
	}
	text := fmt.Sprintf(`
server {
  listen    = "%[4]s"
  admin     = "unix://%[1]s/admin.sock"
  state_dir = "%[1]s/state"
}
database "app" {
  path         = "%[5]s"
  replicate_to = [replica.%[2]s.r]
  restart {
    at = "2MB"
  }
}
%[3]s
  sync_every = "200ms"
  snapshot  { every = "1m" }
  retention { keep = "2h" }
}
policy "truncate" {
  when     = wal.bytes > bytes("64KB")
  cooldown = "1s"
  checkpoint {
    stall_budget = "200ms"
    step "passive"  { repeat = 1 }
    step "truncate" { busy_timeout = "20ms" }
    on_busy {
      backoff = "1s"
      max     = "5s"
    }
  }
}
`, o.dir, kind, replica, s.listen, s.db)
	if o.uplink != "" {
		text += fmt.Sprintf("uploads {\n  bandwidth = %q\n}\n", o.uplink)
	}
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if out, err := exec.Command(o.sqlwatch, "check", s.config).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("the configuration: %w: %s", err, out)
	}
	return s, nil
}

// freePort returns a TCP port of the loopback interface that was free a moment ago.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// begin starts the application, waits for its first commit, then starts sqlwatch.
func (s *scene) begin(ctx context.Context) error {
	if err := s.startAs("normal"); err != nil {
		return err
	}
	for ctx.Err() == nil {
		a := newAccount(s.log)
		if err := a.read(); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if at, _ := a.newest(); at.ID > 0 {
			return s.startDaemon()
		}
		time.Sleep(20 * time.Millisecond)
	}
	return errors.New("the application made no commit")
}

// startApp starts the application in a life that the seed chooses.
func (s *scene) startApp(more ...string) error {
	c, err := s.newLife(more)
	if err != nil {
		return err
	}
	return s.begins(c, more...)
}

func (s *scene) startAs(life string) error {
	c, err := s.lifeOf(life)
	if err != nil {
		return err
	}
	return s.begins(c)
}

func (s *scene) begins(c choice, more ...string) error {
	args := append(slices.Clone(c.command[1:]), "-db", s.db, "-log", s.log, "-seed", fmt.Sprint(s.rng.Uint64()),
		"-pause", s.o.pause.String())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lives[c.name]++
	s.files.life = c.name
	s.app = exec.Command(c.command[0], append(args, more...)...)
	s.app.Stderr = os.Stderr
	var err error
	if s.appStdin, err = s.app.StdinPipe(); err != nil {
		return err
	}
	return s.app.Start()
}

// stopApp ends the application: at once, or after its current transaction.
func (s *scene) stopApp(kill bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.app == nil {
		return
	}
	if kill {
		_ = s.app.Process.Kill()
	}
	_ = s.appStdin.Close()
	_ = s.app.Wait()
	s.app = nil
}

// startDaemon starts sqlwatch, under strace if it is to be killed at a system call.
func (s *scene) startDaemon() error {
	if s.o.alone {
		return nil
	}
	logFile, err := os.OpenFile(filepath.Join(s.o.dir, "sqlwatch.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer logFile.Close()
	args := []string{s.o.sqlwatch, "run", "--config", s.config}
	if s.o.verbose {
		args = append(args, "--log.level=debug")
	}
	if s.disowned {
		// If the database file was replaced as well, a daemon without its state cannot prove whose
		// history the replica holds. The operator tells it with --adopt, as its log requests.
		args = append(args, "--adopt=app")
	}
	if s.o.killAt != "" {
		calls := strings.Split(s.o.killAt, ",")
		call, nth := calls[s.kills%len(calls)], 1+s.kills/len(calls)
		s.call = call
		args = append([]string{"strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + call,
			"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, nth)}, args...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.daemon = exec.Command(args[0], args[1:]...)
	s.daemon.Stdout, s.daemon.Stderr = logFile, logFile
	if s.o.clock != "" {
		s.daemon.Env = append(os.Environ(), "HISTORY_CLOCK="+s.o.clock)
	}
	s.daemon.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.killing = false
	if err := s.daemon.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	s.exited = exited
	go func(cmd *exec.Cmd) {
		err := cmd.Wait()
		s.mu.Lock()
		if !s.killing && s.o.killAt == "" {
			s.deaths = append(s.deaths, fmt.Sprint(err))
		}
		s.mu.Unlock()
		close(exited)
	}(s.daemon)
	return nil
}

// daemonAnswers waits until the daemon serves its metrics.
func (s *scene) daemonAnswers(limit time.Duration) error {
	client := http.Client{Timeout: time.Second}
	for deadline := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		resp, err := client.Get("http://" + s.listen + "/metrics")
		if err == nil {
			return resp.Body.Close()
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}

// endDaemon sends sig to the daemon's process group and waits until it is gone.
func (s *scene) endDaemon(sig syscall.Signal) {
	s.mu.Lock()
	if s.daemon == nil {
		s.mu.Unlock()
		return
	}
	s.killing = true
	pid, exited := s.daemon.Process.Pid, s.exited
	s.mu.Unlock()
	_ = syscall.Kill(-pid, sig)
	select {
	case <-exited:
	case <-time.After(40 * time.Second):
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		<-exited
		s.mu.Lock()
		s.deaths = append(s.deaths, fmt.Sprintf("no end within 40 s of %v", sig))
		s.mu.Unlock()
	}
}

func (s *scene) close() {
	s.thaw()
	s.stopApp(true)
	s.endDaemon(syscall.SIGKILL)
	if _, err := os.Stat(s.o.dir); err == nil && s.files.mounted { // something is wrong: keep the files
		_ = exec.Command("cp", "-a", filepath.Dir(s.db), filepath.Join(s.o.dir, "kept")).Run()
	}
	s.unmount()
}
