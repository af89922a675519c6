package filesystem

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestKinds/D38: the table of magic numbers, and what each means for the locks of a WAL.
func TestKinds(t *testing.T) {
	tests := []struct {
		name              string
		magic             uint32
		network, volatile bool
	}{
		{"nfs", 0x6969, true, false},
		{"smb", 0x517b, true, false},
		{"cifs", 0xff534d42, true, false},
		{"smb2", 0xfe534d42, true, false},
		{"9p", 0x01021997, true, false},
		{"fuse", 0x65735546, true, false},
		{"ceph", 0x00c36400, true, false},
		{"lustre", 0x0bd00bd0, true, false},
		{"ext4", 0xef53, false, false},
		{"xfs", 0x58465342, false, false},
		{"btrfs", 0x9123683e, false, false},
		{"overlay", 0x794c7630, false, false},
		{"tmpfs", 0x01021994, false, true}, // D39
		{"0x1234", 0x1234, false, false},
	}
	for _, tt := range tests {
		t.Run("D38_"+tt.name, func(t *testing.T) {
			if got, want := kindOf(tt.magic), (fsKind{tt.name, tt.network, tt.volatile}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// TestOf compares with what the kernel reports about some real mounts.
func TestOf(t *testing.T) {
	tests := []struct {
		path, fstype, point string
		volatile            bool
	}{
		{"/proc/self/status", "proc", "/proc", false},
		{"/dev/shm", "tmpfs", "/dev/shm", true},
	}
	for _, tt := range tests {
		m, err := Of(tt.path)
		if errors.Is(err, fs.ErrNotExist) {
			t.Logf("%s: not on this machine", tt.path)
			continue
		}
		if err != nil || m.Type != tt.fstype || m.Point != tt.point || m.Volatile != tt.volatile || m.Network {
			t.Errorf("%s: got %+v, %v, want %+v", tt.path, m, err, tt)
		}
	}
	dir := t.TempDir()
	m, err := Of(dir)
	if err != nil || m.Size == 0 || m.Available > m.Size || m.Type == "" {
		t.Errorf("%s: got %+v, %v", dir, m, err)
	}
	if _, err := Of(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
}

func TestDevice(t *testing.T) {
	var st unix.Stat_t
	if err := unix.Stat("/proc", &st); err != nil {
		t.Fatal(err)
	}
	got, err := Device("/proc")
	if err != nil || got != uint64(st.Dev) {
		t.Errorf("got %d, %v, want %d", got, err, st.Dev)
	}
}

func TestUnescapeMount(t *testing.T) {
	for in, want := range map[string]string{`/a\040b`: "/a b", `/t\011n\012`: "/t\tn\n", `/back\134040`: `/back\040`,
		"/plain": "/plain"} {
		if got := unescapeMount(in); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}
