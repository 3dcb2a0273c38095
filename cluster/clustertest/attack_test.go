package clustertest

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skep/cluster"
	"skep/cluster/ca"
	"skep/cluster/manager"

	"github.com/docker/docker/api/types/swarm"
)

// What strangers on the network, and nodes that were removed, can do to a cluster.

// crowd holds connections to a manager's control port: each makes a request that is
// refused and stays, and is opened again when it was closed.
func crowd(ctx context.Context, to *Machine, ip string, size int, shows func() *tls.Certificate) {
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{cluster.ProtocolHTTP}}
	if shows != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return shows(), nil }
	}
	for range size {
		go func() {
			for ctx.Err() == nil {
				if conn, err := manager.Dial(ctx, machineNetwork{to.cluster.wire, ip}, to.IP+":2377", config); err == nil {
					stay(ctx, conn)
				}
				select {
				case <-time.After(10 * time.Second):
				case <-ctx.Done():
				}
			}
		}()
	}
}

// stay asks what is refused every five seconds until the other side hangs up.
func stay(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	for {
		if _, err := io.WriteString(conn, "GET /v1/health HTTP/1.1\r\nHost: m\r\n\r\n"); err != nil {
			return
		}
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.Copy(io.Discard, conn); err == nil || !strings.Contains(err.Error(), "timeout") {
			return
		}
	}
}

func TestAttack_ConnectionsWithoutACertificate(t *testing.T) {
	for _, from := range []int{1, 8} {
		t.Run(fmt.Sprint("from ", from, " addresses"), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := Start(t, 3, 2, Options{})
				leader := c.Leader()
				term := c.term()
				root, err := ca.ParseRoot(leader.node.Manager().Store().View().Cluster().RootCert, leader.node.Manager().Store().View().Cluster().RootKey)
				if err != nil {
					t.Fatal(err)
				}
				removed := issued(t, root, cluster.Identity{NodeID: "removedremovedremovedremo", Role: swarm.NodeRoleWorker, ClusterID: leader.node.Manager().Store().View().Cluster().ID}, time.Now())
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				for _, m := range c.Machines[:3] {
					for i := range from {
						crowd(ctx, m, fmt.Sprint("127.0.66.", i+1), 300/from, nil)
						crowd(ctx, m, fmt.Sprint("127.0.77.", i+1), 100/from, removed)
					}
				}
				time.Sleep(20 * time.Second)
				worker := c.Machines[3]
				worker.Crash()
				time.Sleep(3 * time.Second)
				worker.Restart()
				c.Eventually(5*time.Second, "a worker that was restarted is ready", func() error {
					node := leader.node.Manager().Store().View().Node(nodeID(worker))
					if node == nil || node.Status.State != cluster.NodeReady {
						return fmt.Errorf("it is %+v", node)
					}
					return nil
				})
				id := c.Machines[0].Create(Spec("web", "app:1", 6))
				c.Runs(10*time.Second, id, "app:1", 6)
				joins := time.Now()
				c.add(6).Join(leader, false)
				if took := time.Since(joins); took > 5*time.Second {
					t.Errorf("a join took %v", took)
				}
				if now := c.term(); now > term+1 {
					t.Errorf("%d elections", now-term)
				}
				if status, err := call(leader, nil, cluster.ProtocolHTTP, http.MethodGet, "/v1/health"); err != nil || status != http.StatusForbidden {
					t.Errorf("a stranger's request: %d, %v", status, err)
				}
				cancel()
				c.Same()
			})
		})
	}
}

// A user of the machine who may not use the socket finds nothing to read or to write in
// what a node has on its disk, even if somebody opened its folder to all.
func TestAttack_ALocalUserReadsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 1, Options{SnapshotEntries: 5})
		id := c.Machines[0].Create(Spec("web", "app:1", 2))
		c.Runs(10*time.Second, id, "app:1", 2)
		for i := range 20 {
			c.Machines[0].Create(Spec(fmt.Sprint("s", i), "app:1", 0))
		}
		time.Sleep(10 * time.Second)
		looked := 0
		for _, m := range c.Machines {
			err := filepath.WalkDir(m.path(""), func(path string, entry fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				info, err := entry.Info()
				if err != nil || path == m.path("") {
					return err
				}
				looked++
				switch private := info.Mode().Perm()&0o077 == 0; {
				case !private:
					t.Errorf("%s has mode %v", path, info.Mode())
				case entry.IsDir():
					return fs.SkipDir // Nobody gets to what is in it.
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
		if looked < 8 {
			t.Errorf("there are %d files and folders", looked)
		}
	})
}
