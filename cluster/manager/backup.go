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
	sealed, err := age.Encrypt(out, recipient)
	if err == nil {
		err = m.store.View().Backup(sealed)
	}
	if err == nil {
		err = sealed.Close()
	}
	if err != nil {
		return fmt.Errorf("back up the database: %w", err)
	}
	m.noteBackup()
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

// ReadBackup opens a backup, which key is the file key of.
func ReadBackup(in io.Reader, key []byte) (*Backup, error) {
	plain, err := age.Decrypt(in, age.NewInjectedFileKeyIdentity(key))
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
