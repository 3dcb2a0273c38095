package scheduler

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"pgregory.net/rapid"

	"skep/cluster"
)

// TestPlan_Properties lets users, nodes and agents do anything in any order, and
// checks after each plan what must always hold, and at the end that everything
// comes to what was wanted.
func TestPlan_Properties(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		h := newHive(t)
		h.forgetful = rapid.Bool().Draw(r, "forgetful")
		// This node is always there, so that in the end there is room.
		big := *h.node("big")
		big.Description.Resources.NanoCPUs = 1000e9
		big.Spec.Labels = map[string]string{"zone": "x"}
		h.put(&big)
		nodes := []string{"n1", "n2", "n3"}
		for _, id := range nodes {
			n := h.node(id)
			for _, name := range []string{"a", "b", "c"} {
				n.Description.Resources.GenericResources = append(n.Description.Resources.GenericResources,
					swarm.GenericResource{NamedResourceSpec: &swarm.NamedGenericResource{Kind: "gpu", Value: name}})
			}
			h.put(n)
		}
		// There are hardly more addresses than tasks in tight.
		h.network("tight", "10.0.1.0/27", false)
		h.network("wide", "10.0.2.0/24", false)
		h.network("ingress", "10.0.0.0/26", true)
		order := rapid.SampledFrom([]string{swarm.UpdateOrderStopFirst, swarm.UpdateOrderStartFirst}).Draw(r, "order")
		services := []string{"a", "b", "global", "job", "globaljob"}
		numbered := services[:2]
		for _, id := range services {
			h.service(id, func(s *swarm.ServiceSpec) { randomSpec(r, s, order) })
		}
		pick := func(name string, from []string) string { return rapid.SampledFrom(from).Draw(r, name) }
		node := func(set func(*cluster.Node)) {
			n := *h.node(pick("node", nodes))
			set(&n)
			h.put(&n)
		}
		actions := map[string]func(*rapid.T){
			"plan":  func(*rapid.T) { h.plan() },
			"plan2": func(*rapid.T) { h.plan() },
			"obey":  func(*rapid.T) { h.obey() },
			"obeySome": func(r *rapid.T) {
				v := h.db.View()
				for t := range v.Tasks() {
					if next, err := h.obedient(v, t); next != t.Status.State && rapid.Bool().Draw(r, "obeys") {
						h.report(t.ID, next, err)
					}
				}
			},
			"advance": func(r *rapid.T) {
				h.now = h.now.Add(time.Duration(rapid.IntRange(1, 8000).Draw(r, "ms")) * time.Millisecond)
			},
			"wake": func(*rapid.T) { h.advance(time.Minute) },
			"fail": func(r *rapid.T) {
				state := rapid.SampledFrom([]cluster.State{cluster.StateFailed, cluster.StateComplete, cluster.StateRejected}).Draw(r, "state")
				for t := range h.db.View().Tasks() {
					if t.NodeID != "" && !t.Status.State.Terminal() && rapid.IntRange(0, 3).Draw(r, "fails") == 0 {
						h.report(t.ID, state, "task: non-zero exit (1)")
					}
				}
			},
			"update": func(r *rapid.T) {
				h.service(pick("service", services), func(s *swarm.ServiceSpec) { randomSpec(r, s, order) })
			},
			"resume": func(*rapid.T) { h.service(pick("service", services), func(*swarm.ServiceSpec) {}) },
			"force": func(*rapid.T) {
				h.service(pick("service", services), func(s *swarm.ServiceSpec) { s.TaskTemplate.ForceUpdate++ })
			},
			"scale": func(r *rapid.T) {
				n := rapid.Uint64Range(0, 5).Draw(r, "replicas")
				h.service(pick("service", numbered), func(s *swarm.ServiceSpec) { s.Mode.Replicated.Replicas = &n })
			},
			"rollback":     func(*rapid.T) { _ = h.rollback(pick("service", services), 0) },
			"rebalance":    func(*rapid.T) { _ = h.rebalance(pick("service", services)) },
			"pauseUpdate":  func(*rapid.T) { _ = h.rollout(pick("service", services), cluster.PauseService) },
			"resumeUpdate": func(*rapid.T) { _ = h.rollout(pick("service", services), cluster.ResumeService) },
			"rollbackTo": func(r *rapid.T) {
				_ = h.rollback(pick("service", services), rapid.Uint64Range(1, 6).Draw(r, "revision"))
			},
			"keep": func(r *rapid.T) {
				keep := rapid.IntRange(0, 4).Draw(r, "revisions")
				c := &cluster.Cluster{ID: "c"}
				if old := h.db.View().Cluster(); old != nil {
					*c = *old
				}
				c.Spec.Labels = map[string]string{cluster.LabelRevisionHistory.Name: fmt.Sprint(keep)}
				h.put(c)
			},
			"coldStart": func(*rapid.T) {
				c := &cluster.Cluster{ID: "c"}
				if old := h.db.View().Cluster(); old != nil {
					*c = *old
				}
				c.ColdStart = h.now
				h.put(c)
			},
			"down": func(*rapid.T) {
				node(func(n *cluster.Node) { n.Status.State, n.Status.Since = cluster.NodeDown, h.now })
			},
			"up": func(*rapid.T) {
				node(func(n *cluster.Node) { n.Status.State, n.Status.Since = cluster.NodeReady, h.now })
			},
			"drain":  func(*rapid.T) { node(func(n *cluster.Node) { n.Spec.Availability = swarm.NodeAvailabilityDrain }) },
			"pause":  func(*rapid.T) { node(func(n *cluster.Node) { n.Spec.Availability = swarm.NodeAvailabilityPause }) },
			"active": func(*rapid.T) { node(func(n *cluster.Node) { n.Spec.Availability = swarm.NodeAvailabilityActive }) },
			"label": func(r *rapid.T) {
				zone := rapid.SampledFrom([]string{"x", "y"}).Draw(r, "zone")
				node(func(n *cluster.Node) { n.Spec.Labels = map[string]string{"zone": zone} })
			},
			"elect": func(*rapid.T) { h.elect() },
			"": func(*rapid.T) {
				h.always(r, order)
			},
		}
		r.Repeat(actions)
		h.quiet(r)
		h.converges(r, nodes, services)
	})
}

