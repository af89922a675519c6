package busy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Steps counts the calls of sqlite3_step in one process that returned SQLITE_BUSY,
// whatever the cause: another thread of the same process, which the kernel does not
// see, included. It is opt-in, for one process at a time, because the probe costs that
// process about a microsecond per step. It works if the process uses libsqlite3.so or
// contains SQLite with its symbols, but not for stripped binaries, nor for
// translations of SQLite to Go, which have no such symbol.
type Steps struct {
	count   *ebpf.Map
	program *ebpf.Program
	link    link.Link
}

const stepSymbol = "sqlite3_step"

// OpenSteps attaches to process pid. Errors: ErrPrivileges, ErrKernel, ErrNoSymbol.
func OpenSteps(pid int) (*Steps, error) {
	s, err := openSteps(pid)
	switch {
	case err == nil:
		return s, nil
	case errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("%w: %w", ErrPrivileges, err)
	case !errors.Is(err, ErrNoSymbol):
		err = fmt.Errorf("%w: %w", ErrKernel, err)
	}
	return nil, fmt.Errorf("count busy steps of process %d: %w", pid, err)
}

// ErrNoSymbol says that a process has no sqlite3_step to attach to.
var ErrNoSymbol = errors.New("no symbol " + stepSymbol +
	" in its executable or libraries: stripped, or not the C library")

func openSteps(pid int) (*Steps, error) {
	result, ok := map[string]int16{"amd64": 80 /* rax */, "arm64": 0 /* x0 */}[runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("registers of %s are not known", runtime.GOARCH)
	}
	files, err := mappedCode(pid)
	if err != nil {
		return nil, err
	}
	s := new(Steps)
	if s.count, err = ebpf.NewMap(&ebpf.MapSpec{Name: "sqlwatch_steps", Type: ebpf.Array, KeySize: 4, ValueSize: 8,
		MaxEntries: 1}); err != nil {
		return nil, err
	}
	s.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "sqlwatch_steps", Type: ebpf.Kprobe, License: license,
		Instructions: stepProgram(result, s.count.FD()),
	})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	err = ErrNoSymbol
	for _, file := range files {
		x, code, oerr := executable(file)
		if oerr != nil {
			continue // not ELF, no longer a regular file, or gone
		}
		defer code.Close() // the kernel finds it by its name
		s.link, err = x.Uretprobe(stepSymbol, s.program, &link.UprobeOptions{PID: pid})
		if err == nil {
			return s, nil
		}
		if !errors.Is(err, link.ErrNoSymbol) {
			break
		}
		err = ErrNoSymbol
	}
	return nil, errors.Join(err, s.Close())
}

// executable opens a file of code. What a process has mapped is a regular file, but its path may
// since lead to a pipe, from which a read never returns. The file stays open as long as a probe
// is attached to its code.
func executable(path string) (*link.Executable, *os.File, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG { // even opening a device may have an effect
		return nil, nil, fmt.Errorf("%s: %w", path, errNotRegular)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w", path, errNotRegular)
	}
	var x *link.Executable
	if err == nil {
		x, err = link.OpenExecutable(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return x, f, nil
}

var errNotRegular = errors.New("not a regular file")

// stepProgram counts return values with 5 in the lowest byte: extended codes of SQLITE_BUSY have
// more bits above it.
func stepProgram(result int16, count int) asm.Instructions {
	const sqliteBusy = 5
	return asm.Instructions{
		asm.LoadMem(asm.R1, asm.R1, result, asm.DWord),
		asm.And.Imm(asm.R1, 0xff),
		asm.JNE.Imm(asm.R1, sqliteBusy, "done"),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, count),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "done"),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("done"),
		asm.Return(),
	}
}

// mappedCode returns the files whose code a process has mapped, as seen through its own root
// directory, those named after SQLite first.
func mappedCode(pid int) ([]string, error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	var files []string
	for line := range strings.Lines(string(maps)) {
		// 7f1c..-7f1d.. r-xp 0001a000 fe:00 262157   /usr/lib/libsqlite3.so.0.8.6
		w := strings.Fields(line)
		// A shared mapping is data, executable where the process's READ_IMPLIES_EXEC makes all that is readable so.
		// It may be a watched wal-index: to open and close that would release our locks on it.
		if len(w) != 6 || !strings.HasSuffix(w[1], "xp") || !filepath.IsAbs(w[5]) {
			continue
		}
		file := filepath.Join(fmt.Sprintf("/proc/%d/root", pid), w[5])
		if !slices.Contains(files, file) {
			files = append(files, file)
		}
	}
	slices.SortStableFunc(files, func(a, b string) int {
		return boolInt(strings.Contains(b, "sqlite")) - boolInt(strings.Contains(a, "sqlite"))
	})
	return files, nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Count returns the calls that returned SQLITE_BUSY so far.
func (s *Steps) Count() (uint64, error) {
	var k uint32
	var n uint64
	if err := s.count.Lookup(unsafe.Pointer(&k), unsafe.Pointer(&n)); err != nil {
		return 0, fmt.Errorf("read count of busy steps: %w", err)
	}
	return n, nil
}

// Close detaches from the process.
func (s *Steps) Close() error {
	var errs []error
	if s.link != nil {
		errs = append(errs, s.link.Close())
	}
	if s.program != nil {
		errs = append(errs, s.program.Close())
	}
	return errors.Join(append(errs, s.count.Close())...)
}
