// Package busy counts the SQLITE_BUSY that unmodified applications meet. Two processes
// contend for a database through POSIX locks, and the kernel's tracepoint
// posix_lock_inode reports each decision about such a lock with inode, byte and
// process. A small eBPF program, assembled here without a compiler, counts the
// refusals of watched inodes in the kernel; no data is sent for single events.
//
// It counts refused attempts. An application without busy_timeout sees one SQLITE_BUSY for each;
// one with a timeout retries, and each retry is counted. This process's own attempts are left
// out, because collector.Busy counts them. Threads of one process contend inside SQLite's
// library, and the kernel does not see that: use Steps and Processes for those.
//
// It needs Linux 5.8 or newer with BPF and its type information, and CAP_BPF with CAP_PERFMON.
// The program is attached to the tracepoint itself and reads the kernel's structures, because
// the record that tracefs describes costs a commit several times as much.
package busy

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"github.com/sqlwatch/sqlwatch/collector"
	"golang.org/x/sys/unix"
)

// Reasons why refusals cannot be counted here. Their texts say what to do.
var (
	ErrPrivileges = errors.New("not permitted: give sqlwatch CAP_BPF and CAP_PERFMON")
	ErrKernel     = errors.New("this kernel cannot do it (it takes Linux 5.8 with BPF and /sys/kernel/btf/vmlinux)")
	ErrNoHolds    = errors.New("holds of the write lock are not timed")
	ErrClosed     = errors.New("busy collector is closed")
)

const (
	// tracepoint is called when the kernel has decided about a POSIX lock.
	tracepoint = "posix_lock_inode"
	// license is that of the eBPF programs, not of sqlwatch: only programs that are also offered
	// under the GPL may read the kernel's structures.
	license = "Dual BSD/GPL"
)

// maxInodes limits the watched inodes; each database has two.
const maxInodes = 1 << 17

// Collector counts refused locks of watched databases. It implements
// collector.BusySource, and all methods may be called concurrently.
type Collector struct {
	options Options
	budget  float64 // events a second

	attached sync.Mutex // for program and link; taken before mu, because the kernel may let us wait
	program  *ebpf.Program
	link     link.Link // nil: detached

	mu      sync.Mutex // for what follows
	watched *ebpf.Map
	seen    *ebpf.Map // activity
	holds   *ebpf.Map // nil: holds are not timed
	dbs     map[string]*database
}

// database has one database's inodes, and the counts of the inodes that it had before.
type database struct {
	inodes [2]key // main file and -shm; zero: none
	before counts
}

// Options says what to count. The zero value counts refusals.
type Options struct {
	// Holds also measures how long the write lock is held, for a random one in eight holds.
	Holds bool
}

// Open loads the program into the kernel and attaches it. Nothing is watched yet.
// Errors: ErrPrivileges, ErrKernel, each wrapped with the kernel's error. The caller
// continues without this source.
func Open(o Options) (*Collector, error) {
	kernel := btf.NewCache() // reading it takes 15 ms of CPU, so do it once
	where, err := readLayout(kernel)
	if err != nil {
		return nil, fmt.Errorf("count busy locks: %w", err)
	}
	c := &Collector{options: o, budget: eventBudget, dbs: make(map[string]*database)}
	if err := c.load(where, kernel); err != nil {
		c.release()
		if errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("count busy locks: %w: %w", ErrPrivileges, err)
		}
		return nil, fmt.Errorf("count busy locks: %w: %w", ErrKernel, err)
	}
	return c, nil
}

