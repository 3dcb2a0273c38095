package seal

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// FuzzSplit takes what is in a log entry apart: what can be, is no more than there
// was, and put together and taken apart again it is the same.
func FuzzSplit(f *testing.F) {
	f.Add([]byte{})
	f.Add(join(&raft.Log{Data: []byte("data"), Extensions: []byte("ext"), AppendedAt: time.Unix(0, 1_700_000_000_000_000_000)}))
	f.Add(join(&raft.Log{Data: bytes.Repeat([]byte("long"), 100)}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, plain []byte) {
		var entry, again raft.Log
		if err := split(plain, &entry); err != nil {
			if !errors.Is(err, ErrBad) {
				t.Fatal(err)
			}
			return
		}
		if size := len(entry.Data) + len(entry.Extensions); size > len(plain)-2 {
			t.Fatalf("%d bytes became %d", len(plain), size)
		}
		if err := split(join(&entry), &again); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.Data, entry.Data) || !bytes.Equal(again.Extensions, entry.Extensions) || !again.AppendedAt.Equal(entry.AppendedAt) {
			t.Fatalf("%+v became %+v", entry, again)
		}
	})
}

// FuzzOpen seals a text as a record and as a stream, and changes what was made of
// it: bytes that are put in, taken out or changed at a place. Nothing but the sealed
// text itself opens, and it opens nowhere else; nor does anything that was made
// without the key.
func FuzzOpen(f *testing.F) {
	key := Key{1, 2, 3}
	ring := NewRing(key)
	id := key.id()
	head := append([]byte{recordFormat}, id[:]...)
	for _, size := range []int{0, 1, 100, chunkSize - 1, chunkSize, chunkSize + 1} {
		plain := bytes.Repeat([]byte("c"), size)
		f.Add(plain, uint(0), uint(1), []byte{recordFormat}, "log", uint64(7))
		f.Add(plain, uint(size), uint(17), []byte{}, "log", uint64(7))
		f.Add(plain, uint(headSize), uint(0), []byte("more"), "stream of log", uint64(3))
		f.Add(append(bytes.Clone(head), plain...), uint(0), uint(0), []byte{}, "log", uint64(8))
	}
	f.Add([]byte("c"), uint(0), uint(17), []byte{recordFormat + 1}, "low", uint64(16))
	f.Fuzz(func(t *testing.T, plain []byte, at, out uint, in []byte, kind string, index uint64) {
		if len(plain) > 3*chunkSize {
			t.Skip("it takes long and shows nothing new")
		}
		elsewhere := Location{ClusterID: here.ClusterID, Kind: kind, Index: index, Term: here.Term}
		for what, how := range map[string]struct {
			seal func() []byte
			open func([]byte, Location) ([]byte, error)
		}{
			"record": {
				func() []byte { return ring.Seal(plain, here) },
				ring.Open,
			},
			"stream": {
				func() []byte {
					var sealed bytes.Buffer
					w := newStreamWriter(&sealed, ring, here)
					if _, err := w.Write(plain); err != nil {
						t.Fatal(err)
					}
					if err := w.Close(); err != nil {
						t.Fatal(err)
					}
					return sealed.Bytes()
				},
				func(sealed []byte, place Location) ([]byte, error) {
					got, err := io.ReadAll(newStreamReader(bytes.NewReader(sealed), ring, place))
					if err != nil && !bytes.HasPrefix(plain, got) {
						t.Fatalf("a stream gave %d bytes that nobody wrote", len(got))
					}
					return got, err
				},
			},
		} {
			sealed := how.seal()
			if got, err := how.open(sealed, here); err != nil || !bytes.Equal(got, plain) {
				t.Fatalf("%s: %d bytes came back of %d, %v", what, len(got), len(plain), err)
			}
			if _, err := how.open(sealed, elsewhere); elsewhere != here && !errors.Is(err, ErrBad) {
				t.Fatalf("%s: opened in %+v: %v", what, elsewhere, err)
			}
			from := min(at, uint(len(sealed)))
			to := min(from+min(out, 1<<20), uint(len(sealed)))
			changed := append(append(bytes.Clone(sealed[:from]), in...), sealed[to:]...)
			if _, err := how.open(changed, here); !bytes.Equal(changed, sealed) && !refused(changed, err) {
				t.Fatalf("%s: opened with %d to %d replaced by %x: %v", what, from, to, in, err)
			}
			if _, err := how.open(plain, here); !refused(plain, err) {
				t.Fatalf("%s: opened what was never sealed: %v", what, err)
			}
		}
	})
}

// refused tells whether sealed was refused as bad, or as of the next format, which no
// single flipped bit makes of this one.
func refused(sealed []byte, err error) bool {
	return errors.Is(err, ErrBad) || err != nil && len(sealed) > 0 && sealed[0] == recordFormat+1
}
