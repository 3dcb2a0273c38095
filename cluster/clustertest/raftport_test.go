package clustertest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"skep/cluster"
	"skep/cluster/ca"
	"skep/store"
	"skep/store/seal"
)

// attacker speaks raft to a machine, with whatever certificate it has.
type attacker struct {
	*raft.NetworkTransport
	to *Machine
}

// doors are the connections of an attacker.
type doors struct {
	to    *Machine
	shows func() *tls.Certificate
	done  chan struct{}
}

func (d doors) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) {
	return dial(d.to, d.shows, cluster.ProtocolRaft)
}
func (d doors) Accept() (net.Conn, error) { <-d.done; return nil, net.ErrClosed }
func (d doors) Close() error              { close(d.done); return nil }
func (d doors) Addr() net.Addr            { return address{"127.0.9.9", "1"} }

func attack(t *testing.T, to *Machine, shows func() *tls.Certificate) attacker {
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: doors{to, shows, make(chan struct{})}, MaxPool: 1, Timeout: 3 * time.Second, Logger: hclog.NewNullLogger(),
	})
	t.Cleanup(func() { transport.Close() })
	return attacker{transport, to}
}

// tries are what somebody who isn't the leader may tell a manager's raft, in the name of
// an ID. Each tells whether the manager heeded it.
func (a attacker) tries(name string, term uint64) map[string]func() (bool, error) {
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(name), Addr: []byte("127.0.9.9:2377")}
	entries := func(term uint64) func() (bool, error) {
		return func() (bool, error) {
			var answer raft.AppendEntriesResponse
			err := a.AppendEntries("", "", &raft.AppendEntriesRequest{RPCHeader: header, Term: term}, &answer)
			return answer.Success || answer.Term > 0 && answer.Term >= term, err
		}
	}
	return map[string]func() (bool, error){
		"a heartbeat":                  entries(term),
		"a heartbeat of a later term":  entries(term + 50),
		"a heartbeat of the last term": entries(1<<64 - 1),
		"a vote of the last term": func() (bool, error) {
			var answer raft.RequestVoteResponse
			err := a.RequestVote("", "", &raft.RequestVoteRequest{
				RPCHeader: header, Term: 1<<64 - 1, LastLogIndex: 1 << 40, LastLogTerm: 1 << 40, LeadershipTransfer: true,
			}, &answer)
			return answer.Granted || answer.Term > term, err
		},
		"an entry": func() (bool, error) {
			var answer raft.AppendEntriesResponse
			last := a.to.manager().Health()
			err := a.AppendEntries("", "", &raft.AppendEntriesRequest{
				RPCHeader: header, Term: term, PrevLogEntry: last.LastIndex, PrevLogTerm: term,
				Entries: []*raft.Log{{Index: last.LastIndex + 1, Term: term, Type: raft.LogCommand, Data: []byte("forged")}},
			}, &answer)
			return answer.Success, err
		},
		"a snapshot": func() (bool, error) {
			var answer raft.InstallSnapshotResponse
			err := a.InstallSnapshot("", "", &raft.InstallSnapshotRequest{
				RPCHeader: header, SnapshotVersion: 1, Term: term, LastLogIndex: 1 << 30, LastLogTerm: term, Size: 6,
			}, &answer, strings.NewReader("forged"))
			return answer.Success, err
		},
		"a hand-over": func() (bool, error) {
			err := a.TimeoutNow("", "", &raft.TimeoutNowRequest{RPCHeader: header}, &raft.TimeoutNowResponse{})
			return err == nil, err
		},
	}
}

