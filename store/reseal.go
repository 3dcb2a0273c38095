package store

import (
	"fmt"
	"os"
	"path/filepath"

	"skep/cluster"
	"skep/store/seal"
)

// Reencrypt brings everything under the key that the ring seals with now, after it was
// rotated: the log, and its manifest with terms and votes, are sealed anew where they are;
// snapshot is called to take a snapshot, if the newest one is under an older key; and
// other such snapshots go. When it returns nil, nothing on the disk needs an older key.
// It may be cut off anywhere and repeated: as long as the older keys are there, all opens.
func (d *Disk) Reencrypt(snapshot func() error) error {
	if err := d.log.Reencrypt(); err != nil {
		return err
	}
	d.reached("log")
	if err := d.bolt.Reencrypt(); err != nil {
		return fmt.Errorf("seal the log's manifest anew: %w", err)
	}
	d.reached("stable")
	old, newest, err := d.snapshots.Old()
	if err != nil {
		return err
	}
	if newest {
		if err := snapshot(); err != nil {
			return fmt.Errorf("take a snapshot under the new key: %w", err)
		}
		d.reached("snapshot")
		if old, newest, err = d.snapshots.Old(); err != nil {
			return err
		}
		if newest {
			return fmt.Errorf("the newest snapshot is still under an older key: %w", seal.ErrBad)
		}
	}
	for _, id := range old {
		if err := d.files.remove(id); err != nil {
			return fmt.Errorf("remove snapshot %s, which is under an older key: %w", id, err)
		}
		d.reached("removed")
	}
	return nil
}

// reached is told of each step, for tests.
func (d *Disk) reached(step string) {
	if d.steps != nil {
		d.steps(step)
	}
}

// remove deletes a snapshot. It gets the name of one that was never finished before
// that, so that a crash leaves none with parts missing.
func (s *snapshotFiles) remove(id string) error {
	path := filepath.Join(s.dir, snapshotDir, id)
	if err := os.Rename(path, path+".tmp"); err != nil {
		return err
	}
	if err := cluster.SyncDir(filepath.Dir(path)); err != nil {
		return err
	}
	return os.RemoveAll(path + ".tmp")
}
