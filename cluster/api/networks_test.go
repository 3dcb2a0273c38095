package api

import (
	"encoding/json"
	"testing"

	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// TestNetworks_OfTheEngines: services refer to what each engine has by one object for all
// nodes, as in Swarm, which can be inspected, and isn't listed.
func TestNetworks_OfTheEngines(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"host", "bridge", "none"} {
		var found, again network.Inspect
		if err := json.Unmarshal([]byte(b.do("GET", "/networks/"+name+"?scope=swarm", nil).want(t, 200, "").body), &found); err != nil {
			t.Fatal(err)
		}
		if found.Name != name || found.Scope != "swarm" || len(found.ID) != 25 || found.Ingress || found.Labels[cluster.LabelPredefined] != "true" {
			t.Errorf("%+v", found)
		}
		for _, ref := range []string{found.ID, found.ID + "?scope=swarm", found.ID[:12]} {
			if err := json.Unmarshal([]byte(b.do("GET", "/networks/"+ref, nil).want(t, 200, "").body), &again); err != nil || again.ID != found.ID {
				t.Errorf("%s: %+v, %v", ref, again, err)
			}
		}
		b.do("GET", "/networks/"+name, nil).want(t, 503, "no local Docker Engine")

		// By name, by ID, or where old clients put it.
		for i, set := range []func(*swarm.ServiceSpec){
			func(s *swarm.ServiceSpec) { s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: name}} },
			func(s *swarm.ServiceSpec) {
				s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: found.ID}}
			},
			//lint:ignore SA1019 deprecated, but old clients send it
			func(s *swarm.ServiceSpec) { s.Networks = []swarm.NetworkAttachmentConfig{{Target: name}} },
		} {
			id := b.create(spec(name+"-"+string(rune('a'+i)), set))
			stored := b.manager.store.View().Service(id).Spec
			if got := stored.TaskTemplate.Networks; len(got) != 1 || got[0].Target != found.ID {
				t.Errorf("stored %+v", got)
			}
			//lint:ignore SA1019 deprecated, but old clients send it
			if stored.Networks != nil {
				t.Errorf("stored %+v", stored)
			}
			if i > 0 {
				continue
			}
			b.addTask(len(name), id, 1, 1)
			var task swarm.Task
			if err := json.Unmarshal([]byte(b.do("GET", "/tasks/"+taskID(len(name)), nil).want(t, 200, "").body), &task); err != nil {
				t.Fatal(err)
			}
			if a := task.NetworksAttachments; len(a) != 1 || a[0].Network.ID != found.ID || a[0].Network.Spec.Name != name || len(a[0].Addresses) != 0 {
				t.Errorf("task on %s: %+v", name, a)
			}
		}
	}
	id := b.create(spec("plain"))
	b.addTask(20, id, 1, 1)
	var task swarm.Task
	if err := json.Unmarshal([]byte(b.do("GET", "/tasks/"+taskID(20), nil).want(t, 200, "").body), &task); err != nil || len(task.NetworksAttachments) != 0 {
		t.Errorf("task on no network: %+v, %v", task.NetworksAttachments, err)
	}
	var listed []network.Summary
	if err := json.Unmarshal([]byte(b.do("GET", `/networks?filters={"scope":["swarm"]}`, nil).want(t, 200, "").body), &listed); err != nil || len(listed) != 0 {
		t.Errorf("listed %+v, %v", listed, err)
	}
}
