package networks

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/docker/docker/api/types/swarm"
	"pgregory.net/rapid"

	"skep/cluster"
	"skep/store"
)

var (
	someNodes    = []string{"n1", "n2", "n3", "n4", "n5"}
	someServices = []string{"sa", "sb", "sc"}
	someNetworks = []string{"w1", "w2", "ingress", "ingress2"}
)

func vniOf(networkID string) uint32 {
	return cluster.FirstVNI + uint32(slices.Index(someNetworks, networkID))
}

// disturb makes a change that is drawn, if it is one that the database takes.
func disturb(t *rapid.T, tx *store.Tx) error {
	coin := func(of int, what string) bool { return rapid.IntRange(1, of).Draw(t, what) == 1 }
	pick := func(list []string, what string) string { return rapid.SampledFrom(list).Draw(t, what) }
	var object any
	gone := false
	switch rapid.IntRange(0, 15).Draw(t, "kind") {
	case 0:
		n := &cluster.Node{ID: pick(someNodes, "node")}
		if now := tx.Node(n.ID); now != nil {
			*n = *now
		}
		if coin(3, "other index") {
			n.Index = uint16(rapid.IntRange(0, 6).Draw(t, "index"))
		}
		n.DataAddr = pick([]string{"", "10.0.0.1", "10.0.0.7", "10.0.0.8", "127.0.1.1", "127.0.1.2", "::ffff:127.0.1.3"}, "data addr")
		n.Status.Addr = pick([]string{"10.0.0.1", "10.0.0.2", "none", "127.0.1.4"}, "addr")
		if coin(3, "other engine") {
			n.Engine = pick([]string{"", "E", "E", "F"}, "engine")
		}
		n.Description.Engine.Plugins = nil
		if rapid.Bool().Draw(t, "capable") {
			n.Description.Engine.Plugins = []swarm.PluginDescription{{Type: "Network", Name: cluster.OverlayDriver}}
		}
		object, gone = n, coin(6, "remove")
	case 1:
		now := tx.Node(pick(someNodes, "node"))
		if now == nil {
			return nil
		}
		n := *now
		n.Status.State = rapid.SampledFrom([]cluster.NodeState{cluster.NodeUnknown, cluster.NodeDown, cluster.NodeReady, cluster.NodeDisconnected}).Draw(t, "state")
		object = &n
	case 2:
		n := &cluster.Network{ID: pick(someNetworks, "network")}
		n.VNI = vniOf(n.ID)
		n.Spec.Name = n.ID
		n.Spec.Ingress = n.ID == "ingress" || n.ID == "ingress2"
		n.Spec.Internal = coin(2, "internal")
		if other := tx.IngressNetwork(); n.Spec.Ingress && other != nil && other.ID != n.ID {
			return nil // The API lets one in.
		}
		object, gone = n, coin(4, "remove")
	case 3, 4:
		s := &cluster.Service{ID: pick(someServices, "service")}
		s.Spec.Name = pick([]string{s.ID, s.ID + "-too"}, "name")
		for _, id := range rapid.SliceOfNDistinct(rapid.SampledFrom(someNetworks[:2]), 0, 2, rapid.ID).Draw(t, "networks") {
			s.Spec.TaskTemplate.Networks = append(s.Spec.TaskTemplate.Networks, swarm.NetworkAttachmentConfig{Target: id, Aliases: []string{pick([]string{"a", "b"}, "alias")}})
			if coin(2, "vip") {
				s.VirtualIPs = append(s.VirtualIPs, cluster.Address{VNI: vniOf(id), Host: cluster.Host(rapid.IntRange(1, 6).Draw(t, "vip host"))})
			}
		}
		if coin(2, "publish") {
			s.Ports = []swarm.PortConfig{{Protocol: "tcp", TargetPort: 80, PublishedPort: uint32(rapid.IntRange(8080, 8083).Draw(t, "port")), PublishMode: swarm.PortConfigPublishModeIngress}}
		}
		object, gone = s, coin(4, "remove")
	case 6, 7:
		id := pick(someNetworks, "network")
		a := &cluster.Attachment{ID: fmt.Sprintf("v%d", rapid.IntRange(1, 4).Draw(t, "attachment")), NodeID: pick(someNodes, "node"), NetworkID: id, Name: "box", Aliases: []string{pick([]string{"a", "b"}, "alias")}}
		a.Address = cluster.Address{VNI: vniOf(id), Host: cluster.Host(rapid.IntRange(1, 12).Draw(t, "host"))}
		if now := tx.Attachment(a.ID); now != nil {
			*a = *now
			if coin(2, "end") {
				a.Ended = 1
			}
		}
		object, gone = a, coin(5, "remove")
	case 5:
		if coin(3, "settings") {
			c := &cluster.Cluster{ID: "c"}
			c.Networks.DataPort = uint16(rapid.IntRange(4789, 4790).Draw(t, "data port"))
			object = c
			break
		}
		fallthrough
	default:
		task := &cluster.Task{ID: fmt.Sprintf("t%d", rapid.IntRange(1, 8).Draw(t, "task")), ServiceID: pick(someServices, "service"), Revision: 1, NodeID: pick(someNodes, "node")}
		if now := tx.Task(task.ID); now != nil {
			*task = *now
		}
		task.Desired = rapid.SampledFrom([]cluster.State{cluster.StateReady, cluster.StateRunning, cluster.StateRunning, cluster.StateShutdown}).Draw(t, "desired")
		task.Status.State = rapid.SampledFrom([]cluster.State{
			cluster.StatePending, cluster.StateAssigned, cluster.StatePreparing, cluster.StateRunning, cluster.StateRunning, cluster.StateFailed,
		}).Draw(t, "state")
		task.Status.Message = pick([]string{"", "", cluster.MessageUnhealthy}, "message")
		task.Addresses = nil
		for _, id := range rapid.SliceOfNDistinct(rapid.SampledFrom(someNetworks), 0, 3, rapid.ID).Draw(t, "places") {
			task.Addresses = append(task.Addresses, cluster.Address{VNI: vniOf(id), Host: cluster.Host(rapid.IntRange(1, 12).Draw(t, "host"))})
		}
		object, gone = task, coin(5, "remove")
	}
	if gone {
		tx.Delete(object)
		return nil
	}
	if err := tx.Put(object); err != nil && !errors.Is(err, cluster.ErrPrecondition) && !errors.Is(err, cluster.ErrNameTaken) {
		return err
	}
	return nil
}