func (c *Collector) load(where layout, kernel *btf.Cache) error {
	self, err := ownNamespace()
	if err != nil {
		return err
	}
	// Before 5.11 maps count against RLIMIT_MEMLOCK; afterwards this does nothing.
	if err := rlimit.RemoveMemlock(); err != nil {
		return fmt.Errorf("raise RLIMIT_MEMLOCK: %w", err)
	}
	if c.watched, err = ebpf.NewMap(watchedMap(maxInodes)); err != nil {
		return fmt.Errorf("create map: %w", err)
	}
	if c.seen, err = ebpf.NewMap(seenMap()); err != nil {
		return fmt.Errorf("create map of activity: %w", err)
	}
	holds := -1
	if c.options.Holds {
		if c.holds, err = ebpf.NewMap(holdsMap()); err != nil {
			return fmt.Errorf("create map of holds: %w", err)
		}
		holds = c.holds.FD()
	}
	const name = "sqlwatch_locks"
	loaded, err := ebpf.NewCollectionWithOptions(&ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{name: {
		Name:         name,
		Type:         ebpf.Tracing,
		AttachType:   ebpf.AttachTraceRawTp,
		AttachTo:     tracepoint,
		Instructions: program(where, self, c.watched.FD(), c.seen.FD(), holds),
		License:      license,
	}}}, ebpf.CollectionOptions{Cache: kernel})
	if err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	c.program = loaded.DetachProgram(name)
	return c.attach()
}

// Close detaches the program and frees its memory. Counts stay readable.
func (c *Collector) Close() error {
	c.attached.Lock()
	defer c.attached.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.dbs {
		d.before = c.total(d)
		d.inodes = [2]key{}
	}
	return c.release()
}

func (c *Collector) release() error {
	var errs []error
	if c.link != nil {
		errs = append(errs, c.link.Close())
	}
	if c.program != nil {
		errs = append(errs, c.program.Close())
	}
	if c.watched != nil {
		errs = append(errs, c.watched.Close())
	}
	if c.seen != nil {
		errs = append(errs, c.seen.Close())
	}
	if c.holds != nil {
		errs = append(errs, c.holds.Close())
	}
	c.link, c.program, c.watched, c.seen, c.holds = nil, nil, nil, nil, nil
	return errors.Join(errs...)
}

// Watch counts refusals at the files of database db from now on. Device and inodes are
// those that stat returns; an inode of 0 stands for a file that does not exist. Call
// it again whenever the files change; earlier counts are kept. On btrfs, stat's device
// is not the kernel's, so nothing is counted.
func (c *Collector) Watch(db string, device, databaseInode, shmInode uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watched == nil {
		return ErrClosed
	}
	d := c.dbs[db]
	if d == nil {
		d = new(database)
		c.dbs[db] = d
	}
	var errs []error
	for i, inode := range [2]uint64{databaseInode, shmInode} {
		k := key{inode: inode, device: deviceNumber(device)}
		if inode == 0 {
			k = key{}
		}
		errs = append(errs, c.replace(d, i, k))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("watch the locks of %s: %w", db, err)
	}
	return nil
}

// replace makes k the inode of file i of d.
func (c *Collector) replace(d *database, i int, k key) error {
	if d.inodes[i] == k {
		return nil
	}
	err := c.drop(d, i)
	if err != nil || k == (key{}) {
		return err
	}
	// The kernel reuses an inode number once its file is gone, which the previous database may not have noticed.
	for _, other := range c.dbs {
		if had := slices.Index(other.inodes[:], k); had >= 0 {
			if err := c.drop(other, had); err != nil {
				return err
			}
		}
	}
	if err := c.watched.Update(unsafe.Pointer(&k), unsafe.Pointer(new(counts)), ebpf.UpdateNoExist); err != nil {
		return err
	}
	d.inodes[i] = k
	return nil
}

