package store

import (
	"fmt"

	"skep/cluster"
)

// format is the newest format of entries and snapshots that this version knows,
// and the one it writes.
const format = 1

// entry is one entry of the log: the changes of all the Updates that one commit
// joined. In the log it is the format number, one byte, then this as CBOR; so a
// newer format is recognised whatever its entries look like.
type entry struct {
	// Base is the index of the entry before this one. An entry that was proposed on
	// another state than it meets is refused, by every manager alike.
	Base    uint64   `cbor:"1,keyasint,omitempty"`
	Changes []record `cbor:"2,keyasint"`
}

// record is one object put (Object is its CBOR, with its key inside) or deleted
// (ID is its key).
type record struct {
	Kind   kindNumber `cbor:"1,keyasint"`
	ID     string     `cbor:"2,keyasint,omitempty"`
	Object []byte     `cbor:"3,keyasint,omitempty"`
	// By is who asked for it, for the log (Change.By); empty for managers and agents.
	By string `cbor:"4,keyasint,omitempty"`
}

// size is about how many bytes the record takes in an entry.
func (r record) size() int { return len(r.ID) + len(r.Object) + len(r.By) + 8 }

func encodeEntry(e entry) ([]byte, error) {
	data, err := cluster.Encode(e)
	if err != nil {
		return nil, fmt.Errorf("encode entry: %w", err)
	}
	return append([]byte{format}, data...), nil
}

func decodeEntry(data []byte) (entry, error) {
	var e entry
	if len(data) == 0 {
		return e, fmt.Errorf("decode entry: it is empty")
	}
	if err := checkFormat(uint64(data[0])); err != nil {
		return e, fmt.Errorf("decode entry: %w", err)
	}
	if err := cluster.Decode(data[1:], &e); err != nil {
		return e, fmt.Errorf("decode entry: %w", err)
	}
	return e, nil
}

// checkFormat refuses what a newer version wrote: guessing at it would let this
// manager drift apart from the others.
func checkFormat(f uint64) error {
	if f == 0 || f > format {
		return fmt.Errorf("format %d is not one that this version of skep knows (up to %d): install the version that the other managers run", f, format)
	}
	return nil
}

// object decodes what the record puts, or makes the pivot of what it deletes. It tells whether what is put is known to
// be just as this version writes it.
func (r record) object(in *interner) (k kind, object any, same bool, err error) {
	if k, err = r.Kind.find(); err != nil {
		return nil, nil, false, err
	}
	object, err = k.blankOf(r.ID)
	if err != nil || r.Object == nil {
		return k, object, false, err
	}
	if task, ok := object.(*cluster.Task); ok && cluster.DecodeTask(r.Object, task, in.text) {
		return k, object, true, nil
	}
	if err := cluster.Decode(r.Object, object); err != nil {
		return nil, nil, false, err
	}
	k.intern(in, object)
	// CBOR can say times that don't fit into the text that snapshots have them as.
	for _, at := range k.timesOf(object) {
		if year := at.Year(); year < 0 || year > 9999 {
			return nil, nil, false, fmt.Errorf("it has a time in the year %d", year)
		}
	}
	return k, object, false, nil
}