// Raft's port hears members of raft's group only, each in its own name, and of them the
// leader while that one is heard.
func TestRaftPort_HearsWhomItShould(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 4, 0, Options{})
		leader := c.Leader()
		at := indexOf(c, leader)
		gone, member, victim := c.Machines[(at+1)%4], c.Machines[(at+2)%4], c.Machines[(at+3)%4]
		goneID, goneShows, memberShows := nodeID(gone), heldBy(t, gone), heldBy(t, member)
		open, err := dial(victim, goneShows, cluster.ProtocolRaft)
		if err != nil {
			t.Fatal(err)
		}
		leader.setRole(gone, swarm.NodeRoleWorker)
		c.Eventually(20*time.Second, "it is a worker", func() error {
			if node := leader.manager().Store().View().Node(goneID); node.Role != swarm.NodeRoleWorker {
				return fmt.Errorf("it is a %s", node.Role)
			}
			return nil
		})
		// Only demoted, its connections are cut already.
		open.SetReadDeadline(time.Now().Add(3 * time.Second))
		if _, err := open.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
			t.Errorf("the connection of a manager that was demoted: %v", err)
		}
		gone.Stop()
		leader.Do(http.MethodDelete, "/nodes/"+goneID+"?force=1", nil, nil)
		term := leader.manager().Health().Term
		for _, who := range []struct {
			name, id string
			shows    func() *tls.Certificate
		}{
			{"a manager that was removed", goneID, goneShows},
			{"a manager that was removed, as somebody unknown", "unknownunknownunknownunkn", goneShows},
			{"a manager that was removed, as the leader", nodeID(leader), goneShows},
			{"a follower", nodeID(member), memberShows},
			{"a follower, as the leader", nodeID(leader), memberShows},
			{"a follower, as somebody unknown", "unknownunknownunknownunkn", memberShows},
		} {
			for _, to := range []*Machine{victim, leader} {
				for what, try := range attack(t, to, who.shows).tries(who.id, term) {
					if heeded, err := try(); heeded || err == nil {
						t.Errorf("%s to %s: %s: heeded %v, %v", who.name, to.Name, what, heeded, err)
					}
				}
			}
		}
		if now := leader.manager().Health(); !now.Leader || now.Term != term {
			t.Errorf("%s leads: %v, in term %d after %d", leader.Name, now.Leader, now.Term, term)
		}
		leader.writes("after", time.Second)
		c.vote(3)
	})
}

// A cluster whose terms are at their end has no election any more. One manager that goes
// on alone has all that there was, and an ordinary term.
func TestRaftPort_ATermAtItsEndIsTakenBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{})
		var names []string
		for range 5 {
			note(c.Leader(), &names)
		}
		c.Same()
		for _, m := range c.Machines {
			m.Stop()
			keys, err := ca.KeyFile{Path: m.path("identity.key")}.Load()
			if err != nil {
				t.Fatal(err)
			}
			id, err := keys.Identity()
			if err != nil {
				t.Fatal(err)
			}
			disk, err := store.OpenDisk(store.DiskConfig{Dir: m.path("raft"), Ring: seal.NewRing(seal.Key(keys.DataKeys[0])), ClusterID: id.ClusterID, Expected: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(disk.Stable.SetUint64([]byte("CurrentTerm"), 1<<64-1), disk.Close()); err != nil {
				t.Fatal(err)
			}
		}
		for _, m := range c.Machines {
			m.Restart()
		}
		time.Sleep(20 * time.Second)
		last := c.Machines[0]
		if err := last.Try(http.MethodPost, "/services/create", Spec("refused", "app:1", 0), nil); err == nil {
			t.Error("there was an election after the last term")
		}
		// The others are off, as they should be: two of three that hear of an ordinary term may elect one of themselves
		// before they hear that they are no managers any more.
		for _, m := range c.Machines[1:] {
			m.Stop()
		}
		last.Do(http.MethodPost, "/swarm/init", swarm.InitRequest{ListenAddr: last.IP, ForceNewCluster: true}, nil)
		note(last, &names)
		if term := last.manager().Health().Term; term > 1000 {
			t.Errorf("it leads in term %d", term)
		}
		for _, m := range c.Machines[1:] {
			m.Restart()
			c.Eventually(time.Minute, m.Name+" is a worker", func() error {
				if m.manager() != nil {
					return errors.New("it is a manager")
				}
				return nil
			})
			last.setRole(m, swarm.NodeRoleManager)
		}
		c.vote(3)
		c.has(names)
	})
}
