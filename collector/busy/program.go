package busy

import (
	"slices"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// key identifies a watched inode as the tracepoint does.
type key struct {
	inode  uint64
	device uint64 // the kernel's own dev_t: major<<20 | minor
}

// deviceNumber converts the device that stat returns.
func deviceNumber(dev uint64) uint64 {
	return uint64(unix.Major(dev))<<20 | uint64(unix.Minor(dev))
}

// Lock bytes as indices of counts.refused; +exclusive for a write lock.
const (
	shmWrite      = 0
	shmCheckpoint = 1
	shmRecover    = 2
	shmRead4      = 7 // READ0 is 3
	shmDMS        = 8
	pending       = 9
	reserved      = 10
	shared        = 11
	exclusive     = 16
)

// isBusy has a bit for each index of counts.refused that an application without
// busy_timeout sees as SQLITE_BUSY. It leaves out CKPT (another checkpointer is at work),
// read marks (SQLite takes another one; for a checkpoint they mean a reader in the way),
// and on the main file the attempt of every close to find out whether it is the last one.
const isBusy = 1<<(shmWrite+exclusive) |
	1<<shmRecover | 1<<(shmRecover+exclusive) | 1<<shmDMS |
	1<<pending | 1<<reserved | 1<<(reserved+exclusive) | 1<<shared

// counts is what the program keeps for one watched inode; the map's value.
type counts struct {
	refused   [32]uint64 // by lock byte
	refusedAt uint64     // CLOCK_MONOTONIC in ns; this and the next two are of the last SQLITE_BUSY
	pid       uint64     // the process that met it
	command   [16]byte   // its name
	holdSum   uint64     // in ns, of the timed holds that ended
	holds     [32]uint64 // those holds by length: see holdBound
}

// hold is a hold of the write lock that is being measured. The last bits of an inode's number select
// its slot. Two databases may share a slot: if their holds overlap, one of the times is lost.
type hold struct {
	owner    uint32 // the pid that has the lock; 0: nothing is being timed
	lottery  uint32 // a random number; which holds are timed depends on it
	acquired uint64 // CLOCK_MONOTONIC in ns
}

// holdSlots is how many holds can be measured at once: as many as fit into one page of memory,
// because every page that an event touches costs it time.
const holdSlots = 256

// A random one of oneHoldOf holds is measured: reading the clock for each would cost a commit
// more than the rest of the program.
const (
	holdLotBits = 3
	oneHoldOf   = 1 << holdLotBits
)

// The offsets of the fields of counts.
const (
	atRefusedAt = int16(unsafe.Offsetof(counts{}.refusedAt))
	atPID       = int16(unsafe.Offsetof(counts{}.pid))
	atCommand   = int32(unsafe.Offsetof(counts{}.command))
	atHoldSum   = int32(unsafe.Offsetof(counts{}.holdSum))
	atHolds     = int32(unsafe.Offsetof(counts{}.holds))

	holdOwner    = int16(unsafe.Offsetof(hold{}.owner))
	holdLottery  = int16(unsafe.Offsetof(hold{}.lottery))
	holdAcquired = int16(unsafe.Offsetof(hold{}.acquired))
)

// The bytes SQLite locks, and the kernel's numbers for lock types.
const (
	firstShmByte  = 120
	lastShmByte   = 128
	pendingByte   = 0x40000000
	writeLock     = 1
	unlock        = 2
	holdUnitShift = 10 // holds are counted in units of 1,024 ns
)

// holdBound returns the upper bound of counts.holds[i] in nanoseconds; the last one has none.
func holdBound(i int) uint64 { return 1 << (holdUnitShift + 1 + i) }

// noPreallocation is BPF_F_NO_PREALLOC: memory for a map's entries is allocated when needed.
const noPreallocation = 1

// watchedMap describes the map. It is the filter and the counters in one, so that an event on an
// unwatched file costs one lookup.
func watchedMap(limit uint32) *ebpf.MapSpec {
	return &ebpf.MapSpec{
		Name:       "sqlwatch_locks",
		Type:       ebpf.Hash,
		KeySize:    uint32(unsafe.Sizeof(key{})),
		ValueSize:  uint32(unsafe.Sizeof(counts{})),
		MaxEntries: limit,
		Flags:      noPreallocation,
	}
}

// activitySlot is what one processor saw. It fills a cache line, so that processors do not wait for
// each other.
type activitySlot struct {
	activity
	_ [48]byte
}

// activitySlots is a power of two. Processors that share a slot may lose a few events.
const activitySlots = 64

// The offsets of the fields of activitySlot.
const (
	atEvents = int16(unsafe.Offsetof(activity{}.events))
	atBusy   = int16(unsafe.Offsetof(activity{}.busy))
)

// seenMap describes the map of activity.
func seenMap() *ebpf.MapSpec {
	return oneValue("sqlwatch_seen", activitySlots*uint32(unsafe.Sizeof(activitySlot{})))
}

// holdsMap describes the map of holds.
func holdsMap() *ebpf.MapSpec {
	return oneValue("sqlwatch_holds", holdSlots*uint32(unsafe.Sizeof(hold{})))
}

// oneValue describes a map with one value, whose address is part of the program, so that no lookup is needed.
func oneValue(name string, size uint32) *ebpf.MapSpec {
	return &ebpf.MapSpec{Name: name, Type: ebpf.Array, KeySize: 4, ValueSize: size, MaxEntries: 1}
}

// The arguments of the tracepoint: struct inode *, struct file_lock *, int result.
const inodeArg, lockArg, resultArg = 0, 8, 16

// program returns the instructions that run at each event. In words:
//
//	count the event for Run
//	refused (EAGAIN), and not to us: counts := watched[inode, device]; if they
//	    exist, count by byte and type, and remember the process that met SQLITE_BUSY
//	granted, but not about WRITE, or holds (a map's descriptor) is negative: done
//	WRITE granted: if it is selected at random, remember when and to whom
//	WRITE released by that process: count in watched[inode, device] how long it was held
//
// R6 is the file_lock, R7 the counts, R8 the lock's first byte, R9 the inode. The
// first checks end the program for most events: of a commit's six events, none is
// refused and four are about read marks.
func program(l layout, self pidNamespace, watched, seen, holds int) asm.Instructions {
	begin := slices.Concat(asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}, count(seen, atEvents), asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.LoadMem(asm.R2, asm.R1, resultArg, asm.DWord),
		asm.JEq.Imm32(asm.R2, -int32(unix.EAGAIN), "refused"),
	})
	if holds >= 0 {
		begin = append(begin, timed(l, watched, holds)...)
	}
	return slices.Concat(begin, asm.Instructions{
		asm.Mov.Imm(asm.R0, 0).WithSymbol("done"),
		asm.Return(),
	}, refused(l, self, watched, seen))
}

