package manager

import (
	"fmt"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/hashicorp/raft"

	"skep/cluster"
	"skep/store"
)

func TestNextVoterChange(t *testing.T) {
	node := func(id string, wanted, has swarm.NodeRole, addr string) *cluster.Node {
		return &cluster.Node{ID: id, Spec: swarm.NodeSpec{Role: wanted}, Role: has, ManagerAddr: addr}
	}
	voter := func(id, addr string) raft.Server {
		return raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(addr)}
	}
	waiting := func(id, addr string) raft.Server {
		return raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(addr), Suffrage: raft.Nonvoter}
	}
	const m, w = swarm.NodeRoleManager, swarm.NodeRoleWorker
	self := node("a", m, m, "a:1")
	tests := []struct {
		name    string
		nodes   []*cluster.Node
		servers []raft.Server
		want    string
	}{
		{"all is well", []*cluster.Node{self, node("b", w, w, "")}, []raft.Server{voter("a", "a:1")}, ""},
		{"a new manager that doesn't listen yet waits", []*cluster.Node{self, node("b", m, m, "")}, []raft.Server{voter("a", "a:1")}, ""},
		{"a new manager that listens", []*cluster.Node{self, node("b", m, m, "b:1")}, []raft.Server{voter("a", "a:1")}, "add b b:1"},
		{"a manager that moved", []*cluster.Node{self, node("b", m, m, "b:2")}, []raft.Server{voter("a", "a:1"), voter("b", "b:1")}, "add b b:2"},
		{"promote: the role comes first", []*cluster.Node{self, node("b", m, w, "")}, []raft.Server{voter("a", "a:1")}, "promote b"},
		{"a manager that lost its database", []*cluster.Node{self, node("b", m, m, "")}, []raft.Server{voter("a", "a:1"), voter("b", "b:1")}, "suspend b"},
		{"one that waits for its database", []*cluster.Node{self, node("b", m, m, "")}, []raft.Server{voter("a", "a:1"), waiting("b", "b:1")}, ""},
		{"one that has it again", []*cluster.Node{self, node("b", m, m, "b:1")}, []raft.Server{voter("a", "a:1"), waiting("b", "b:1")}, "add b b:1"},
		{"one that is demoted meanwhile", []*cluster.Node{self, node("b", w, m, "")}, []raft.Server{voter("a", "a:1"), waiting("b", "b:1")}, "remove b"},
		{"never the leader, for want of an address", []*cluster.Node{node("a", m, m, "")}, []raft.Server{voter("a", "a:1")}, ""},
		{"demote: the vote goes first", []*cluster.Node{self, node("b", w, m, "b:1")}, []raft.Server{voter("a", "a:1"), voter("b", "b:1")}, "remove b"},
		{"demote: then the role", []*cluster.Node{self, node("b", w, m, "b:1")}, []raft.Server{voter("a", "a:1")}, "demote b"},
		{"the leader itself is demoted", []*cluster.Node{node("a", w, m, "a:1"), node("b", m, m, "b:1")}, []raft.Server{voter("a", "a:1"), voter("b", "b:1")}, "hand over"},
		{"a voter whose node is gone", []*cluster.Node{self}, []raft.Server{voter("a", "a:1"), voter("x", "x:1")}, "remove x"},
		{"never itself, before the store has nodes", nil, []raft.Server{voter("a", "a:1")}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			memory := store.NewMemory(time.Now)
			err := memory.Update(t.Context(), func(tx *store.Tx) error {
				for _, n := range test.nodes {
					copied := *n
					if err := tx.Put(&copied); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if change := nextVoterChange(memory.View(), test.servers, "a"); change != nil {
				switch {
				case change.Suspend != "":
					got = "suspend " + string(change.Suspend)
				case change.Add != nil:
					got = fmt.Sprintf("add %s %s", change.Add.ID, change.Add.Address)
				case change.HandOver:
					got = "hand over"
				case change.Remove != "":
					got = "remove " + string(change.Remove)
				case change.Promote != "":
					got = "promote " + change.Promote
				case change.Demote != "":
					got = "demote " + change.Demote
				}
			}
			if got != test.want {
				t.Errorf("the next change is %q; want %q", got, test.want)
			}
		})
	}
}
