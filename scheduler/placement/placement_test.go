package placement

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"pgregory.net/rapid"

	"skep/cluster"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func testNode(id string, cpus int64) *cluster.Node {
	n := &cluster.Node{ID: id}
	n.Spec.Availability = swarm.NodeAvailabilityActive
	n.Status.State = cluster.NodeReady
	n.Description.Platform = swarm.Platform{OS: "linux", Architecture: "amd64"}
	n.Description.Resources = swarm.Resources{NanoCPUs: cpus, MemoryBytes: 100, GenericResources: []swarm.GenericResource{
		{NamedResourceSpec: &swarm.NamedGenericResource{Kind: "gpu", Value: "b"}},
		{NamedResourceSpec: &swarm.NamedGenericResource{Kind: "gpu", Value: "a"}},
		{NamedResourceSpec: &swarm.NamedGenericResource{Kind: "gpu", Value: "c"}},
		{DiscreteResourceSpec: &swarm.DiscreteGenericResource{Kind: "ssd", Value: 3}},
	}}
	return n
}

func testRevision(service string, cpus int64) *cluster.Revision {
	r := &cluster.Revision{ServiceID: service, Number: 1}
	if cpus > 0 {
		r.Spec.Resources = &swarm.ResourceRequirements{Reservations: &swarm.Resources{NanoCPUs: cpus}}
	}
	return r
}

func discrete(kind string, count int64) swarm.GenericResource {
	return swarm.GenericResource{DiscreteResourceSpec: &swarm.DiscreteGenericResource{Kind: kind, Value: count}}
}

func testLedger(nodes ...*cluster.Node) *Ledger {
	l := New()
	for _, n := range nodes {
		l.ChangeNode(nil, n)
	}
	return l
}

func testTask(id, service, node string) *cluster.Task {
	return &cluster.Task{ID: id, ServiceID: service, Revision: 1, NodeID: node, Desired: cluster.StateRunning,
		Status: cluster.TaskStatus{State: cluster.StateRunning}}
}

func place(l *Ledger, r *cluster.Revision, count int) string {
	q := l.Require(r, Surroundings{})
	return strings.Join(nodesOf(l.Place(&q, count, now)), " ")
}

func nodesOf(chosen []Choice) []string {
	var ids []string
	for _, c := range chosen {
		ids = append(ids, c.NodeID)
	}
	return ids
}

func TestPlace_SpreadsTheServiceFirst(t *testing.T) {
	l := testLedger(testNode("n1", 10), testNode("n2", 10), testNode("n3", 10))
	for i := range 5 {
		l.ChangeTask(nil, testTask(fmt.Sprint("other", i), "other", "n2"))
	}
	l.ChangeTask(nil, testTask("web1", "web", "n1"))
	// n3 has nothing, n2 has no task of web, n1 has one.
	for _, count := range []int{3, 6} {
		want := "n3 n2 n1 n3 n2 n1"
		if got := place(l, testRevision("web", 0), count); got != strings.Join(strings.Fields(want)[:count], " ") {
			t.Errorf("%d tasks: %s", count, got)
		}
		l.Settle()
	}
}

func TestPlace_HoldsReservationsUntilATaskHasEnded(t *testing.T) {
	l := testLedger(testNode("n1", 10))
	r := testRevision("web", 6)
	l.ChangeRevision(nil, r)
	running := testTask("t1", "web", "n1")
	l.ChangeTask(nil, running)
	if got := place(l, r, 1); got != "" {
		t.Fatalf("placed on %s", got)
	}
	l.Release(running)
	if got := place(l, r, 1); got != "" {
		t.Fatalf("placed on %s while the task still stops", got)
	}
	l.Settle()
	stopping := *running
	stopping.Desired = cluster.StateShutdown
	l.ChangeTask(running, &stopping)
	if got := place(l, r, 1); got != "" {
		t.Fatalf("placed on %s while the task still stops", got)
	}
	stopped := stopping
	stopped.Status.State = cluster.StateShutdown
	l.ChangeTask(&stopping, &stopped)
	if got := place(l, r, 2); got != "n1" {
		t.Fatalf("placed on %q, there is room for one", got)
	}
}

func TestPlace_FailuresPutANodeLast(t *testing.T) {
	l := testLedger(testNode("n1", 10), testNode("n2", 10))
	for i := range maxFailures {
		failed := testTask(fmt.Sprint("t", i), "web", "n1")
		failed.Status = cluster.TaskStatus{State: cluster.StateFailed, Applied: cluster.At(now.Add(time.Duration(i) * time.Second))}
		l.ChangeTask(nil, failed)
	}
	l.ChangeTask(nil, testTask("a", "web", "n2"))
	r := testRevision("web", 0)
	if got := place(l, r, 1); got != "n2" {
		t.Errorf("placed on %s, where it failed", got)
	}
	l.Settle()
	if got := place(l, testRevision("other", 0), 1); got != "n1" {
		t.Errorf("another service was placed on %s", got)
	}
	l.Settle()
	q := l.Require(r, Surroundings{})
	if got := l.Place(&q, 1, now.Add(failureWindow)); got[0].NodeID != "n1" {
		t.Errorf("after the window, placed on %v", got)
	}
	l.Settle()
	l.Forget(now.Add(2 * failureWindow))
	if len(l.failures) != 0 {
		t.Errorf("%d failures aren't forgotten", len(l.failures))
	}
}

