package api

import (
	"fmt"
	"sync"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

func (b *bench) showNode(ref string) swarm.Node {
	b.t.Helper()
	var node swarm.Node
	b.do("GET", "/nodes/"+ref, nil).want(b.t, 200, "").into(b.t, &node)
	return node
}

func (b *bench) changeNode(ref string, change func(*swarm.NodeSpec)) answer {
	b.t.Helper()
	node := b.showNode(ref)
	change(&node.Spec)
	return b.do("POST", fmt.Sprintf("/nodes/%s/update?version=%d", node.ID, node.Version.Index), node.Spec)
}

func TestDrainNode_ForAWhile(t *testing.T) {
	b := newBench(t)
	b.update(func(tx *store.Tx) error {
		return tx.Put(&cluster.Node{ID: "w1", Spec: swarm.NodeSpec{Role: swarm.NodeRoleWorker, Availability: swarm.NodeAvailabilityActive}})
	})
	for query, says := range map[string]string{
		"":             `for=\"\": it takes a duration such as 30m`,
		"?for=soon":    `for=\"soon\": it takes a duration such as 30m`,
		"?for=-1s":     "a time above 0 and at most 8784h0m0s",
		"?for=100000h": "a time above 0 and at most 8784h0m0s",
	} {
		b.do("POST", "/skep/v1/nodes/w1/drain"+query, nil).want(t, 400, says)
	}
	b.do("POST", "/skep/v1/nodes/w9/drain?for=1m", nil).want(t, 404, "node w9 not found")
	if node := b.showNode("w1"); node.Spec.Availability != swarm.NodeAvailabilityActive {
		t.Fatalf("refused, and it is %s", node.Spec.Availability)
	}
	var drained cluster.Drained
	b.do("POST", "/skep/v1/nodes/w1/drain?for=30m", nil).want(t, 200, "").into(t, &drained)
	node := b.showNode("w1")
	if until := cluster.DrainsUntil(node.Spec); until.IsZero() || !until.Equal(drained.Until) || drained.NodeID != "w1" {
		t.Errorf("answered %+v, and stored %+v", drained, node.Spec)
	}
	b.changeNode("w1", func(s *swarm.NodeSpec) { s.Availability = swarm.NodeAvailabilityActive }).want(t, 200, "")
	if node := b.showNode("w1"); len(node.Spec.Labels) != 0 {
		t.Errorf("active, with labels %v", node.Spec.Labels)
	}
	b.changeNode("w1", func(s *swarm.NodeSpec) { s.Labels[cluster.LabelDrainUntil.Name] = "2030-01-02T03:04:05Z" }).want(t, 400, "it is for nodes that are drained")
}

func TestListNodes(t *testing.T) {
	b := newBench(t)
	b.update(func(tx *store.Tx) error {
		node := *tx.Node(nodeID(2))
		node.Spec.Labels = map[string]string{"zone": "a"}
		node.Description.Engine.Labels = map[string]string{"disk": "ssd"}
		return tx.Put(&node)
	})
	for filter, want := range map[string]int{
		``: 3, `{"name":["n"]}`: 3, `{"name":["n2"]}`: 1, `{"id":["` + nodeID(3) + `"]}`: 1, `{"label":["disk=ssd"]}`: 1, `{"label":["zone"]}`: 0,
		`{"node.label":["zone"]}`: 1, `{"role":["manager"]}`: 1, `{"role":{"worker":true,"manager":true}}`: 3, `{"membership":["accepted"]}`: 3, `{"membership":["pending"]}`: 0,
	} {
		var nodes []swarm.Node
		b.do("GET", "/nodes?filters="+filter, nil).want(t, 200, "").into(t, &nodes)
		if len(nodes) != want {
			t.Errorf("%s: %d nodes, want %d", filter, len(nodes), want)
		}
	}
	b.do("GET", `/nodes?filters={"role":["queen"]}`, nil).want(t, 400, "Invalid role filter: 'queen'")
	b.do("GET", `/nodes?filters={"mode":["x"]}`, nil).want(t, 400, "invalid filter 'mode'")

	one, two := b.showNode("n1"), b.showNode(nodeID(2))
	if one.ManagerStatus == nil || !one.ManagerStatus.Leader || one.ManagerStatus.Reachability != swarm.ReachabilityReachable || one.ManagerStatus.Addr != "127.0.1.1:2377" {
		t.Errorf("%+v", one.ManagerStatus)
	}
	if two.ManagerStatus != nil || two.Status.State != swarm.NodeStateReady || two.Status.Addr != "127.0.1.2" {
		t.Errorf("%+v", two)
	}
	b.do("GET", "/nodes/node", nil).want(t, 400, "node node is ambiguous (3 matches found)")
	b.do("GET", "/nodes/n", nil).want(t, 400, "ambiguous") // it is the beginning of IDs
	b.do("GET", "/nodes/x", nil).want(t, 404, "node x not found")
	b.update(func(tx *store.Tx) error {
		node := *tx.Node(nodeID(3))
		node.Description.Hostname = "n2"
		return tx.Put(&node)
	})
	b.do("GET", "/nodes/n2", nil).want(t, 400, "node n2 is ambiguous (2 matches found)")
}

func TestUpdateNode_Reserve(t *testing.T) {
	b := newBench(t)
	label := func(key, value string) answer {
		return b.changeNode("n2", func(s *swarm.NodeSpec) { s.Labels = map[string]string{key: value} })
	}
	for _, value := range []string{"", "-1", "1e9", "half", "1.0000000001", "0,5", "NaN"} {
		label("skep.reserve.cpus", value).want(t, 400, "won't do, it takes a number of CPUs such as 0.5")
	}
	for _, value := range []string{"", "-1m", "much", "1q"} {
		label("skep.reserve.memory", value).want(t, 400, "won't do, it takes a size such as 512m")
	}
	label("skep.reserve.disk", "1g").want(t, 400, "label skep.reserve.disk: skep knows no such label of a node; it knows skep.drain.until, skep.reserve.cpus, skep.reserve.memory")
	label("skep.reserve.cpus", "0.25").want(t, 200, "")
	label("skep.reserve.memory", "1.5g").want(t, 200, "")
	n := b.view().Node(nodeID(2))
	if _, memory := n.Capacity(); n.Description.Resources.MemoryBytes > 0 && memory != max(0, n.Description.Resources.MemoryBytes-3<<29) {
		t.Errorf("%d bytes are left of %+v", memory, n.Description.Resources)
	}
}

func TestUpdateNode(t *testing.T) {
	b := newBench(t)
	b.do("POST", "/nodes/n2/update?version=1", swarm.NodeSpec{Role: "worker", Availability: "active"}).want(t, 500, "update out of sequence")
	b.changeNode("n2", func(s *swarm.NodeSpec) { s.Role = "queen" }).want(t, 400, "invalid Role")
	b.changeNode("n2", func(s *swarm.NodeSpec) { s.Availability = "" }).want(t, 400, "invalid Availability")
	b.changeNode("n2", func(s *swarm.NodeSpec) { s.Availability = "drain"; s.Labels = map[string]string{"a": "b"} }).want(t, 200, "")
	if got := b.showNode("n2"); got.Spec.Availability != swarm.NodeAvailabilityDrain || got.Spec.Labels["a"] != "b" {
		t.Fatalf("%+v", got.Spec)
	}
	b.changeNode("n1", func(s *swarm.NodeSpec) { s.Role = "worker" }).want(t, 400, "attempting to demote the last manager of the swarm")
	b.changeNode("n2", func(s *swarm.NodeSpec) { s.Role = "manager" }).want(t, 200, "")
	if got := b.view().Node(nodeID(2)); got.Spec.Role != swarm.NodeRoleManager || got.Role != swarm.NodeRoleWorker {
		t.Fatalf("a promotion is a wish at first: %+v", got)
	}
	// Until the promoted node is a manager, the first one is still the last.
	b.changeNode("n1", func(s *swarm.NodeSpec) { s.Role = "worker" }).want(t, 400, "last manager")
	b.update(func(tx *store.Tx) error {
		node := *tx.Node(nodeID(2))
		node.Role = swarm.NodeRoleManager
		return tx.Put(&node)
	})
	b.manager.set(func(m *fakeManager) {
		m.canLose = fail(cluster.ErrPrecondition, "this would result in a loss of quorum")
	})
	b.changeNode("n1", func(s *swarm.NodeSpec) { s.Role = "worker" }).want(t, 400, "loss of quorum")
	b.manager.set(func(m *fakeManager) { m.canLose = nil })

	// Of two demotions at once only one may succeed.
	var done [2]answer
	var both sync.WaitGroup
	for i, ref := range []string{"n1", "n2"} {
		node := b.showNode(ref)
		node.Spec.Role = swarm.NodeRoleWorker
		both.Go(func() {
			done[i] = b.do("POST", fmt.Sprintf("/nodes/%s/update?version=%d", node.ID, node.Version.Index), node.Spec)
		})
	}
	both.Wait()
	if done[0].status+done[1].status != 600 {
		t.Fatalf("%+v", done)
	}
}

func TestRemoveNode(t *testing.T) {
	b := newBench(t)
	id := b.create(spec("web"))
	b.addTask(1, id, 1, 2)
	b.addTask(2, id, 2, 2, func(task *cluster.Task) { task.Status.State = cluster.StateFailed })
	b.do("DELETE", "/nodes/n1?force=1", nil).want(t, 400, "is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal")
	b.do("DELETE", "/nodes/n2", nil).want(t, 400, "is not down and can't be removed")
	b.do("DELETE", "/nodes/n9", nil).want(t, 404, "node n9 not found")
	b.do("DELETE", "/nodes/n2?force=1", nil).want(t, 200, "")
	view := b.view()
	if view.Node(nodeID(2)) != nil || view.Task(taskID(1)).Status.State != cluster.StateOrphaned || view.Task(taskID(2)).Status.State != cluster.StateFailed {
		t.Fatal("node or its tasks are still there")
	}
	b.update(func(tx *store.Tx) error {
		node := *tx.Node(nodeID(3))
		node.Status.State = cluster.NodeDown
		return tx.Put(&node)
	})
	b.do("DELETE", "/nodes/n3", nil).want(t, 200, "")
}
