package clustertest

import (
	"bytes"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/manager"
)

// bubble runs a test under a fake clock.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

func TestCluster_RunsAService(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{})
		id := c.Machines[1].Create(Spec("web", "app:1", 10))
		c.Runs(10*time.Second, id, "app:1", 10)
		perNode := map[string]int{}
		tasks, err := c.Machines[2].Tasks(id, "running")
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			perNode[task.NodeID]++
		}
		for node, count := range perNode {
			if count != 2 || len(perNode) != 5 {
				t.Errorf("node %s has %d tasks of 10 on %d nodes; want 2 on each of 5", node, count, len(perNode))
			}
		}
		c.Machines[0].Do(http.MethodDelete, "/services/web", nil, nil)
		c.Eventually(20*time.Second, "no task and no container is left", func() error {
			for host, view := range c.Views() {
				if view.TaskCount() != 0 || view.ServiceCount() != 0 {
					return fmt.Errorf("%s has %d tasks", host, view.TaskCount())
				}
				for revision := range view.Revisions() {
					return fmt.Errorf("%s keeps revision %d of %s", host, revision.Number, revision.ServiceName)
				}
			}
			return nil
		})
		c.Same()
	})
}

func TestCluster_ReplacesTasksOfACrashedWorker(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{})
		id := c.Machines[0].Create(Spec("web", "app:1", 10))
		c.Runs(10*time.Second, id, "app:1", 10)
		began := time.Now()
		c.Machines[4].Crash()
		c.Eventually(5*time.Second, "its tasks run elsewhere", func() error {
			tasks, err := c.Machines[0].Tasks(id, "running")
			if err != nil {
				return err
			}
			lost := nodeID(c.Machines[4])
			running := 0
			for _, task := range tasks {
				if task.NodeID != lost && task.Status.State == swarm.TaskStateRunning {
					running++
				}
			}
			if running != 10 {
				return fmt.Errorf("%d run%s", running, describe(tasks))
			}
			return nil
		})
		if took := time.Since(began); took > 2500*time.Millisecond {
			t.Errorf("it took %v to replace the tasks of a crashed worker; want at most 2.5s", took)
		}
		c.Machines[4].Restart()
		c.Eventually(10*time.Second, "the stale containers are stopped", func() error {
			view := c.Views()["n1"]
			for task := range view.TasksOfNode(nodeID(c.Machines[4])) {
				if task.Desired.Terminal() && !task.Status.State.Terminal() {
					return fmt.Errorf("task %s is %s", task.ID, task.Status.State)
				}
			}
			return nil
		})
		c.Runs(time.Second, id, "app:1", 10)
		c.Same()
	})
}

// TestCluster_RestartOfADaemonMovesNothing stops each daemon in order and starts
// it again: its containers ran all the time, so no task may be replaced.
func TestCluster_RestartOfADaemonMovesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{})
		id := c.Machines[0].Create(Spec("web", "app:1", 10))
		c.Runs(10*time.Second, id, "app:1", 10)
		leader := c.Leader()
		for _, m := range append([]*Machine{leader}, c.Machines...) {
			m.Stop()
			time.Sleep(3 * time.Second)
			m.Restart()
			time.Sleep(5 * time.Second)
		}
		c.Same()
		view := c.Leader().node.Manager().Store().View()
		if count := view.TaskCount(); count != 10 {
			t.Errorf("there are %d tasks; the 10 that ran were enough", count)
		}
		for n := range view.Nodes() {
			if n.Status.State != cluster.NodeReady {
				t.Errorf("%s is %v: %s", n.Description.Hostname, n.Status.State, n.Status.Message)
			}
		}
	})
}

// TestCluster_AnswersAtEveryManager asks all managers what only the leader knows.
func TestCluster_AnswersAtEveryManager(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 1, Options{})
		id := c.Machines[0].Create(Spec("web", "app:1", 4))
		c.Runs(10*time.Second, id, "app:1", 4)
		for _, m := range c.Machines[:3] {
			var status cluster.Status
			// Gossip is not waited for by a join: it may meet a node after its tasks run.
			c.Eventually(5*time.Second, m.Name+" tells of all", func() error {
				status = cluster.Status{}
				m.Do(http.MethodGet, "/skep/v1/status", nil, &status)
				if len(status.Managers) != 3 || len(status.Nodes) != 4 || len(status.Problems) != 0 {
					return fmt.Errorf("%d managers, %d nodes, problems %q", len(status.Managers), len(status.Nodes), status.Problems)
				}
				return nil
			})
			for _, manager := range status.Managers {
				if !manager.Reachable || !manager.Voter || manager.AppliedIndex == 0 {
					t.Errorf("%s says of a manager: %+v", m.Name, manager)
				}
			}
			if logs := m.Get("/services/" + id + "/logs?stdout=1&stderr=1&tail=2"); len(logs) == 0 {
				t.Errorf("%s has no logs of the service", m.Name)
			}
		}
	})
}

// nodeID is the machine's node ID.
func nodeID(m *Machine) string { return m.node.Info().NodeID }

