package scheduler

import (
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// TestPlan_Scripts runs the scripts in testdata. `go test -rewrite` writes what
// came out into them: commit that only when it is understood.
func TestPlan_Scripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			h := newHive(t)
			datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
				h.t = t
				return h.script(d)
			})
		})
	}
}

// script does one command.
func (h *hive) script(d *datadriven.TestData) string {
	name := ""
	if len(d.CmdArgs) > 0 && len(d.CmdArgs[0].Vals) == 0 {
		name = d.CmdArgs[0].Key
	}
	switch d.Cmd {
	case "cluster":
		c := &cluster.Cluster{ID: "c"}
		for _, arg := range d.CmdArgs {
			if arg.Key == "cold-start" {
				c.ColdStart = h.now
				continue
			}
			if arg.Key == "revisions" {
				c.Spec.Labels = map[string]string{cluster.LabelRevisionHistory.Name: arg.Vals[0]}
				continue
			}
			if arg.Key == "log-driver" {
				c.Spec.TaskDefaults.LogDriver = &swarm.Driver{Name: arg.Vals[0]}
				continue
			}
			limit := number[int64](h.t, arg)
			c.Spec.Orchestration.TaskHistoryRetentionLimit = &limit
		}
		h.put(c)
	case "node":
		n := *h.node(name)
		for _, arg := range d.CmdArgs[1:] {
			h.setNode(&n, arg)
		}
		h.put(&n)
	case "network":
		subnet, ingress := "10.0.1.0/24", false
		for _, arg := range d.CmdArgs[1:] {
			if ingress = ingress || arg.Key == "ingress"; arg.Key == "subnet" {
				subnet = arg.Vals[0]
			}
		}
		if d.HasArg("driver") { // Each engine makes it by itself.
			n := &cluster.Network{ID: name}
			n.Spec.Name, n.Spec.DriverConfiguration = name, &swarm.Driver{Name: d.CmdArgs[1].Vals[0]}
			h.put(n)
			break
		}
		h.network(name, subnet, ingress)
		if d.HasArg("encrypted") {
			h.update(func(tx *store.Tx) error {
				n := *tx.Network(name)
				n.Spec.DriverConfiguration = &swarm.Driver{Name: cluster.OverlayDriver, Options: map[string]string{cluster.OptionEncrypted: ""}}
				return tx.Put(&n)
			})
		}
	case "rmnetwork":
		h.update(func(tx *store.Tx) error { tx.Delete(tx.Network(name)); return nil })
	case "holder": // has the addresses from first to last, until it is removed
		h.holder(name, d.CmdArgs[1].Key, number[int64](h.t, d.CmdArgs[2]), number[int64](h.t, d.CmdArgs[3]))
	case "secret":
		secret := &cluster.Secret{ID: name}
		secret.Spec.Name = name
		h.put(secret)
	case "rmsecret":
		h.update(func(tx *store.Tx) error { tx.Delete(tx.Secret(name)); return nil })
	case "rmnode":
		h.update(func(tx *store.Tx) error { tx.Delete(tx.Node(name)); return nil })
	case "service", "update":
		h.service(name, func(spec *swarm.ServiceSpec) {
			for _, arg := range d.CmdArgs[1:] {
				h.setService(spec, arg)
			}
		})
	case "rebalance":
		if err := h.rebalance(name); err != nil {
			return err.Error()
		}
	case "pause-schedule", "resume-schedule":
		next := *h.db.View().Service(name)
		if next.SchedulePaused = d.Cmd == "pause-schedule"; !next.SchedulePaused {
			next.ScheduledSince = h.now
		}
		h.put(&next)
	case "job-run":
		v := h.db.View()
		h.apply(cluster.RunJob(v.Service(name), v.Revision(name, v.Service(name).Revision), time.Time{}))
	case "pause", "resume":
		change := cluster.PauseService
		if d.Cmd == "resume" {
			change = cluster.ResumeService
		}
		if err := h.rollout(name, change); err != nil {
			return err.Error()
		}
	case "restart": // all at once
		v := h.db.View()
		old := v.Service(name)
		change, err := cluster.RestartService(old, v.Revision(name, old.Revision), v.Rollout(name), true, h.now)
		if err != nil {
			return err.Error()
		}
		h.apply(change)
	case "rollback":
		to := uint64(0)
		for _, arg := range d.CmdArgs[1:] {
			to = number[uint64](h.t, arg)
		}
		if err := h.rollback(name, to); err != nil {
			return err.Error()
		}
	case "remove":
		h.remove(name)
	case "report":
		state, err := cluster.ParseState(d.CmdArgs[1].Key)
		if err != nil {
			h.t.Fatal(err)
		}
		text := ""
		if state == cluster.StateFailed {
			text = "task: non-zero exit (137)"
		}
		for _, id := range strings.Split(name, "+") {
			h.report(id, state, text)
		}
	case "obey":
		h.obey()
	case "advance":
		by, err := time.ParseDuration(name)
		if err != nil {
			h.t.Fatal(err)
		}
		h.now = h.now.Add(by)
	case "clock": // such as 03:00:00, on the same day or the next one
		at, err := time.Parse(time.TimeOnly, name)
		if err != nil {
			h.t.Fatal(err)
		}
		day := h.now.Truncate(24 * time.Hour).Add(time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute + time.Duration(at.Second())*time.Second)
		if h.now = day.Add(map[bool]time.Duration{true: 24 * time.Hour}[day.Before(h.now)]); len(d.CmdArgs) > 1 {
			h.now = day // It was set back.
		}
	case "elect":
		h.elect()
	case "plan":
		return h.show(h.plan())
	case "settle":
		return h.show(h.settle())
	case "run":
		return h.run(d)
	case "tasks":
		return h.describe(name)
	case "revisions":
		return h.kept(name)
	default:
		h.t.Fatalf("what is %q?", d.Cmd)
	}
	return ""
}

