package manager

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"filippo.io/age"
	"github.com/hashicorp/raft"

	"skep/cluster"
	"skep/store"
	"skep/store/seal"
)

// Backup writes this manager's database to out, encrypted for recipient.
func (m *Manager) Backup(out io.Writer, recipient age.Recipient) error {
	if err := (Copy{m.store.View()}).Write(out, recipient); err != nil {
		return err
	}
	m.noteBackup()
	return nil
}

// Copy is a database as it was at a moment.
type Copy struct{ view store.View }

// Index is that of the database.
func (c Copy) Index() uint64 { return c.view.Index() }

// Size is how many bytes Write writes, but for what the encryption adds: less than a thousandth, and a head.
func (c Copy) Size() (uint64, error) {
	var size counting
	err := c.view.Backup(&size)
	return uint64(size), err
}

// counting is how many bytes were written to it.
type counting uint64

func (c *counting) Write(p []byte) (int, error) {
	*c += counting(len(p))
	return len(p), nil
}

// Write writes the database to out, encrypted for recipient.
func (c Copy) Write(out io.Writer, recipient age.Recipient) error {
	sealed, err := age.Encrypt(out, recipient)
	if err == nil {
		err = c.view.Backup(sealed)
	}
	if err == nil {
		err = sealed.Close()
	}
	if err != nil {
		return fmt.Errorf("back up the database: %w", err)
	}
	return nil
}

// noteBackup writes when the last backup was made, for those who are about to do
// something that may need it. A backup is good without the note.
func (m *Manager) noteBackup() {
	ctx, cancel := context.WithTimeout(context.Background(), leadTimeout)
	defer cancel()
	err := m.store.Update(ctx, func(tx *store.Tx) error {
		next := *tx.Cluster()
		next.BackupAt = tx.Now()
		return tx.Put(&next)
	})
	if err != nil {
		m.log.Warn("note that the database was backed up", "err", err)
	}
}

// Backup is a cluster's database as it was when it was backed up.
type Backup struct{ database *store.Restored }

// ReadBackup opens a backup.
func ReadBackup(in io.Reader, identity age.Identity) (*Backup, error) {
	plain, err := age.Decrypt(in, identity)
	if err != nil {
		return nil, cluster.Errorf(cluster.ErrInvalid, "the backup doesn't open: its key is wrong, or the file is damaged: %v", err)
	}
	database, err := store.ReadBackup(plain)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", cluster.ErrInvalid, err)
	}
	if database.View().Cluster() == nil {
		return nil, cluster.Errorf(cluster.ErrInvalid, "the backup has no cluster in it")
	}
	return &Backup{database}, nil
}

// Cluster is the record of the cluster that the backup is of.
func (b *Backup) Cluster() *cluster.Cluster { return b.database.View().Cluster() }

// Node is a node's record in the backup; nil when it has none.
func (b *Backup) Node(id string) *cluster.Node { return b.database.View().Node(id) }

// Index is that of the database in the backup.
func (b *Backup) Index() uint64 { return b.database.View().Index() }

// Adopt has the cluster go on with a lock and gossip keys that came after the backup: these are what
// managers' key files are under, and what nodes understand.
func (b *Backup) Adopt(now time.Time, lock cluster.UnlockKey, gossipKeys [][]byte) error {
	return b.database.Edit(now, func(tx *store.Tx) error {
		next := *tx.Cluster()
		next.UnlockKey, next.Spec.EncryptionConfig.AutoLockManagers = lock, !lock.None()
		if len(gossipKeys) > 0 {
			next.GossipKeys, next.NextGossipKey, next.GossipKeysAt = gossipKeys, false, tx.Now()
		}
		return tx.Put(&next)
	})
}

// Install writes the database to the empty disk in dir, as the beginning of a lineage with
// first as the only manager.
func (b *Backup) Install(dir string, ring *seal.Ring, lineage string, first *cluster.Node, now time.Time) (err error) {
	if err := beginLineage(b.database, lineage, first, now); err != nil {
		return err
	}
	disk, err := store.OpenDisk(store.DiskConfig{Dir: dir, Ring: ring, ClusterID: b.Cluster().ID})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	return b.database.Install(disk, raft.Server{ID: raft.ServerID(first.ID), Address: raft.ServerAddress(first.ManagerAddr)}, 1)
}