func randomSpec(r *rapid.T, s *swarm.ServiceSpec, order string) {
	replicas := rapid.Uint64Range(0, 5).Draw(r, "replicas")
	switch s.Name {
	case "global":
		s.Mode = swarm.ServiceMode{Global: &swarm.GlobalService{}}
	case "globaljob":
		s.Mode = swarm.ServiceMode{GlobalJob: &swarm.GlobalJob{}}
	case "job":
		concurrent := rapid.Uint64Range(1, 3).Draw(r, "concurrent")
		s.Mode = swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{MaxConcurrent: &concurrent, TotalCompletions: &replicas}}
	default:
		s.Mode.Replicated.Replicas = &replicas
	}
	s.TaskTemplate.Placement = nil
	if rapid.IntRange(0, 2).Draw(r, "constrained") == 0 {
		s.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.labels.zone==x"}}
	}
	s.TaskTemplate.ContainerSpec.Image = rapid.SampledFrom([]string{"app:1", "app:2", "app:3", "bad", "stuck"}).Draw(r, "image")
	s.TaskTemplate.Resources = nil
	if cpus := rapid.Int64Range(0, 2).Draw(r, "cpus"); cpus > 0 {
		s.TaskTemplate.Resources = &swarm.ResourceRequirements{Reservations: &swarm.Resources{NanoCPUs: cpus * 1e9}}
	}
	s.EndpointSpec = &swarm.EndpointSpec{Mode: swarm.ResolutionModeDNSRR} // else there may be no address for the service itself
	if rapid.IntRange(0, 3).Draw(r, "published") == 0 {
		s.EndpointSpec.Ports = cluster.ParsePorts("8080:80/tcp")
	}
	if rapid.IntRange(0, 2).Draw(r, "ingress") == 0 {
		port := uint32(9000 + int(s.Name[len(s.Name)-1]) + len(s.Name)<<8) // its own
		s.EndpointSpec.Ports = append(s.EndpointSpec.Ports, publish(port).Ports...)
	}
	s.TaskTemplate.Networks = nil
	for _, id := range rapid.SampledFrom([][]string{nil, {"tight"}, {"tight", "wide"}, {"wide"}}).Draw(r, "networks") {
		s.TaskTemplate.Networks = append(s.TaskTemplate.Networks, swarm.NetworkAttachmentConfig{Target: id})
	}
	if rapid.IntRange(0, 3).Draw(r, "generic") == 0 {
		if s.TaskTemplate.Resources == nil {
			s.TaskTemplate.Resources = &swarm.ResourceRequirements{Reservations: &swarm.Resources{}}
		}
		s.TaskTemplate.Resources.Reservations.GenericResources = []swarm.GenericResource{{DiscreteResourceSpec: &swarm.DiscreteGenericResource{Kind: "gpu", Value: 1}}}
	}
	if rapid.IntRange(0, 2).Draw(r, "spread") == 0 {
		if s.TaskTemplate.Placement == nil {
			s.TaskTemplate.Placement = &swarm.Placement{}
		}
		s.TaskTemplate.Placement.Preferences = []swarm.PlacementPreference{{Spread: &swarm.SpreadOver{SpreadDescriptor: "node.labels.zone"}}}
	}
	delay := time.Duration(rapid.IntRange(0, 3).Draw(r, "delay")) * time.Second
	attempts := rapid.Uint64Range(0, 2).Draw(r, "attempts")
	s.TaskTemplate.RestartPolicy = &swarm.RestartPolicy{
		Delay: &delay, MaxAttempts: &attempts,
		Condition: rapid.SampledFrom([]swarm.RestartPolicyCondition{"any", "any", "on-failure", "none"}).Draw(r, "condition"),
	}
	config := func(name string) *swarm.UpdateConfig {
		return &swarm.UpdateConfig{
			Order: order, Parallelism: rapid.Uint64Range(0, 3).Draw(r, name+"Parallelism"),
			FailureAction:   rapid.SampledFrom([]string{"pause", "continue", "rollback"}).Draw(r, name+"Action"),
			MaxFailureRatio: rapid.SampledFrom([]float32{0, 0.5}).Draw(r, name+"Ratio"),
			Delay:           time.Duration(rapid.IntRange(0, 2).Draw(r, name+"Delay")) * time.Second,
		}
	}
	if s.Mode.ReplicatedJob == nil && s.Mode.GlobalJob == nil {
		s.UpdateConfig, s.RollbackConfig = config("update"), config("rollback")
	}
	s.Labels = map[string]string{cluster.LabelStartDeadline.Name: "20s"}
	if s.Name == "job" {
		s.Labels[cluster.LabelAntiAffinity.Name] = "b"
	}
	if rapid.Bool().Draw(r, "static") {
		s.Labels[cluster.LabelStaticAddresses.Name] = "true"
	}
	if s.Name == "b" && rapid.Bool().Draw(r, "depends") {
		s.Labels[cluster.LabelDependsOn.Name] = "global:healthy"
		s.Labels[cluster.LabelDependsOnTimeout.Name] = rapid.SampledFrom([]string{"10s", "1h"}).Draw(r, "dependsTimeout")
	}
	if s.Mode.ReplicatedJob == nil && s.Mode.GlobalJob == nil && rapid.IntRange(0, 3).Draw(r, "pauses") == 0 {
		s.Labels[cluster.LabelPauseAfter.Name] = rapid.SampledFrom([]string{"1", "2"}).Draw(r, "pauseAfter")
	}
	if s.Mode.Replicated != nil && rapid.IntRange(0, 2).Draw(r, "rebalances") == 0 {
		s.Labels[cluster.LabelRebalance.Name] = "auto"
		s.Labels[cluster.LabelRebalanceQuiet.Name] = rapid.SampledFrom([]string{"1s", "10s"}).Draw(r, "quiet")
	}
	if rapid.Bool().Draw(r, "backoff") {
		s.Labels[cluster.LabelRestartMaxDelay.Name] = "10s"
	}
}

