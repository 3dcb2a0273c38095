package api

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// plan asks what specs would do.
func (b *bench) plan(asked cluster.PlanRequest) map[string]cluster.PlannedService {
	b.t.Helper()
	var list []cluster.PlannedService
	b.do("POST", "/skep/v1/services/plan", asked).want(b.t, 200, "").into(b.t, &list)
	planned := map[string]cluster.PlannedService{}
	for _, p := range list {
		planned[p.Name] = p
	}
	return planned
}

// said is a plan in lines.
func said(p cluster.PlannedService) string {
	lines := []string{fmt.Sprintf("%s restarts=%v", p.Action, p.Restarts)}
	if p.Refused != "" {
		lines = append(lines, "refused: "+p.Refused)
	}
	for _, d := range p.Differences {
		lines = append(lines, strings.ReplaceAll(d.String(), "\t", " "))
	}
	return strings.Join(lines, "\n")
}

func TestPlanServices(t *testing.T) {
	b := newBench(t)
	b.createNetwork(overlay("ingress", func(asked *network.CreateRequest) { asked.Ingress = true }))
	two := uint64(2)
	web := spec("web", func(s *swarm.ServiceSpec) {
		s.EndpointSpec.Ports = []swarm.PortConfig{{TargetPort: 80, PublishedPort: 8080, PublishMode: swarm.PortConfigPublishModeIngress}}
		s.TaskTemplate.Placement = &swarm.Placement{}
	})
	id := b.create(web)
	b.addTask(1, id, 1, 2)
	before := b.view()
	changed := func(change func(*swarm.ServiceSpec)) swarm.ServiceSpec {
		s := spec("web", func(s *swarm.ServiceSpec) {
			s.EndpointSpec.Ports = []swarm.PortConfig{{TargetPort: 80, PublishedPort: 8080, PublishMode: swarm.PortConfigPublishModeIngress}}
			s.TaskTemplate.Placement = &swarm.Placement{}
		})
		change(&s)
		return s
	}
	for name, c := range map[string]struct {
		spec swarm.ServiceSpec
		want string
	}{
		"what was sent, in the words of the sender": {changed(func(*swarm.ServiceSpec) {}), "unchanged restarts=false"},
		"a scaling":        {changed(func(s *swarm.ServiceSpec) { s.Mode.Replicated.Replicas = &two }), "update restarts=false\n~ replicated replicas 1 -> 2"},
		"a label":          {changed(func(s *swarm.ServiceSpec) { s.Labels["tier"] = "one" }), "update restarts=false\n+ label tier one"},
		"an image":         {changed(func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "app:2" }), "update restarts=true\n~ image timecheck:1.0 -> app:2"},
		"how to update":    {changed(func(s *swarm.ServiceSpec) { s.UpdateConfig = &swarm.UpdateConfig{Parallelism: 2} }), "update restarts=false\n+ update failure action pause\n+ update max failure ratio 0\n+ update order stop-first\n+ update parallelism 2"},
		"a constraint met": {changed(func(s *swarm.ServiceSpec) { s.TaskTemplate.Placement.Constraints = []string{"node.hostname!=none"} }), "update restarts=false\n+ placement constraints node.hostname!=none"},
		"one that isn't":   {changed(func(s *swarm.ServiceSpec) { s.TaskTemplate.Placement.Constraints = []string{"node.hostname==none"} }), "update restarts=true\n+ placement constraints node.hostname==none"},
		"another mode":     {changed(func(s *swarm.ServiceSpec) { s.Mode = swarm.ServiceMode{Global: &swarm.GlobalService{}} }), "update restarts=false\nrefused: service mode change is not allowed: remove the service first"},
		"a spec that is refused": {changed(func(s *swarm.ServiceSpec) { s.Labels["skep.bogus"] = "1" }),
			"update restarts=false\nrefused: label skep.bogus"},
		"a new service": {spec("new"), "create restarts=false"},
	} {
		got := said(b.plan(cluster.PlanRequest{Services: []swarm.ServiceSpec{c.spec}})[c.spec.Name])
		if got != c.want && (!strings.Contains(c.want, "refused") || !strings.HasPrefix(got, c.want)) {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, c.want)
		}
	}

	// What would be there by then.
	fresh := spec("fresh", func(s *swarm.ServiceSpec) {
		s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "back"}}
		s.TaskTemplate.ContainerSpec.Secrets = []*swarm.SecretReference{{SecretID: cluster.PlannedID, SecretName: "key", File: &swarm.SecretReferenceFileTarget{Name: "key"}}}
		s.EndpointSpec.Ports = []swarm.PortConfig{{TargetPort: 80, PublishedPort: 8080, PublishMode: swarm.PortConfigPublishModeIngress}}
	})
	asked := cluster.PlanRequest{Services: []swarm.ServiceSpec{fresh}, Secrets: []string{"key"}}
	if got := said(b.plan(asked)["fresh"]); !strings.Contains(got, "back") {
		t.Errorf("without its network: %s", got)
	}
	asked.Networks = []string{"back"}
	if got := said(b.plan(asked)["fresh"]); !strings.Contains(got, "port '8080' is already in use by service 'web'") {
		t.Errorf("with its port taken: %s", got)
	}
	asked.Remove = []string{"web", "none"}
	if got := said(b.plan(asked)["fresh"]); got != "create restarts=false" {
		t.Errorf("all as it should be: %s", got)
	}
	// Two that want the same.
	other := fresh
	other.Name = "other"
	asked.Services = append(asked.Services, other)
	if got := b.plan(asked); got["fresh"].Refused != "" || !strings.Contains(got["other"].Refused, "already in use by service 'fresh'") {
		t.Errorf("two that want one port: %+v", got)
	}
	if after := b.view(); after.Index() != before.Index() || after.ServiceNamed("fresh") != nil || after.NetworkNamed("back") != nil || after.ServiceNamed("web") == nil {
		t.Errorf("a plan was written, at index %d after %d", after.Index(), before.Index())
	}
	b.do("POST", "/skep/v1/services/plan", `{"Services":[{"Nonsense":1}]}`).want(t, 400, "unknown field")
}