func TestCluster_SurvivesItsLeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{})
		id := c.Machines[0].Create(Spec("web", "app:1", 6))
		c.Runs(10*time.Second, id, "app:1", 6)
		for round := range 5 {
			leader := c.Leader()
			leader.Crash()
			began := time.Now()
			survivor := c.Alive()[0]
			survivor.Create(Spec(fmt.Sprintf("after-%d", round), "app:1", 0))
			if took := time.Since(began); took > time.Second {
				t.Errorf("round %d: the next write took %v; want at most 1s", round, took)
			}
			c.Runs(10*time.Second, id, "app:1", 6)
			leader.Restart()
			c.Eventually(20*time.Second, "three managers run", func() error {
				if len(c.Views()) != 3 {
					return fmt.Errorf("%d do", len(c.Views()))
				}
				return nil
			})
			c.Same()
		}
	})
}

func TestCluster_HandsLeadershipOver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{})
		leader := c.Leader()
		stopped := make(chan struct{})
		began := time.Now()
		go func() { leader.Stop(); close(stopped) }()
		other := c.Machines[0]
		if other == leader {
			other = c.Machines[1]
		}
		other.Create(Spec("web", "app:1", 0))
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("the next write took %v; want at most 100ms", took)
		}
		<-stopped
		c.Same()
	})
}

func TestCluster_PartitionedLeaderWritesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{})
		id := c.Machines[0].Create(Spec("web", "app:1", 4))
		c.Runs(10*time.Second, id, "app:1", 4)
		leader := c.Leader()
		c.Partition(leader)
		if err := leader.Try(http.MethodPost, "/services/create", Spec("lost", "app:1", 1), nil); err == nil {
			t.Error("a leader without a quorum accepted a write")
		}
		if err := leader.Try(http.MethodGet, "/services", nil, nil); err == nil {
			t.Errorf("a leader without a quorum answered a read")
		}
		answer, _ := leader.call(http.MethodGet, "/skep/v1/status", nil)
		if !bytes.Contains(answer, []byte("there is no leader: 1 of 3 managers answer, and 2 are needed")) {
			t.Errorf("its status doesn't say what is missing: %s", answer)
		}
		var other *Machine
		for _, m := range c.Machines[:3] {
			if m != leader {
				other = m
			}
		}
		other.Create(Spec("kept", "app:1", 1))
		c.Heal()
		c.Same()
		for host, view := range c.Views() {
			if view.ServiceNamed("kept") == nil || view.ServiceNamed("lost") != nil {
				t.Errorf("%s: kept is %v, lost is %v", host, view.ServiceNamed("kept") != nil, view.ServiceNamed("lost") != nil)
			}
		}
		c.Runs(20*time.Second, id, "app:1", 4)
	})
}

// TestCluster_AgentsLeaveACutOffManager cuts one manager off from the others, but
// not from the workers: those whose session it has must go elsewhere, and keep
// their tasks.
func TestCluster_AgentsLeaveACutOffManager(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 4, Options{})
		id := c.Machines[0].Create(Spec("web", "app:1", 14))
		c.Runs(10*time.Second, id, "app:1", 14)
		leader := c.Leader()
		sessions := leader.node.Manager().(*manager.Manager).Sessions()
		served := map[string]int{}
		for _, m := range c.Machines[3:] {
			served[sessions[nodeID(m)]]++
		}
		alone := c.Machines[0] // the one with the most workers, the leader perhaps
		for _, m := range c.Machines[1:3] {
			if served[nodeID(m)] > served[nodeID(alone)] {
				alone = m
			}
		}
		for _, m := range c.Machines[:3] {
			if m != alone {
				c.Cut(alone, m)
			}
		}
		time.Sleep(20 * time.Second)
		view := c.Leader().node.Manager().Store().View()
		for _, m := range c.Machines[3:] {
			if status := view.Node(nodeID(m)).Status; status.State != cluster.NodeReady {
				t.Errorf("%s is %v: %s; it reaches two managers", m.Name, status.State, status.Message)
			}
			for task := range view.TasksOfNode(nodeID(m)) {
				if task.Desired.Terminal() {
					t.Errorf("task %s on %s was stopped", task.ID, m.Name)
				}
			}
		}
		c.Heal()
		c.Same()
		c.Runs(20*time.Second, id, "app:1", 14)
	})
}

func TestCluster_GoesOnAfterAllWereKilled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{SnapshotEntries: 20})
		id := c.Machines[0].Create(Spec("web", "app:1", 6))
		c.Runs(10*time.Second, id, "app:1", 6)
		for i := range 40 {
			c.Machines[0].Create(Spec(fmt.Sprintf("filler-%d", i), "app:1", 0))
		}
		before, err := c.Machines[0].Tasks(id, "running")
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range c.Machines {
			m.Crash()
		}
		for _, m := range c.Machines {
			m.Restart()
		}
		c.Runs(20*time.Second, id, "app:1", 6)
		c.Same()
		after, err := c.Machines[0].Tasks(id, "running")
		if err != nil {
			t.Fatal(err)
		}
		ids := map[string]bool{}
		for _, task := range before {
			ids[task.ID] = true
		}
		for _, task := range after {
			if !ids[task.ID] {
				t.Errorf("task %s is new: a container was replaced though it ran all the time", task.ID)
			}
		}
	})
}

