package clustertest

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"skep/cluster"
	"skep/cluster/ca"
	"skep/cluster/manager"

	"github.com/docker/docker/api/types/swarm"
)

// Strangers, a worker and a manager of another cluster say to the managers what makes no sense,
// in each protocol, over and over: their logs hardly grow.
func TestAttack_PeersDontFillTheLog(t *testing.T) {
	bubble(t, func(t *testing.T) {
		log := newLines()
		c := Start(t, 3, 1, Options{Log: slog.New(log)})
		leader := c.Leader()
		record := leader.node.Manager().Store().View().Cluster()
		root, err := ca.ParseRoot(record.RootCert, record.RootKey)
		if err != nil {
			t.Fatal(err)
		}
		callers := map[string]func() *tls.Certificate{"stranger": nil}
		for name, id := range map[string]cluster.Identity{
			"worker":  {NodeID: nodeID(c.Machines[3]), Role: swarm.NodeRoleWorker, ClusterID: record.ID},
			"removed": {NodeID: "removedremovedremovedremo", Role: swarm.NodeRoleManager, ClusterID: record.ID},
			"foreign": {NodeID: "foreignforeignforeignfore", Role: swarm.NodeRoleManager, ClusterID: "another"},
		} {
			callers[name] = issued(t, root, id, time.Now())
		}
		time.Sleep(5 * time.Second)
		log.take()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		tries := 0
		for ctx.Err() == nil {
			for _, protocol := range []string{cluster.ProtocolRaft, cluster.ProtocolSession, cluster.ProtocolRenew, cluster.ProtocolHTTP, "h2"} {
				for _, shows := range callers {
					config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}}
					if shows != nil {
						config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return shows(), nil }
					}
					tries++
					conn, err := manager.Dial(ctx, machineNetwork{c.wire, "127.0.66.1"}, leader.IP+":2377", config)
					if err != nil {
						continue
					}
					conn.SetDeadline(time.Now().Add(time.Second))
					fmt.Fprint(conn, "POST /v1/manager HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}\x1b[2J")
					io.Copy(io.Discard, conn)
					conn.Close()
				}
			}
			time.Sleep(100 * time.Millisecond)
		}
		said, size := log.take(), 0
		for _, line := range said {
			size += len(line)
		}
		t.Logf("%d lines, %d bytes, for %d connections", len(said), size, tries)
		if size > 8<<10 {
			t.Errorf("the logs have %d lines, %d bytes, for %d connections, such as\n%s", len(said), size, tries, strings.Join(said[:min(len(said), 20)], "\n"))
		}
		c.Same()
	})
}
