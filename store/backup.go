package store

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/hashicorp/raft"

	"skep/cluster"
)

// indexLeap is how far the index of a database of a new lineage is ahead of the one that it is made of. It
// must be beyond whatever the old one had when it was lost, since agents do nothing
// that a manager behind what they have seen tells them.
const indexLeap = 1 << 32

// A backup is a CBOR sequence (RFC 8742), for which there are tools, unlike a snapshot: a
// head, and for each object the word of its kind and the object.

// backupFormat is the newest format of backups that this version knows, and the one that
// it writes.
const backupFormat = 1

// errNoBackup is the error of a file that something else is in.
var errNoBackup = errors.New("it isn't a backup of skep")

// backupHead begins a backup.
type backupHead struct {
	Format  int    `cbor:"skep backup"`
	Index   uint64 `cbor:"index"`
	Objects uint64 `cbor:"objects"`
}

// Backup writes the whole database, in the clear: whoever calls it seals it.
func (v View) Backup(out io.Writer) error {
	buffered := bufio.NewWriterSize(out, 64<<10)
	write := func(data []byte, err error) error {
		if err == nil {
			_, err = buffered.Write(data)
		}
		return err
	}
	err := write(cluster.Encode(backupHead{Format: backupFormat, Index: v.s.applied, Objects: v.s.count()}))
	for n, object := range v.s.objects() {
		if err == nil {
			err = write(cluster.Encode(kinds[n-1].String()))
		}
		if err == nil {
			err = write(v.s.encode(n, object))
		}
	}
	if err == nil {
		err = buffered.Flush()
	}
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	return nil
}

// Restored is a database that begins a new lineage and isn't in use yet: it was read from a
// backup, or is a copy.
type Restored struct{ s *state }

// ReadBackup reads what View.Backup wrote, whole or not at all.
func ReadBackup(in io.Reader) (*Restored, error) {
	s, err := readBackup(cluster.NewDecoder(bufio.NewReaderSize(in, 64<<10)))
	if err != nil {
		return nil, fmt.Errorf("read backup: %w", err)
	}
	s.applied += indexLeap
	return &Restored{s}, nil
}

func readBackup(in *cbor.Decoder) (*state, error) {
	var first cbor.RawMessage
	var noCBOR *cbor.SyntaxError
	if err := in.Decode(&first); errors.As(err, &noCBOR) {
		return nil, errNoBackup
	} else if err != nil {
		return nil, fmt.Errorf("read head: %w", whole(err))
	}
	var head backupHead
	if err := cluster.Decode(first, &head); err != nil || head.Format == 0 {
		return nil, errNoBackup
	}
	if head.Format != backupFormat {
		return nil, fmt.Errorf("its format is %d, this version knows %d: use the version that made it", head.Format, backupFormat)
	}
	s, intern := newState(), newInterner()
	s.applied = head.Index
	for i := range head.Objects {
		var word string
		var object cbor.RawMessage
		err := in.Decode(&word)
		if err == nil {
			err = in.Decode(&object)
		}
		if err == nil {
			n := 1 + slices.IndexFunc(kinds[:], func(k kind) bool { return k.String() == word })
			err = s.add(kindNumber(n), object, intern)
		}
		if err != nil {
			return nil, fmt.Errorf("read object %d of %d, a %.20q: %w", i+1, head.Objects, word, whole(err))
		}
	}
	if err := in.Decode(new(cbor.RawMessage)); !errors.Is(err, io.EOF) {
		return nil, errors.Join(errors.New("something follows after its end"), err)
	}
	return s, nil
}

// Copy is a copy of the database that begins a new lineage.
func (v View) Copy() *Restored {
	s := v.s.copy()
	s.applied += indexLeap
	return &Restored{s}
}

// View is the database as it is now.
func (r *Restored) View() View { return View{r.s} }

// Edit changes the database before it is used. When fn fails, nothing is changed.
func (r *Restored) Edit(now time.Time, fn func(*Tx) error) error {
	scratch := r.s.copy()
	tx := &Tx{View: View{scratch}, now: now.UTC().Round(0)}
	err := fn(tx)
	if err == nil {
		err = tx.refused
	}
	if err != nil {
		return fmt.Errorf("edit database: %w", err)
	}
	scratch.applied++
	for _, c := range tx.changes {
		if c.after == nil {
			continue
		}
		f, err := c.record.finish(kinds[c.record.Kind-1], c.after, false, scratch.applied)
		if err != nil {
			return fmt.Errorf("edit database: %w", err)
		}
		scratch.keep(c.record.Kind, c.after, f)
	}
	r.s = scratch
	return nil
}

// Install writes the database as a snapshot at a term of raft's, with server as its only
// voter: the manager that opens the disk next goes on from there. The disk must have no
// entries that raft would play on top of it.
func (r *Restored) Install(disk *Disk, server raft.Server, term uint64) error {
	group := raft.Configuration{Servers: []raft.Server{server}}
	// Raft asks a transport how to write addresses for versions that don't exist any more.
	_, transport := raft.NewInmemTransport(server.Address)
	sink, err := disk.Snapshots.Create(raft.SnapshotVersionMax, r.s.applied, term, group, r.s.applied, transport)
	if err != nil {
		return fmt.Errorf("install database: %w", err)
	}
	if err := (snapshot{r.View()}).Persist(sink); err != nil {
		return fmt.Errorf("install database: %w", err)
	}
	return nil
}
