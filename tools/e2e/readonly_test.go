package e2e

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// fragile is a file system that the kernel can be made to turn read-only, as it does after a disk
// error, while files are open for writing.
type fragile struct {
	t          *testing.T
	dir, image string
}

func newFragile(t *testing.T) *fragile {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a file system that fails needs root")
	}
	f, err := mountFragile(t)
	if err != nil {
		t.Skip("this machine mounts no loop device: ", err)
	}
	return f
}

func mountFragile(t *testing.T) (*fragile, error) {
	t.Helper()
	f := &fragile{t: t, dir: filepath.Join(t.TempDir(), "disk"), image: filepath.Join(memory(t), "image")}
	must(t, errors.Join(os.Mkdir(f.dir, 0o700), os.WriteFile(f.image, nil, 0o600), os.Truncate(f.image, 256<<20)))
	output(t, "mkfs.ext4", "-q", "-F", f.image)
	if text, err := f.mount(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, text)
	}
	t.Cleanup(func() { _ = syscall.Unmount(f.dir, syscall.MNT_DETACH) })
	return f, nil
}

func (f *fragile) mount() ([]byte, error) {
	return exec.Command("mount", "-o", "loop,errors=remount-ro", f.image, f.dir).CombinedOutput()
}

// fail makes the kernel find an error in the file system.
func (f *fragile) fail() {
	f.t.Helper()
	device := filepath.Base(strings.TrimSpace(output(f.t, "findmnt", "--noheadings", "--output", "SOURCE", f.dir)))
	must(f.t, os.WriteFile("/sys/fs/ext4/"+device+"/trigger_fs_error", []byte("1\n"), 0o600))
	if err := os.WriteFile(filepath.Join(f.dir, "probe"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
		f.t.Fatalf("the file system is not read-only: %v", err)
	}
}

// repair mounts the file system again, as an operator does; nobody may have a file open there.
func (f *fragile) repair() {
	f.t.Helper()
	must(f.t, syscall.Unmount(f.dir, 0))
	if text, err := f.mount(); err != nil {
		f.t.Fatalf("%v: %s", err, text)
	}
}

// diagnosis returns what doctor prints about the database.
func (s *fileScene) diagnosis() string {
	text, _ := exec.Command(binary, "doctor", "--settings=none", "--config", s.daemon.config, "app").CombinedOutput()
	return string(text)
}

// A file system becomes read-only after a disk error. If it holds the state directory, nothing is
// acknowledged, the application commits as before, and metrics continue. If it holds the
// database, the application cannot commit, and the replica keeps what it has. Both are reported,
// and after the repair everything is captured.
func TestDiskTurnsReadOnly_S23(t *testing.T) {
	for _, tt := range []struct {
		name, finding string
		below         bool // the database is on the disk, not the state directory
		scene         func(*fileScene, *fragile)
	}{
		{"state", "state_directory_read_only, says the daemon", false, func(s *fileScene, disk *fragile) {
			s.startIn(disk.dir)
			disk.fail()
			s.insert(s.app, 100)
			if text, err := s.sync(); err == nil {
				s.t.Errorf("acknowledged without a place to keep it: %s", text)
			}
			s.says("/api/v1/databases", "capture_stopped")
			s.insert(s.app, 100)
		}},
		{"D21_database", "read_only_filesystem, says the daemon", true, func(s *fileScene, disk *fragile) {
			s.start()
			before := s.rows(s.db)
			disk.fail()
			_, err := io.WriteString(s.app.stdin, "INSERT INTO t(body) VALUES ('lost')\n")
			must(s.t, err)
			if answer, err := s.app.stdout.ReadString('\n'); err == nil {
				s.t.Errorf("the application committed on a read-only file system: %s", answer)
			}
			restored, err := s.restore()
			must(s.t, err)
			if got := s.rows(restored); got != before {
				s.t.Errorf("the replica restores to %.80s, the application had %.80s", got, before)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			disk, at := newFragile(t), t.TempDir()
			if tt.below {
				at = disk.dir
			}
			s := newFileSceneIn(t, at)
			tt.scene(s, disk)
			must(t, contains(s.daemon.url+"/metrics?name[]=sqlite_up", `sqlite_up{db="app"} 1`))
			eventually(t, patience, "doctor names it", func() error {
				text := s.diagnosis()
				if !strings.Contains(text, tt.finding) {
					return errors.New(text)
				}
				return nil
			})
			s.daemon.end(syscall.SIGTERM)
			s.app.kill()
			disk.repair()
			s.app = startLineApplication(t, s.db)
			s.insert(s.app, 50)
			s.startIn(s.daemon.dir)
			s.wantCaptured()
		})
	}
}
