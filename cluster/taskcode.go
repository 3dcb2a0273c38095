package cluster

import (
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"
)

// Tasks are most of what is written, by far, so they are encoded and decoded by what follows: a fifth of the
// library's time. The bytes are those that the library would write, and whatever isn't exactly these is left to it.

// The kinds of items that have none in them.
const (
	uintItem     = 0
	negativeItem = 1
	textItem     = 3
)

// The fields of a Task, a TaskStatus and an Address, in the order in which they are written.
const (
	taskID = iota + 1
	taskVersion
	taskServiceID
	taskRevision
	taskSlot
	taskNodeID
	taskDesired
	taskCreatedAt
	taskUpdatedAt
	taskRunningAt
	taskNotBefore
	taskStatus
	taskGeneric
	taskAddresses
)

const (
	statusState = iota + 1
	statusSince
	statusApplied
	statusMessage
	statusErr
	statusContainerID
	statusPID
	statusExitCode
	statusPorts
)

const (
	addressVNI = iota + 1
	addressHost
)

// numbers is how many bytes the heads and numbers of a task take, mostly at most.
const numbers = 96

// mapWriter writes a map whose keys are small numbers. Its head, of one byte, is written when it is known how
// many there are: fewer than 24.
type mapWriter struct {
	data    []byte
	head    int
	invalid bool // a text isn't UTF-8
}

func (w *mapWriter) begin() (outer int) {
	outer, w.head = w.head, len(w.data)
	w.data = append(w.data, mapItem<<5)
	return outer
}

func (w *mapWriter) end(outer int) { w.head = outer }

func (w *mapWriter) key(key byte) {
	w.data = append(w.data, key)
	w.data[w.head]++
}

func (w *mapWriter) uint(key byte, n uint64) {
	if n != 0 {
		w.key(key)
		w.data = appendHead(w.data, uintItem, n)
	}
}

func (w *mapWriter) int(key byte, n int64) {
	switch {
	case n > 0:
		w.uint(key, uint64(n))
	case n < 0:
		w.key(key)
		w.data = appendHead(w.data, negativeItem, uint64(-1-n))
	}
}

func (w *mapWriter) text(key byte, text string) {
	if text != "" {
		w.key(key)
		w.value(text)
	}
}

func (w *mapWriter) value(text string) {
	w.invalid = w.invalid || !utf8.ValidString(text)
	w.data = append(appendHead(w.data, textItem, uint64(len(text))), text...)
}

// encodeTask is Encode of a task.
func encodeTask(t *Task) ([]byte, error) {
	s := &t.Status
	texts := len(t.ID) + len(t.ServiceID) + len(t.NodeID) + len(s.Message) + len(s.Err) + len(s.ContainerID) + len(s.Ports)
	w := mapWriter{data: make([]byte, 0, numbers+texts)}
	outer := w.begin()
	w.key(taskID)
	w.value(t.ID)
	w.uint(taskVersion, t.Version)
	w.key(taskServiceID)
	w.value(t.ServiceID)
	w.key(taskRevision)
	w.data = appendHead(w.data, uintItem, t.Revision)
	w.uint(taskSlot, uint64(t.Slot))
	w.text(taskNodeID, t.NodeID)
	w.uint(taskDesired, uint64(t.Desired))
	w.int(taskCreatedAt, int64(t.CreatedAt))
	w.int(taskUpdatedAt, int64(t.UpdatedAt))
	w.int(taskRunningAt, int64(t.RunningAt))
	w.int(taskNotBefore, int64(t.NotBefore))
	if *s != (TaskStatus{}) {
		w.key(taskStatus)
		outer := w.begin()
		w.uint(statusState, uint64(s.State))
		w.int(statusSince, int64(s.Since))
		w.int(statusApplied, int64(s.Applied))
		w.text(statusMessage, s.Message)
		w.text(statusErr, s.Err)
		w.text(statusContainerID, s.ContainerID)
		w.int(statusPID, int64(s.PID))
		w.int(statusExitCode, int64(s.ExitCode))
		w.text(statusPorts, s.Ports)
		w.end(outer)
	}
	if len(t.Generic) > 0 { // few have any
		generic, err := encMode.Marshal(t.Generic)
		if err == nil {
			err = checkReadable(generic)
		}
		if err != nil {
			return nil, fmt.Errorf("encode %T: %w", t, err)
		}
		w.key(taskGeneric)
		w.data = append(w.data, generic...)
	}
	if len(t.Addresses) > maxElements {
		return nil, fmt.Errorf("encode %T: %w: a list or map in it has %d elements, more than %d", t, ErrInvalid, len(t.Addresses), maxElements)
	}
	if len(t.Addresses) > 0 {
		w.key(taskAddresses)
		w.data = appendHead(w.data, listItem, uint64(len(t.Addresses)))
		for _, a := range t.Addresses {
			w.data = appendHead(append(w.data, mapItem<<5|2, addressVNI), uintItem, uint64(a.VNI))
			w.data = appendHead(append(w.data, addressHost), uintItem, uint64(a.Host))
		}
	}
	w.end(outer)
	if w.invalid {
		return nil, fmt.Errorf("encode %T: %w: a text in it isn't UTF-8", t, ErrInvalid)
	}
	return w.data, nil
}