func TestCluster_LateManagerGetsASnapshot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 1, Options{SnapshotEntries: 20})
		for i := range 100 {
			c.Machines[0].Create(Spec(fmt.Sprintf("s-%d", i), "app:1", 0))
		}
		time.Sleep(3 * time.Second)
		for range 2 {
			late := c.add(len(c.Machines) + 1)
			late.Join(c.Machines[0], true)
		}
		c.Eventually(20*time.Second, "three managers run", func() error {
			if len(c.Views()) != 3 {
				return fmt.Errorf("%d do", len(c.Views()))
			}
			return nil
		})
		c.Same()
		if n := c.Views()["n3"].ServiceCount(); n != 100 {
			t.Errorf("the late manager has %d services; want 100", n)
		}
	})
}

// TestCluster_UpdateGoesOnUnderANewLeader kills the leader at each step of an
// update: after each change that the update writes to the store.
func TestCluster_UpdateGoesOnUnderANewLeader(t *testing.T) {
	for step := 0; ; step++ {
		done := false
		t.Run(fmt.Sprintf("step %d", step), func(t *testing.T) {
			bubble(t, func(t *testing.T) { done = updateUnderANewLeader(t, step) })
		})
		if done || t.Failed() {
			if step < 3 {
				t.Errorf("the update had only %d steps", step)
			}
			return
		}
	}
}

// updateUnderANewLeader kills the leader after so many changes of an update; done
// means that the update had no more.
func updateUnderANewLeader(t *testing.T, step int) (done bool) {
	c := Start(t, 3, 0, Options{})
	id := c.Machines[0].Create(Spec("web", "app:1", 2))
	c.Runs(10*time.Second, id, "app:1", 2)
	leader := c.Leader()
	changes := leader.node.Manager().Store().Subscribe()
	defer changes.Close()
	leader.Update(id, func(s *swarm.ServiceSpec) {
		s.TaskTemplate.ContainerSpec.Image = "app:2"
		s.UpdateConfig.Delay = 500 * time.Millisecond
	})
	for left := step; left > 0; left-- {
		select {
		case <-changes.Ready():
			changes.Take()
		case <-time.After(20 * time.Second):
			done = true
			left = 1
		}
	}
	leader.Crash()
	c.Runs(30*time.Second, id, "app:2", 2)
	survivor := c.Alive()[0]
	c.Eventually(20*time.Second, "the update is completed", func() error {
		if status := survivor.Service(id).UpdateStatus; status == nil || status.State != swarm.UpdateStateCompleted {
			return fmt.Errorf("it is %+v", status)
		}
		return nil
	})
	c.Same()
	return done
}

func TestCluster_VotersFollowRoles(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{})
		id := c.Machines[0].Create(Spec("web", "app:1", 5))
		c.Runs(10*time.Second, id, "app:1", 5)
		managers := func(want int) {
			t.Helper()
			c.Eventually(30*time.Second, fmt.Sprintf("%d managers run", want), func() error {
				if got := len(c.Views()); got != want {
					return fmt.Errorf("%d do", got)
				}
				return nil
			})
		}
		c.Leader().setRole(c.Machines[3], swarm.NodeRoleManager)
		managers(4)
		c.Same()
		c.Leader().setRole(c.Leader(), swarm.NodeRoleWorker)
		managers(3)
		c.Same()
		c.Runs(10*time.Second, id, "app:1", 5)
	})
}

func TestCluster_DrainMovesTasks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 2, Options{})
		id := c.Machines[0].Create(Spec("web", "app:1", 6))
		c.Runs(10*time.Second, id, "app:1", 6)
		var n swarm.Node
		c.Machines[0].Do(http.MethodGet, "/nodes/n2", nil, &n)
		n.Spec.Availability = swarm.NodeAvailabilityDrain
		c.Machines[0].Do(http.MethodPost, fmt.Sprintf("/nodes/%s/update?version=%d", n.ID, n.Version.Index), n.Spec, nil)
		c.Eventually(30*time.Second, "the drained node runs nothing", func() error {
			tasks, err := c.Machines[0].Tasks(id)
			if err != nil {
				return err
			}
			for _, task := range tasks {
				if task.NodeID == n.ID && task.Status.State == swarm.TaskStateRunning {
					return fmt.Errorf("task %s still runs there", task.ID)
				}
			}
			return nil
		})
		c.Runs(30*time.Second, id, "app:1", 6)
	})
}

// TestCluster_EndsEqualAfterFaults does random harm, and checks what must hold.
func TestCluster_EndsEqualAfterFaults(t *testing.T) {
	for seed := range 6 {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			bubble(t, func(t *testing.T) { faults(t, uint64(seed)) })
		})
	}
}
