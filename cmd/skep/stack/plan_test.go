package stack

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/docker/cli/cli/compose/convert"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/swarm"
	"github.com/google/go-cmp/cmp"

	"skep/cluster"
)

func TestChoose(t *testing.T) {
	there := func(all ...string) (found []cluster.StackData) {
		for _, name := range all {
			name, same := strings.CutSuffix(name, "=")
			found = append(found, cluster.StackData{ID: "id of " + name, Name: name, Same: same})
		}
		return found
	}
	for name, c := range map[string]struct {
		named            bool
		found            []cluster.StackData
		id, chosen, does string
	}{
		"the first":                      {false, nil, cluster.PlannedID, "shop_key", cluster.PlanCreate},
		"the same":                       {false, there("shop_key="), "id of shop_key", "shop_key", cluster.PlanUnchanged},
		"another":                        {false, there("shop_key"), cluster.PlannedID, "shop_key-2", cluster.PlanCreate},
		"one after many":                 {false, there("shop_key-2", "shop_key-11", "shop_key"), cluster.PlannedID, "shop_key-12", cluster.PlanCreate},
		"one that was":                   {false, there("shop_key", "shop_key-2=", "shop_key-3"), "id of shop_key-2", "shop_key-2", cluster.PlanUnchanged},
		"of two that are, the last":      {false, there("shop_key=", "shop_key-3="), "id of shop_key-3", "shop_key-3", cluster.PlanUnchanged},
		"names of others":                {false, there("shop_key-x", "shop_key-1", "shop_keys"), cluster.PlannedID, "shop_key", cluster.PlanCreate},
		"with a name, the first":         {true, nil, cluster.PlannedID, "shop_key", cluster.PlanCreate},
		"with a name, the same":          {true, there("shop_key="), "id of shop_key", "shop_key", cluster.PlanUnchanged},
		"with a name, another":           {true, there("shop_key"), "", "shop_key", cluster.PlanUpdate},
		"with a name, one of its past's": {true, there("shop_key", "shop_key-2="), "", "shop_key", cluster.PlanUpdate},
	} {
		d := Data{Kind: "secret", Key: "key", Named: c.named}
		d.Spec.Name, d.Spec.Labels = "shop_key", map[string]string{convert.LabelNamespace: "shop"}
		id, change := Choose(&d, c.found)
		if id != c.id || d.Spec.Name != c.chosen || change.Name != c.chosen || change.Action != c.does || (change.Refused != "") != (id == "") {
			t.Errorf("%s: %q %s, %+v", name, id, d.Spec.Name, change)
		}
		if label := d.Spec.Labels[cluster.LabelStackData]; (label == "key") != (strings.Contains(c.chosen, "-") && c.does == cluster.PlanCreate) {
			t.Errorf("%s: label %q", name, label)
		}
	}
}

func TestShow(t *testing.T) {
	s := &Stack{Name: "shop", Networks: []Network{
		{"shop_back", network.CreateOptions{Driver: "overlay", Attachable: true, Options: map[string]string{"encrypted": ""}}},
		{"shop_front", network.CreateOptions{Driver: "overlay"}},
		{"shop_taken", network.CreateOptions{Driver: "overlay"}},
		{"shop_other", network.CreateOptions{Driver: "overlay", IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: "10.9.0.0/24"}}}}},
	}}
	for _, name := range []string{"shop_db", "shop_web"} {
		s.Services = append(s.Services, swarm.ServiceSpec{Annotations: swarm.Annotations{Name: name}})
	}
	of := map[string]string{convert.LabelNamespace: "shop"}
	live := Live{
		Networks: []network.Summary{{Name: "shop_front", Driver: "overlay", Labels: of}, {Name: "shop_other", Driver: "overlay", Internal: true, Labels: of}, {Name: "shop_taken", Labels: map[string]string{convert.LabelNamespace: "bank"}}},
		Services: []swarm.Service{{Spec: swarm.ServiceSpec{Annotations: swarm.Annotations{Name: "shop_web"}}}, {Spec: swarm.ServiceSpec{Annotations: swarm.Annotations{Name: "shop_old"}}}},
	}
	planned := []cluster.PlannedService{
		{Name: "shop_db", Action: cluster.PlanCreate, Waits: "insufficient memory on 5 nodes"},
		{Name: "shop_hand", Action: cluster.PlanUnchanged},
		{Name: "shop_web", Action: cluster.PlanUpdate, Restarts: true, Refused: "port '80' is taken", Differences: []cluster.Difference{{Field: "image", From: "app:1", To: "app:2"}, {Field: "environment A", To: `"1"`}}},
	}
	for prune, last := range map[bool]string{
		false: "left      service shop_old: the file doesn't have it: --prune removes it\n",
		true:  "remove    service shop_old\n",
	} {
		changes := append(s.NetworkChanges(live), s.ServiceChanges(live, planned, prune)...)
		var out bytes.Buffer
		if err := Show(&out, changes); err != nil {
			t.Fatal(err)
		}
		want := `create    network shop_back
create    network shop_taken
    refused: there is a network of that name that isn't the stack's: if it is to be used, have it be external: true
unchanged network shop_other: it is another one than the file says (internal, subnet 10.9.0.0/24), and stays: remove it, and deploy again, to have it so
create    service shop_db
    would wait: insufficient memory on 5 nodes
unchanged service shop_hand
    refused: there is a service of that name that isn't the stack's: remove it, or name the one in the file otherwise
update    service shop_web (restarts tasks)
    ~ image           app:1 -> app:2
    + environment A   "1"
    refused: port '80' is taken
` + last
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Error(diff)
		}
		asked := s.Request(live, changes, prune)
		if strings.Join(asked.Networks, " ") != "shop_back shop_taken" || (len(asked.Remove) == 1) != prune || len(asked.Services) != 2 {
			t.Errorf("asked %+v", asked)
		}
	}
}

