package clustertest

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/agent"
	"skep/cluster"
)

// watcher looks at the containers of all machines and notes when two of them are
// alive for one slot of a service, or at one place in a network.
type watcher struct {
	c *Cluster
	// service is the ID of the one it looks at, or empty for all.
	service string
	slots   map[string]place // by task, for ever: records are reaped
	// doubled tells what was seen, and whether the service is fenced; wrong has those of
	// them that must not be in any service: no node was given up, and no slot removed.
	doubled map[string]bool
	wrong   map[string]bool
	// lost are tasks that managers gave up, as far as somebody else noticed: that may have been for a
	// moment only.
	lost map[string]bool
	// twice tells of two live containers at one place in a network, though no node was given up.
	twice map[string]bool
	// most is how many containers were alive at a time.
	most int
}

// place is a slot of a service. lost is set when managers once gave up the task that
// it is of, and paired when updates start one before they stop the other.
type place struct {
	service string
	slot    uint32
	fenced  bool
	lost    bool
	paired  bool
}

func watch(c *Cluster, service string) *watcher {
	return &watcher{c: c, service: service, slots: map[string]place{}, doubled: map[string]bool{}, wrong: map[string]bool{}, twice: map[string]bool{}}
}

// rest sleeps for d and looks all the time.
func (w *watcher) rest(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		w.look()
	}
}

func (w *watcher) look() {
	for _, view := range w.c.Views() {
		for t := range view.Tasks() {
			if w.service != "" && t.ServiceID != w.service {
				continue
			}
			node := view.Node(t.NodeID)
			lost := t.Desired == cluster.StateRemove || t.NodeID != "" && (node == nil || node.Status.State == cluster.NodeDown) || w.lost[t.ID]
			service := view.Service(t.ServiceID)
			paired := service != nil && service.Spec.UpdateConfig != nil && service.Spec.UpdateConfig.Order == swarm.UpdateOrderStartFirst
			w.slots[t.ID] = place{t.ServiceID, t.Slot, view.Revision(t.ServiceID, t.Revision).Fenced(), lost || w.slots[t.ID].lost, paired || w.slots[t.ID].paired}
		}
	}
	type key struct {
		service string
		slot    uint32
	}
	alive := map[key]string{}
	count := 0
	for _, m := range w.c.Machines {
		containers, err := m.Driver.List(w.c.t.Context(), nodeID(m))
		if err != nil {
			continue
		}
		for _, container := range containers {
			at, ours := w.slots[container.TaskID]
			if !ours || container.Phase != agent.Running {
				continue
			}
			count++
			slot := key{at.service, at.slot}
			other := alive[slot]
			if alive[slot] = container.TaskID; other == "" {
				continue
			}
			what := fmt.Sprintf("slot %d of %s (fenced: %v): %s and %s on %s", at.slot, at.service, at.fenced, other, container.TaskID, m.Name)
			if _, known := w.doubled[what]; !known {
				w.c.log.Debug("two live containers", "what", what)
			}
			w.doubled[what] = at.fenced
			if !at.lost && !w.slots[other].lost && !at.paired && !w.slots[other].paired {
				w.wrong[what] = true
			}
		}
	}
	w.most = max(w.most, count)
	at := map[cluster.Address]string{}
	for _, m := range w.c.Machines {
		for id, places := range m.Driver.Places() {
			for _, place := range places {
				address := cluster.Address{VNI: place.Network.VNI, Host: place.Host}
				other := at[address]
				if at[address] = id; other != "" && !w.slots[id].lost && !w.slots[other].lost {
					w.twice[fmt.Sprintf("%s and %s are at place %d of network %s", min(id, other), max(id, other), place.Host, place.Network.Spec.Name)] = true
				}
			}
		}
	}
}

func fencedSpec(replicas uint64, fence bool) swarm.ServiceSpec {
	spec := Spec("only", "app:1", replicas)
	grace := 3 * time.Second
	spec.TaskTemplate.ContainerSpec.StopGracePeriod = &grace
	// Every other program is killed, since it takes longer than it may.
	spec.Labels = map[string]string{cluster.LabelFence.Name: strconv.FormatBool(fence), "skep.simulate.stop-delay": "4s"}
	return spec
}

// divide cuts the network in one of several ways, and may end the leader.
func divide(c *Cluster, random *rand.Rand, crash bool) *Machine {
	workers := c.Machines[3:]
	victim := workers[random.IntN(len(workers))]
	switch random.IntN(6) {
	case 0:
		c.Partition(victim)
	case 1:
		c.Partition(victim, c.Machines[random.IntN(3)]) // a manager that may be the leader
	case 2:
		for _, m := range c.Machines[:3] {
			c.Mute(victim, m)
		}
	case 3:
		for _, m := range c.Machines[:3] {
			c.Mute(m, victim)
		}
	case 4:
		c.Partition(victim, c.Leader())
	case 5:
		c.Partition(c.Leader())
	}
	if !crash || random.IntN(2) == 0 {
		return nil
	}
	for _, m := range c.Machines[:3] {
		if running := m.node.Manager(); !m.off() && running != nil && running.LeaderID() == running.NodeID() {
			time.Sleep(time.Duration(random.IntN(8000)) * time.Millisecond)
			m.Crash()
			return m
		}
	}
	return nil
}