// drop stops watching file i of d, and keeps what was counted.
func (c *Collector) drop(d *database, i int) error {
	old := d.inodes[i]
	if old == (key{}) {
		return nil
	}
	d.before.add(c.read(old))
	d.inodes[i] = key{}
	if err := c.watched.Delete(unsafe.Pointer(&old)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	return nil
}

// Forget stops counting for database db and drops its counts.
func (c *Collector) Forget(db string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.dbs[db]
	delete(c.dbs, db)
	if d == nil || c.watched == nil {
		return nil
	}
	return errors.Join(c.replace(d, 0, key{}), c.replace(d, 1, key{}))
}

// read returns what the kernel counted at an inode.
func (c *Collector) read(k key) counts {
	var v counts
	if k == (key{}) || c.watched == nil || c.watched.Lookup(unsafe.Pointer(&k), unsafe.Pointer(&v)) != nil {
		return counts{}
	}
	return v
}

func (c *Collector) total(d *database) counts {
	t := d.before
	for _, k := range d.inodes {
		t.add(c.read(k))
	}
	return t
}

// add adds up counts; it keeps the later of the two last refusals.
func (t *counts) add(v counts) {
	for i, n := range v.refused {
		t.refused[i] += n
	}
	for i, n := range v.holds {
		t.holds[i] += n
	}
	t.holdSum += v.holdSum
	if v.refusedAt > t.refusedAt {
		t.refusedAt, t.pid, t.command = v.refusedAt, v.pid, v.command
	}
}

func (c *Collector) of(db string) (counts, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var t counts
	if d := c.dbs[db]; d != nil {
		t = c.total(d)
	}
	if c.watched == nil {
		return t, ErrClosed
	}
	return t, nil
}

// Counts implements collector.BusySource: refusals that an application without
// busy_timeout sees as SQLITE_BUSY.
func (c *Collector) Counts(db string) (collector.BusyCounts, error) {
	t, err := c.of(db)
	return t.busy(), err
}

// busy adds up the refusals that isBusy selects.
func (t *counts) busy() (c collector.BusyCounts) {
	for i, n := range t.refused {
		switch {
		case isBusy>>i&1 == 0:
		case i == shmWrite+exclusive:
			c[collector.LockWrite] += n
		default:
			c[collector.LockOther] += n
		}
	}
	return c
}

// Attempts returns every refused attempt by the name of its lock, including those that are no
// SQLITE_BUSY: "read exclusive" is a checkpoint or a reset that met a reader, "checkpoint
// exclusive" is two checkpointers. Zeros are left out.
func (c *Collector) Attempts(db string) (map[string]uint64, error) {
	t, err := c.of(db)
	all := make(map[string]uint64)
	for i, n := range t.refused {
		all[byteName(i)] += n
	}
	maps.DeleteFunc(all, func(_ string, n uint64) bool { return n == 0 })
	return all, err
}

func byteName(i int) string {
	mode := " shared"
	if i >= exclusive {
		i, mode = i-exclusive, " exclusive"
	}
	switch {
	case i == shmWrite:
		return "write" + mode
	case i == shmCheckpoint:
		return "checkpoint" + mode
	case i == shmRecover:
		return "recover" + mode
	case i <= shmRead4:
		return "read" + mode
	case i == shmDMS:
		return "dms" + mode
	}
	return "database" + mode
}

// Refusal is the process that last met SQLITE_BUSY. It is for the status page and `blockers`
// only: no metric has a pid or a command.
type Refusal struct {
	Age     time.Duration
	PID     int
	Command string
}

// Last returns the process that last met SQLITE_BUSY at database db, and false if none did.
func (c *Collector) Last(db string) (Refusal, bool) {
	t, _ := c.of(db) // counts remain valid after Close
	if t.refusedAt == 0 {
		return Refusal{}, false
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return Refusal{}, false
	}
	name, _, _ := bytes.Cut(t.command[:], []byte{0})
	age := time.Duration(max(0, now.Nano()-int64(t.refusedAt)))
	return Refusal{Age: age, PID: int(t.pid), Command: string(name)}, true
}

// WriteHolds implements collector.HoldSource: how long any process held the write lock.
// A random one in eight holds is measured and counts as eight. In the long run count,
// sum and distribution are right, but a hold that happens once a week is measured with
// a chance of one in eight. It returns ErrNoHolds unless Options ask for it.
func (c *Collector) WriteHolds(db string) (collector.Holds, error) {
	if !c.options.Holds {
		return collector.Holds{}, ErrNoHolds
	}
	t, err := c.of(db)
	h := collector.Holds{Sum: time.Duration(t.holdSum), Buckets: make(map[time.Duration]uint64)}
	h.Sum *= oneHoldOf
	for i, n := range t.holds {
		h.Count += n * oneHoldOf
		if i >= shortestBound && i <= longestBound && (i-shortestBound)%2 == 0 {
			h.Buckets[time.Duration(holdBound(i))] = h.Count
		}
	}
	return h, err
}

// The exported bounds are 16 µs, 65 µs and so on, by a factor of 4, up to 4.3 s: that is enough
// series for each database.
const (
	shortestBound = 3
	longestBound  = 21
)