// show prints intents, and when to look again.
func (h *hive) show(intents []Intent) string {
	var b strings.Builder
	for _, intent := range intents {
		fmt.Fprintln(&b, intent)
	}
	if at, ok := h.loop.wakes.next(); ok {
		fmt.Fprintf(&b, "wake at %s\n", at.Format(time.TimeOnly))
	}
	if b.Len() == 0 {
		return "nothing\n"
	}
	return b.String()
}

// run lets planner and agents work for a while and prints each plan with its time.
func (h *hive) run(d *datadriven.TestData) string {
	limit := 10 * time.Second
	for _, arg := range d.CmdArgs {
		if arg.Key == "for" {
			var err error
			if limit, err = time.ParseDuration(arg.Vals[0]); err != nil {
				h.t.Fatal(err)
			}
		}
	}
	var b strings.Builder
	for end := h.now.Add(limit); ; {
		for round := 0; ; round++ {
			for _, intent := range h.settle() {
				fmt.Fprintf(&b, "%s %s\n", h.now.Format(time.TimeOnly), intent)
			}
			if !h.obey() {
				break
			}
			if round == 100 {
				h.t.Fatalf("planner and agents come to no end at %v:\n%s", h.now, b.String())
			}
		}
		if !h.now.Before(end) {
			return b.String()
		}
		h.advance(end.Sub(h.now))
	}
}

