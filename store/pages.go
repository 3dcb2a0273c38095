package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// bbolt trusts its pages: where they are damaged it panics, reads past their end,
// runs in circles or finds less than was written. pages reads the same file and trusts
// nothing: all that could be otherwise without making a difference to bbolt must be as
// bbolt writes it.
type pageWalker struct {
	file     io.ReaderAt
	pageSize uint64
	// high is the number of the first page that was never used.
	high uint64
	// used has the pages met so far: each belongs to one place.
	used map[uint64]bool
}

// What bbolt's file is made of, in its words.
const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2
	noFreelist  = ^uint64(0)

	branchPage = 0x01
	leafPage   = 0x02

	pageHead    = 16
	elementSize = 16
	bucketHead  = 16
)

// boltMeta is a meta page's content. There are two, written in turn.
type boltMeta struct {
	Magic, Version, PageSize, Flags uint32
	Root, Sequence                  uint64
	Freelist, High, Tx, Checksum    uint64
}

// readMeta reads the meta page at an offset. It lies within one sector, so a crash
// leaves it as it was or as it was to be: a wrong checksum is damage. bbolt would take
// the other meta page, and so the file as it was one transaction before.
func readMeta(file io.ReaderAt, at int64) (m boltMeta, err error) {
	data := make([]byte, binary.Size(m))
	if err := readAt(file, data, at+pageHead); err != nil {
		return m, fmt.Errorf("read the meta page at %d: %w", at, err)
	}
	sum := fnv.New64a()
	sum.Write(data[:len(data)-8])
	if _, err := binary.Decode(data, binary.NativeEndian, &m); err != nil {
		return m, err
	}
	switch {
	case m.Checksum != sum.Sum64():
		return m, damage("the checksum of the meta page at %d is wrong", at)
	case m.Magic != boltMagic || m.Version != boltVersion || m.PageSize < 512:
		return m, damage("the meta page at %d isn't bbolt's", at)
	}
	return m, nil
}

// readMetas reads both meta pages: the one that was written last, and the one of the
// transaction before.
func readMetas(file io.ReaderAt) (newest, before boltMeta, err error) {
	if before, err = readMeta(file, 0); err != nil {
		return newest, before, err
	}
	if newest, err = readMeta(file, int64(before.PageSize)); err != nil {
		return newest, before, err
	}
	if before.Tx > newest.Tx {
		newest, before = before, newest
	}
	return newest, before, nil
}

