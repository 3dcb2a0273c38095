package cluster

import (
	"encoding/binary"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
)

// maxElements is how many elements a list or a map may have. A byte can be one that
// takes hundreds in memory, so a full frame of them would take gigabytes. It is more
// than the changes that fit into the largest entry of the log.
const maxElements = 1 << 19

// maxAgentElements is how many elements a list or a map may have in what an agent says.
// It has no reason to say more at once, and each costs its manager hundreds of bytes.
const maxAgentElements = 1 << 12

// encMode is deterministic, so that equal objects give equal bytes on all managers.
var encMode, decMode, agentDecMode = func() (cbor.EncMode, cbor.DecMode, cbor.DecMode) {
	options := cbor.CoreDetEncOptions()
	options.Time = cbor.TimeRFC3339Nano
	enc, err := options.EncMode()
	if err != nil {
		panic(err)
	}
	decode := func(elements int) cbor.DecMode {
		dec, err := cbor.DecOptions{
			MaxArrayElements: elements, MaxMapPairs: elements, MaxNestedLevels: 64,
			DupMapKey: cbor.DupMapKeyEnforcedAPF,
			// Another version's field "name" is no "Name".
			FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		}.DecMode()
		if err != nil {
			panic(err)
		}
		return dec
	}
	return enc, decode(maxElements), decode(maxAgentElements)
}()

// Encode gives v's one CBOR encoding: equal values give equal bytes. What Decode
// couldn't read again is refused with ErrInvalid: were it in the log, all managers
// would stop at it, and again at each start.
func Encode(v any) ([]byte, error) {
	if t, ok := v.(*Task); ok && t != nil {
		return encodeTask(t)
	}
	data, err := encMode.Marshal(v)
	if err == nil {
		err = checkReadable(data)
	}
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return data, nil
}

// checkReadable looks through what Marshal wrote for what Unmarshal refuses: texts
// that aren't UTF-8, and lists and maps that are too long. An item is a head, of three
// bits of kind and a number, and what belongs to it follows.
func checkReadable(data []byte) error {
	for len(data) > 0 {
		kind, number := data[0]>>5, uint64(data[0]&31)
		data = data[1:]
		if number > 23 {
			size := 1 << (number - 24)
			var whole [8]byte
			copy(whole[8-size:], data)
			number, data = binary.BigEndian.Uint64(whole[:]), data[size:]
		}
		switch kind {
		case 2:
			data = data[number:]
		case 3:
			if !utf8.Valid(data[:number]) {
				return fmt.Errorf("%w: a text in it isn't UTF-8", ErrInvalid)
			}
			data = data[number:]
		case 4, 5:
			if number > maxElements {
				return fmt.Errorf("%w: a list or map in it has %d elements, more than %d", ErrInvalid, number, maxElements)
			}
		}
	}
	return nil
}

// Decode reads what Encode wrote into v, a pointer. Fields it doesn't know are
// ignored; whoever must not ignore anything checks a format number first.
func Decode(data []byte, v any) error {
	if err := decMode.Unmarshal(data, v); err != nil {
		return fmt.Errorf("decode %T: %w", v, err)
	}
	return nil
}

// NewDecoder reads what Encode wrote, one after the other (a CBOR sequence, RFC 8742).
func NewDecoder(r io.Reader) *cbor.Decoder { return decMode.NewDecoder(r) }

// WriteFrame writes one message as a frame, in one Write.
func WriteFrame(w io.Writer, v any) error {
	data, err := Encode(v)
	if err != nil {
		return err
	}
	if len(data) > MaxFrame {
		return fmt.Errorf("write frame: %d bytes are over the limit of %d", len(data), MaxFrame)
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(data)), uint32(len(data)))
	if _, err := w.Write(append(frame, data...)); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return nil
}

// ReadFrame reads one frame into v, a pointer to a zero value.
func ReadFrame(r io.Reader, v any) error {
	data, err := readFrame(r, MaxFrame)
	if err != nil {
		return err
	}
	return Decode(data, v)
}

// ReadAgentFrame reads one frame of an agent, which is anybody's machine: it takes
// memory in proportion to the bytes that came, and not much more of it.
func ReadAgentFrame(r io.Reader, m *FromAgent) error {
	data, err := readFrame(r, MaxAgentFrame)
	if err != nil {
		return err
	}
	if err := agentDecMode.Unmarshal(data, m); err != nil {
		return fmt.Errorf("decode %T: %w", m, err)
	}
	return nil
}

// readFrame reads the content of a frame. The buffer grows with what comes, to eight
// times as much: the size that is announced costs nobody anything.
func readFrame(r io.Reader, limit uint32) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("read frame: %w", err)
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > limit {
		return nil, fmt.Errorf("read frame: %d bytes are over the limit of %d: %w", size, limit, ErrInvalid)
	}
	var data []byte
	for have := uint32(0); have < size; have = uint32(len(data)) {
		data = append(make([]byte, 0, min(size, max(firstRead, 8*have))), data...)
		data = data[:cap(data)]
		if _, err := io.ReadFull(r, data[have:]); err != nil {
			return nil, fmt.Errorf("read frame: %w", err)
		}
	}
	return data, nil
}

// firstRead is how many bytes of a frame are waited for at first.
const firstRead = 4 << 10

// ReadBody decodes the message that a request's body is. The caller has bounded the body.
func ReadBody(body io.Reader, v any) error {
	data, err := io.ReadAll(body)
	if err != nil {
		return fmt.Errorf("read request: %w: %w", ErrInvalid, err)
	}
	if err := Decode(data, v); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}
