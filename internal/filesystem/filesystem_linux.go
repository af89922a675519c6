package filesystem

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// fsKind is what a file system's magic number means for a WAL, which needs
// locks and shared memory that all its users see.
type fsKind struct {
	name              string
	network, volatile bool
}

// fsKinds lists the file systems known to be unfit or volatile and the names
// of common fit ones. FUSE counts as a network: from here it cannot be told
// what is behind it.
var fsKinds = map[uint32]fsKind{
	unix.NFS_SUPER_MAGIC:       {name: "nfs", network: true},
	unix.SMB_SUPER_MAGIC:       {name: "smb", network: true},
	unix.CIFS_SUPER_MAGIC:      {name: "cifs", network: true},
	unix.SMB2_SUPER_MAGIC:      {name: "smb2", network: true},
	unix.V9FS_MAGIC:            {name: "9p", network: true},
	unix.FUSE_SUPER_MAGIC:      {name: "fuse", network: true}, // virtiofs too
	unix.AFS_SUPER_MAGIC:       {name: "afs", network: true},
	unix.AFS_FS_MAGIC:          {name: "afs", network: true},
	unix.CODA_SUPER_MAGIC:      {name: "coda", network: true},
	unix.CEPH_SUPER_MAGIC:      {name: "ceph", network: true},
	unix.NCP_SUPER_MAGIC:       {name: "ncp", network: true},
	unix.OCFS2_SUPER_MAGIC:     {name: "ocfs2", network: true},
	0x01161970:                 {name: "gfs2", network: true},
	0x0bd00bd0:                 {name: "lustre", network: true},
	0x47504653:                 {name: "gpfs", network: true},
	0x19830326:                 {name: "beegfs", network: true},
	0x786f4256:                 {name: "vboxsf", network: true},
	0xbacbacbc:                 {name: "vmhgfs", network: true},
	unix.TMPFS_MAGIC:           {name: "tmpfs", volatile: true},
	unix.RAMFS_MAGIC:           {name: "ramfs", volatile: true},
	unix.EXT4_SUPER_MAGIC:      {name: "ext4"},
	unix.XFS_SUPER_MAGIC:       {name: "xfs"},
	unix.BTRFS_SUPER_MAGIC:     {name: "btrfs"},
	unix.F2FS_SUPER_MAGIC:      {name: "f2fs"},
	unix.BCACHEFS_SUPER_MAGIC:  {name: "bcachefs"},
	unix.OVERLAYFS_SUPER_MAGIC: {name: "overlay"},
	0x2fc12fc1:                 {name: "zfs"},
}

func kindOf(magic uint32) fsKind {
	if k, ok := fsKinds[magic]; ok {
		return k
	}
	return fsKind{name: fmt.Sprintf("%#x", magic)}
}

// Of returns the file system that holds path. It may wait as long as
// that file system does: a dead NFS server can hold it for ever.
func Of(path string) (Mount, error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Statfs(path, &st) }); err != nil {
		return Mount{}, fmt.Errorf("statfs %s: %w", path, err)
	}
	k := kindOf(uint32(st.Type))
	m := Mount{
		Type:      k.name,
		Size:      st.Blocks * uint64(st.Bsize),
		Available: st.Bavail * uint64(st.Bsize),
		Network:   k.network,
		Volatile:  k.volatile,
		ReadOnly:  st.Flags&unix.ST_RDONLY != 0,
	}
	if at, err := mountOf(path); err == nil {
		m.Type, m.Point = at.fstype, at.point
		m.ReadOnly, m.ReadOnlyHere = at.readOnly, m.ReadOnly && !at.readOnly
	}
	return m, nil
}

// Device returns the number of the device that is mounted where path is. On btrfs, stat tells another
// one for each subvolume.
func Device(path string) (uint64, error) {
	at, err := mountOf(path)
	return at.dev, err
}

// retry repeats a system call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// mountsAge is how old a reading of /proc/self/mountinfo may be: a thousand databases ask every
// ten seconds, and a host of containers has thousands of mounts.
const mountsAge = 5 * time.Second

// mountTable is the last reading of /proc/self/mountinfo.
type mountTable struct {
	mu   sync.Mutex
	read time.Time
	all  []*procfs.MountInfo
}

var mounts mountTable

// look returns all mounts, read anew where they are old or do not have the one of the given number (0: any).
func (t *mountTable) look(id int) ([]*procfs.MountInfo, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	known := id == 0 || slices.ContainsFunc(t.all, func(m *procfs.MountInfo) bool { return m.MountID == id })
	if known && time.Since(t.read) < mountsAge {
		return t.all, nil
	}
	all, err := procfs.GetMounts()
	if err == nil {
		t.all, t.read = all, time.Now()
	}
	return all, err
}

// Overlay returns the path in an overlay file system of a file that is in its upper directory, and "" of any other
// file. It knows only overlays that this process sees, and that were mounted with an absolute path as upperdir.
func Overlay(path string) (string, error) {
	all, err := mounts.look(0)
	if err != nil {
		return "", fmt.Errorf("read mounts: %w", err)
	}
	resolved := ""
	for _, m := range all {
		if m.FSType != "overlay" || !filepath.IsAbs(m.SuperOptions["upperdir"]) {
			continue
		}
		if resolved == "" {
			if resolved, err = filepath.EvalSymlinks(path); err != nil {
				return "", err
			}
		}
		upper := filepath.Clean(unescapeMount(m.SuperOptions["upperdir"])) + "/"
		if below, ok := strings.CutPrefix(resolved, upper); ok {
			return filepath.Join(unescapeMount(m.MountPoint), below), nil
		}
	}
	return "", nil
}

// mountOf finds the mount of a file in /proc/self/mountinfo, by the mount's
// number and not by the path's prefix, which bind mounts make ambiguous.
func mountOf(path string) (mounted, error) {
	var sx unix.Statx_t
	if err := retry(func() error { return unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &sx) }); err != nil {
		return mounted{}, fmt.Errorf("statx %s: %w", path, err)
	}
	if sx.Mask&unix.STATX_MNT_ID == 0 {
		return mounted{}, fmt.Errorf("statx %s: kernel before 5.8 does not tell the mount", path)
	}
	all, err := mounts.look(int(sx.Mnt_id))
	if err != nil {
		return mounted{}, fmt.Errorf("read mounts: %w", err)
	}
	for _, m := range all {
		if m.MountID != int(sx.Mnt_id) {
			continue
		}
		major, minor, _ := strings.Cut(m.MajorMinorVer, ":")
		maj, err := strconv.ParseUint(major, 10, 32)
		if err != nil {
			return mounted{}, fmt.Errorf("read mounts: device %q: %w", m.MajorMinorVer, err)
		}
		mnr, err := strconv.ParseUint(minor, 10, 32)
		if err != nil {
			return mounted{}, fmt.Errorf("read mounts: device %q: %w", m.MajorMinorVer, err)
		}
		// After an error, newer kernels (seen: 6.18) make an ext4 read-only without ST_RDONLY.
		_, failed := m.SuperOptions["emergency_ro"]
		_, readOnly := m.SuperOptions["ro"]
		readOnly = readOnly || failed
		return mounted{m.FSType, unescapeMount(m.MountPoint), unix.Mkdev(uint32(maj), uint32(mnr)), readOnly}, nil
	}
	return mounted{}, fmt.Errorf("mount %d of %s is not in /proc/self/mountinfo", sx.Mnt_id, path)
}

// unescapeMount undoes the octal escapes that keep mountinfo's columns apart.
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\043`, "#", `\134`, `\`).Replace(s)
}