// settle makes nodes, two of which share an engine, and networks.
func settle(tx *store.Tx) error {
	for i, id := range someNodes {
		n := &cluster.Node{ID: id, Index: uint16(i + 1), DataAddr: fmt.Sprintf("10.0.0.%d", i+1)}
		n.Status.State = cluster.NodeReady
		if i < 2 {
			n.DataAddr, n.Engine = fmt.Sprintf("127.0.1.%d", i+1), "E"
		}
		if err := tx.Put(n); err != nil {
			return err
		}
	}
	for _, id := range someNetworks[:3] {
		n := &cluster.Network{ID: id, VNI: vniOf(id)}
		n.Spec.Name, n.Spec.Ingress = id, id == "ingress"
		if err := tx.Put(n); err != nil {
			return err
		}
	}
	return nil
}

// ownVNIs are the networks that the tasks of a node have addresses in.
func ownVNIs(view store.View, nodeID string) map[uint32]bool {
	vnis := map[uint32]bool{}
	for task := range view.TasksOfNode(nodeID) {
		for _, a := range task.Addresses {
			if task.Assigned() {
				vnis[a.VNI] = true
			}
		}
	}
	return vnis
}

// ofUse tells whether anybody is in the ingress network, or publishes by it.
func ofUse(view store.View, ingress *cluster.Network) bool {
	for s := range view.Services() {
		published := func(p swarm.PortConfig) bool { return p.PublishMode == swarm.PortConfigPublishModeIngress }
		if cluster.AddressIn(s.VirtualIPs, ingress.VNI) != 0 || slices.ContainsFunc(s.Ports, published) {
			return true
		}
	}
	for t := range view.Tasks() {
		if cluster.AddressIn(t.Addresses, ingress.VNI) != 0 {
			return true
		}
	}
	for a := range view.Attachments() {
		if a.Address.VNI == ingress.VNI {
			return true
		}
	}
	return false
}