func TestRefer(t *testing.T) {
	live := Live{Secrets: []swarm.Secret{{ID: "s1", Spec: swarm.SecretSpec{Annotations: swarm.Annotations{Name: "key"}}}}}
	for _, c := range []struct{ name, id, gets, says string }{
		{"key", "", "key s1", ""},
		{"mine", "", "mine-2 planned", ""},
		{"none", "", "", "secret none is external, and isn't there"},
		{"key", "s1", "key s1", ""},
		{"key", "s0", "", "secret key, as it was then, was removed"},
		{"gone", "s0", "", "secret gone, as it was then, was removed"},
	} {
		ref := &swarm.SecretReference{SecretName: c.name, SecretID: c.id}
		s := &Stack{Services: []swarm.ServiceSpec{{TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Secrets: []*swarm.SecretReference{ref}}}}}}
		err := s.Refer(live, map[string]Chosen{"secret mine": {"planned", "mine-2"}})
		if c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) || c.says == "" && (err != nil || ref.SecretName+" "+ref.SecretID != c.gets) {
			t.Errorf("%+v: %s %s, %v", c, ref.SecretName, ref.SecretID, err)
		}
	}
}

func TestRecords(t *testing.T) {
	s := &Stack{Name: "shop", Services: []swarm.ServiceSpec{{Annotations: swarm.Annotations{Name: "shop_web"}}}, Networks: []Network{{"shop_default", network.CreateOptions{Driver: "overlay"}}}}
	live := Live{Configs: []swarm.Config{{Spec: swarm.ConfigSpec{Annotations: swarm.Annotations{Name: "shop_conf", Labels: map[string]string{convert.LabelNamespace: "shop"}}}}}}
	if _, err := Recall("shop", Records("shop", live), 0); err == nil {
		t.Error("a stack without any goes back")
	}
	for i := range 11 {
		spec, err := s.Remember(Records("shop", live), fmt.Sprintf("message %d", i))
		if err != nil {
			t.Fatal(err)
		}
		live.Configs = append(live.Configs, swarm.Config{ID: spec.Name, Spec: spec})
		s.Services[0].Labels = map[string]string{"n": spec.Name}
	}
	records := Records("shop", live)
	if len(records) != 11 || records[0].Number != 11 || records[0].ID() != "shop.deploy-11" || records[10].Message != "message 0" || len(Records("bank", live)) != 0 {
		t.Fatalf("%d records: %+v", len(records), records[0])
	}
	back, err := Recall("shop", records, 0)
	if err != nil || back.Recalled() != 10 || back.Services[0].Labels["n"] != "shop.deploy-9" || back.Networks[0].Driver != "overlay" {
		t.Errorf("%+v, %v", back, err)
	}
	for number, says := range map[int]string{11: "is the last one", 12: "isn't remembered"} {
		if _, err := Recall("shop", records, number); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%d: %v", number, err)
		}
	}
}