// slotOf names a task's slot: its number, or its node in a global service.
func slotOf(t *cluster.Task) string {
	if t.Slot == 0 {
		return t.NodeID
	}
	return fmt.Sprint(t.Slot)
}

// addresses checks that tasks have theirs while they run, and that nobody gets another's too
// early.
func (h *hive) addresses(r *rapid.T) {
	v, now := h.db.View(), cluster.At(h.now)
	owners := make(map[cluster.Address]*cluster.Task)
	for t := range v.Tasks() {
		for _, a := range t.Addresses {
			owners[a] = t
		}
		if !t.Assigned() || t.Status.State.Terminal() || !t.Live() {
			continue
		}
		for _, attachment := range v.Revision(t.ServiceID, t.Revision).Spec.Networks {
			if n := v.Network(attachment.Target); cluster.AddressIn(t.Addresses, n.VNI) == 0 {
				r.Fatalf("task %s has no address in network %s\n%s", t.ID, n.ID, h.describe(""))
			}
		}
	}
	for a, before := range h.owners {
		t := owners[a]
		if t != nil && t.ID == before.ID {
			continue
		}
		if last := v.Task(before.ID); last != nil {
			before = last
		}
		rested := before.Status.State.Terminal() && now.Sub(before.Status.Applied) >= 30*time.Second
		inherited := t != nil && t.ServiceID == before.ServiceID && slotOf(t) == slotOf(before) && (before.Status.State.Terminal() || !before.Live())
		if !rested && !inherited {
			r.Fatalf("task %s loses its address %v too early\n%s", before.ID, a, h.describe(""))
		}
	}
	h.owners = owners
}

