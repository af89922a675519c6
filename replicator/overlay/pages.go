// Package overlay reads a whole database file while others write to it. It keeps the pages aside that are about to
// change and were not read yet, so that the result is the database as it was at one moment. It blocks nobody.
package overlay

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/sqlwatch/sqlwatch/internal/durable"
)

// ErrRoom says that more pages would have to be kept than there is room for.
var ErrRoom = errors.New("the database changes more than there is room to keep aside: free space in the state " +
	"directory, or try when less is written")

const (
	inMemory  = 4 << 20  // bytes of pages that are kept in memory; the rest is in a file
	lookEvery = 16 << 20 // bytes written between two looks at the room that is left
)

// Options say where pages are kept and how many.
type Options struct {
	Dir   string       // for a temporary file, should it be needed
	Limit int64        // bytes of pages; beyond it Put returns ErrRoom
	Room  func() error // called before the file grows; returns an error when there is no room; may be nil
}

// Pages keeps one version of each of some pages. It is not for concurrent use.
type Pages struct {
	o      Options
	size   int
	slots  map[uint32]int64
	free   []int64 // slots of pages that were dropped
	used   int64   // slots ever used
	looked int64   // bytes of the file when room was last asked for
	memory []byte
	file   *durable.File // nil until it is needed
}

// NewPages returns a store for pages of pageSize bytes.
func NewPages(pageSize int, o Options) *Pages {
	return &Pages{o: o, size: pageSize, slots: map[uint32]int64{}}
}

// Has reports whether a version of the page is kept.
func (p *Pages) Has(page uint32) bool { _, ok := p.slots[page]; return ok }

// Numbers returns the pages that are kept, ascending.
func (p *Pages) Numbers() []uint32 { return slices.Sorted(maps.Keys(p.slots)) }

// Put keeps data as the page's version, replacing an earlier one. Errors: ErrRoom, and those of the disk.
func (p *Pages) Put(page uint32, data []byte) error {
	slot, ok := p.slots[page]
	switch {
	case ok:
	case len(p.free) > 0:
		slot, p.free = p.free[len(p.free)-1], p.free[:len(p.free)-1]
	default:
		slot = p.used
		if err := p.grow((slot + 1) * int64(p.size)); err != nil {
			return fmt.Errorf("keep page %d: %w", page, err)
		}
		p.used++
	}
	at := slot * int64(p.size)
	if at < int64(len(p.memory)) {
		copy(p.memory[at:], data)
	} else if _, err := p.file.WriteAt(data, at-inMemory); err != nil {
		return fmt.Errorf("keep page %d: %w", page, err)
	}
	p.slots[page] = slot
	return nil
}

// grow makes room for the given number of bytes in all.
func (p *Pages) grow(bytes int64) (err error) {
	if bytes > p.o.Limit {
		return ErrRoom
	}
	if bytes <= inMemory {
		p.memory = append(p.memory, make([]byte, p.size)...)
		return nil
	}
	if p.o.Room != nil && (p.looked == 0 || bytes-p.looked >= lookEvery) {
		if err := p.o.Room(); err != nil {
			return fmt.Errorf("%w: %w", ErrRoom, err)
		}
		p.looked = bytes
	}
	if p.file == nil {
		p.file, err = p.create()
	}
	return err
}

func (p *Pages) create() (*durable.File, error) {
	return durable.Create(filepath.Join(p.o.Dir, "kept-pages"), 0o600)
}

// Prepare makes the file for what does not fit into memory, so that Put need not while others wait. Where it cannot be
// made now, Put tries again.
func (p *Pages) Prepare() {
	if p.file == nil && p.o.Limit > inMemory {
		if file, err := p.create(); err == nil {
			p.file = file
		}
	}
}

// Get reads the page's version into data, and reports whether there is one.
func (p *Pages) Get(page uint32, data []byte) (bool, error) {
	slot, ok := p.slots[page]
	if !ok {
		return false, nil
	}
	at := slot * int64(p.size)
	if at < int64(len(p.memory)) {
		copy(data, p.memory[at:at+int64(p.size)])
		return true, nil
	}
	if _, err := p.file.ReadAt(data[:p.size], at-inMemory); err != nil {
		return false, fmt.Errorf("read kept page %d: %w", page, err)
	}
	return true, nil
}

// Drop forgets the page's version; its place is used again.
func (p *Pages) Drop(page uint32) {
	if slot, ok := p.slots[page]; ok {
		delete(p.slots, page)
		p.free = append(p.free, slot)
	}
}

// Close removes the file. It may be called again.
func (p *Pages) Close() error {
	file := p.file
	p.file, p.memory, p.slots, p.free, p.used = nil, nil, map[uint32]int64{}, nil, 0
	if file == nil {
		return nil
	}
	return file.Abort()
}
