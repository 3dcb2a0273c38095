package cluster

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// An object that another version of skep wrote may have fields that this one doesn't
// know, and lack fields that this one always writes. Both must stay as they came: all
// managers have the same bytes at the same index, and whoever knows a field finds it
// again. So what is kept of such an object is how it came, and what is written anew is
// made of three forms: how it came, what this version would have written of that
// (known), and what it writes now (next).

// Merge gives next with what known hasn't and came has, at every depth, and without what
// known has and came hasn't, unless it was changed since. An element of a list keeps
// what is unknown in it while its known part is the same. Merge(came, known, known) is
// came, if that was written by Encode.
func Merge(came, known, next []byte) ([]byte, error) {
	merged, err := merge(came, known, next, 0)
	if err != nil {
		return nil, fmt.Errorf("merge with fields that this version of skep doesn't know: %w", err)
	}
	return merged, nil
}

// The kinds of items that have others in them, and how deep they may be.
const (
	listItem  = 4
	mapItem   = 5
	maxNested = 64
)

func merge(came, known, next []byte, depth int) ([]byte, error) {
	kind := next[0] >> 5
	if came[0]>>5 != kind || known[0]>>5 != kind || kind != listItem && kind != mapItem || depth > maxNested {
		if bytes.Equal(known, next) {
			return came, nil
		}
		return next, nil
	}
	theirs, err := children(came)
	if err != nil {
		return nil, err
	}
	before, err := children(known)
	if err != nil {
		return nil, err
	}
	after, err := children(next)
	if err != nil {
		return nil, err
	}
	if kind == listItem {
		return mergeLists(theirs, before, after), nil
	}
	return mergeMaps(theirs, before, after, depth)
}

func mergeMaps(came, known, next []child, depth int) ([]byte, error) {
	theirs, before, after := byKey(came), byKey(known), byKey(next)
	var merged []child
	for _, n := range next {
		c, k := theirs[string(n.key)], before[string(n.key)]
		switch {
		case k != nil && c == nil && bytes.Equal(k, n.value):
			continue // They leave out what is zero here.
		case k != nil && c != nil:
			value, err := merge(c, k, n.value, depth+1)
			if err != nil {
				return nil, err
			}
			n.value = value
		}
		merged = append(merged, n)
	}
	for _, c := range came {
		if before[string(c.key)] == nil && after[string(c.key)] == nil {
			merged = append(merged, c)
		}
	}
	slices.SortFunc(merged, func(a, b child) int { return bytes.Compare(a.key, b.key) })
	return join(mapItem, merged), nil
}

func byKey(children []child) map[string][]byte {
	values := make(map[string][]byte, len(children))
	for _, c := range children {
		values[string(c.key)] = c.value
	}
	return values
}

func mergeLists(came, known, next []child) []byte {
	if len(came) != len(known) {
		return join(listItem, next)
	}
	// An element that stayed where it was comes first, then the first of its kind.
	stayed := func(i int) bool { return i < len(next) && bytes.Equal(known[i].value, next[i].value) }
	places := map[string][]int{}
	for i, k := range known {
		if !stayed(i) {
			places[string(k.value)] = append(places[string(k.value)], i)
		}
	}
	for i, n := range next {
		if i < len(known) && stayed(i) {
			next[i].value = came[i].value
		} else if at := places[string(n.value)]; len(at) > 0 {
			next[i].value, places[string(n.value)] = came[at[0]].value, at[1:]
		}
	}
	return join(listItem, next)
}

// child is what an item has in it; key is empty in a list.
type child struct{ key, value []byte }

// join makes an item of its children.
func join(kind byte, children []child) []byte {
	size := 9
	for _, c := range children {
		size += len(c.key) + len(c.value)
	}
	out := appendHead(make([]byte, 0, size), kind, uint64(len(children)))
	for _, c := range children {
		out = append(append(out, c.key...), c.value...)
	}
	return out
}

func appendHead(out []byte, kind byte, number uint64) []byte {
	switch kind <<= 5; {
	case number < 24:
		return append(out, kind|byte(number))
	case number < 1<<8:
		return append(out, kind|24, byte(number))
	case number < 1<<16:
		return binary.BigEndian.AppendUint16(append(out, kind|25), uint16(number))
	case number < 1<<32:
		return binary.BigEndian.AppendUint32(append(out, kind|26), uint32(number))
	}
	return binary.BigEndian.AppendUint64(append(out, kind|27), number)
}

// children are those of a list or a map. It was read before, and so is well formed, but
// may be in another form than Encode's, which is refused.
func children(item []byte) ([]child, error) {
	head, kind, count, err := readHead(item)
	if err != nil {
		return nil, err
	}
	rest := item[head:]
	next := func() (value []byte, err error) {
		size, err := itemSize(rest, 0)
		if err != nil {
			return nil, err
		}
		value, rest = rest[:size], rest[size:]
		return value, nil
	}
	var all []child
	for i := range count {
		var c child
		if kind == mapItem {
			if c.key, err = next(); err != nil {
				return nil, err
			}
			// In another order, or twice, a key could end up in the merged map twice.
			if i > 0 && bytes.Compare(all[i-1].key, c.key) >= 0 {
				return nil, errForm
			}
		}
		if c.value, err = next(); err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

var errForm = errors.New("it isn't in the form that skep writes")

// readHead reads an item's head: how long it is, and what it says.
func readHead(item []byte) (size int, kind byte, number uint64, err error) {
	if len(item) == 0 {
		return 0, 0, 0, errForm
	}
	kind, number, size = item[0]>>5, uint64(item[0]&31), 1
	if number < 24 {
		return size, kind, number, nil
	}
	if number > 27 {
		return 0, 0, 0, errForm // Of a length that only its end tells, which Encode never writes.
	}
	more := 1 << (number - 24)
	if size += more; len(item) < size {
		return 0, 0, 0, errForm
	}
	var whole [8]byte
	copy(whole[8-more:], item[1:size])
	number = binary.BigEndian.Uint64(whole[:])
	// Equal keys have equal bytes only if each number is as short as can be. Of kind 7 it
	// is a float.
	if least := [9]uint64{1: 24, 2: 1 << 8, 4: 1 << 16, 8: 1 << 32}[more]; number < least && kind != 7 {
		return 0, 0, 0, errForm
	}
	return size, kind, number, nil
}

// itemSize is how many bytes the first item of data takes.
func itemSize(data []byte, depth int) (int, error) {
	size, kind, number, err := readHead(data)
	if err != nil || depth > maxNested {
		return 0, cmp.Or(err, errForm)
	}
	inside := uint64(0)
	switch kind {
	case 2, 3:
		if number > uint64(len(data)-size) {
			return 0, errForm
		}
		return size + int(number), nil
	case listItem:
		inside = number
	case mapItem:
		if inside = 2 * number; inside < number {
			return 0, errForm
		}
	case 6:
		inside = 1
	}
	for range inside {
		n, err := itemSize(data[size:], depth+1)
		if err != nil {
			return 0, err
		}
		size += n
	}
	return size, nil
}
