package dispatch

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// use puts a revision of service s that refers to secrets and configs by ID.
func (w *world) use(number uint64, secrets, configs []string) {
	w.t.Helper()
	spec := &swarm.ContainerSpec{}
	for _, id := range secrets {
		spec.Secrets = append(spec.Secrets, &swarm.SecretReference{SecretID: id, SecretName: id})
	}
	for _, id := range configs {
		spec.Configs = append(spec.Configs, &swarm.ConfigReference{ConfigID: id, ConfigName: id})
	}
	w.update(func(tx *store.Tx) error {
		return tx.Put(&cluster.Revision{ServiceID: "s", Number: number, Spec: swarm.TaskSpec{ContainerSpec: spec}})
	})
}

func (w *world) putSecret(id, data string) {
	w.t.Helper()
	secret := &cluster.Secret{ID: id}
	secret.Spec.Name, secret.Spec.Data = id, []byte(data)
	w.update(func(tx *store.Tx) error { return tx.Put(secret) })
}

func (w *world) putConfig(id, data string) {
	w.t.Helper()
	config := &cluster.Config{ID: id}
	config.Spec.Name, config.Spec.Data = id, []byte(data)
	w.update(func(tx *store.Tx) error { return tx.Put(config) })
}

// run puts a task of a revision on a node.
func (w *world) run(id, nodeID string, revision uint64) {
	w.t.Helper()
	task := &cluster.Task{ID: id, ServiceID: "s", Revision: revision, NodeID: nodeID, Desired: cluster.StateRunning}
	task.Status.State = cluster.StateAssigned
	w.update(func(tx *store.Tx) error { return tx.Put(task) })
}

func (w *world) change(id string, change func(*cluster.Task)) {
	w.t.Helper()
	w.update(func(tx *store.Tx) error {
		task := *tx.Task(id)
		change(&task)
		return tx.Put(&task)
	})
}

// Agents are sent the secrets and configs that tasks of theirs may need, once, and
// told when they don't any more. Others get nothing of them.
func TestServeSession_SendsSecretsWhereTheyAreUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.addNode("n1")
		w.addNode("n2")
		for _, id := range []string{"x1", "x2", "x3"} {
			w.putSecret(id, "data of "+id)
		}
		w.putConfig("c1", "data of c1")
		w.use(5, []string{"x1", "x2"}, []string{"c1"})
		w.use(6, []string{"x1", "x3"}, nil)
		w.use(7, []string{"nowhere"}, nil)
		w.use(8, nil, nil)
		a, other := w.connect("n1", "m1"), w.connect("n2", "m2")
		expect := func(when string, ids ...string) {
			t.Helper()
			synctest.Wait()
			want := map[string]string{}
			for _, id := range ids {
				want[id] = "data of " + id
				if id == "nowhere" {
					want[id] = "gone"
				}
			}
			if !a.knows(want) {
				t.Fatalf("%s: the agent has %v, want %v", when, a.data, ids)
			}
			if !other.knows(nil) {
				t.Fatalf("%s: the agent of another node has %v", when, other.data)
			}
		}
		expect("before any task")
		w.run("t1", "n1", 5)
		expect("one task", "c1", "x1", "x2")
		w.run("t2", "n1", 5)
		w.run("t3", "n1", 6)
		w.run("t4", "n2", 8)
		expect("three tasks", "c1", "x1", "x2", "x3")
		w.change("t1", func(task *cluster.Task) { task.Desired = cluster.StateShutdown })
		expect("one is to stop", "c1", "x1", "x2", "x3")
		// What the agent itself reports isn't sent back, but counts.
		a.report("t2", cluster.StateFailed, "failed")
		expect("another one failed", "x1", "x3")
		w.run("t5", "n1", 5)
		expect("it is replaced", "c1", "x1", "x2", "x3")
		w.run("t6", "n1", 7)
		expect("a secret is gone", "c1", "x1", "x2", "x3", "nowhere")
		w.update(func(tx *store.Tx) error { tx.Delete(tx.Task("t6")); return nil })
		expect("the task that wanted it is gone", "c1", "x1", "x2", "x3")

		// A removed secret stays where it is in use, but isn't found by another session.
		w.update(func(tx *store.Tx) error { tx.Delete(tx.Secret("x3")); return nil })
		expect("a secret that is in use was removed", "c1", "x1", "x2", "x3")
		a.close()
		a = w.connect("n1", "m2")
		synctest.Wait()
		if !a.knows(map[string]string{"c1": "data of c1", "x1": "data of x1", "x2": "data of x2", "x3": "gone"}) {
			t.Fatalf("after another session: %v", a.data)
		}
		w.update(func(tx *store.Tx) error { tx.Delete(tx.Task("t3")); tx.Delete(tx.Task("t5")); return nil })
		expect("all are gone")
	})
}

