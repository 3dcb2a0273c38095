package seal

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

func sealStream(t testing.TB, ring *Ring, place Location, plain []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := newStreamWriter(&out, ring, place)
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func openStream(ring *Ring, place Location, sealed []byte) ([]byte, error) {
	return io.ReadAll(newStreamReader(bytes.NewReader(sealed), ring, place))
}

func TestStream_ComesBackWhole(t *testing.T) {
	ring := NewRing(NewKey(rand.Reader))
	for _, size := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 3 * chunkSize, 3*chunkSize + 5} {
		plain := make([]byte, size)
		rand.Read(plain)
		sealed := sealStream(t, ring, here, plain)
		got, err := openStream(ring, here, sealed)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: %d came back, %v", size, len(got), err)
		}
		if n := plainSize(int64(len(sealed))); n != int64(size) {
			t.Errorf("%d bytes sealed count as %d", size, n)
		}
	}
}

func TestStream_ComesBackWholeHoweverWritten(t *testing.T) {
	ring := NewRing(NewKey(rand.Reader))
	rapid.Check(t, func(t *rapid.T) {
		var out, plain bytes.Buffer
		w := newStreamWriter(&out, ring, here)
		for i, size := range rapid.SliceOfN(rapid.IntRange(0, 2*chunkSize), 0, 8).Draw(t, "writes") {
			piece := bytes.Repeat([]byte{byte(i)}, size)
			plain.Write(piece)
			if n, err := w.Write(piece); n != size || err != nil {
				t.Fatal(n, err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := openStream(ring, here, out.Bytes())
		if err != nil || !bytes.Equal(got, plain.Bytes()) {
			t.Fatalf("%d of %d bytes came back, %v", len(got), plain.Len(), err)
		}
	})
}

func TestStream_DetectsDamage(t *testing.T) {
	ring := NewRing(NewKey(rand.Reader))
	plain := bytes.Repeat([]byte("0123456789abcdef"), 3*chunkSize/16)
	sealed := sealStream(t, ring, here, plain)
	chunk := func(i int) (from, to int) {
		return streamHeadSize + i*sealedChunk, min(streamHeadSize+(i+1)*sealedChunk, len(sealed))
	}
	bad := func(what string, sealed []byte) {
		t.Helper()
		got, err := openStream(ring, here, sealed)
		if !errors.Is(err, ErrBad) {
			t.Errorf("%s: %v", what, err)
		}
		if !bytes.HasPrefix(plain, got) {
			t.Errorf("%s: the reader handed out what was never written", what)
		}
	}
	for i := 0; i < len(sealed); i += 997 {
		flipped := slices.Clone(sealed)
		flipped[i] ^= 1
		bad(fmt.Sprintf("byte %d flipped", i), flipped)
		bad(fmt.Sprintf("cut to %d bytes", i), sealed[:i])
	}
	for i := range 3 {
		_, end := chunk(i)
		if end < len(sealed) {
			bad(fmt.Sprintf("cut after chunk %d", i), sealed[:end])
		}
	}
	a, b := chunk(0)
	c, d := chunk(1)
	bad("chunks exchanged", slices.Concat(sealed[:a], sealed[c:d], sealed[a:b], sealed[d:]))
	bad("chunk left out", slices.Concat(sealed[:a], sealed[c:]))
	bad("chunk repeated", slices.Concat(sealed[:b], sealed[a:]))
	bad("longer", append(slices.Clone(sealed), 0))
	if _, err := openStream(ring, Location{ClusterID: "c1", Kind: "log", Index: 8, Term: 3}, sealed); !errors.Is(err, ErrBad) {
		t.Errorf("opened elsewhere: %v", err)
	}
	small := sealStream(t, ring, here, []byte("small"))
	for i := range small {
		flipped := slices.Clone(small)
		flipped[i] ^= 0x80
		if _, err := openStream(ring, here, flipped); !errors.Is(err, ErrBad) {
			t.Errorf("byte %d of a small one flipped: %v", i, err)
		}
	}
	if _, err := ring.Open(small, here); !errors.Is(err, ErrBad) {
		t.Errorf("a stream opened as a record: %v", err)
	}
}

func TestSnapshots_AreSealedAndBoundToTheirConfiguration(t *testing.T) {
	dir := t.TempDir()
	files, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	ring := NewRing(NewKey(rand.Reader))
	snapshots := NewSnapshots(files, ring, "c1")
	configuration := raft.Configuration{Servers: []raft.Server{{ID: "m1", Address: "127.0.0.1:2377"}}}
	_, transport := raft.NewInmemTransport("")
	sink, err := snapshots.Create(1, 10, 2, configuration, 1, transport)
	if err != nil {
		t.Fatal(err)
	}
	plain := bytes.Repeat([]byte("canary"), 20000)
	if _, err := sink.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	metas, err := snapshots.List()
	if err != nil || len(metas) != 1 || metas[0].Size != int64(len(plain)) {
		t.Fatalf("List = %+v, %v; want one of %d bytes", metas, err, len(plain))
	}
	meta, source, err := snapshots.Open(sink.ID())
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(source)
	source.Close()
	if err != nil || !bytes.Equal(got, plain) || meta.Size != int64(len(plain)) {
		t.Fatalf("%d bytes came back, size %d, %v", len(got), meta.Size, err)
	}
	path := filepath.Join(dir, "snapshots", sink.ID())
	state, err := os.ReadFile(filepath.Join(path, "state.bin"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(state, []byte("canary")) {
		t.Error("the snapshot has its content in the clear")
	}
	about, err := os.ReadFile(filepath.Join(path, "meta.json"))
	if err != nil {
		t.Fatal(err)
	}
	foreign := bytes.Replace(about, []byte("127.0.0.1:2377"), []byte("127.0.0.9:2377"), 1)
	if bytes.Equal(foreign, about) {
		t.Fatal("the address isn't where the test looks for it")
	}
	if err := os.WriteFile(filepath.Join(path, "meta.json"), foreign, 0o600); err != nil {
		t.Fatal(err)
	}
	_, source, err = snapshots.Open(sink.ID())
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	if _, err := io.ReadAll(source); !errors.Is(err, ErrBad) {
		t.Errorf("with another manager's address in it: %v", err)
	}
}