// expected are the networks that a node is to hear of.
func expected(view store.View, nodeID string) []string {
	want := map[string]bool{nodesAccount: true}
	if n := view.IngressNetwork(); n != nil && ofUse(view, n) {
		want[n.ID] = true
	}
	nodes := []string{nodeID}
	if self := view.Node(nodeID); self != nil && carrierOf(group(view, self)) == self {
		for n := range view.Nodes() {
			if n.Engine != "" && n.Engine == self.Engine && n.PacketAddr().IsLoopback() && self.PacketAddr().IsLoopback() {
				nodes = append(nodes, n.ID)
			}
		}
	}
	for _, id := range nodes {
		for vni := range ownVNIs(view, id) {
			if n := view.NetworkOfVNI(vni); n != nil {
				want[n.ID] = true
			}
		}
		for a := range view.Attachments() {
			if n := view.NetworkOfVNI(a.Address.VNI); n != nil && a.NodeID == id && a.Ended.IsZero() {
				want[n.ID] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(want))
}

// concerns tells whether a session is woken by a change of its own tasks.
func concerns(changes []store.Change, nodeID string) bool {
	return slices.ContainsFunc(changes, func(c store.Change) bool {
		before, after := store.Sides[cluster.Task](c)
		return before != nil && before.NodeID == nodeID || after != nil && after.NodeID == nodeID
	})
}

// TestReader_PropertyAgentsKnowWhatTheViewSays draws changes, and agents that come, go and
// listen now and then. Who listens knows exactly what the view says afterwards, and who wasn't
// woken knew it before.
func TestReader_PropertyAgentsKnowWhatTheViewSays(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newStore(t)
		update(t, s, settle)
		hub := NewHub()
		hub.most = rapid.SampledFrom([]int{2, 6, maxEntries}).Draw(rt, "entries of a journal")
		sub := s.Subscribe()
		defer sub.Close()
		type session struct {
			*Reader
			*agent
			awake bool
			view  store.View // It never goes back.
			ahead bool
		}
		sessions := map[string]*session{}
		published := s.View()
		hub.Record(nil, published, true)
		tell := func(nodeID string) {
			c := sessions[nodeID]
			touch := rapid.Bool().Draw(rt, "touch")
			news, err := c.Next(c.view, !c.ahead, touch, maps.Keys(ownVNIs(c.view, nodeID)))
			if err = errors.Join(err, c.take(news.Updates), c.take(news.Dropped)); err == nil && c.going != nil {
				err = errors.New("an account goes on and on")
			}
			if err != nil {
				rt.Fatalf("node %s: %v", nodeID, err)
			}
			for id, told := range c.told {
				if told != c.accounts[id].To || touch && told < c.view.Index() {
					rt.Fatalf("node %s: told of %q up to %d, it knows %d, in view %d", nodeID, id, told, c.accounts[id].To, c.view.Index())
				}
			}
			// Which network is the ingress network is known as of what was recorded last.
			if c.awake = news.Behind; c.view.Index() == published.Index() {
				if diff := c.differs(c.view, expected(c.view, nodeID)); diff != "" {
					rt.Fatalf("node %s, told up to %d: %s", nodeID, c.view.Index(), diff)
				}
			}
		}
		mark := func(c *session) {
			if published.Index() > c.view.Index() {
				c.view, c.ahead = published, false
			}
			c.awake = true
		}
		record := func(lost bool) {
			changes, view, _ := sub.Take()
			if len(changes) == 0 {
				return
			}
			woken := hub.Record(changes, view, lost)
			published = view
			for id, c := range sessions {
				if _, woke := woken[c.Reader]; woke || concerns(changes, id) {
					mark(c)
				}
			}
		}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			nodeID := rapid.SampledFrom(someNodes).Draw(rt, "session")
			c := sessions[nodeID]
			switch rapid.IntRange(0, 9).Draw(rt, "what") {
			case 0: // A session begins, maybe with a view that is ahead.
				if c != nil {
					c.Close()
				}
				view := s.View()
				sessions[nodeID] = &session{hub.NewReader(nodeID), newAgent(), true, view, view.Index() > published.Index()}
				if rapid.Bool().Draw(rt, "at once") {
					tell(nodeID)
				}
			case 1:
				if c != nil {
					c.Close()
					delete(sessions, nodeID)
				}
			case 2, 3:
				if c != nil {
					tell(nodeID)
				}
			case 4, 5:
				record(rapid.IntRange(0, 9).Draw(rt, "lost") == 0)
			default:
				update(t, s, func(tx *store.Tx) error {
					for range rapid.IntRange(1, 3).Draw(rt, "changes") {
						if err := disturb(rt, tx); err != nil {
							return err
						}
					}
					return nil
				})
			}
		}
		record(false)
		for nodeID, c := range sessions {
			for i := 0; c.awake; i++ {
				if i > 3 {
					rt.Fatalf("node %s is always behind", nodeID)
				}
				mark(c)
				tell(nodeID)
			}
			if diff := c.differs(published, expected(published, nodeID)); diff != "" {
				rt.Fatalf("node %s: %s", nodeID, diff)
			}
			mark(c)
			tell(nodeID)
			news, err := c.Next(c.view, true, true, maps.Keys(ownVNIs(c.view, nodeID)))
			if again, _ := c.Next(c.view, true, true, maps.Keys(ownVNIs(c.view, nodeID))); err != nil || len(again.Updates)+len(again.Dropped) != 0 || news.Behind {
				rt.Fatalf("node %s is told of nothing new: %v", nodeID, err)
			}
			c.Close()
		}
		if len(hub.journals)+len(hub.readers) != 0 {
			rt.Fatalf("%d journals and %d readers are left", len(hub.journals), len(hub.readers))
		}
	})
}
