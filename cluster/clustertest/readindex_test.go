package clustertest

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// readers have users change one service as fast as they can, by the managers that write, and read it by those that
// read, until the function returns.
func readers(h *history, write, read []*Machine, seed uint64, meanwhile func()) {
	var clients sync.WaitGroup
	stop := make(chan struct{})
	for i, m := range append(append([]*Machine{}, write...), read...) {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					h.glance(m, i >= len(write), i, random)
				}
			}
		})
	}
	meanwhile()
	close(stop)
	clients.Wait()
}

// glance asks for the service once, and changes it unless it is only to read.
func (h *history) glance(m *Machine, read bool, client int, random *rand.Rand) {
	time.Sleep(time.Duration(random.IntN(20000)) * time.Microsecond)
	if m.off() {
		time.Sleep(10 * time.Millisecond)
		return
	}
	var service swarm.Service
	switch got := h.do(m, client, request{name: hurried, kind: opRead}, &service); {
	case got.outcome == done && !read:
		h.do(m, client, request{name: hurried, kind: opUpdate, from: sight(service), to: h.value()}, &service)
	case got.outcome == absent && !read:
		h.do(m, client, request{name: hurried, kind: opCreate, to: h.value()}, nil)
	}
}

// readSeeds is how many times each fault below is tried.
func readSeeds() uint64 {
	n, err := strconv.ParseUint(os.Getenv("SKEP_READ_SEEDS"), 10, 64)
	if err != nil {
		return 1
	}
	return n
}

// What users read by any manager is never older than what was acknowledged before, whatever happens to
// leaders and followers meanwhile.
func TestReadIndex_NothingOlderThanWhatWasAcknowledged(t *testing.T) {
	brief := func() { time.Sleep(300 * time.Millisecond) }
	long := func() { time.Sleep(1200 * time.Millisecond) }
	others := func(c *Cluster, but ...*Machine) (rest []*Machine) {
		for _, m := range c.Machines {
			if !slices.Contains(but, m) {
				rest = append(rest, m)
			}
		}
		return rest
	}
	faults := []struct {
		name     string
		managers int
		fault    func(c *Cluster, leader, follower *Machine)
	}{
		{"all is well", 3, func(*Cluster, *Machine, *Machine) { brief() }},
		{"the leader is cut off", 3, func(c *Cluster, leader, _ *Machine) { c.Partition(leader); long() }},
		{"the leader is refused", 3, func(c *Cluster, leader, _ *Machine) { c.Refuse(leader); long() }},
		{"the leader is cut off with a follower", 5, func(c *Cluster, leader, follower *Machine) { c.Partition(leader, follower); long() }},
		{"the leader is refused with a follower", 5, func(c *Cluster, leader, follower *Machine) { c.Refuse(leader, follower); long() }},
		{"the leader stands still", 3, func(c *Cluster, leader, _ *Machine) {
			c.Partition(leader)
			leader.HangDisk(time.Second)
			time.Sleep(time.Second)
			c.Heal()
			brief()
		}},
		{"the leader stands still, and is heard late", 3, func(c *Cluster, leader, _ *Machine) {
			for range 8 {
				c.Partition(leader)
				time.Sleep(250 * time.Millisecond)
				c.Heal()
				time.Sleep(20 * time.Millisecond)
			}
			brief()
		}},
		{"the leader hears a follower no more", 3, func(c *Cluster, leader, follower *Machine) { c.Mute(follower, leader); long() }},
		{"a follower hears the leader no more", 3, func(c *Cluster, leader, follower *Machine) { c.Mute(leader, follower); long() }},
		{"the leader is far away", 3, func(c *Cluster, leader, _ *Machine) { c.Delay(leader, 60*time.Millisecond); long() }},
		{"a follower is far away", 3, func(c *Cluster, _, follower *Machine) { c.Delay(follower, 60*time.Millisecond); long() }},
		{"the leader's clock is set", 3, func(c *Cluster, leader, _ *Machine) {
			leader.SetClock(time.Hour)
			brief()
			leader.SetClock(-time.Hour)
			brief()
		}},
		{"the leader crashes", 3, func(c *Cluster, leader, _ *Machine) { leader.Crash(); long(); leader.Restart(); brief() }},
		{"the leader stops", 3, func(c *Cluster, leader, _ *Machine) { leader.Stop(); long() }},
		{"a follower comes back with an old snapshot", 3, func(c *Cluster, _, follower *Machine) {
			follower.Crash()
			brief()
			follower.Restart()
			long()
		}},
		{"all connections break", 3, func(c *Cluster, leader, follower *Machine) {
			for range 5 {
				c.Snap(leader)
				time.Sleep(50 * time.Millisecond)
				c.Snap(follower)
				time.Sleep(50 * time.Millisecond)
			}
		}},
	}
	for _, fault := range faults {
		for seed := range readSeeds() {
			t.Run(fmt.Sprintf("%s/%d", fault.name, seed), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					c := Start(t, fault.managers, 0, Options{SnapshotEntries: 40, Seed: seed})
					leader := c.Leader()
					follower := others(c, leader)[int(seed)%2]
					h := &history{began: time.Now()}
					// Those that a new leader is among write; those of before read, as do others.
					readers(h, others(c, follower), append([]*Machine{leader, follower, follower}, c.Machines...), seed, func() {
						brief()
						fault.fault(c, leader, follower)
						c.Heal()
						brief()
					})
					h.check(t)
				})
			})
		}
	}
}

