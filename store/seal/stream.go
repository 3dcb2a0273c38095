package seal

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/chacha20poly1305"
)

// A stream is a head (format, key ID, sixteen random bytes) followed by chunks.
// Each chunk but the last has chunkSize bytes of content; each is sealed under
// the head's random bytes and the chunk's number as nonce, and says in its
// associated data whether it is the last one. So chunks cannot be exchanged,
// repeated or left out, and the end cannot be cut off.
const (
	chunkSize      = 64 << 10
	sealedChunk    = chunkSize + chacha20poly1305.Overhead
	streamHeadSize = headSize - 8
)

// plainSize is how much content a sealed stream of that size has.
func plainSize(sealed int64) int64 {
	body := sealed - streamHeadSize
	if body < chacha20poly1305.Overhead {
		return 0
	}
	chunks := (body + sealedChunk - 1) / sealedChunk
	return body - chunks*chacha20poly1305.Overhead
}

// chunks seals or opens the chunks of one stream, one after the other.
type chunks struct {
	aead   cipher.AEAD
	nonce  [chacha20poly1305.NonceSizeX]byte
	place  []byte
	number uint64
}

// next gives the nonce and the associated data of the next chunk.
func (c *chunks) next(last bool) (nonce, data []byte) {
	binary.BigEndian.PutUint64(c.nonce[len(c.nonce)-8:], c.number)
	c.number++
	if last {
		return c.nonce[:], append(c.place, 1)
	}
	return c.nonce[:], append(c.place, 0)
}

// streamWriter seals what is written to it, and writes it to out, as one stream.
type streamWriter struct {
	out     io.Writer
	head    []byte // until it is written
	chunks  chunks
	pending []byte
	sealed  []byte
	err     error
}

func newStreamWriter(out io.Writer, ring *Ring, place Location) *streamWriter {
	w := &streamWriter{out: out, head: make([]byte, streamHeadSize), pending: make([]byte, 0, chunkSize)}
	w.head[0] = recordFormat
	id, aead := ring.sealing()
	copy(w.head[1:], id[:])
	rand.Read(w.head[1+keyIDSize:]) // It never fails: crypto/rand ends the process instead.
	w.chunks = chunks{aead: aead, place: streamPlace(id, place)}
	copy(w.chunks.nonce[:], w.head[1+keyIDSize:])
	return w
}

// Write takes content in. A full chunk is held back until more follows, since the
// last one is sealed differently.
func (w *streamWriter) Write(p []byte) (int, error) {
	taken := 0
	for len(p) > 0 {
		if len(w.pending) == chunkSize {
			if err := w.flush(false); err != nil {
				return taken, err
			}
		}
		n := min(len(p), chunkSize-len(w.pending))
		w.pending = append(w.pending, p[:n]...)
		p = p[n:]
		taken += n
	}
	return taken, nil
}

// Close writes the last chunk; it doesn't close the writer underneath.
func (w *streamWriter) Close() error {
	if err := w.flush(true); err != nil {
		return err
	}
	w.err = errors.New("write sealed stream: it is closed")
	return nil
}

func (w *streamWriter) flush(last bool) error {
	if w.err != nil {
		return w.err
	}
	w.sealed = append(w.sealed[:0], w.head...)
	nonce, data := w.chunks.next(last)
	w.sealed = w.chunks.aead.Seal(w.sealed, nonce, w.pending, data)
	w.head, w.pending = nil, w.pending[:0]
	if _, err := w.out.Write(w.sealed); err != nil {
		w.err = fmt.Errorf("write sealed stream: %w", err)
	}
	return w.err
}

// streamReader opens a stream that was written for the same place. It hands out only
// what is known to be good, and fails with ErrBad where anything isn't as it was
// written, the missing end included.
type streamReader struct {
	in     io.Reader
	ring   *Ring
	place  Location
	chunks chunks
	sealed []byte // the chunk read ahead, to know whether another follows
	plain  []byte // what is opened and not yet handed out
	opened bool
	ended  bool
	err    error
}

func newStreamReader(in io.Reader, ring *Ring, place Location) *streamReader {
	return &streamReader{in: in, ring: ring, place: place}
}

// Read hands out content that is known to be good. It returns io.EOF only after
// the chunk that was sealed as the last one.
func (r *streamReader) Read(p []byte) (int, error) {
	for len(r.plain) == 0 && r.err == nil {
		if r.ended {
			r.err = io.EOF
		} else if err := r.open(); err != nil {
			r.err = fmt.Errorf("open %s: %w", r.place, err)
		}
	}
	if len(r.plain) == 0 {
		return 0, r.err
	}
	n := copy(p, r.plain)
	r.plain = r.plain[n:]
	return n, nil
}

// open opens the next chunk. The last one is the one after which nothing comes.
func (r *streamReader) open() error {
	if !r.opened {
		if err := r.begin(); err != nil {
			return err
		}
	}
	sealed, err := readChunk(r.in)
	if err != nil {
		return err
	}
	current := r.sealed
	r.sealed, r.ended = sealed, len(sealed) == 0
	nonce, data := r.chunks.next(r.ended)
	plain, err := r.chunks.aead.Open(nil, nonce, current, data)
	if err != nil {
		return fmt.Errorf("%w: in chunk %d", ErrBad, r.chunks.number-1)
	}
	r.plain = plain
	return nil
}

// begin reads the head and the first chunk.
func (r *streamReader) begin() error {
	head := make([]byte, streamHeadSize)
	if _, err := io.ReadFull(r.in, head); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("%w: it ends within its head", ErrBad)
		}
		return err
	}
	aead, id, err := r.ring.find(head)
	if err != nil {
		return err
	}
	r.chunks = chunks{aead: aead, place: streamPlace(id, r.place)}
	copy(r.chunks.nonce[:], head[1+keyIDSize:])
	r.sealed, err = readChunk(r.in)
	r.opened = true
	return err
}

// readChunk reads up to one chunk; none is left when it returns no bytes.
func readChunk(in io.Reader) ([]byte, error) {
	chunk := make([]byte, sealedChunk)
	n, err := io.ReadFull(in, chunk)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return chunk[:n], err
}

// streamPlace keeps streams apart from single records of the same place, and
// leaves room for the mark of the last chunk.
func streamPlace(id [keyIDSize]byte, place Location) []byte {
	place.Kind = "stream of " + place.Kind
	data := place.data(id)
	return data[:len(data):len(data)]
}
