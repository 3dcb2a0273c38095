package cluster

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/fxamacker/cbor/v2"
)

// maxElements is how many elements a list or a map may have. A byte can be one that
// takes hundreds in memory, so a full frame of them would take gigabytes. It is more
// than the changes that fit into the largest entry of the log.
const maxElements = 1 << 19

// encMode is deterministic, so that equal objects give equal bytes on all managers.
var encMode, decMode = func() (cbor.EncMode, cbor.DecMode) {
	options := cbor.CoreDetEncOptions()
	options.Time = cbor.TimeRFC3339Nano
	enc, err := options.EncMode()
	if err != nil {
		panic(err)
	}
	dec, err := cbor.DecOptions{
		MaxArrayElements: maxElements, MaxMapPairs: maxElements, MaxNestedLevels: 64,
		DupMapKey: cbor.DupMapKeyEnforcedAPF,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return enc, dec
}()

// Encode gives v's one CBOR encoding: equal values give equal bytes.
func Encode(v any) ([]byte, error) {
	data, err := encMode.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return data, nil
}

// Decode reads what Encode wrote into v, a pointer. Fields it doesn't know are
// ignored; whoever must not ignore anything checks a format number first.
func Decode(data []byte, v any) error {
	if err := decMode.Unmarshal(data, v); err != nil {
		return fmt.Errorf("decode %T: %w", v, err)
	}
	return nil
}

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
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return fmt.Errorf("read frame: %w", err)
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > MaxFrame {
		return fmt.Errorf("read frame: %d bytes are over the limit of %d: %w", size, MaxFrame, ErrInvalid)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil {
		return fmt.Errorf("read frame: %w", err)
	}
	return Decode(data, v)
}