// always is what holds at every moment.
func (h *hive) always(r *rapid.T, order string) {
	h.addresses(r)
	v := h.db.View()
	reserved := make(map[string]int64)
	type place struct {
		service, slot string
	}
	live := make(map[place]int)
	kept := make(map[string]bool)   // nodes that job keeps away from
	once := make(map[string]string) // what only one task has at a time, by node
	begun := make(map[string]int)   // by job
	for t := range v.Tasks() {
		if !t.Status.State.Terminal() && t.Assigned() {
			if spec := v.Revision(t.ServiceID, t.Revision).Spec.Resources; spec != nil {
				reserved[t.NodeID] += spec.Reservations.NanoCPUs
			}
			if t.ServiceID == "b" {
				kept[t.NodeID] = true
			}
			unique := []string{}
			if e := v.Revision(t.ServiceID, t.Revision).Endpoint; len(cluster.HostPorts(e)) > 0 {
				unique = append(unique, t.NodeID+" port")
			}
			for _, c := range t.Generic {
				for _, name := range c.Names {
					unique = append(unique, t.NodeID+" "+name)
				}
			}
			for _, what := range unique {
				if other := once[what]; other != "" {
					r.Fatalf("%s is both %s's and %s's\n%s", what, other, t.ID, h.describe(""))
				}
				once[what] = t.ID
			}
		}
		if t.Live() {
			live[place{t.ServiceID, slotOf(t)}]++
		}
		if s := v.Service(t.ServiceID); s.Job() && t.Revision == s.Revision && t.Live() && !t.Status.State.Terminal() {
			begun[s.ID]++
		}
		if t.Live() && !t.Assigned() && t.Status.Err == "" {
			r.Fatalf("task %s waits for a node and doesn't say why\n%s", t.ID, h.describe(""))
		}
	}
	for t := range v.TasksOfService("job") {
		if kept[t.NodeID] && t.Assigned() && !t.Status.State.Terminal() {
			r.Fatalf("task %s of job is where one of b is\n%s", t.ID, h.describe(""))
		}
	}
	for id, cpus := range reserved {
		if n := v.Node(id); n != nil && cpus > n.Description.Resources.NanoCPUs {
			r.Fatalf("node %s is over-committed: %d\n%s", id, cpus, h.describe(""))
		}
	}
	for id, n := range begun {
		if _, concurrent := v.Service(id).Completions(); !v.Service(id).Global() && n > concurrent {
			r.Fatalf("%d tasks of a job at a time, not %d\n%s", n, concurrent, h.describe(id))
		}
	}
	limit := 1
	if order == swarm.UpdateOrderStartFirst {
		limit = 2
	}
	for at, n := range live {
		if n > limit {
			r.Fatalf("%d live tasks in %s.%s\n%s", n, at.service, at.slot, h.describe(at.service))
		}
	}
}

