package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"filippo.io/age"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/ca"
	"skep/cluster/manager"
	"skep/store/seal"
)

// Restore makes this node the first manager of the cluster that a backup is of.
// Agents of nodes that are left find it when it has the address of a manager that
// they know.
func (n *Node) Restore(ctx context.Context, request cluster.RestoreRequest) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, orderLimit)
	defer cancel()
	done, err := n.beginOperation(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	if n.locked() != nil {
		return "", errLocked
	}
	if n.current() != nil {
		return "", errMember
	}
	return n.startCluster(ctx, "restore cluster", addressFlags{Listen: request.ListenAddr, Advertise: request.AdvertiseAddr}, func(addrs addresses) (*member, error) {
		backup, err := readBackup(request)
		if err != nil {
			return nil, err
		}
		return n.refound(backup, addrs, request.Availability)
	})
}

func readBackup(request cluster.RestoreRequest) (*manager.Backup, error) {
	file, err := openBackup(request.Path)
	if err != nil {
		return nil, cluster.Errorf(cluster.ErrInvalid, "open backup: %v (the daemon reads the file, so it must be on its machine)", err)
	}
	defer file.Close()
	return manager.ReadBackup(io.LimitReader(file, maxBackup), age.NewInjectedFileKeyIdentity(request.Key))
}

// maxBackup is larger than any backup: a database is in memory.
const maxBackup = 64 << 30

// openBackup opens a file that a client names. All orders wait for the one that reads it,
// so it must be one that is read to its end at once: no pipe, no device, no folder.
func openBackup(path string) (*os.File, error) {
	// A device may do something when it is opened, so what the path leads to is looked at
	// before; what was opened is what counts.
	if err := checkBackup(os.Stat(path)); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if err := checkBackup(file.Stat()); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func checkBackup(info fs.FileInfo, err error) error {
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is no regular file (%s)", info.Name(), info.Mode().Type())
	case info.Size() > maxBackup:
		return fmt.Errorf("%s has %d bytes, more than any backup", info.Name(), info.Size())
	}
	return nil
}

// refound gives this node an identity in the cluster of the backup, as its only
// manager, and lays the database down for it.
func (n *Node) refound(backup *manager.Backup, addrs addresses, availability swarm.NodeAvailability) (*member, error) {
	record, now := backup.Cluster(), n.cfg.Now()
	if err := n.cfg.Build.Fits(record.ClusterLevel); err != nil {
		return nil, err
	}
	root, err := ca.ParseRoot(record.RootCert, record.RootKey)
	if err != nil {
		return nil, fmt.Errorf("read root CA: %w", err)
	}
	keyPEM, csr, err := ca.NewRequest(n.cfg.Random)
	if err != nil {
		return nil, err
	}
	id := cluster.Identity{NodeID: cluster.NewID(n.cfg.Random), Role: swarm.NodeRoleManager, ClusterID: record.ID}
	chain, err := root.Issue(n.cfg.Random, csr, id, now, record.Spec.CAConfig.NodeCertExpiry)
	if err != nil {
		return nil, err
	}
	certificate, err := ca.Certificate(chain)
	if err != nil {
		return nil, err
	}
	first := n.firstManager(id.NodeID, addrs, availability, certificate)
	keys := ca.Keys{CertPEM: chain, KeyPEM: keyPEM, RootPEM: root.CertPEM(), DataKeys: [][32]byte{seal.NewKey(n.cfg.Random)},
		Lock: record.UnlockKey, LockVersion: record.Version}
	known := firstRecord(addrs, first, record.GossipKeys)
	known.Database, known.Lineage, known.Peers.Cluster = true, cluster.NewID(n.cfg.Random), record.ClusterLevel
	return n.install(keys, known, func() error {
		return backup.Install(n.files.raft(), dataRing(keys.DataKeys), known.Lineage, first, now)
	})
}