// count adds one to a field of this processor's activitySlot. It destroys R0 to R5.
func count(seen int, at int16) asm.Instructions {
	return asm.Instructions{
		asm.FnGetSmpProcessorId.Call(),
		asm.And.Imm(asm.R0, activitySlots-1),
		asm.Mul.Imm(asm.R0, int32(unsafe.Sizeof(activitySlot{}))),
		asm.LoadMapValue(asm.R1, seen, 0),
		asm.Add.Reg(asm.R1, asm.R0),
		asm.LoadMem(asm.R2, asm.R1, at, asm.DWord),
		asm.Add.Imm(asm.R2, 1),
		asm.StoreMem(asm.R1, at, asm.R2, asm.DWord),
	}
}

func load(to, from asm.Register, f field) asm.Instruction {
	return asm.LoadMem(to, from, f.offset, f.size)
}

// arguments loads the event's inode and file_lock into the registers that the program uses.
func arguments() asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R6, asm.R1, lockArg, asm.DWord),
		asm.LoadMem(asm.R9, asm.R1, inodeArg, asm.DWord),
		asm.JEq.Imm(asm.R6, 0, "done"),
		asm.JEq.Imm(asm.R9, 0, "done"),
	}
}

// lookup loads the counts of the inode in R9 into R7, or ends the program.
func lookup(l layout, watched int) asm.Instructions {
	return asm.Instructions{
		load(asm.R1, asm.R9, l.inode),
		asm.StoreMem(asm.RFP, -16, asm.R1, asm.DWord),
		load(asm.R1, asm.R9, l.superblock),
		load(asm.R1, asm.R1, l.device),
		asm.StoreMem(asm.RFP, -8, asm.R1, asm.DWord),
		asm.LoadMapPtr(asm.R1, watched),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -16),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "done"),
		asm.Mov.Reg(asm.R7, asm.R0),
	}
}