// A machine that loses its power ends all that was on it: that is no reason to spare it.
func TestPlace_WhatEndedWithTheMachineIsNoFailure(t *testing.T) {
	later := now.Add(time.Minute)
	for name, away := range map[string]func(*Ledger, *cluster.Node){
		"the machine was away":      func(_ *Ledger, n *cluster.Node) { n.Status.Since = later },
		"all machines had been off": func(l *Ledger, _ *cluster.Node) { l.ColdStart(cluster.At(later)) },
	} {
		t.Run(name, func(t *testing.T) {
			l := testLedger(testNode("n2", 10))
			n1 := testNode("n1", 10)
			away(l, n1)
			l.ChangeNode(nil, n1)
			fail := func(id string, made, ended time.Time) {
				task := testTask(id, "web", "n1")
				task.CreatedAt, task.Status = cluster.At(made), cluster.TaskStatus{State: cluster.StateFailed, Applied: cluster.At(ended)}
				l.ChangeTask(nil, task)
			}
			for i := range maxFailures {
				fail(fmt.Sprint("old", i), now, later.Add(time.Second))
			}
			l.ChangeTask(nil, testTask("a", "web", "n2"))
			r := testRevision("web", 0)
			if got := place(l, r, 1); got != "n1" {
				t.Errorf("placed on %s, though what failed on n1 had ended with it", got)
			}
			l.Settle()
			for i := range maxFailures {
				fail(fmt.Sprint("new", i), later.Add(2*time.Second), later.Add(3*time.Second))
			}
			q := l.Require(r, Surroundings{})
			if got := l.Place(&q, 1, later.Add(time.Minute)); got[0].NodeID != "n2" {
				t.Errorf("placed on %v, where it failed since", got)
			}
		})
	}
}

func TestExplain_CountsEachNodeOnce(t *testing.T) {
	down := testNode("n3", 10)
	down.Status.State = cluster.NodeDown
	arm := testNode("n4", 10)
	arm.Description.Platform.Architecture = "arm64"
	l := testLedger(testNode("n1", 1), testNode("n2", 1), down, arm)
	r := testRevision("web", 6)
	r.Spec.Placement = &swarm.Placement{Platforms: []swarm.Platform{{Architecture: "amd64"}}}
	q := l.Require(r, Surroundings{})
	want := "no suitable node (insufficient CPU on 2 nodes; 1 node not available for new tasks; unsupported platform on 1 node)"
	if got := l.Explain(&q); got != want {
		t.Errorf("explained: %s", got)
	}
	if got := New().Explain(&q); got != "no suitable node" {
		t.Errorf("without nodes: %s", got)
	}
}