// damage is an error that says what isn't as it was written.
func damage(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

// readAt reads all of data. That the file is too short for it is damage.
func readAt(file io.ReaderAt, data []byte, at int64) error {
	_, err := file.ReadAt(data, at)
	if errors.Is(err, io.EOF) {
		return damage("the file ends before byte %d", at+int64(len(data)))
	}
	return err
}

// readBuckets reads a file whose root has nothing but buckets, and hands out their
// content, bucket by bucket, in the order of the keys. It returns the numbers of the
// pages that are in use.
func readBuckets(file io.ReaderAt, newest boltMeta, each func(bucket string, key, value []byte) error) (used map[uint64]bool, err error) {
	if newest.Freelist != noFreelist {
		return nil, damage("it has a list of free pages")
	}
	p := &pageWalker{file: file, pageSize: uint64(newest.PageSize), high: newest.High, used: map[uint64]bool{0: true, 1: true}}
	if err := readAt(file, make([]byte, 1), int64(p.high*p.pageSize)-1); err != nil {
		return nil, err
	}
	return p.used, p.walk(newest.Root, nil, nil, func(e element) error {
		if e.flags != 1 || len(e.value) < bucketHead || binary.NativeEndian.Uint64(e.value[8:]) != 0 {
			return damage("%q isn't a bucket as it should be", e.key)
		}
		name := string(e.key)
		content := func(e element) error {
			if e.flags != 0 {
				return damage("%q in bucket %s is marked as a bucket", e.key, name)
			}
			return each(name, e.key, e.value)
		}
		root, inline := binary.NativeEndian.Uint64(e.value), e.value[bucketHead:]
		if root != 0 && len(inline) == 0 {
			return p.walk(root, nil, nil, content)
		}
		n, err := parse(inline)
		if err == nil && (root != 0 || n.id != 0 || n.branch || n.overflow != 0 || n.size != uint64(len(inline))) {
			err = damage("it is malformed")
		}
		if err != nil {
			return fmt.Errorf("read bucket %s: %w", name, err)
		}
		for _, e := range n.elements {
			if err := content(e); err != nil {
				return err
			}
		}
		return nil
	})
}

// boltNode is a page, or what is like one in a bucket's value.
type boltNode struct {
	id       uint64
	branch   bool
	overflow uint64
	elements []element
	// size is how many bytes are in use.
	size uint64
}

// element is a key with its value, or with the page that has the keys from it on.
type element struct {
	flags uint32
	key   []byte
	page  uint64
	value []byte
}

// parse reads a page. Keys and values lie behind the elements without gaps, so each
// number in them is determined by the others.
func parse(data []byte) (n boltNode, err error) {
	if len(data) < pageHead {
		return n, damage("it is cut short")
	}
	n.id = binary.NativeEndian.Uint64(data)
	flags, count := binary.NativeEndian.Uint16(data[8:]), uint64(binary.NativeEndian.Uint16(data[10:]))
	n.overflow = uint64(binary.NativeEndian.Uint32(data[12:]))
	n.branch = flags == branchPage
	if !n.branch && flags != leafPage {
		return n, damage("it is of type %#x", flags)
	}
	n.size = pageHead + count*elementSize
	if n.size > uint64(len(data)) {
		return n, damage("it has %d elements", count)
	}
	number := func(at uint64) uint64 { return uint64(binary.NativeEndian.Uint32(data[at:])) }
	var before []byte
	for i := range count {
		at := pageHead + i*elementSize
		var e element
		var pos, keySize, valueSize uint64
		if n.branch {
			pos, keySize, e.page = number(at), number(at+4), binary.NativeEndian.Uint64(data[at+8:])
		} else {
			e.flags = binary.NativeEndian.Uint32(data[at:])
			pos, keySize, valueSize = number(at+4), number(at+8), number(at+12)
		}
		if at+pos != n.size || keySize == 0 || n.size+keySize+valueSize > uint64(len(data)) {
			return n, damage("element %d doesn't lie where it should", i)
		}
		e.key, e.value = data[n.size:n.size+keySize], data[n.size+keySize:n.size+keySize+valueSize]
		n.size += keySize + valueSize
		if before != nil && bytes.Compare(before, e.key) >= 0 {
			return n, damage("key %d is out of order", i)
		}
		before = e.key
		n.elements = append(n.elements, e)
	}
	return n, nil
}

// load reads a page with those that belong to it.
func (p *pageWalker) load(id uint64) (boltNode, error) {
	head := make([]byte, pageHead)
	if id >= p.high {
		return boltNode{}, damage("it was never written")
	}
	if err := readAt(p.file, head, int64(id*p.pageSize)); err != nil {
		return boltNode{}, err
	}
	count := 1 + uint64(binary.NativeEndian.Uint32(head[12:]))
	if count > p.high-id {
		return boltNode{}, damage("it is longer than the file")
	}
	for page := id; page < id+count; page++ {
		if p.used[page] {
			return boltNode{}, damage("page %d has two places", page)
		}
		p.used[page] = true
	}
	data := make([]byte, count*p.pageSize)
	if err := readAt(p.file, data, int64(id*p.pageSize)); err != nil {
		return boltNode{}, err
	}
	n, err := parse(data)
	if err == nil && (n.id != id || n.overflow != (n.size-1)/p.pageSize) {
		err = damage("it says it is page %d, and %d bytes of %d are in use", n.id, n.size, len(data))
	}
	return n, err
}

// walk hands out what is in a page and below, all of which must have keys from low
// until before limit; nil stands for no bound.
func (p *pageWalker) walk(id uint64, low, limit []byte, each func(element) error) error {
	n, err := p.load(id)
	if err != nil {
		return fmt.Errorf("read page %d: %w", id, err)
	}
	for i, e := range n.elements {
		if low != nil && bytes.Compare(e.key, low) < 0 || limit != nil && bytes.Compare(e.key, limit) >= 0 {
			return damage("key %d of page %d belongs into another page", i, id)
		}
		if !n.branch {
			err = each(e)
		} else if i+1 < len(n.elements) {
			err = p.walk(e.page, e.key, n.elements[i+1].key, each)
		} else {
			err = p.walk(e.page, e.key, limit, each)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