// timed handles events in which WRITE is granted or released, alone or as part of a range. R8
// becomes the inode's hold.
func timed(l layout, watched, holds int) asm.Instructions {
	return slices.Concat(asm.Instructions{
		asm.JNE.Imm32(asm.R2, 0, "done"),
	}, arguments(), asm.Instructions{
		load(asm.R2, asm.R6, l.start),
		asm.JGT.Imm(asm.R2, firstShmByte, "done"), // about a read mark
		load(asm.R3, asm.R6, l.end),
		asm.JLT.Imm(asm.R3, firstShmByte, "done"),

		load(asm.R1, asm.R9, l.inode),
		asm.And.Imm(asm.R1, holdSlots-1),
		asm.Mul.Imm(asm.R1, int32(unsafe.Sizeof(hold{}))),
		asm.LoadMapValue(asm.R8, holds, 0),
		asm.Add.Reg(asm.R8, asm.R1),
		load(asm.R4, asm.R6, l.kind),
		load(asm.R5, asm.R6, l.pid),
		asm.JEq.Imm(asm.R4, unlock, "released"),
		asm.JNE.Imm(asm.R4, writeLock, "done"),
		asm.JNE.Imm(asm.R2, firstShmByte, "done"),

		// The upper bits of a linear congruential generator decide.
		asm.LoadMem(asm.R1, asm.R8, holdLottery, asm.Word),
		asm.Mul.Imm32(asm.R1, 1664525),
		asm.Add.Imm32(asm.R1, 1013904223),
		asm.StoreMem(asm.R8, holdLottery, asm.R1, asm.Word),
		asm.RSh.Imm(asm.R1, 32-holdLotBits),
		asm.JNE.Imm(asm.R1, 0, "done"),
		asm.StoreMem(asm.R8, holdOwner, asm.R5, asm.Word),
		asm.FnKtimeGetNs.Call(),
		asm.StoreMem(asm.R8, holdAcquired, asm.R0, asm.DWord),
		asm.Ja.Label("done"),

		// A closing process unlocks the whole file, whether it holds a lock or not.
		asm.LoadMem(asm.R1, asm.R8, holdOwner, asm.Word).WithSymbol("released"),
		asm.JEq.Imm(asm.R1, 0, "done"),
		asm.JNE.Reg(asm.R1, asm.R5, "done"),
		asm.StoreImm(asm.R8, holdOwner, 0, asm.Word),
	}, lookup(l, watched), asm.Instructions{
		asm.FnKtimeGetNs.Call(),
		asm.LoadMem(asm.R1, asm.R8, holdAcquired, asm.DWord),
		asm.Sub.Reg(asm.R0, asm.R1),
		asm.Mov.Reg(asm.R2, asm.R7),
		asm.Add.Imm(asm.R2, atHoldSum),
		asm.StoreXAdd(asm.R2, asm.R0, asm.DWord),
		asm.RSh.Imm(asm.R0, holdUnitShift),
	}, log2(), asm.Instructions{
		asm.LSh.Imm(asm.R1, 3),
		asm.Add.Reg(asm.R7, asm.R1),
		asm.Add.Imm(asm.R7, atHolds),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R7, asm.R1, asm.DWord),
	})
}

