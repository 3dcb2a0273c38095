package clustertest

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// token makes a limited join token.
func (m *Machine) token(r cluster.TokenRequest) cluster.TokenShown {
	m.cluster.t.Helper()
	var made cluster.TokenShown
	m.Do(http.MethodPost, "/skep/v1/tokens", r, &made)
	return made
}

// joinBy joins by a token, through any of the managers.
func (m *Machine) joinBy(token string, managers ...*Machine) error {
	var addrs []string
	for _, manager := range managers {
		addrs = append(addrs, manager.IP)
	}
	return m.Try(http.MethodPost, "/swarm/join", swarm.JoinRequest{ListenAddr: m.IP, AdvertiseAddr: m.IP, RemoteAddrs: addrs, JoinToken: token}, nil)
}

// withLabel counts the nodes that have a label, as the leader knows them.
func (c *Cluster) withLabel(name, value string) (count int) {
	c.t.Helper()
	var nodes []swarm.Node
	c.Leader().Do(http.MethodGet, "/nodes", nil, &nodes)
	for _, n := range nodes {
		if n.Spec.Labels[name] == value {
			count++
		}
	}
	return count
}

// TestToken_LetsNoMoreInThanItSays has more machines join by a token than it is for, all at once, while leaders are lost.
func TestToken_LetsNoMoreInThanItSays(t *testing.T) {
	for round := range 3 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				const uses = 4
				c := Start(t, 3, 0, Options{})
				managers := c.Machines[:3:3]
				made := managers[round].token(cluster.TokenRequest{Role: "worker", Labels: map[string]string{"zone": "a"}, Uses: uses, For: "1h"})
				var joiners []*Machine
				for i := range 9 {
					joiners = append(joiners, c.add(4+i))
				}
				leader := c.Leader()
				var joining sync.WaitGroup
				var mu sync.Mutex
				joined, refused := 0, 0
				for i, m := range joiners {
					joining.Go(func() {
						time.Sleep(time.Duration(i) * 2 * time.Millisecond)
						err := m.joinBy(made.Token, managers...)
						mu.Lock()
						defer mu.Unlock()
						if err == nil {
							joined++
						} else {
							refused++
						}
					})
				}
				time.Sleep(time.Duration(4+round*3) * time.Millisecond)
				leader.Crash()
				joining.Wait()
				leader.Restart()
				c.vote(3)
				var list []cluster.TokenShown
				c.Leader().Do(http.MethodGet, "/skep/v1/tokens", nil, &list)
				nodes := c.withLabel("zone", "a")
				if len(list) != 1 || list[0].Used != nodes || nodes > uses || nodes < joined {
					t.Errorf("%d have joined, %d were refused, %d nodes have the label, and the token says %+v", joined, refused, nodes, list)
				}
				if nodes < uses {
					t.Errorf("only %d of %d joined", nodes, uses)
				}
				late := c.add(20)
				if err := late.joinBy(made.Token, managers...); err == nil || !strings.Contains(err.Error(), "was for 4 nodes, and all have joined") {
					t.Errorf("one more: %v", err)
				}
				told := 0
				for _, r := range c.Leader().auditAll().Records {
					if r.Ref == made.ID && r.Route == "POST /v1/join" {
						told++
					}
				}
				if told == 0 {
					t.Error("the audit log says nothing of it")
				}
				c.Same()
			})
		})
	}
}

// auditAll is what a machine tells of requests to all managers.
func (m *Machine) auditAll() (log cluster.AuditLog) {
	m.cluster.t.Helper()
	m.Do(http.MethodGet, "/skep/v1/audit", nil, &log)
	return log
}

// TestToken_GivesLabelsAndRoleAndEnds is what a token is for, and what ends it.
func TestToken_GivesLabelsAndRoleAndEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 0, Options{})
		first := c.Machines[0]
		next := func() *Machine { return c.add(len(c.Machines) + 1) }
		refused := func(token, says string) {
			t.Helper()
			if err := next().joinBy(token, first); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%v, want %q", err, says)
			}
		}
		manager := first.token(cluster.TokenRequest{Role: "manager", Labels: map[string]string{"rack": "r1", "skep.reserve.cpus": "1"}, Uses: 2, For: "1h"})
		second := next()
		if err := second.joinBy(manager.Token, first); err != nil {
			t.Fatal(err)
		}
		c.Eventually(time.Minute, "it is a manager with its labels", func() error {
			var n swarm.Node
			if err := first.Try(http.MethodGet, "/nodes/"+nodeID(second), nil, &n); err != nil {
				return err
			}
			if n.Spec.Role != swarm.NodeRoleManager || n.Spec.Labels["rack"] != "r1" || n.Spec.Labels["skep.reserve.cpus"] != "1" || n.ManagerStatus == nil || n.ManagerStatus.Reachability != swarm.ReachabilityReachable {
				return fmt.Errorf("it is %+v, %+v", n.Spec, n.ManagerStatus)
			}
			return nil
		})
		c.vote(2)
		// Swarm's tokens are changed, and it goes on.
		if err := first.updateSwarm("rotateWorkerToken=true&rotateManagerToken=true", func(*swarm.Spec) {}); err != nil {
			t.Fatal(err)
		}
		if err := next().joinBy(manager.Token, first); err != nil {
			t.Errorf("after Swarm's tokens changed: %v", err)
		}
		short := first.token(cluster.TokenRequest{Role: "worker", Uses: 2, For: "10m"})
		if err := next().joinBy(short.Token, first); err != nil {
			t.Error(err)
		}
		time.Sleep(10 * time.Minute)
		refused(short.Token, "was good until ")
		gone := first.token(cluster.TokenRequest{Role: "worker", Uses: 2, For: "10m"})
		first.Do(http.MethodDelete, "/skep/v1/tokens/"+gone.ID, nil, nil)
		refused(gone.Token, "a valid join token is necessary")
		// A node without any has no labels by itself.
		plain := next()
		plain.Join(first, false)
		if n := c.withLabel("rack", "r1"); n != 2 {
			t.Errorf("%d nodes have the token's label", n)
		}

		// With another root nobody would know the cluster by it.
		old := first.token(cluster.TokenRequest{Role: "worker", Uses: 2, For: "10h"})
		if err := first.rotateRoot(); err != nil {
			t.Fatal(err)
		}
		c.Eventually(time.Minute, "the rotation is over", first.rotatedRoot)
		refused(old.Token, "remote CA does not match fingerprint")
		var list []cluster.TokenShown
		first.Do(http.MethodGet, "/skep/v1/tokens", nil, &list)
		if len(list) != 0 {
			t.Errorf("there are %+v", list)
		}
		c.Same()
	})
}
