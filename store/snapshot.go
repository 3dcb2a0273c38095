package store

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"

	"skep/cluster"
)

// A snapshot is a header (magic, format, applied index, number of objects), the
// objects (kind, length, CBOR) table by table in the order of their keys, and the
// SHA-256 of all that, which is the view's digest. Nothing in it depends on who
// writes it or when.
var snapshotMagic = [8]byte{'s', 'k', 'e', 'p', 's', 'n', 'a', 'p'}

// snapshotHeader is written as it is, big endian.
type snapshotHeader struct {
	Magic   [8]byte
	Format  uint16
	Applied uint64
	Count   uint64
}

// maxObject is how long one object in a snapshot may say it is. Nothing larger
// fits into an entry.
const maxObject = 16 << 20

// Digest is a hash over the whole view: equal on managers at the same index, or
// they have drifted apart.
func (v View) Digest() [32]byte {
	digest, err := v.write(io.Discard)
	if err != nil {
		panic(fmt.Sprintf("digest the database: %v", err)) // All of it was decoded from the same encoding.
	}
	return digest
}

// write writes the view as a snapshot and returns its digest.
func (v View) write(out io.Writer) (digest [32]byte, err error) {
	sum := sha256.New()
	buffered := bufio.NewWriterSize(io.MultiWriter(out, sum), 64<<10)
	header := snapshotHeader{Magic: snapshotMagic, Format: format, Applied: v.s.applied, Count: v.s.count()}
	if err := binary.Write(buffered, binary.BigEndian, header); err != nil {
		return digest, fmt.Errorf("write snapshot: %w", err)
	}
	var head []byte
	for n, object := range v.s.objects() {
		data, err := v.s.encode(n, object)
		if err != nil {
			return digest, fmt.Errorf("write snapshot: %w", err)
		}
		head = binary.AppendUvarint(append(head[:0], byte(n)), uint64(len(data)))
		_, err = buffered.Write(head)
		if err == nil {
			_, err = buffered.Write(data)
		}
		if err != nil {
			return digest, fmt.Errorf("write snapshot: %w", err)
		}
	}
	if err := buffered.Flush(); err != nil {
		return digest, fmt.Errorf("write snapshot: %w", err)
	}
	digest = [32]byte(sum.Sum(nil))
	if _, err := out.Write(digest[:]); err != nil {
		return digest, fmt.Errorf("write snapshot: %w", err)
	}
	return digest, nil
}

// zstdMagic begins what is compressed.
var zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}

// snapshotWindow is how much of a snapshot is in memory to compress it, or to read it.
const snapshotWindow = 1 << 20

// compress writes the view as a snapshot as it is on disk and goes to other managers. It is
// done by the calling goroutine alone.
func (v View) compress(out io.Writer) error {
	compressed, err := zstd.NewWriter(out, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(snapshotWindow))
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	if _, err := v.write(compressed); err != nil {
		return err
	}
	if err := compressed.Close(); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// readCompressed makes a state of what compress wrote, or of the plain snapshot.
func readCompressed(source io.Reader, intern *interner) (*state, error) {
	buffered := bufio.NewReaderSize(source, 64<<10)
	if begin, err := buffered.Peek(len(zstdMagic)); err != nil || !bytes.Equal(begin, zstdMagic) {
		return readSnapshot(buffered, intern)
	}
	plain, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(snapshotWindow))
	if err != nil {
		return nil, fmt.Errorf("read compressed snapshot: %w", err)
	}
	defer plain.Close()
	return readSnapshot(plain, intern)
}

// readSnapshot makes a state of what write wrote, or fails when there is more,
// less or something else.
func readSnapshot(source io.Reader, intern *interner) (*state, error) {
	in := &summing{in: bufio.NewReaderSize(source, 64<<10), sum: sha256.New()}
	var header snapshotHeader
	err := binary.Read(in, binary.BigEndian, &header)
	if err != nil {
		return nil, fmt.Errorf("read header: %w", whole(err))
	}
	if header.Magic != snapshotMagic {
		return nil, errors.New("read header: it isn't a snapshot of skep")
	}
	if err := checkFormat(uint64(header.Format)); err != nil {
		return nil, err
	}
	s := newState()
	s.applied = header.Applied
	var room []byte // for one object after the other
	for i := range header.Count {
		if room, err = readObject(in, s, intern, room); err != nil {
			return nil, fmt.Errorf("read object %d of %d: %w", i+1, header.Count, whole(err))
		}
	}
	var want [sha256.Size]byte
	got := in.sum.Sum(nil)
	if _, err := io.ReadFull(in, want[:]); err != nil {
		return nil, fmt.Errorf("read checksum: %w", whole(err))
	}
	if !bytes.Equal(got, want[:]) {
		return nil, errors.New("its checksum is wrong")
	}
	if n, err := in.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows after its end")
	}
	return s, nil
}

// readObject reads an object into room, which it returns, perhaps a larger one.
func readObject(in *summing, s *state, intern *interner, room []byte) ([]byte, error) {
	number, err := in.ReadByte()
	if err != nil {
		return room, err
	}
	size, err := binary.ReadUvarint(in)
	if err != nil {
		return room, err
	}
	if size > maxObject {
		return room, fmt.Errorf("its length of %d bytes is over the limit of %d", size, maxObject)
	}
	if uint64(cap(room)) < size {
		room = make([]byte, size)
	}
	data := room[:size]
	if _, err := io.ReadFull(in, data); err != nil {
		return room, err
	}
	return room, s.add(kindNumber(number), data, intern)
}

// add puts an object that was written by encode into a state that is being read. data may
// be used for something else afterwards.
func (s *state) add(n kindNumber, data []byte, intern *interner) error {
	_, object, same, err := record{Kind: n, Object: data}.object(intern)
	if err != nil {
		return err
	}
	if s.table(n).find(object) != nil {
		return errors.New("it is there twice")
	}
	s.renumber(n, nil, object)
	s.table(n).put(nil, object)
	if same {
		return nil
	}
	known, err := cluster.Encode(object)
	if err == nil && !bytes.Equal(known, data) {
		s.keep(n, object, bytes.Clone(data))
	}
	return err
}

// whole makes a premature end look like one.
func whole(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// summing adds all that is read through it to sum.
type summing struct {
	in  *bufio.Reader
	sum hash.Hash
}

func (r *summing) Read(p []byte) (int, error) {
	n, err := r.in.Read(p)
	r.sum.Write(p[:n])
	return n, err
}

func (r *summing) ReadByte() (byte, error) {
	b, err := r.in.ReadByte()
	if err == nil {
		r.sum.Write([]byte{b})
	}
	return b, err
}