// More data than a frame takes comes in pieces, with a complete set and without.
func TestServeSession_CutsLargeSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.addNode("n1")
		const count, size = 40, 1000<<10 - 1
		want := map[string]string{}
		var secrets, configs []string
		for i := range count {
			id := fmt.Sprintf("x%02d", i)
			want[id] = strings.Repeat(fmt.Sprint(i%10), size)
			if i%2 == 0 {
				w.putSecret(id, want[id])
				secrets = append(secrets, id)
			} else {
				w.putConfig(id, want[id])
				configs = append(configs, id)
			}
		}
		w.use(5, secrets, configs)
		a := w.connect("n1", "m1")
		w.run("t1", "n1", 5)
		synctest.Wait()
		if !a.knows(want) {
			t.Fatalf("the agent has %d of %d", len(a.data), count)
		}
		a.close()
		a = w.connect("n1", "m1")
		synctest.Wait()
		if !a.knows(want) || a.fulls != 1 || len(a.holds()) != 1 {
			t.Fatalf("after a new session the agent has %d of %d, %d tasks", len(a.data), count, len(a.holds()))
		}
	})
}

func TestSplit_KeepsSecretsAndConfigs(t *testing.T) {
	for _, full := range []bool{false, true} {
		for secrets := range 4 {
			for configs := range 4 {
				m := &cluster.Assignments{From: 5, To: 9, Full: full, Gone: []string{"gone"}}
				if !full {
					m.Removed, m.Dropped = []string{"removed"}, []string{"dropped"}
				}
				for i := range secrets {
					m.Secrets = append(m.Secrets, &cluster.Secret{ID: fmt.Sprint("s", i)})
				}
				for i := range configs {
					m.Configs = append(m.Configs, &cluster.Config{ID: fmt.Sprint("c", i)})
				}
				for i := range 3 {
					m.Tasks = append(m.Tasks, &cluster.Task{ID: fmt.Sprint(i), ServiceID: "s", Desired: cluster.StateRunning})
				}
				m.Revisions = []*cluster.Revision{{ServiceID: "s"}}
				got, pieces := map[string]int{}, 0
				var walk func(m *cluster.Assignments)
				walk = func(m *cluster.Assignments) {
					if first, second, ok := split(m); ok {
						walk(first)
						walk(second)
						return
					}
					pieces++
					for _, secret := range m.Secrets {
						got[secret.ID]++
					}
					for _, config := range m.Configs {
						got[config.ID]++
					}
					for _, task := range m.Tasks {
						got[task.ID]++
					}
					for _, id := range append(append(append([]string{}, m.Gone...), m.Removed...), m.Dropped...) {
						got[id]++
					}
				}
				walk(m)
				want := secrets + configs + 4
				if !full {
					want += 2
				}
				if len(got) != want || pieces < secrets+configs {
					t.Errorf("full %v: %d secrets, %d configs: %v in %d pieces", full, secrets, configs, got, pieces)
				}
				for id, times := range got {
					if times != 1 {
						t.Errorf("full %v: %s comes %d times", full, id, times)
					}
				}
			}
		}
	}
}
