package api

import (
	"fmt"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

func TestPruneNodes(t *testing.T) {
	b := newBench(t)
	down := func(number int, change func(*cluster.Node)) {
		b.update(func(tx *store.Tx) error {
			node := &cluster.Node{ID: nodeID(number), Role: swarm.NodeRoleWorker, Spec: swarm.NodeSpec{Role: swarm.NodeRoleWorker, Availability: swarm.NodeAvailabilityActive}}
			node.Description.Hostname = fmt.Sprint("n", number)
			node.Status = cluster.NodeStatus{State: cluster.NodeDown, Message: "gone", Since: tx.Now().Add(-25 * time.Hour)}
			if change != nil {
				change(node)
			}
			return tx.Put(node)
		})
	}
	down(10, nil)
	down(11, func(n *cluster.Node) { n.Status.Since = n.Status.Since.Add(2 * time.Hour) })
	down(12, func(n *cluster.Node) { n.Status.State = cluster.NodeReady })
	down(13, func(n *cluster.Node) { n.Role = swarm.NodeRoleManager })
	down(14, func(n *cluster.Node) { n.Spec.Role = swarm.NodeRoleManager })
	down(15, nil)
	b.update(func(tx *store.Tx) error {
		for i, state := range []cluster.State{cluster.StateRunning, cluster.StateFailed} {
			task := &cluster.Task{ID: fmt.Sprint("task", i), ServiceID: "s", Slot: 1, NodeID: nodeID(15 - 5*i), Desired: cluster.StateShutdown}
			task.Status.State = state
			if err := tx.Put(task); err != nil {
				return err
			}
		}
		return nil
	})
	prune := func(query string, wantGone, wantKept string) {
		t.Helper()
		var got cluster.PrunedNodes
		b.do("POST", "/skep/v1/nodes/prune"+query, nil).want(t, 200, "").into(t, &got)
		names := func(nodes []cluster.PrunedNode) (all string) {
			for _, n := range nodes {
				all += n.Hostname + " "
			}
			return all
		}
		if names(got.Nodes) != wantGone || names(got.Kept) != wantKept {
			t.Errorf("%s: %+v", query, got)
		}
		for _, n := range got.Kept {
			if n.Kept == "" || n.DownSince.IsZero() || n.Message != "gone" {
				t.Errorf("%+v", n)
			}
		}
	}
	for _, bad := range []string{"?until=yesterday", "?until=-1h", "?dry-run=perhaps", "?force=1"} {
		b.do("POST", "/skep/v1/nodes/prune"+bad, nil).want(t, 400, "")
	}
	before := len(nodeIDs(b))
	prune("?dry-run=1", "n10 ", "n13 n14 n15 ")
	prune("?dry-run=1&until=1h", "n10 n11 ", "n13 n14 n15 ")
	if now := len(nodeIDs(b)); now != before {
		t.Errorf("a dry run made %d nodes of %d", now, before)
	}
	prune("", "n10 ", "n13 n14 n15 ")
	prune("?until=0s", "n11 ", "n13 n14 n15 ")
	prune("?until=0s", "", "n13 n14 n15 ")
	for _, number := range []int{12, 13, 14, 15} {
		if b.manager.Store().View().Node(nodeID(number)) == nil {
			t.Errorf("node %d is gone", number)
		}
	}
}

// One order removes as many as fit into one write, and says how many are left.
func TestPruneNodes_Many(t *testing.T) {
	b := newBench(t)
	for some := range 11 {
		b.update(func(tx *store.Tx) error {
			for i := range 500 {
				node := &cluster.Node{ID: fmt.Sprintf("x%02d%03d", some, i), Role: swarm.NodeRoleWorker, Spec: swarm.NodeSpec{Role: swarm.NodeRoleWorker}}
				node.Status.State = cluster.NodeDown
				if err := tx.Put(node); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for _, want := range [][2]int{{maxPruned, 500}, {500, 0}, {0, 0}} {
		var got cluster.PrunedNodes
		b.do("POST", "/skep/v1/nodes/prune", nil).want(t, 200, "").into(t, &got)
		if len(got.Nodes) != want[0] || got.Left != want[1] {
			t.Errorf("%d removed, %d left; want %v", len(got.Nodes), got.Left, want)
		}
	}
}

func nodeIDs(b *bench) (ids []string) {
	for node := range b.manager.Store().View().Nodes() {
		ids = append(ids, node.ID)
	}
	return ids
}