// TestPlanServices_Waits asks for more than there is.
func TestPlanServices_Waits(t *testing.T) {
	b := newBench(t)
	nodes := 0
	b.update(func(tx *store.Tx) error {
		for node := range tx.Nodes() {
			next := *node
			next.Description.Resources.MemoryBytes, next.Description.Resources.NanoCPUs = 4<<30, 4e9
			if err := tx.Put(&next); err != nil {
				return err
			}
			nodes++
		}
		return nil
	})
	sized := func(name string, replicas uint64, gb int64, change ...func(*swarm.ServiceSpec)) swarm.ServiceSpec {
		return spec(name, append(change, func(s *swarm.ServiceSpec) {
			if s.Mode.Replicated != nil {
				s.Mode.Replicated.Replicas = &replicas
			}
			s.TaskTemplate.Resources = &swarm.ResourceRequirements{Reservations: &swarm.Resources{MemoryBytes: gb << 30}}
		})...)
	}
	global := func(s *swarm.ServiceSpec) { s.Mode = swarm.ServiceMode{Global: &swarm.GlobalService{}} }
	insufficient := fmt.Sprintf("no suitable node (insufficient memory on %d nodes)", nodes)
	old := b.create(sized("old", 1, 3))
	b.addTask(1, old, 1, 1)
	for name, c := range map[string]struct {
		asked cluster.PlanRequest
		waits string
	}{
		"that fits":                {cluster.PlanRequest{Services: []swarm.ServiceSpec{sized("a", uint64(nodes)-1, 3)}}, ""},
		"one too many":             {cluster.PlanRequest{Services: []swarm.ServiceSpec{sized("a", uint64(nodes), 3)}}, fmt.Sprintf("1 of %d tasks: %s", nodes, insufficient)},
		"in place of another":      {cluster.PlanRequest{Services: []swarm.ServiceSpec{sized("a", uint64(nodes), 3)}, Remove: []string{"old"}}, ""},
		"too large":                {cluster.PlanRequest{Services: []swarm.ServiceSpec{sized("a", 2, 5)}}, "2 of 2 tasks: " + insufficient},
		"two that don't fit":       {cluster.PlanRequest{Services: []swarm.ServiceSpec{sized("b", uint64(nodes)-1, 3), sized("a", 1, 3)}}, "1 of 1 tasks: " + insufficient},
		"an update of its own":     {cluster.PlanRequest{Services: []swarm.ServiceSpec{sized("old", 1, 4)}}, ""},
		"more replicas":            {cluster.PlanRequest{Services: []swarm.ServiceSpec{sized("old", uint64(nodes), 3)}}, ""},
		"too many of them":         {cluster.PlanRequest{Services: []swarm.ServiceSpec{sized("old", uint64(nodes)+2, 3)}}, fmt.Sprintf("2 of %d tasks: %s", nodes+1, insufficient)},
		"one on each node":         {cluster.PlanRequest{Services: []swarm.ServiceSpec{sized("a", 0, 3, global)}}, fmt.Sprintf("1 of %d tasks: no suitable node (insufficient memory on 1 node)", nodes)},
		"a constraint nobody has":  {cluster.PlanRequest{Services: []swarm.ServiceSpec{sized("a", 1, 1, func(s *swarm.ServiceSpec) { s.TaskTemplate.Placement.Constraints = []string{"node.labels.a==b"} })}}, fmt.Sprintf("1 of 1 tasks: no suitable node (scheduling constraints not satisfied on %d nodes)", nodes)},
		"more than anybody counts": {cluster.PlanRequest{Services: []swarm.ServiceSpec{sized("a", 1_000_000, 5)}}, fmt.Sprintf("%d of %d tasks: %s", maxForeseen, maxForeseen, insufficient)},
	} {
		planned := b.plan(c.asked)
		p := planned[c.asked.Services[len(c.asked.Services)-1].Name]
		if p.Waits != c.waits || p.Refused != "" {
			t.Errorf("%s: waits %q, refused %q, want %q", name, p.Waits, p.Refused, c.waits)
		}
	}
}

