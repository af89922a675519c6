package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// harm is one thing that the nemesis does.
type harm struct {
	name   string
	weight int
	do     func(*scene) error
}

// harms are all that the nemesis can do; kill -9 of sqlwatch is the most frequent.
var harms = []harm{
	{"kill", 64, func(s *scene) error { return s.kill(nil) }},
	{"kill the application", 12, func(s *scene) error { s.stopApp(true); return s.startApp() }},
	{"crash together", 3, (*scene).crashTogether},
	{"stop and continue", 6, (*scene).pause},
	{"terminate", 4, (*scene).terminate},
	{"lose the state directory", 4, func(s *scene) error { return s.kill(s.loseState) }},
	{"bring an old state directory back", 4, func(s *scene) error { return s.kill(s.rewindState) }},
	{"damage a state file", 3, func(s *scene) error { return s.kill(s.damageState) }},
	{"freeze the replica", 3, (*scene).freeze},
	{"restore over the file", 8, (*scene).restoreOver},
	{"remove the side files", 3, (*scene).removeSideFiles},
	{"an old -shm after a crash", 3, (*scene).oldShm},
	{fillDatabase, 2, func(s *scene) error { return s.fill(filepath.Dir(s.db)) }},
	{"fill the state's disk", 3, func(s *scene) error { return s.fill(s.stateDir()) }},
	{"step the clock", 4, (*scene).stepClock},
}

const fillDatabase = "fill the database's disk"

// nemesis does harm until the time is over or the requested number of kills is reached.
func (s *scene) nemesis(ctx context.Context, enough func()) error {
	for {
		s.mu.Lock()
		exited := s.exited // nil, so never ready, if there is no daemon
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-exited:
		case <-time.After(s.wait()):
		}
		if err := s.harm(); err != nil {
			return err
		}
		if s.o.kills > 0 && s.kills >= s.o.kills {
			enough()
			return nil
		}
	}
}

// wait returns how long the daemon lives until the next harm: often too short for its start,
// sometimes long enough for its less frequent duties.
func (s *scene) wait() time.Duration {
	if s.o.killAt != "" {
		return 5 * time.Second // strace kills earlier, unless this call is rare
	}
	n := s.rng.IntN(10)
	if n < 3 {
		return time.Duration(10+s.rng.IntN(500)) * time.Millisecond
	}
	if s.o.alone {
		return time.Duration(200+s.rng.IntN(1300)) * time.Millisecond
	}
	// On a loaded machine the daemon would otherwise never finish its start. If it does not answer
	// at all, the checker finds out.
	_ = s.daemonAnswers(3 * time.Second)
	if n < 9 {
		return time.Duration(200+s.rng.IntN(1300)) * time.Millisecond
	}
	return time.Duration(1000+s.rng.IntN(5000)) * time.Millisecond
}

// harm does one harm, chosen by the seed.
func (s *scene) harm() error {
	if s.o.killAt != "" {
		outcome := "outlived"
		select {
		case <-s.exited:
			outcome = "killed at"
		default:
		}
		s.harms[outcome+" "+s.call]++
		return s.kill(nil)
	}
	var able []harm
	total := 0
	for _, h := range harms {
		if s.able(h) {
			able = append(able, h)
			total += h.weight
		}
	}
	if total == 0 {
		return fmt.Errorf("-only %q names no harm", s.o.only)
	}
	n := s.rng.IntN(total)
	for _, h := range able {
		if n -= h.weight; n < 0 {
			s.harms[h.name]++
			if s.o.verbose {
				fmt.Printf("history: %s: %s, %s\n", time.Now().UTC().Format("15:04:05.000"), h.name, s.files.life)
			}
			if err := h.do(s); err != nil {
				return fmt.Errorf("%s: %w", h.name, err)
			}
			return nil
		}
	}
	return nil
}

// able reports whether this run can do h at all.
func (s *scene) able(h harm) bool {
	switch {
	case s.o.only != "" && !strings.Contains(","+s.o.only+",", ","+h.name+","), s.o.leftOut(h.name):
		return false
	case h.name == "step the clock":
		return s.o.clock != ""
	case strings.HasPrefix(h.name, "fill "):
		return s.files.mounted
	}
	return true
}