// divided runs a service while the network is cut again and again, at moments and
// in ways that the seed decides, and gives what two containers of one slot were seen.
func divided(t *testing.T, seed uint64, fence bool) *watcher {
	random := rand.New(rand.NewPCG(seed, 11))
	c := Start(t, 3, 3, Options{})
	crash := seed%2 == 0
	if crash {
		// Whoever kills a daemon takes away the one who would stop its containers; so
		// there are none where it is killed.
		for _, m := range c.Machines[:3] {
			c.Machines[0].editNode(nodeID(m), func(s *swarm.NodeSpec) { s.Availability = swarm.NodeAvailabilityDrain })
		}
	}
	id := c.Machines[0].Create(fencedSpec(4, fence))
	c.Runs(20*time.Second, id, "app:1", 4)
	w := watch(c, id)
	for range 3 {
		w.rest(time.Duration(random.IntN(5000)) * time.Millisecond)
		dead := divide(c, random, crash)
		if random.IntN(3) == 0 {
			// A daemon dies and is started again, as by systemd, cut off or not.
			w.rest(time.Duration(random.IntN(7000)) * time.Millisecond)
			m := c.Machines[3+random.IntN(3)]
			m.Crash()
			w.rest(time.Second)
			m.Restart()
		}
		w.rest(time.Duration(random.IntN(45000)) * time.Millisecond)
		if dead != nil {
			dead.Restart()
		}
		if random.IntN(3) > 0 {
			c.Heal()
		}
	}
	c.Heal()
	w.rest(time.Minute)
	c.Runs(time.Minute, id, "app:1", 4)
	c.Same()
	return w
}

func fenceSeeds() int {
	if n, err := strconv.Atoi(os.Getenv("SKEP_FENCE_SEEDS")); err == nil {
		return n
	}
	return 6
}

// TestFence_NeverTwoContainersOfASlot cuts the network in many ways and looks at
// the drivers. SKEP_FENCE_SEEDS says how many times.
func TestFence_NeverTwoContainersOfASlot(t *testing.T) {
	for seed := range fenceSeeds() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				w := divided(t, uint64(seed), true)
				for what := range w.doubled {
					t.Errorf("two live containers: %s", what)
				}
				if w.most != 4 {
					t.Errorf("%d containers were alive at the most; want 4", w.most)
				}
			})
		})
	}
}

// TestFence_WithoutItTwoAreSeen holds that the test above could fail.
func TestFence_WithoutItTwoAreSeen(t *testing.T) {
	seen := 0
	for seed := range 2 {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T) { seen += len(divided(t, uint64(seed), false).doubled) })
		})
	}
	if seen == 0 {
		t.Error("the network was cut, the service had no fence, and yet no slot ever had two containers")
	}
}

// TestFence_ReplacesALostNode holds how long a slot of a fenced service is empty.
func TestFence_ReplacesALostNode(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 3, Options{})
		// On workers only: the manager that is stopped gives up no task, nor was one about
		// to start there.
		spec := fencedSpec(3, true)
		spec.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.role==worker"}}
		id := c.Machines[0].Create(spec)
		c.Runs(20*time.Second, id, "app:1", 3)
		leader := c.Leader()
		c.Partition(c.Machines[5])
		began := time.Now()
		const later = 5 * time.Second
		time.Sleep(later)
		leader.Stop() // Another leader counts from when it knows.
		defer leader.Restart()
		wait := later + c.Manager().manager().Store().View().Revision(id, 1).FenceWait()
		c.Eventually(time.Minute, "all run again", func() error {
			tasks, err := c.Manager().Tasks(id, "running")
			if err != nil {
				return err
			}
			running := 0
			for _, task := range tasks {
				if task.NodeID != nodeID(c.Machines[5]) && task.Status.State == swarm.TaskStateRunning {
					running++
				}
			}
			if running < 3 {
				return fmt.Errorf("%d run%s", running, describe(tasks))
			}
			return nil
		})
		if took := time.Since(began); took < wait || took > wait+2*time.Second {
			t.Errorf("the replacement took %v; want from %v to 2s more", took, wait)
		}
	})
}

// TestFence_KeepsWhatRunsThroughARestart holds that neither a new leader nor a
// restart of the daemon stops a fenced task.
func TestFence_KeepsWhatRunsThroughARestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{})
		id := c.Machines[0].Create(fencedSpec(5, true))
		c.Runs(20*time.Second, id, "app:1", 5)
		before, err := c.Machines[0].Tasks(id)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range []*Machine{c.Leader(), c.Machines[4]} {
			m.Stop()
			time.Sleep(time.Second)
			m.Restart()
			time.Sleep(20 * time.Second)
		}
		after, err := c.Machines[0].Tasks(id)
		if err != nil || len(after) != len(before) {
			t.Errorf("there were %d tasks, now %d (%v)%s", len(before), len(after), err, describe(after))
		}
	})
}

// TestFence_StopsWithoutALeader holds the price: without a quorum nobody may be
// certain, so fenced tasks stop and others go on.
func TestFence_StopsWithoutALeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 1, Options{})
		fenced := c.Machines[0].Create(fencedSpec(4, true))
		free := c.Machines[0].Create(Spec("free", "app:1", 4))
		c.Runs(20*time.Second, fenced, "app:1", 4)
		c.Runs(20*time.Second, free, "app:1", 4)
		w, other := watch(c, fenced), watch(c, free)
		w.look()
		c.Cut(c.Machines[0], c.Machines[1])
		c.Cut(c.Machines[1], c.Machines[2])
		c.Cut(c.Machines[0], c.Machines[2])
		time.Sleep(cluster.FenceLease + 5*time.Second)
		w.most, other.most = 0, 0
		w.look()
		other.look()
		if w.most != 0 || other.most != 4 {
			t.Errorf("%d fenced and %d other containers run without a leader; want 0 and 4", w.most, other.most)
		}
		c.Heal()
		c.Runs(time.Minute, fenced, "app:1", 4)
		var service swarm.Service
		c.Machines[0].Do(http.MethodGet, "/services/"+fenced, nil, &service)
	})
}