// TestLedger_Properties checks that the ledger forgets plans, agrees with one
// made anew, and never gives away more than there is.
func TestLedger_Properties(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		nodes := []*cluster.Node{testNode("n1", 10), testNode("n2", 20), testNode("n3", 5)}
		l := testLedger(nodes...)
		revisions := []*cluster.Revision{testRevision("a", 0), testRevision("b", 3), testRevision("c", 4), testRevision("d", 1), testRevision("e", 1)}
		revisions[4].Spec.Resources.Reservations.GenericResources = []swarm.GenericResource{discrete("gpu", 2), discrete("ssd", 1)}
		revisions[3].Spec.Placement = &swarm.Placement{
			Constraints: []string{"node.labels.zone!=c"},
			Preferences: []swarm.PlacementPreference{
				{Spread: &swarm.SpreadOver{SpreadDescriptor: "node.labels.zone"}}, {Spread: &swarm.SpreadOver{SpreadDescriptor: "node.labels.rack"}},
			},
		}
		for _, revision := range revisions {
			l.ChangeRevision(nil, revision)
		}
		tasks := make(map[string]*cluster.Task)
		ids := 0
		r.Repeat(map[string]func(*rapid.T){
			"place": func(r *rapid.T) {
				revision := rapid.SampledFrom(revisions).Draw(r, "revision")
				q := l.Require(revision, Surroundings{})
				chosen := l.Place(&q, rapid.IntRange(1, 6).Draw(r, "count"), now)
				keep := rapid.Bool().Draw(r, "written")
				l.Settle()
				if !keep {
					return
				}
				for _, c := range chosen {
					ids++
					task := testTask(fmt.Sprint("t", ids), revision.ServiceID, c.NodeID)
					task.Generic = c.Generic
					l.ChangeTask(nil, task)
					tasks[task.ID] = task
				}
			},
			"change": func(r *rapid.T) {
				if len(tasks) == 0 {
					return
				}
				old := tasks[rapid.SampledFrom(sortedIDs(tasks)).Draw(r, "task")]
				next := *old
				next.Desired = rapid.SampledFrom([]cluster.State{cluster.StateRunning, cluster.StateShutdown}).Draw(r, "desired")
				if !old.Status.State.Terminal() { // observed states only increase
					next.Status.State = rapid.SampledFrom([]cluster.State{cluster.StateRunning, cluster.StateFailed}).Draw(r, "state")
				}
				l.ChangeTask(old, &next)
				tasks[next.ID] = &next
			},
			"delete": func(r *rapid.T) {
				if len(tasks) == 0 {
					return
				}
				old := tasks[rapid.SampledFrom(sortedIDs(tasks)).Draw(r, "task")]
				l.ChangeTask(old, nil)
				delete(tasks, old.ID)
			},
			"node": func(r *rapid.T) {
				i := rapid.IntRange(0, len(nodes)-1).Draw(r, "node")
				next := *nodes[i]
				next.Status.State = rapid.SampledFrom([]cluster.NodeState{cluster.NodeReady, cluster.NodeDown}).Draw(r, "state")
				next.Spec.Labels = map[string]string{
					"zone": rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(r, "zone"),
					"rack": rapid.SampledFrom([]string{"", "1", "2"}).Draw(r, "rack"),
				}
				l.ChangeNode(nodes[i], &next)
				nodes[i] = &next
			},
			"come": func(r *rapid.T) {
				if len(nodes) < 6 {
					n := testNode(fmt.Sprint("m", len(nodes)), 10) // before the others
					l.ChangeNode(nil, n)
					nodes = append(nodes, n)
				}
			},
			"": func(r *rapid.T) {
				fresh := testLedger(nodes...)
				for _, revision := range revisions {
					fresh.ChangeRevision(nil, revision)
				}
				for _, id := range sortedIDs(tasks) {
					fresh.ChangeTask(nil, tasks[id])
				}
				listed := 0
				given := make(map[string]int64)
				for _, task := range tasks {
					for _, c := range task.Generic {
						if l.weight(task).present == 0 {
							continue
						}
						given[task.NodeID+c.Kind] += c.Count
						for _, name := range c.Names {
							if given[task.NodeID+c.Kind+name]++; given[task.NodeID+c.Kind+name] > 1 {
								r.Fatalf("%s of %s was given out twice", name, task.NodeID)
							}
						}
					}
				}
				for _, n := range nodes {
					if given[n.ID+"ssd"] > 3 {
						r.Fatalf("%d of 3 were given out", given[n.ID+"ssd"])
					}
					if l.Use(n.ID) != fresh.Use(n.ID) {
						r.Fatalf("%s: kept %+v, made anew %+v", n.ID, l.Use(n.ID), fresh.Use(n.ID))
					}
					if l.Use(n.ID).Reserved.NanoCPUs > n.Description.Resources.NanoCPUs {
						r.Fatalf("%s is over-committed: %+v", n.ID, l.Use(n.ID))
					}
					if n.Schedulable() {
						listed++
					}
				}
				if l.listed() != listed {
					r.Fatalf("%d nodes are listed, %d take tasks", l.listed(), listed)
				}
				for _, revision := range revisions {
					q := l.Require(revision, Surroundings{})
					one := l.Place(&q, 3, now)
					l.Settle()
					many := l.Place(&q, 9, now)
					l.Settle()
					anew := fresh.Require(revision, Surroundings{})
					if other := fresh.Place(&anew, 9, now); !reflect.DeepEqual(other, many) {
						r.Fatalf("kept, the ledger chooses %v, made anew %v", many, other)
					}
					fresh.Settle()
					if !reflect.DeepEqual(one, many[:min(3, len(many))]) {
						r.Fatalf("one by one gives %v, many at once %v", one, many)
					}
				}
			},
		})
	})
}

// listed is how many nodes are in the load index.
func (l *Ledger) listed() int {
	l.index()
	count := 0
	for _, b := range l.byLoad.buckets {
		count += b.count
	}
	return count
}

func sortedIDs(tasks map[string]*cluster.Task) []string {
	var ids []string
	for id := range tasks {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// TestSettle_ForgetsServicesWithoutTasks checks that a service's load lives from its plan
// until what was planned is written, and no longer than its tasks.
func TestSettle_ForgetsServicesWithoutTasks(t *testing.T) {
	l := testLedger(testNode("n1", 10))
	place(l, testRevision("web", 0), 1)
	place(l, testRevision("db", 0), 1)
	planned := l.loads["web"]
	l.Settle()
	task := testTask("t1", "web", "n1")
	l.ChangeTask(nil, task)
	if l.loads["web"] != planned {
		t.Error("the load of what was just planned is made again")
	}
	l.Settle()
	if len(l.loads) != 1 || l.loads["web"].on(l.nodes["n1"]).wanted != 1 {
		t.Errorf("after one was written: %d loads", len(l.loads))
	}
	l.ChangeTask(task, nil)
	l.Settle()
	l.Settle()
	if len(l.loads) != 0 {
		t.Errorf("without tasks: %d loads", len(l.loads))
	}
}