// quiet checks that planning comes to an end, that a new leader agrees that there
// is nothing to do, and that whatever waits says why.
func (h *hive) quiet(r *rapid.T) {
	h.settle()
	// What takes room at the last moment makes others say something else a moment later.
	for more := true; more; more = len(h.settle()) > 0 {
		h.now = h.now.Add(explainAfter)
	}
	before := h.describe("")
	h.elect()
	if more := h.plan(); len(more) > 0 {
		r.Fatalf("a new leader finds more to do: %v\n%s\n%s", more, before, h.describe(""))
	}
	for t := range h.db.View().Tasks() {
		if t.Live() && t.Desired == cluster.StateReady && t.Status.State == cluster.StateReady && !strings.HasPrefix(t.Status.Message, "waiting for") {
			r.Fatalf("task %s is ready and doesn't say what it waits for\n%s", t.ID, h.describe(""))
		}
	}
	h.rightNodes(r)
	h.sameLedger(r)
}

// rightNodes checks that nothing is left where it may not be, and that a global
// service is wherever it may be.
func (h *hive) rightNodes(r *rapid.T) {
	v := h.db.View()
	for s := range v.Services() {
		for n := range v.Nodes() {
			fits := cluster.Satisfies(n, s.Spec.TaskTemplate.Placement)
			active := n.Spec.Availability == swarm.NodeAvailabilityActive && n.Status.State != cluster.NodeDown
			known := false
			for t := range v.TasksOfNode(n.ID) {
				if t.ServiceID != s.ID {
					continue
				}
				known = known || t.Desired != cluster.StateRemove && (!s.Job() || t.Revision == s.Revision)
				if !t.Live() || t.Status.State.Terminal() {
					continue
				}
				if active && !fits && t.Revision == s.Revision {
					r.Fatalf("task %s is on node %s, which the constraints exclude\n%s", t.ID, n.ID, h.describe(s.ID))
				}
				if s.Global() && n.Lost() {
					r.Fatalf("task %s is wanted on node %s, which is down or drained\n%s", t.ID, n.ID, h.describe(s.ID))
				}
			}
			if s.Global() && n.Schedulable() && fits && !known {
				r.Fatalf("node %s has no task of %s\n%s", n.ID, s.ID, h.describe(s.ID))
			}
		}
	}
}

// sameLedger checks that the ledger kept from changes is the one that a listing
// gives.
func (h *hive) sameLedger(r *rapid.T) {
	h.loop.refresh()
	fresh := List(h.db.View())
	for n := range h.db.View().Nodes() {
		if kept, listed := h.loop.ledger.Use(n.ID), fresh.Use(n.ID); kept != listed {
			r.Fatalf("the ledger has %+v for %s, a listing gives %+v", kept, n.ID, listed)
		}
	}
}