// DecodeTask reads a task that this version encoded, and tells whether it is one: whether Encode of what it read
// gives the same bytes. If not it leaves t as it was, and Decode may still read it. The texts that many tasks have in
// common are made by share, the others aren't parts of data either.
func DecodeTask(data []byte, t *Task, share func([]byte) string) bool {
	r := taskReader{data: data, share: share}
	var read Task
	if !r.task(&read) || len(r.data) > 0 {
		return false
	}
	*t = read
	return true
}

// taskReader reads what encodeTask writes. After wrong nothing that it returns means anything.
type taskReader struct {
	data  []byte
	share func([]byte) string
	wrong bool
}

// head reads an item's head, which must be as short as can be.
func (r *taskReader) head() (kind byte, n uint64) {
	if len(r.data) == 0 {
		r.wrong = true
		return 0, 0
	}
	kind, n = r.data[0]>>5, uint64(r.data[0]&0x1f)
	r.data = r.data[1:]
	if n < 24 {
		return kind, n
	}
	size := 1 << (n - 24)
	if n > 27 || len(r.data) < size {
		r.wrong = true
		return 0, 0
	}
	least := uint64(24)
	switch size {
	case 1:
		n = uint64(r.data[0])
	case 2:
		n, least = uint64(binary.BigEndian.Uint16(r.data)), math.MaxUint8+1
	case 4:
		n, least = uint64(binary.BigEndian.Uint32(r.data)), math.MaxUint16+1
	case 8:
		n, least = binary.BigEndian.Uint64(r.data), math.MaxUint32+1
	}
	r.wrong = r.wrong || n < least
	r.data = r.data[size:]
	return kind, n
}

func (r *taskReader) number(of byte, most uint64) uint64 {
	kind, n := r.head()
	r.wrong = r.wrong || kind != of || n > most
	return n
}

// optional is a number that is left out when it is 0.
func (r *taskReader) optional(most uint64) uint64 {
	n := r.number(uintItem, most)
	r.wrong = r.wrong || n == 0
	return n
}

// signed is a number with a sign that is left out when it is 0.
func (r *taskReader) signed(most int64) int64 {
	kind, n := r.head()
	r.wrong = r.wrong || n > uint64(most)
	switch {
	case kind == uintItem && n != 0:
		return int64(n)
	case kind == negativeItem:
		return -1 - int64(n)
	}
	r.wrong = true
	return 0
}

func (r *taskReader) time() Time { return Time(r.signed(math.MaxInt64)) }

func (r *taskReader) bytes() []byte {
	n := r.number(textItem, math.MaxInt32)
	if r.wrong || n > uint64(len(r.data)) {
		r.wrong = true
		return nil
	}
	text := r.data[:n]
	r.data = r.data[n:]
	r.wrong = r.wrong || !utf8.Valid(text)
	return text
}

