package cluster

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// anyTask draws a task with anything in its fields, and often nothing.
func anyTask(r *rapid.T) *Task {
	number := func(most uint64) uint64 {
		bits := rapid.IntRange(0, 64).Draw(r, "bits")
		if bits == 0 {
			return 0
		}
		return rapid.Uint64().Draw(r, "number") >> (64 - bits) & most
	}
	signed := func(most uint64) int64 {
		if rapid.Bool().Draw(r, "negative") {
			return -1 - int64(number(most))
		}
		return int64(number(most))
	}
	text := func() string {
		return strings.Repeat(rapid.SampledFrom([]string{"", "a", "0123456789abcdefghijklmno", "ä<\x00"}).Draw(r, "text"), rapid.SampledFrom([]int{0, 1, 1, 1, 30, 70000}).Draw(r, "times"))
	}
	moment := func() Time { return Time(signed(math.MaxInt64)) }
	t := &Task{
		ID: text(), Version: number(math.MaxUint64), ServiceID: text(), Revision: number(math.MaxUint64), Slot: uint32(number(math.MaxUint32)),
		NodeID: text(), Desired: State(number(math.MaxUint16)), CreatedAt: moment(), UpdatedAt: moment(), RunningAt: moment(), NotBefore: moment(),
	}
	if rapid.Bool().Draw(r, "status") {
		t.Status = TaskStatus{
			State: State(number(math.MaxUint16)), Since: moment(), Applied: moment(), Message: text(), Err: text(), ContainerID: text(),
			PID: int32(signed(math.MaxInt32)), ExitCode: int32(signed(math.MaxInt32)), Ports: text(),
		}
	}
	for range rapid.SampledFrom([]int{0, 0, 1, 30}).Draw(r, "claims") {
		t.Generic = append(t.Generic, Claim{Kind: text(), Count: signed(math.MaxInt64), Names: rapid.SampledFrom([][]string{nil, {"a", ""}}).Draw(r, "names")})
	}
	for range rapid.SampledFrom([]int{0, 0, 1, 30, 300}).Draw(r, "addresses") {
		t.Addresses = append(t.Addresses, Address{VNI: uint32(number(math.MaxUint32)), Host: Host(number(math.MaxUint32))})
	}
	return t
}

func copied(b []byte) string { return string(b) }

// TestTask_EncodesAsLibrary: a task has the bytes that the library gives it, and is read back from them.
func TestTask_EncodesAsLibrary(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		task := anyTask(r)
		want, err := encMode.Marshal(task)
		if err != nil {
			r.Fatal(err)
		}
		got, err := Encode(task)
		if err != nil || !bytes.Equal(got, want) {
			r.Fatalf("%+v: %v\n%x instead of\n%x", task, err, got, want)
		}
		var read, anew Task
		if !DecodeTask(want, &read, copied) {
			r.Fatalf("%+v isn't read: %x", task, want)
		}
		if err := decMode.Unmarshal(want, &anew); err != nil || !reflect.DeepEqual(read, anew) {
			r.Fatalf("%+v, the library reads %+v, %v", read, anew, err)
		}
	})
	for _, bad := range []*Task{{ID: "\xff"}, {Status: TaskStatus{Err: "a\xc0"}}, {Generic: []Claim{{Kind: "\xff"}}}, {Addresses: make([]Address, maxElements+1)}} {
		if _, err := Encode(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("what can't be read is encoded: %v", err)
		}
	}
	if data, err := Encode((*Task)(nil)); err != nil || !bytes.Equal(data, []byte{0xf6}) {
		t.Errorf("no task: %x, %v", data, err)
	}
}

// FuzzDecodeTask: what is read at all has the library's meaning, and would be written just so.
func FuzzDecodeTask(f *testing.F) {
	whole := &Task{ID: "t1", Version: 300, ServiceID: "s1", Revision: 1, Slot: 70000, NodeID: "n1", Desired: StateRunning, CreatedAt: 1 << 60, UpdatedAt: -2, RunningAt: 3, NotBefore: 4}
	whole.Status = TaskStatus{State: StateRunning, Since: 5, Applied: 6, Message: "started", Err: "e", ContainerID: "c", PID: 7, ExitCode: -8, Ports: "80"}
	whole.Generic, whole.Addresses = []Claim{{Kind: "gpu", Names: []string{"a"}, Count: 2}}, []Address{{VNI: 4097, Host: 2}}
	for _, task := range []*Task{{}, whole} {
		data, err := Encode(task)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		for i := range data {
			for _, with := range []byte{1, 0x20, 0x80} {
				other := bytes.Clone(data)
				other[i] ^= with
				f.Add(other)
			}
			f.Add(data[:i])
			f.Add(append(bytes.Clone(data[:i]), data[min(i+1, len(data)):]...))
			f.Add(append(append(bytes.Clone(data[:i]), 0), data[i:]...))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var task, anew Task
		if !DecodeTask(data, &task, copied) {
			if !reflect.DeepEqual(task, Task{}) {
				t.Fatalf("what wasn't read left %+v", task)
			}
			if err := Decode(data, &anew); err == nil {
				if again, err := encMode.Marshal(&anew); err == nil && bytes.Equal(again, data) {
					t.Fatalf("%x isn't read, but would be written just so", data)
				}
			}
			return
		}
		if err := Decode(data, &anew); err != nil || !reflect.DeepEqual(task, anew) {
			t.Fatalf("%x: %+v, the library reads %+v, %v", data, task, anew, err)
		}
		if again, err := encMode.Marshal(&task); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%x would be written as %x, %v", data, again, err)
		}
	})
}

func BenchmarkTask(b *testing.B) {
	task := &Task{ID: strings.Repeat("a", 25), Version: 1000, ServiceID: strings.Repeat("b", 25), Revision: 3, Slot: 700, NodeID: strings.Repeat("c", 25), Desired: StateRunning, CreatedAt: 1 << 60, UpdatedAt: 1 << 60, RunningAt: 1 << 60}
	task.Status = TaskStatus{State: StateRunning, Since: 1 << 60, Applied: 1 << 60, Message: "started", ContainerID: strings.Repeat("0", 64), PID: 4000}
	data, err := Encode(task)
	if err != nil {
		b.Fatal(err)
	}
	for name, once := range map[string]func(){
		"encode": func() { _, _ = Encode(task) },
		"encode/library": func() {
			if data, err := encMode.Marshal(task); err == nil {
				_ = checkReadable(data)
			}
		},
		"decode":         func() { var t Task; DecodeTask(data, &t, copied) },
		"decode/library": func() { var t Task; _ = Decode(data, &t) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				once()
			}
		})
	}
}