// TestPlanServices_AnUpdateDoesWhatWasPlanned has each spec of the fuzzer's planned and sent.
func TestPlanServices_AnUpdateDoesWhatWasPlanned(t *testing.T) {
	b := stocked(t)
	good, bad := 0, 0
	all := bodies(t)
	for _, bad := range []func(*swarm.ServiceSpec){
		func(s *swarm.ServiceSpec) { s.Labels["skep.bogus"] = "1" },
		func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "none"}}
		},
		func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "" },
		func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Configs = []*swarm.ConfigReference{{ConfigID: "none", ConfigName: "none", File: &swarm.ConfigReferenceFileTarget{Name: "x"}}}
		},
	} {
		body, err := json.Marshal(spec("bad", bad))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, body)
	}
	for i, body := range all {
		var planned []cluster.PlannedService
		p := b.do("POST", "/skep/v1/services/plan", fmt.Sprintf(`{"Services":[%s]}`, body))
		if p.status != 200 {
			continue // It isn't JSON of a spec.
		}
		p.into(t, &planned)
		if len(planned) != 1 || planned[0].Name == "" {
			continue
		}
		path := "/services/create"
		if old := b.view().ServiceNamed(planned[0].Name); old != nil {
			path = fmt.Sprintf("/services/%s/update?version=%d", old.ID, old.Version)
		}
		done := b.do("POST", path, string(body))
		if refused := done.status >= 300; refused != (planned[0].Refused != "") {
			t.Errorf("body %d was planned as %q, and then %d: %s", i, planned[0].Refused, done.status, done.body)
		} else if refused {
			bad++
		} else {
			good++
		}
	}
	if good < 3 || bad < 3 {
		t.Errorf("%d were done and %d refused: too few to say anything", good, bad)
	}
}

func TestMatchData(t *testing.T) {
	b := newBench(t)
	put := func(kind, name, data string, labels map[string]string) string {
		var made swarm.SecretCreateResponse
		b.do("POST", "/"+kind+"s/create", swarm.ConfigSpec{Annotations: swarm.Annotations{Name: name, Labels: labels}, Data: []byte(data)}).want(t, 201, "").into(t, &made)
		return made.ID
	}
	of := func(stack, key string) map[string]string {
		return map[string]string{cluster.LabelStack: stack, cluster.LabelStackData: key}
	}
	for _, kind := range []string{"secret", "config"} {
		first := put(kind, "shop_key", "canary-one", map[string]string{cluster.LabelStack: "shop"}) // As docker makes it.
		second := put(kind, "shop_key-2", "canary-two", of("shop", "key"))
		put(kind, "other", "canary-two", of("shop", "other"))
		put(kind, "bank_key", "canary-two", of("bank", "key"))
		ask := func(data string) string {
			var found []cluster.StackData
			a := b.do("POST", "/skep/v1/"+kind+"s/match", swarm.ConfigSpec{Annotations: swarm.Annotations{Name: "shop_key", Labels: of("shop", "key")}, Data: []byte(data)}).want(t, 200, "")
			if a.into(t, &found); strings.Contains(a.body, "canary") {
				t.Errorf("it tells the data: %s", a.body)
			}
			same := ""
			for _, f := range found {
				if f.Same {
					same += f.ID
				}
			}
			return fmt.Sprintf("%d %s", len(found), same)
		}
		for data, want := range map[string]string{"canary-one": "2 " + first, "canary-two": "2 " + second, "canary-three": "2 "} {
			if got := ask(data); got != want {
				t.Errorf("%s %s: %q, want %q", kind, data, got, want)
			}
		}
		b.do("POST", "/skep/v1/"+kind+"s/match", swarm.ConfigSpec{Annotations: swarm.Annotations{Name: "shop_key"}}).want(t, 400, kind+" data must be larger than 0")
		b.do("POST", "/skep/v1/"+kind+"s/match", `{"Bogus":"canary"}`).want(t, 400, "")
	}
}