// text is one that is left out when it is empty.
func (r *taskReader) text() []byte {
	text := r.bytes()
	r.wrong = r.wrong || len(text) == 0
	return text
}

// fields reads a map of fields in the order of their keys, from 1 to most; those that must is a bit of are always there.
func (r *taskReader) fields(most byte, must uint, field func(key byte)) bool {
	count := r.number(mapItem, uint64(most))
	before := byte(0)
	for i := uint64(0); i < count && !r.wrong; i++ {
		if len(r.data) == 0 || r.data[0] <= before || r.data[0] > most {
			return false
		}
		before, r.data = r.data[0], r.data[1:]
		must &^= 1 << before
		field(before)
	}
	return !r.wrong && must == 0
}

func (r *taskReader) task(t *Task) bool {
	return r.fields(taskAddresses, 1<<taskID|1<<taskServiceID|1<<taskRevision, func(key byte) {
		switch key {
		case taskID:
			t.ID = string(r.bytes())
		case taskVersion:
			t.Version = r.optional(math.MaxUint64)
		case taskServiceID:
			t.ServiceID = r.share(r.bytes())
		case taskRevision:
			t.Revision = r.number(uintItem, math.MaxUint64)
		case taskSlot:
			t.Slot = uint32(r.optional(math.MaxUint32))
		case taskNodeID:
			t.NodeID = r.share(r.text())
		case taskDesired:
			t.Desired = State(r.optional(math.MaxUint16))
		case taskCreatedAt:
			t.CreatedAt = r.time()
		case taskUpdatedAt:
			t.UpdatedAt = r.time()
		case taskRunningAt:
			t.RunningAt = r.time()
		case taskNotBefore:
			t.NotBefore = r.time()
		case taskStatus:
			r.wrong = !r.status(&t.Status) || t.Status == TaskStatus{}
		case taskGeneric:
			t.Generic = r.generic()
		case taskAddresses:
			t.Addresses = r.addresses()
		}
	})
}

func (r *taskReader) status(s *TaskStatus) bool {
	return r.fields(statusPorts, 0, func(key byte) {
		switch key {
		case statusState:
			s.State = State(r.optional(math.MaxUint16))
		case statusSince:
			s.Since = r.time()
		case statusApplied:
			s.Applied = r.time()
		case statusMessage:
			s.Message = r.share(r.text())
		case statusErr:
			s.Err = r.share(r.text())
		case statusContainerID:
			s.ContainerID = string(r.text())
		case statusPID:
			s.PID = int32(r.signed(math.MaxInt32))
		case statusExitCode:
			s.ExitCode = int32(r.signed(math.MaxInt32))
		case statusPorts:
			s.Ports = string(r.text())
		}
	})
}

// generic reads by the library, and compares with what that would write.
func (r *taskReader) generic() (claims []Claim) {
	rest, err := decMode.UnmarshalFirst(r.data, &claims)
	if err != nil || len(claims) == 0 {
		r.wrong = true
		return nil
	}
	was := r.data[:len(r.data)-len(rest)]
	again, err := encMode.Marshal(claims)
	r.wrong = r.wrong || err != nil || string(again) != string(was)
	r.data = rest
	return claims
}

func (r *taskReader) addresses() []Address {
	count := r.number(listItem, maxElements)
	if r.wrong || count == 0 || count > uint64(len(r.data)) {
		r.wrong = true
		return nil
	}
	list := make([]Address, count)
	for i := range list {
		r.wrong = r.wrong || !r.fields(addressHost, 1<<addressVNI|1<<addressHost, func(key byte) {
			switch key {
			case addressVNI:
				list[i].VNI = uint32(r.number(uintItem, math.MaxUint32))
			case addressHost:
				list[i].Host = Host(r.number(uintItem, math.MaxUint32))
			}
		})
	}
	return list
}