// log2 sets R1 to the position of R0's highest bit, 0 to 31, and destroys R0.
func log2() asm.Instructions {
	ins := asm.Instructions{
		asm.Mov.Imm(asm.R1, 0),
		asm.LoadImm(asm.R2, 1<<32-1, asm.DWord),
		asm.JLE.Reg(asm.R0, asm.R2, "log2.16"),
		asm.Mov.Reg(asm.R0, asm.R2),
	}
	next := map[int32]string{16: "log2.8", 8: "log2.4", 4: "log2.2", 2: "log2.1", 1: "log2.0"}
	for _, bits := range []int32{16, 8, 4, 2, 1} {
		here := asm.JLT.Imm(asm.R0, 1<<bits, next[bits])
		if bits == 16 {
			here = here.WithSymbol("log2.16")
		} else {
			here = here.WithSymbol(next[bits*2])
		}
		ins = append(ins, here, asm.RSh.Imm(asm.R0, bits), asm.Add.Imm(asm.R1, bits))
	}
	return append(ins, asm.And.Imm(asm.R1, 31).WithSymbol("log2.0"))
}

// refused counts one EAGAIN by its first byte: 120 to 128 of -shm, or pending, reserved and
// shared of the main file. It skips our own refusals, because collector.Busy counts them.
func refused(l layout, self pidNamespace, watched, seen int) asm.Instructions {
	head := arguments()
	head[0] = head[0].WithSymbol("refused")
	return slices.Concat(head, lookup(l, watched), asm.Instructions{
		// The kernel's process ids are not those inside a container.
		asm.LoadImm(asm.R1, int64(self.device), asm.DWord),
		asm.LoadImm(asm.R2, int64(self.inode), asm.DWord),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, -8), // struct { u32 pid, tgid }
		asm.Mov.Imm(asm.R4, 8),
		asm.FnGetNsCurrentPidTgid.Call(),
		asm.JNE.Imm(asm.R0, 0, "theirs"), // a process of another namespace
		asm.LoadMem(asm.R1, asm.RFP, -4, asm.Word),
		asm.JEq.Imm(asm.R1, int32(self.pid), "done"),

		load(asm.R8, asm.R6, l.start).WithSymbol("theirs"),
		load(asm.R9, asm.R6, l.kind),
		asm.Sub.Imm(asm.R8, firstShmByte),
		asm.JLE.Imm(asm.R8, lastShmByte-firstShmByte, "index"),
		asm.Sub.Imm(asm.R8, pendingByte-firstShmByte),
		asm.JGT.Imm(asm.R8, shared-pending, "done"),
		asm.Add.Imm(asm.R8, pending),

		asm.JNE.Imm(asm.R9, writeLock, "count").WithSymbol("index"),
		asm.Add.Imm(asm.R8, exclusive),

		asm.And.Imm(asm.R8, 31).WithSymbol("count"),
		asm.Mov.Imm(asm.R9, isBusy),
		asm.RSh.Reg(asm.R9, asm.R8),
		asm.LSh.Imm(asm.R8, 3),
		asm.Add.Reg(asm.R8, asm.R7),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R8, asm.R1, asm.DWord),
		asm.And.Imm(asm.R9, 1),
		asm.JEq.Imm(asm.R9, 0, "done"),
	}, count(seen, atBusy), asm.Instructions{
		asm.FnKtimeGetNs.Call(),
		asm.StoreMem(asm.R7, atRefusedAt, asm.R0, asm.DWord),
		load(asm.R1, asm.R6, l.pid),
		asm.StoreMem(asm.R7, atPID, asm.R1, asm.DWord),
		asm.Mov.Reg(asm.R1, asm.R7),
		asm.Add.Imm(asm.R1, atCommand),
		asm.Mov.Imm(asm.R2, int32(len(counts{}.command))),
		asm.FnGetCurrentComm.Call(),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	})
}
