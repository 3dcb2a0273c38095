package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/ca"
	"skep/cluster/manager"
	"skep/store/seal"
)

// BackOrder is an order to go back to before the cluster's level rose.
type BackOrder struct {
	// Unlock opens the key file, if it is locked.
	Unlock cluster.UnlockKey
	// AsWorker drops this manager's database instead, so that the node comes back as a worker of the manager that
	// went back.
	AsWorker bool
	// Force is for when it isn't known that the level rose, or something answers where another manager was.
	Force bool
}

// WentBack is what became of it.
type WentBack struct {
	// Level is the cluster's now, and At when the copy was made. Both are zero for a worker.
	Level int
	At    time.Time
}

// askedOther is how long another manager may take to take a connection.
const askedOther = 2 * time.Second

// GoBack makes the copy of the database that this manager kept from before the cluster's level rose that of a
// cluster with this manager alone, by a version of skep that doesn't know the level. No daemon may run here,
// nor any other manager. Done twice, or after a crash on the way, it does the same.
func GoBack(ctx context.Context, cfg Config, order BackOrder) (WentBack, error) {
	n, err := offline(cfg)
	if err != nil {
		return WentBack{}, err
	}
	release, err := n.files.claim()
	if err != nil {
		return WentBack{}, err
	}
	defer func() { _ = release() }()
	done, err := n.goBack(ctx, order)
	if err != nil {
		return WentBack{}, fmt.Errorf("go back to before the level rose: %w", err)
	}
	return done, nil
}

// offline is a node whose files are changed while its daemon is off.
func offline(cfg Config) (*Node, error) {
	cfg.setDefaults()
	n := &Node{cfg: cfg, log: cfg.Log, files: files{cfg.DataDir}}
	there, err := exists(n.files.keys())
	if err == nil && !there {
		err = cluster.Errorf(cluster.ErrNotFound, "there is no %s, so there is no node of a cluster", n.files.keys())
	}
	return n, err
}

func (n *Node) goBack(ctx context.Context, order BackOrder) (WentBack, error) {
	var none WentBack
	keys, err := ca.KeyFile{Path: n.files.keys()}.Unlock(order.Unlock)
	if err != nil {
		return none, err
	}
	id, err := keys.Identity()
	if err != nil {
		return none, err
	}
	ring := dataRing(keys.DataKeys)
	file := n.sealedFile(n.files.known(), ring, id.ClusterID, recordKind)
	known, err := readRecord(file)
	switch {
	case err != nil:
		return none, err
	case id.Role != swarm.NodeRoleManager:
		return none, cluster.Errorf(cluster.ErrPrecondition, "node %s is a worker: there is nothing to do, it follows its managers", id.NodeID)
	case !order.Force && n.cfg.Build.Fits(known.Peers.Cluster) == nil:
		return none, cluster.Errorf(cluster.ErrPrecondition, "the cluster is at level %d, as far as this node knows, and %s can be part of it: start the daemon. "+
			"If that ends because of the level, use --force", known.Peers.Cluster.At(), n.cfg.Build.Name())
	}
	if order.AsWorker {
		err := errors.Join(os.RemoveAll(n.files.raft()), cluster.SyncDir(n.files.dir))
		if err == nil {
			known.Database, known.Kept, known.Lineage, known.Peers.Cluster = false, kept{}, "", cluster.ClusterLevel{}
			err = known.write(file)
		}
		return none, errors.Join(err, n.files.removeKept(""))
	}
	if known.Kept.Level == 0 {
		return none, cluster.Errorf(cluster.ErrPrecondition, "this manager kept no copy of the database: it is a manager since later, or the level never rose; do it on another one, or restore a backup (\"skep cluster restore\")")
	}
	for _, other := range known.Peers.Managers {
		if other.NodeID != id.NodeID && !order.Force && n.answers(ctx, other.Addr) {
			return none, cluster.Errorf(cluster.ErrPrecondition, "something answers at %s, where manager %s was: stop the daemons of all managers first, or there would be two clusters. If it is no manager, use --force", other.Addr, other.NodeID)
		}
	}
	backup, err := n.openKept(known.Kept)
	if err != nil {
		return none, err
	}
	if err := n.layDown(backup, id, keys, known, ring, file); err != nil {
		return none, err
	}
	return WentBack{Level: backup.Cluster().At(), At: known.Kept.At}, nil
}

// answers tells whether something takes connections at an address.
func (n *Node) answers(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, askedOther)
	defer cancel()
	conn, err := n.cfg.Network.Dial(ctx, addr)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

func (n *Node) openKept(k kept) (*manager.Backup, error) {
	identity, err := age.ParseX25519Identity(k.Key)
	if err != nil {
		return nil, fmt.Errorf("read the key of the copy: %w", err)
	}
	file, err := os.Open(filepath.Join(n.files.dir, k.File))
	if err != nil {
		return nil, fmt.Errorf("open the copy from before level %d: %w", k.Level, err)
	}
	defer file.Close()
	return manager.ReadBackup(file, identity)
}

// layDown puts the copy in the place of the database, then has the record say so: until then the daemon doesn't
// start.
func (n *Node) layDown(backup *manager.Backup, id cluster.Identity, keys ca.Keys, known record, ring *seal.Ring, file sealedFile) error {
	c, self, now := backup.Cluster(), backup.Node(id.NodeID), n.cfg.Now()
	switch {
	case c.ID != id.ClusterID || self == nil:
		return cluster.Errorf(cluster.ErrPrecondition, "the copy is of cluster %s, and this is node %s of cluster %s", c.ID, id.NodeID, id.ClusterID)
	case !bytes.Contains(keys.RootPEM, bytes.TrimSpace(c.Issuer())):
		return cluster.Errorf(cluster.ErrPrecondition, "the cluster's root CA was changed after the copy was made (\"swarm ca --rotate\"), so no node would trust a cluster made of it: "+
			"restore a backup on a new node with \"skep cluster restore\", and join the others anew")
	}
	if err := n.cfg.Build.Fits(c.ClusterLevel); err != nil {
		return err
	}
	certificate, err := ca.Certificate(keys.CertPEM)
	if err != nil {
		return err
	}
	if err := backup.Adopt(now, keys.Lock, known.Peers.GossipKeys); err != nil {
		return err
	}
	first := *self
	first.Role, first.Spec.Role, first.ManagerAddr, first.Certificate, first.Build = swarm.NodeRoleManager, swarm.NodeRoleManager, known.Addresses.Control, certificate, n.cfg.Build
	lineage, fresh := cluster.NewID(n.cfg.Random), n.files.raft()+newEnding
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	if err := backup.Install(fresh, ring, lineage, &first, now); err != nil {
		return err
	}
	err = errors.Join(cluster.SyncDir(n.files.dir), os.RemoveAll(n.files.raft()))
	if err == nil {
		err = os.Rename(fresh, n.files.raft())
	}
	if err == nil {
		err = cluster.SyncDir(n.files.dir)
	}
	if err != nil {
		return fmt.Errorf("replace the database: %w", err)
	}
	known.Database, known.Lineage, known.Alone, known.Fresh = true, lineage, false, nil
	known.Peers.Cluster, known.Peers.Managers = c.ClusterLevel, []cluster.Peer{{NodeID: id.NodeID, Addr: known.Addresses.Control}}
	return known.write(file)
}
