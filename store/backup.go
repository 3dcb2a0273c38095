package store

import (
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"
)

// indexLeap is how far ahead of a backup the index of a restored database is. It
// must be beyond whatever the old one had when it was lost, since agents do nothing
// that a manager behind what they have seen tells them.
const indexLeap = 1 << 32

// Backup writes the whole database, in the clear: whoever calls it seals it.
func (v View) Backup(out io.Writer) error {
	_, err := v.write(out)
	return err
}

// Restored is a database that was read from a backup and isn't in use yet.
type Restored struct{ s *state }

// ReadBackup reads what View.Backup wrote, whole or not at all.
func ReadBackup(in io.Reader) (*Restored, error) {
	s, err := readSnapshot(in, newInterner())
	if err != nil {
		return nil, fmt.Errorf("read backup: %w", err)
	}
	s.applied += indexLeap
	return &Restored{s}, nil
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
		return fmt.Errorf("edit backup: %w", err)
	}
	scratch.applied++
	for _, c := range tx.changes {
		if c.after == nil {
			continue
		}
		f, err := c.record.finish(kinds[c.record.Kind-1], c.after, scratch.applied)
		if err != nil {
			return fmt.Errorf("edit backup: %w", err)
		}
		scratch.keep(c.record.Kind, c.after, f)
	}
	r.s = scratch
	return nil
}

// Install writes the database as the only thing on an empty disk, with server as
// raft's only voter: the manager that opens the disk next goes on from there.
func (r *Restored) Install(disk *Disk, server raft.Server) error {
	group := raft.Configuration{Servers: []raft.Server{server}}
	// Raft asks a transport how to write addresses for versions that don't exist any more.
	_, transport := raft.NewInmemTransport(server.Address)
	sink, err := disk.Snapshots.Create(raft.SnapshotVersionMax, r.s.applied, 1, group, r.s.applied, transport)
	if err != nil {
		return fmt.Errorf("install backup: %w", err)
	}
	if err := (snapshot{r.View()}).Persist(sink); err != nil {
		return fmt.Errorf("install backup: %w", err)
	}
	return nil
}