func number[T int64 | uint64](t testing.TB, arg datadriven.CmdArg) T {
	t.Helper()
	n, err := strconv.ParseInt(arg.Vals[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return T(n)
}

func (h *hive) setNode(n *cluster.Node, arg datadriven.CmdArg) {
	value := arg.Vals[0]
	switch key, label, _ := strings.Cut(arg.Key, "."); key {
	case "cpu":
		n.Description.Resources.NanoCPUs = 1e9 * number[int64](h.t, arg)
	case "memory": // in MiB
		n.Description.Resources.MemoryBytes = number[int64](h.t, arg) << 20
	case "generic":
		n.Description.Resources.GenericResources = nil
		for _, value := range arg.Vals { // gpu:a names one, ssd:2 has so many
			kind, name, _ := strings.Cut(value, ":")
			g := swarm.GenericResource{NamedResourceSpec: &swarm.NamedGenericResource{Kind: kind, Value: name}}
			if count, err := strconv.ParseInt(name, 10, 64); err == nil {
				g = swarm.GenericResource{DiscreteResourceSpec: &swarm.DiscreteGenericResource{Kind: kind, Value: count}}
			}
			n.Description.Resources.GenericResources = append(n.Description.Resources.GenericResources, g)
		}
	case "plugin":
		n.Description.Engine.Plugins = nil
		for _, value := range arg.Vals { // Log:gelf
			kind, name, _ := strings.Cut(value, ":")
			n.Description.Engine.Plugins = append(n.Description.Engine.Plugins, swarm.PluginDescription{Type: kind, Name: name})
		}
	case "uses": // what its engine has; with a name behind it of a network of the cluster's
		n.Uses = nil
		for _, value := range arg.Vals {
			prefix, of, _ := strings.Cut(value, ":")
			if value != "none" {
				n.Uses = append(n.Uses, cluster.AddressUse{Prefix: netip.MustParsePrefix(prefix), By: "old", Engine: true, NetworkID: of})
			}
		}
	case "availability":
		n.Spec.Availability = swarm.NodeAvailability(value)
	case "state":
		states := []cluster.NodeState{cluster.NodeUnknown, cluster.NodeDown, cluster.NodeReady, cluster.NodeDisconnected}
		n.Status.State = states[slices.IndexFunc(states, func(s cluster.NodeState) bool { return s.String() == value })]
		n.Status.Since = h.now
	case "message":
		n.Status.Message = map[string]string{"engine": cluster.MessageNoEngine, "left": cluster.MessageLeft}[arg.Vals[0]]
	case "label":
		labels := map[string]string{}
		maps.Copy(labels, n.Spec.Labels)
		if labels[label] = value; value == "none" {
			delete(labels, label)
		}
		n.Spec.Labels = labels
	case "index":
		n.Index = uint16(number[uint64](h.t, arg))
	case "arch":
		n.Description.Platform.Architecture = value
	case "role":
		n.Role = swarm.NodeRole(value)
	default:
		h.t.Fatalf("what is a node's %q?", arg.Key)
	}
}

func (h *hive) setService(spec *swarm.ServiceSpec, arg datadriven.CmdArg) {
	value := arg.Vals[0]
	duration := func() time.Duration {
		d, err := time.ParseDuration(value)
		if err != nil {
			h.t.Fatal(err)
		}
		return d
	}
	reservations := func() *swarm.Resources {
		if spec.TaskTemplate.Resources == nil {
			spec.TaskTemplate.Resources = &swarm.ResourceRequirements{Reservations: &swarm.Resources{}}
		}
		return spec.TaskTemplate.Resources.Reservations
	}
	room := func(config **swarm.UpdateConfig) *swarm.UpdateConfig {
		if *config == nil {
			*config = &swarm.UpdateConfig{Parallelism: 1}
		}
		return *config
	}
	if spec.TaskTemplate.RestartPolicy == nil && strings.HasPrefix(arg.Key, "restart.") {
		spec.TaskTemplate.RestartPolicy = &swarm.RestartPolicy{}
	}
	if spec.TaskTemplate.Placement == nil && slices.Contains([]string{"constraint", "arch", "max-per-node", "spread"}, arg.Key) {
		spec.TaskTemplate.Placement = &swarm.Placement{}
	}
	key, sub, _ := strings.Cut(arg.Key, ".")
	if key == "update" || key == "rollback" {
		config := room(&spec.UpdateConfig)
		if key == "rollback" {
			config = room(&spec.RollbackConfig)
		}
		switch sub {
		case "parallelism":
			config.Parallelism = number[uint64](h.t, arg)
		case "delay":
			config.Delay = duration()
		case "monitor":
			config.Monitor = duration()
		case "action":
			config.FailureAction = value
		case "order":
			config.Order = value
		case "ratio":
			ratio, err := strconv.ParseFloat(value, 32)
			if err != nil {
				h.t.Fatal(err)
			}
			config.MaxFailureRatio = float32(ratio)
		default:
			h.t.Fatalf("what is a service's %q?", arg.Key)
		}
		return
	}
	switch arg.Key {
	case "mode":
		switch value {
		case "global":
			spec.Mode = swarm.ServiceMode{Global: &swarm.GlobalService{}}
		case "global-job":
			spec.Mode = swarm.ServiceMode{GlobalJob: &swarm.GlobalJob{}}
		case "replicated-job":
			one, all := uint64(1), uint64(1)
			spec.Mode = swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{MaxConcurrent: &one, TotalCompletions: &all}}
		default:
			h.t.Fatalf("what is the mode %q?", value)
		}
	case "total":
		n := number[uint64](h.t, arg)
		spec.Mode.ReplicatedJob = &swarm.ReplicatedJob{MaxConcurrent: spec.Mode.ReplicatedJob.MaxConcurrent, TotalCompletions: &n}
	case "concurrent":
		n := number[uint64](h.t, arg)
		spec.Mode.ReplicatedJob = &swarm.ReplicatedJob{MaxConcurrent: &n, TotalCompletions: spec.Mode.ReplicatedJob.TotalCompletions}
	case "replicas":
		n := number[uint64](h.t, arg)
		spec.Mode.Replicated.Replicas = &n
	case "image":
		spec.TaskTemplate.ContainerSpec.Image = value
	case "cpu":
		reservations().NanoCPUs = 1e9 * number[int64](h.t, arg)
	case "generic":
		for _, value := range arg.Vals {
			kind, text, _ := strings.Cut(value, ":")
			count, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				h.t.Fatal(err)
			}
			reservations().GenericResources = append(reservations().GenericResources,
				swarm.GenericResource{DiscreteResourceSpec: &swarm.DiscreteGenericResource{Kind: kind, Value: count}})
		}
	case "memory": // in MiB
		reservations().MemoryBytes = number[int64](h.t, arg) << 20
	case "constraint":
		spec.TaskTemplate.Placement.Constraints = []string{value}
	case "arch":
		spec.TaskTemplate.Placement.Platforms = []swarm.Platform{{OS: "linux", Architecture: value}}
	case "log-driver":
		spec.TaskTemplate.LogDriver = &swarm.Driver{Name: value}
	case "volume-driver":
		spec.TaskTemplate.ContainerSpec.Mounts = []mount.Mount{{Type: mount.TypeVolume, Target: "/v", VolumeOptions: &mount.VolumeOptions{DriverConfig: &mount.Driver{Name: value}}}}
	case "publish": // as cluster.ParsePorts reads it
		spec.EndpointSpec = &swarm.EndpointSpec{Ports: cluster.ParsePorts(strings.Join(arg.Vals, ","))}
	case "ingress": // a port that is published on all nodes
		spec.EndpointSpec = nil
		if value != "none" {
			port := swarm.PortConfig{PublishedPort: uint32(number[uint64](h.t, arg)), TargetPort: 80, Protocol: swarm.PortConfigProtocolTCP, PublishMode: swarm.PortConfigPublishModeIngress}
			spec.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{port}}
		}
	case "network":
		spec.TaskTemplate.Networks = nil
		for _, id := range arg.Vals {
			if id == "none" {
				break
			}
			spec.TaskTemplate.Networks = append(spec.TaskTemplate.Networks, swarm.NetworkAttachmentConfig{Target: id})
		}
	case "spread":
		spec.TaskTemplate.Placement.Preferences = nil
		for _, descriptor := range arg.Vals {
			spec.TaskTemplate.Placement.Preferences = append(spec.TaskTemplate.Placement.Preferences,
				swarm.PlacementPreference{Spread: &swarm.SpreadOver{SpreadDescriptor: descriptor}})
		}
	case "max-per-node":
		spec.TaskTemplate.Placement.MaxReplicas = number[uint64](h.t, arg)
	case "force":
		spec.TaskTemplate.ForceUpdate++
	case "secret":
		spec.TaskTemplate.ContainerSpec.Secrets = nil
		if value != "none" {
			spec.TaskTemplate.ContainerSpec.Secrets = []*swarm.SecretReference{{SecretID: value, SecretName: value}}
		}
	case "label":
		label, value, _ := strings.Cut(strings.Join(arg.Vals, ","), ":")
		if spec.Labels == nil {
			spec.Labels = map[string]string{}
		}
		spec.Labels[label] = strings.ReplaceAll(value, "_", " ")
	case "start-deadline":
		spec.Labels = map[string]string{cluster.LabelStartDeadline.Name: value}
	case "restart.condition":
		spec.TaskTemplate.RestartPolicy.Condition = swarm.RestartPolicyCondition(value)
	case "restart.delay":
		d := duration()
		spec.TaskTemplate.RestartPolicy.Delay = &d
	case "restart.window":
		d := duration()
		spec.TaskTemplate.RestartPolicy.Window = &d
	case "restart.attempts":
		n := number[uint64](h.t, arg)
		spec.TaskTemplate.RestartPolicy.MaxAttempts = &n
	default:
		h.t.Fatalf("what is a service's %q?", arg.Key)
	}
}