// converges checks that with good nodes, images and agents all is as wanted, in
// the end.
func (h *hive) converges(r *rapid.T, nodes, services []string) {
	for _, id := range nodes {
		n := *h.node(id)
		n.Status.State, n.Spec.Availability = cluster.NodeReady, swarm.NodeAvailabilityActive
		n.Spec.Labels = map[string]string{"zone": "x"}
		n.Description.Resources.NanoCPUs = 1000e9 // for two tasks of the global service at a time
		h.put(&n)
	}
	for _, id := range services {
		h.service(id, func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Image = "app:last"
			s.TaskTemplate.ForceUpdate++
			if two := uint64(2); id == "b" && *s.Mode.Replicated.Replicas > two {
				s.Mode.Replicated.Replicas = &two // or there may be no node without it
			}
			// Of these there may be too few.
			s.EndpointSpec = &swarm.EndpointSpec{Mode: swarm.ResolutionModeDNSRR}
			if r := s.TaskTemplate.Resources; r != nil {
				r.Reservations.GenericResources = nil
			}
			// Addresses in tight may all be resting, for longer than the deadline of before.
			s.Labels[cluster.LabelStartDeadline.Name] = "4m"
			delete(s.Labels, cluster.LabelDependsOnTimeout.Name)
			delete(s.Labels, cluster.LabelPauseAfter.Name)
			delete(s.Labels, cluster.LabelRebalance.Name) // One might have just begun.
			delete(s.Labels, cluster.LabelRebalanceQuiet.Name)
		})
	}
	for end := h.now.Add(5 * time.Minute); h.now.Before(end); h.advance(end.Sub(h.now)) {
		for range 100 {
			h.settle()
			h.always(r, swarm.UpdateOrderStartFirst)
			if !h.obey() {
				break
			}
		}
	}
	v := h.db.View()
	for _, id := range services {
		s := v.Service(id)
		done := cluster.StateRunning
		if s.Job() {
			done = cluster.StateComplete
		}
		running := 0
		for t := range v.TasksOfService(id) {
			switch {
			case t.Live() && t.Status.State == done && t.Revision == s.Revision:
				running++
			case s.Job() && t.Revision != s.Revision:
				r.Fatalf("task %s of an old iteration is still there\n%s", t.ID, h.describe(id))
			case t.Live() || !t.Status.State.Terminal():
				r.Fatalf("task %s is still there\n%s", t.ID, h.describe(id))
			}
		}
		total, _ := s.Completions()
		total += s.Replicas()
		if s.Global() {
			for n := range v.Nodes() {
				if cluster.Satisfies(n, s.Spec.TaskTemplate.Placement) {
					total++
				}
			}
		}
		if running != total {
			r.Fatalf("%d tasks run instead of %d\n%s", running, total, h.describe(id))
		}
		if rollout := v.Rollout(id); rollout != nil && !rollout.Done() {
			r.Fatalf("the rollout doesn't end\n%s", h.describe(id))
		}
		keep := cluster.DefaultRevisionHistory
		if c := v.Cluster(); c != nil {
			keep = cluster.RevisionHistory(c.Spec)
		}
		newer := -keep
		for range v.RevisionsOf(id) {
			newer++
		}
		for revision := range v.RevisionsOf(id) {
			newer--
			used := newer < 0 || revision.Number == s.Revision || revision.Number == s.PreviousRevision
			for t := range v.TasksOfService(id) {
				used = used || t.Revision == revision.Number
			}
			if !used {
				r.Fatalf("revision %d is still there", revision.Number)
			}
		}
		if v.Revision(id, s.Revision) == nil || s.Previous != nil && v.Revision(id, s.PreviousRevision) == nil {
			r.Fatalf("a revision that the service refers to is gone\n%s", h.kept(id))
		}
	}
}

