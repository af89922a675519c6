package busy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// layout has the offsets of the fields that the program reads in this kernel's
// structures. They differ between kernels; the kernel's own type information has them.
type layout struct {
	inode, superblock field // of struct inode
	device            field // of struct super_block
	start, end        field // of struct file_lock
	kind, pid         field
}

type field struct {
	offset int16
	size   asm.Size
}

// readLayout reads the running kernel's type information (/sys/kernel/btf).
func readLayout(kernel *btf.Cache) (layout, error) {
	spec, err := kernel.Kernel()
	if errors.Is(err, fs.ErrPermission) {
		return layout{}, fmt.Errorf("%w: %w", ErrPrivileges, err)
	}
	if err != nil {
		return layout{}, fmt.Errorf("%w: it has no type information: %w", ErrKernel, err)
	}
	return findLayout(spec)
}

func findLayout(spec *btf.Spec) (layout, error) {
	var l layout
	for _, want := range []struct {
		field      *field
		structName string
		paths      [][]string // the first one that exists is used
	}{
		{&l.inode, "inode", [][]string{{"i_ino"}}},
		{&l.superblock, "inode", [][]string{{"i_sb"}}},
		{&l.device, "super_block", [][]string{{"s_dev"}}},
		{&l.start, "file_lock", [][]string{{"fl_start"}}},
		{&l.end, "file_lock", [][]string{{"fl_end"}}},
		{&l.kind, "file_lock", [][]string{{"c", "flc_type"}, {"fl_type"}}}, // Linux 6.9 moved
		{&l.pid, "file_lock", [][]string{{"c", "flc_pid"}, {"fl_pid"}}},    // these into a core
	} {
		var s *btf.Struct
		if err := spec.TypeByName(want.structName, &s); err != nil {
			return layout{}, fmt.Errorf("%w: struct %s: %w", ErrKernel, want.structName, err)
		}
		var err error
		for _, path := range want.paths {
			if *want.field, err = findField(s, path); err == nil {
				break
			}
		}
		if err != nil {
			return layout{}, fmt.Errorf("%w: %w", ErrKernel, err)
		}
	}
	return l, nil
}

// findField follows a path of members.
func findField(s *btf.Struct, path []string) (field, error) {
	i := slices.IndexFunc(s.Members, func(m btf.Member) bool { return m.Name == path[0] })
	if i < 0 {
		return field{}, fmt.Errorf("struct %s has no field %s", s.Name, path[0])
	}
	m := s.Members[i]
	at := m.Offset.Bytes()
	if len(path) > 1 {
		inner, ok := btf.UnderlyingType(m.Type).(*btf.Struct)
		if !ok {
			return field{}, fmt.Errorf("field %s of struct %s is no struct", m.Name, s.Name)
		}
		f, err := findField(inner, path[1:])
		f.offset += int16(at)
		return f, err
	}
	bytes, err := btf.Sizeof(m.Type)
	if err != nil {
		return field{}, err
	}
	size, ok := map[int]asm.Size{1: asm.Byte, 2: asm.Half, 4: asm.Word, 8: asm.DWord}[bytes]
	if !ok || m.BitfieldSize != 0 || at > 1<<14 {
		return field{}, fmt.Errorf("field %s of struct %s has %d bytes at %d", m.Name, s.Name, bytes, at)
	}
	return field{int16(at), size}, nil
}

// pidNamespace identifies this process to the kernel: by its number in its own namespace.
type pidNamespace struct {
	device, inode uint64
	pid           int
}

func ownNamespace() (pidNamespace, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return pidNamespace{}, fmt.Errorf("find out our own pid namespace: %w", err)
	}
	return pidNamespace{device: uint64(st.Dev), inode: st.Ino, pid: os.Getpid()}, nil
}