func TestImages(t *testing.T) {
	of := func(image, label string) *swarm.ServiceSpec {
		s := &swarm.ServiceSpec{TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: image}, Placement: &swarm.Placement{}}}
		s.Labels = map[string]string{convert.LabelImage: label}
		return s
	}
	const digest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	spec := of("web", "web")
	if Tag(spec); spec.TaskTemplate.ContainerSpec.Image != "web:latest" {
		t.Error(spec.TaskTemplate.ContainerSpec.Image)
	}
	var found registry.DistributionInspect
	if err := json.Unmarshal([]byte(`{"Descriptor":{"digest":"`+digest+`"},"Platforms":[{"architecture":"amd64","os":"linux"},{"architecture":"arm","os":"linux"}]}`), &found); err != nil {
		t.Fatal(err)
	}
	Pin(spec, found)
	if spec.TaskTemplate.ContainerSpec.Image != "web:latest@"+digest || !Pinned(spec.TaskTemplate.ContainerSpec.Image) || Pinned("web:1") {
		t.Error(spec.TaskTemplate.ContainerSpec.Image)
	}
	if p := spec.TaskTemplate.Placement.Platforms; len(p) != 2 || p[0].Architecture != "amd64" || p[1].Architecture != "" || p[1].OS != "linux" {
		t.Errorf("%+v", p)
	}
	next := of("web:latest", "web")
	if !KeepImage(next, spec) || next.TaskTemplate.ContainerSpec.Image != "web:latest@"+digest || len(next.TaskTemplate.Placement.Platforms) != 2 {
		t.Errorf("the same image: %+v", next)
	}
	if next = of("web:2", "web:2"); KeepImage(next, spec) || next.TaskTemplate.ContainerSpec.Image != "web:2" {
		t.Errorf("another image: %+v", next)
	}
}

// TestJudge goes by testdata/standing.txt: what there is of a service, and how far it is.
func TestJudge(t *testing.T) {
	data, err := os.ReadFile("testdata/standing.txt")
	if err != nil {
		t.Fatal(err)
	}
	cases := 0
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		cases++
		what, want, _ := strings.Cut(line, " => ")
		var service swarm.Service
		var tasks []swarm.Task
		updated := true
		n := uint64(0)
		for i, word := range strings.Fields(what) {
			key, value, _ := strings.Cut(word, "=")
			switch key {
			case "replicated":
				n = uint64(value[0] - '0')
				service.Spec.Mode.Replicated = &swarm.ReplicatedService{Replicas: &n}
			case "global":
				service.Spec.Mode.Global = &swarm.GlobalService{}
				service.ServiceStatus = &swarm.ServiceStatus{DesiredTasks: uint64(value[0] - '0')}
			case "job":
				n = uint64(value[0] - '0')
				service.Spec.Mode.ReplicatedJob = &swarm.ReplicatedJob{TotalCompletions: &n}
			case "restart":
				service.Spec.TaskTemplate.RestartPolicy = &swarm.RestartPolicy{Condition: swarm.RestartPolicyCondition(value)}
			case "update":
				service.UpdateStatus = &swarm.UpdateStatus{State: swarm.UpdateState(value), Message: "so it says"}
			case "schedule":
				service.Spec.Labels = map[string]string{cluster.LabelSchedule.Name: value}
			case "message":
				service.UpdateStatus.Message = strings.ReplaceAll(value, "_", " ")
			case "old":
				updated = false
			default: // A task: its slot or node, and its state.
				task := swarm.Task{NodeID: "n" + key, Status: swarm.TaskStatus{State: swarm.TaskState(value)}}
				task.CreatedAt = time.Unix(int64(i), 0)
				task.Slot = int(key[0] - '0')
				if value == "failed" || value == "rejected" {
					task.Status.Err = "exit 3"
				}
				tasks = append(tasks, task)
			}
		}
		s := Judge(service, tasks, updated)
		got := "goes on"
		switch {
		case s.Done:
			got = "done"
		case s.Failed:
			got = "failed"
		case s.Stuck:
			got = "stuck"
		}
		if got += ", " + s.Text; got != want {
			t.Errorf("%s\n  is %s\nwant %s", what, got, want)
		}
	}
	if cases < 15 {
		t.Errorf("%d cases", cases)
	}
}