// TestPlan_Parallelism checks that updates and drains never take away more slots
// at a time than the policy allows.
func TestPlan_Parallelism(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		h := newHive(t)
		h.forgetful = rapid.Bool().Draw(r, "forgetful")
		for _, id := range []string{"n1", "n2", "n3"} {
			h.put(h.node(id))
		}
		replicas := rapid.Uint64Range(1, 8).Draw(r, "replicas")
		global := rapid.Bool().Draw(r, "global")
		if global {
			replicas = 3
		}
		parallelism := rapid.Uint64Range(1, 4).Draw(r, "parallelism")
		h.service("web", func(s *swarm.ServiceSpec) {
			s.Mode.Replicated.Replicas = &replicas
			if global {
				s.Mode = swarm.ServiceMode{Global: &swarm.GlobalService{}}
			}
			s.UpdateConfig = &swarm.UpdateConfig{Parallelism: parallelism, Delay: time.Duration(rapid.IntRange(0, 2).Draw(r, "delay")) * time.Second}
			s.RollbackConfig = s.UpdateConfig
		})
		h.settle()
		h.obey()
		h.settle()
		down := func() (n int) {
			runs := make(map[string]bool)
			for t := range h.db.View().TasksOfService("web") {
				if t.Live() && t.Status.State == cluster.StateRunning {
					runs[slotOf(t)] = true
				}
			}
			return int(replicas) - len(runs)
		}
		image := 1
		r.Repeat(map[string]func(*rapid.T){
			"plan": func(*rapid.T) { h.plan() },
			"obeySome": func(r *rapid.T) {
				v := h.db.View()
				for t := range v.Tasks() {
					if next, err := h.obedient(v, t); next != t.Status.State && rapid.Bool().Draw(r, "obeys") {
						h.report(t.ID, next, err)
					}
				}
			},
			"obey": func(*rapid.T) { h.obey() },
			"advance": func(r *rapid.T) {
				h.now = h.now.Add(time.Duration(rapid.IntRange(1, 3000).Draw(r, "ms")) * time.Millisecond)
			},
			"update": func(*rapid.T) {
				image++
				h.service("web", func(s *swarm.ServiceSpec) {
					s.TaskTemplate.ContainerSpec.Image = fmt.Sprintf("app:%d", image)
				})
			},
			"rollback":  func(*rapid.T) { _ = h.rollback("web", 0) },
			"rebalance": func(*rapid.T) { _ = h.rebalance("web") },
			"drain": func(r *rapid.T) {
				if global {
					return // There is no other place for its tasks, so they go at once.
				}
				n := *h.node(rapid.SampledFrom([]string{"n1", "n2"}).Draw(r, "node"))
				n.Spec.Availability = swarm.NodeAvailabilityDrain
				h.put(&n)
			},
			"active": func(r *rapid.T) {
				n := *h.node(rapid.SampledFrom([]string{"n1", "n2"}).Draw(r, "node"))
				n.Spec.Availability = swarm.NodeAvailabilityActive
				h.put(&n)
			},
			"": func(r *rapid.T) {
				if n := down(); n > int(parallelism) {
					r.Fatalf("%d slots are down, parallelism is %d\n%s", n, parallelism, h.describe("web"))
				}
			},
		})
	})
}