// A follower answers by itself: the leader is asked for an index only.
func TestReadIndex_AFollowerAnswersItself(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{})
		leader := c.Leader()
		id := leader.Create(Spec("web", "app:1", 0))
		for _, m := range c.Machines {
			before := leader.manager().Health()
			for range 10 {
				var service swarm.Service
				m.Do(http.MethodGet, "/services/"+id, nil, &service)
				m.Do(http.MethodGet, "/services/web", nil, &service)
			}
			if after := leader.manager().Health(); after.LastIndex != before.LastIndex {
				t.Errorf("reads wrote entries: %d, then %d", before.LastIndex, after.LastIndex)
			}
		}
	})
}

// question is what a manager asks for the read index, as it is on the wire.
type question struct {
	Term    uint64 `cbor:"1,keyasint"`
	Lineage string `cbor:"2,keyasint,omitempty"`
	Addr    string `cbor:"3,keyasint"`
}

// askIndex asks a machine for the read index with a certificate.
func askIndex(to *Machine, shows func() *tls.Certificate, asked question) (index uint64, refused string, err error) {
	conn, err := dial(to, shows, cluster.ProtocolManager)
	if err != nil {
		return 0, "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	content, err := cluster.Encode(asked)
	if err != nil {
		return 0, "", err
	}
	message := binary.BigEndian.AppendUint32(nil, uint32(9+len(content)))
	message = append(binary.BigEndian.AppendUint64(message, 7), 1)
	if _, err := conn.Write(append(message, content...)); err != nil {
		return 0, "", err
	}
	var head [13]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return 0, "", err
	}
	said := make([]byte, binary.BigEndian.Uint32(head[:4])-9)
	if _, err := io.ReadFull(conn, said); err != nil {
		return 0, "", err
	}
	var answer struct {
		Index   uint64 `cbor:"1,keyasint,omitempty"`
		Refused string `cbor:"4,keyasint,omitempty"`
	}
	err = cluster.Decode(said, &answer)
	return answer.Index, answer.Refused, err
}

// Only a manager in raft's configuration, in the leader's term and of its lineage is told an index, and by the leader only.
func TestReadIndex_WhoIsTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 4, 1, Options{})
		leader := c.Leader()
		at := indexOf(c, leader)
		gone, member := c.Machines[(at+1)%4], c.Machines[(at+2)%4]
		goneShows, memberShows, workerShows := heldBy(t, gone), heldBy(t, member), heldBy(t, c.Machines[4])
		right := func(m *Machine) question {
			return question{leader.manager().Health().Term, leader.manager().Store().View().Cluster().Lineage, m.IP + ":2377"}
		}
		told := func(what string, to *Machine, shows func() *tls.Certificate, asked question, want bool) {
			t.Helper()
			index, refused, err := askIndex(to, shows, asked)
			if got := err == nil && refused == "" && index > 0; got != want {
				t.Errorf("%s: index %d, refused %q, %v", what, index, refused, err)
			}
		}
		told("a follower", leader, memberShows, right(member), true)
		told("a manager that will be demoted", leader, goneShows, right(gone), true)
		earlier, later, other, elsewhere := right(member), right(member), right(member), right(member)
		earlier.Term--
		later.Term++
		other.Lineage += "x"
		elsewhere.Addr = "127.0.9.9:2377"
		told("a follower of an earlier term", leader, memberShows, earlier, false)
		told("a follower of a later term", leader, memberShows, later, false)
		told("a manager of another lineage", leader, memberShows, other, false)
		told("a copy of a manager", leader, memberShows, elsewhere, false)
		told("a follower by a follower", gone, memberShows, right(member), false)
		told("a worker", leader, workerShows, right(c.Machines[4]), false)
		goneID := nodeID(gone)
		leader.setRole(gone, swarm.NodeRoleWorker)
		c.Eventually(20*time.Second, "it is a worker", func() error {
			if node := leader.manager().Store().View().Node(goneID); node.Role != swarm.NodeRoleWorker {
				return fmt.Errorf("it is a %s", node.Role)
			}
			return nil
		})
		told("one that was demoted", leader, goneShows, right(gone), false)
		gone.Stop()
		leader.Do(http.MethodDelete, "/nodes/"+goneID+"?force=1", nil, nil)
		told("one that was removed", leader, goneShows, right(gone), false)
	})
}
