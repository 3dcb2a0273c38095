package clustertest

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster/manager"
)

// setRole gives another machine's node a role. The node may change meanwhile; then it
// is read anew.
func (m *Machine) setRole(of *Machine, role swarm.NodeRole) {
	m.cluster.t.Helper()
	m.cluster.Eventually(5*time.Second, fmt.Sprint(of.Name, " is to be a ", role), func() error {
		var n swarm.Node
		if err := m.Try(http.MethodGet, "/nodes/"+of.Name, nil, &n); err != nil {
			return err
		}
		n.Spec.Role = role
		return m.Try(http.MethodPost, fmt.Sprintf("/nodes/%s/update?version=%d", n.ID, n.Version.Index), n.Spec, nil)
	})
}

// A manager's agent has its session with its own manager, however it became one.
func TestManagers_AreAtHome(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{})
		home := func(managers ...*Machine) {
			t.Helper()
			c.Eventually(5*time.Second, "the managers' agents are at home", func() error {
				sessions := c.Leader().node.Manager().(*manager.Manager).Sessions()
				for _, m := range managers {
					if id := nodeID(m); sessions[id] != id {
						return fmt.Errorf("%s has its session with %s", id, sessions[id])
					}
				}
				return nil
			})
		}
		home(c.Machines[:3]...)
		c.Leader().Crash()
		home(c.Alive()[:2]...)
		c.Leader().setRole(c.Machines[4], swarm.NodeRoleManager)
		home(append(c.Alive()[:2:2], c.Machines[4])...)
	})
}

// A manager that is demoted and promoted again before it hears of either is a voter in
// the end.
func TestManagers_DemotedAndPromotedUnheard(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 1, Options{SnapshotEntries: 15})
		var names []string
		for range 30 {
			note(c.Leader(), &names)
		}
		leader := c.Leader()
		deaf := c.Machines[(indexOf(c, leader)+1)%3]
		c.Partition(deaf)
		leader.setRole(deaf, swarm.NodeRoleWorker)
		time.Sleep(5 * time.Second)
		for range 30 {
			note(leader, &names)
		}
		leader.setRole(deaf, swarm.NodeRoleManager)
		time.Sleep(5 * time.Second)
		c.Heal()
		c.vote(3)
		c.has(names)
		leader.setRole(deaf, swarm.NodeRoleWorker)
		leader.setRole(deaf, swarm.NodeRoleManager)
		note(leader, &names)
		c.vote(3)
		c.has(names)
	})
}