// updateStory plays one update from beginning to end; each plan goes through
// step, which must write it.
func updateStory(t *testing.T, global bool, set func(*swarm.ServiceSpec), forgetful bool, write func(h *hive, step int, intents []Intent) []Intent) (string, int) {
	t.Helper()
	h := newHive(t)
	h.put(h.node("n1"))
	h.put(h.node("n2"))
	replicas := uint64(4)
	h.service("web", func(s *swarm.ServiceSpec) { s.Mode.Replicated.Replicas = &replicas })
	if global {
		h = newHive(t)
		for _, id := range []string{"n1", "n2", "n3", "n4"} {
			h.put(h.node(id))
		}
		h.service("web", func(s *swarm.ServiceSpec) { s.Mode = swarm.ServiceMode{Global: &swarm.GlobalService{}} })
	}
	h.settle()
	h.obey()
	h.settle()
	h.service("web", set)
	step := 0
	for end := h.now.Add(2 * time.Minute); h.now.Before(end); h.advance(end.Sub(h.now)) {
		for quiet := 0; quiet < 2; {
			if forgetful {
				h.elect()
			}
			h.loop.refresh()
			result, _ := h.loop.plan()
			intents := result.Intents
			if len(intents) > 0 {
				intents = write(h, step, intents)
				step++
			}
			if _, err := Write(context.Background(), h.db, intents); err != nil {
				t.Fatal(err)
			}
			if len(result.Intents) == 0 && !h.obey() {
				quiet++
			} else {
				quiet = 0
			}
		}
	}
	return h.describe("web"), step
}

// TestPlan_NewLeader plays updates of all kinds, with one leader, with a new
// leader for each plan, and with a leader that dies in the middle of writing each
// of its plans. The outcome must be the same; with a leader that dies, but for
// the tasks' names.
func TestPlan_NewLeader(t *testing.T) {
	config := func(order, action string) *swarm.UpdateConfig {
		return &swarm.UpdateConfig{Parallelism: 2, Delay: 3 * time.Second, Order: order, FailureAction: action}
	}
	for _, kind := range []string{"stop-first", "start-first", "global stop-first", "global start-first"} {
		order, global := strings.CutPrefix(kind, "global ")
		for _, runs := range []string{"app:2", "bad", "stuck", "app:2 pausing"} {
			image, pausing := strings.CutSuffix(runs, " pausing")
			for _, action := range []string{"pause", "rollback", "continue"} {
				t.Run(kind+" "+runs+" "+action, func(t *testing.T) {
					delay := time.Hour // so that a failure happens once
					set := func(s *swarm.ServiceSpec) {
						s.TaskTemplate.ContainerSpec.Image = image
						s.TaskTemplate.RestartPolicy = &swarm.RestartPolicy{Delay: &delay}
						s.UpdateConfig, s.RollbackConfig = config(order, action), config(order, action)
						s.Labels = map[string]string{cluster.LabelStartDeadline.Name: "7s"}
						if pausing {
							s.Labels[cluster.LabelPauseAfter.Name] = "1"
						}
					}
					whole := func(_ *hive, _ int, intents []Intent) []Intent { return intents }
					want, steps := updateStory(t, global, set, false, whole)
					if got, _ := updateStory(t, global, set, true, whole); got != want {
						t.Errorf("with new leaders:\n%s\nwith one leader:\n%s", got, want)
					}
					for dies := range steps {
						for written := range 3 {
							got, _ := updateStory(t, global, set, false, func(h *hive, step int, intents []Intent) []Intent {
								if step != dies || written >= len(intents) {
									return intents
								}
								if _, err := Write(context.Background(), h.db, intents[:written]); err != nil {
									t.Fatal(err)
								}
								h.elect()
								return nil
							})
							if withoutIDs(got) != withoutIDs(want) {
								t.Errorf("the leader died at step %d after %d intents:\n%s\nwith one leader:\n%s", dies, written, got, want)
							}
						}
					}
				})
			}
		}
	}
}

// withoutIDs leaves out what depends on which IDs were used up.
func withoutIDs(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		fields := strings.Fields(line)
		fields = slices.DeleteFunc(fields, func(f string) bool {
			return len(f) >= 3 && f[0] == 't' && f[1] >= '0' && f[1] <= '9'
		})
		lines[i] = strings.Join(fields, " ")
	}
	return strings.Join(lines, "\n")
}
