package gossip

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"

	"skep/cluster/gossip/guard"
)

// What a node can do to others by gossip: it has the key, as all have.

// Whatever number of a node's word somebody says there was, the node has one more, which
// the others believe.
func TestAttack_IncarnationsHaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := newLoopless()
		g := startLone(t, transport, slog.New(slog.DiscardHandler))
		self := []byte{127, 0, 0, 1}
		for _, number := range []int{1, 1<<31 - 2, 1<<31 - 1, 1 << 31, 1<<31 + 1, 1<<32 - 2, 1<<32 - 1} {
			for _, text := range [][]byte{
				msgpack(guard.SuspectMsg, "Incarnation", number, "Node", "node1", "From", "node2"),
				msgpack(guard.DeadMsg, "Incarnation", number, "Node", "node1", "From", "node2"),
				msgpack(guard.AliveMsg, "Incarnation", number, "Node", "node1", "Addr", self, "Port", 7946, "Vsn", vsn),
				compoundOf(msgpack(guard.SuspectMsg, "Node", "node1", "Incarnation", number, "From", "node2")),
			} {
				transport.sendPacket(packetOf(t, 1, text))
			}
			for state := range 3 {
				entry := msgpack(0, "Name", "node1", "Addr", self, "Port", 7946, "Incarnation", number, "State", state, "Vsn", vsn)[1:]
				transport.sendStream(labelled(t, messageOf(t, 1, slices.Concat(msgpack(6, "Nodes", 1, "UserStateLen", 0), entry))))
			}
			own, here := g.states.Load().incarnation("node1")
			if !here || own == 0 || own > guard.MaxIncarnation || own <= uint32(min(number, guard.MaxIncarnation-1)) && number < guard.MaxIncarnation {
				t.Errorf("after %d it is at %d", number, own)
			}
			// What it says then is taken by others.
			word := msgpack(guard.AliveMsg, "Incarnation", int(own), "Node", "node1", "Addr", self, "Port", 7946, "Vsn", vsn)
			if _, err := guard.CheckPacket(word, "node2"); err != nil {
				t.Errorf("after %d its word is refused: %v", number, err)
			}
		}
	})
}

// Names that are made up are few beside those of the database, which always have room.
func TestAttack_NamesThatAreMadeUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := newLoopless()
		database := map[string]bool{"node1": true, "node2": true, "node3": true}
		g, err := Start(Config{NodeID: "node1", ClusterID: "c1", Keys: [][]byte{key(1)}, Transport: transport,
			Known: func(nodeID string) (bool, int) { return database[nodeID], len(database) }})
		if err != nil {
			t.Fatal(err)
		}
		defer settled(t, g)
		ip := []byte{10, 0, 0, 9}
		for i := range 1000 {
			transport.sendPacket(packetOf(t, 1, aliveOf(fmt.Sprint("made-up-", i), ip)))
		}
		if n := len(g.Members()); n > 2*len(database)+spareNodes {
			t.Errorf("%d members are probed", n)
		}
		for _, name := range []string{"node2", "node3"} {
			transport.sendPacket(packetOf(t, 1, aliveOf(name, ip)))
			if !has(g.Members(), name) {
				t.Errorf("%s has no room", name)
			}
		}
	})
}