// kill kills the daemon, does something to its files meanwhile, and starts it again.
func (s *scene) kill(meanwhile func() error) error {
	s.endDaemon(syscall.SIGKILL)
	s.kills++
	if meanwhile != nil {
		if err := meanwhile(); err != nil {
			return err
		}
	}
	time.Sleep(time.Duration(s.rng.IntN(300)) * time.Millisecond)
	return s.startDaemon()
}

// crashTogether kills the daemon and the application a few times in a row, so that the
// application, which starts first, creates the wal-index again, and sqlwatch finds it.
func (s *scene) crashTogether() error {
	for range 4 {
		s.endDaemon(syscall.SIGKILL)
		s.kills++
		s.stopApp(true)
		if err := s.startApp("-opening", fmt.Sprint(1+s.rng.IntN(4))); err != nil {
			return err
		}
		time.Sleep(time.Duration(100+s.rng.IntN(200)) * time.Millisecond)
		if err := s.startDaemon(); err != nil {
			return err
		}
		time.Sleep(time.Duration(300+s.rng.IntN(600)) * time.Millisecond)
	}
	return nil
}

func (s *scene) pause() error {
	if s.o.alone {
		return nil
	}
	s.mu.Lock()
	pid := s.daemon.Process.Pid
	s.mu.Unlock()
	_ = syscall.Kill(-pid, syscall.SIGSTOP) // if it has ended by itself, that is noticed elsewhere
	time.Sleep(time.Duration(s.rng.IntN(2500)) * time.Millisecond)
	_ = syscall.Kill(-pid, syscall.SIGCONT)
	return nil
}

func (s *scene) terminate() error {
	s.endDaemon(syscall.SIGTERM)
	return s.startDaemon()
}

func (s *scene) stateDir() string { return filepath.Join(s.o.dir, "state") }

// loseState removes the contents of the state directory, which may be a file system of its
// own.
func (s *scene) loseState() error {
	s.disowned = true
	entries, err := os.ReadDir(s.stateDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(s.stateDir(), e.Name())))
	}
	return err
}

// rewindState restores an old backup over the newer state: it puts back the copy of the state
// directory that it took last time. If there is none it takes one.
func (s *scene) rewindState() error {
	s.disowned = true
	backup := filepath.Join(s.o.dir, "state.backup")
	if _, err := os.Stat(backup); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(s.stateDir()); err != nil {
			return nil // nothing to copy yet
		}
		return exec.Command("cp", "-a", s.stateDir(), backup).Run()
	}
	if err := s.loseState(); err != nil {
		return err
	}
	if out, err := exec.Command("cp", "-a", backup+"/.", s.stateDir()).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return os.RemoveAll(backup)
}

// damageState flips a bit of one file of the state directory, or cuts it short.
func (s *scene) damageState() error {
	s.disowned = true
	var files []string
	err := filepath.WalkDir(s.stateDir(), func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) == 0 {
		return nil // no state yet
	}
	path := files[s.rng.IntN(len(files))]
	text, err := os.ReadFile(path)
	if err != nil || len(text) == 0 {
		return err
	}
	at := s.rng.IntN(len(text))
	if s.rng.IntN(3) == 0 {
		text = text[:at]
	} else {
		text[at] ^= 1 << s.rng.IntN(8)
	}
	fmt.Printf("history: damaging %s at %d of %d\n", path, at, len(text))
	return os.WriteFile(path, text, 0o600)
}

// freeze makes the replica's directories refuse every new file for a while, and sometimes kills
// the daemon in the middle of it.
func (s *scene) freeze() error {
	if s.o.replica != "" {
		return nil
	}
	for _, level := range []string{"ltx/0", "ltx/9", "ltx"} {
		_ = exec.Command("chattr", "+i", filepath.Join(s.o.dir, "replica", level)).Run() // not there yet: nothing to freeze
	}
	time.Sleep(time.Duration(s.rng.IntN(2000)) * time.Millisecond)
	var err error
	if s.rng.IntN(2) == 0 {
		err = s.kill(nil)
		time.Sleep(time.Duration(s.rng.IntN(1000)) * time.Millisecond)
	}
	s.thaw()
	return err
}

func (s *scene) thaw() {
	if s.o.replica == "" {
		_ = exec.Command("chattr", "-i", "-R", filepath.Join(s.o.dir, "replica")).Run()
	}
}
