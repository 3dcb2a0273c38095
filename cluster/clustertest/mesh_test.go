package clustertest

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	planner "skep/agent/network"
	"skep/cluster"
	"skep/cluster/node"
	"skep/store"
)

// NewNetwork makes a network that spans nodes, through the machine's API, and gives its ID.
func (m *Machine) NewNetwork(name string) string {
	m.cluster.t.Helper()
	var created network.CreateResponse
	m.Do(http.MethodPost, "/networks/create", network.CreateRequest{Name: name, CreateOptions: network.CreateOptions{Driver: "overlay", Attachable: true}}, &created)
	return created.ID
}

// expectedPlane is what the database says that the node should carry, found in another way than
// agents do: from tasks, attachments, services and nodes themselves.
func expectedPlane(v store.View, self *cluster.Node) (map[string]string, error) {
	want, here := map[string]string{}, map[uint32]bool{}
	set := func(value, format string, args ...any) {
		what := fmt.Sprintf(format, args...)
		want[what] = strings.TrimSpace(want[what] + " " + value)
	}
	for t := range v.TasksOfNode(self.ID) {
		for _, a := range t.Addresses {
			here[a.VNI] = here[a.VNI] || t.Assigned()
		}
	}
	for a := range v.AttachmentsOfNode(self.ID) {
		here[a.Address.VNI] = here[a.Address.VNI] || a.Ended.IsZero()
	}
	ingress := v.IngressNetwork()
	if ingress != nil && v.Publishes(ingress) {
		here[ingress.VNI] = true
	}
	families, any := map[bool]bool{false: true}, false
	generation := v.Cluster().NetworkSettings().Generation
	for n := range v.Networks() {
		if !here[n.VNI] {
			continue
		}
		bridge, tunnel := fmt.Sprintf("skb%x", n.VNI), fmt.Sprintf("skx%x", n.VNI)
		// at is where a node takes the network's packets; "" when nobody knows.
		at := func(node *cluster.Node) string {
			switch {
			case !n.Encrypted() || node.DataAddr == "":
				return node.DataAddr
			case node != self && node.WireKeys.Of(generation) == cluster.WireKey{} && node.WireKeys.Of(generation-1) == cluster.WireKey{}:
				return ""
			}
			return fmt.Sprintf("169.254.%d.%d", 200+node.Index/256, node.Index%256)
		}
		any = true
		set("it", "engine %s", n.Spec.Name)
		set("skep/"+v.Cluster().ID+"/"+n.ID, "bridge %s", bridge)
		set(bridge+" "+at(self), "tunnel %s", tunnel)
		for _, s := range n.Subnets {
			families[s.Prefix.Addr().Is6()] = true
			set(netip.PrefixFrom(s.Gateway, s.Prefix.Bits()).String(), "gateway of %s, IPv6 %v", bridge, s.Prefix.Addr().Is6())
			for _, part := range s.Given()[1:] {
				set(bridge, "local %s", part.Gateway)
			}
		}
		for s := range v.Services() {
			if vip := cluster.AddressIn(s.VirtualIPs, n.VNI); vip != 0 {
				for i, addr := range n.Addrs(vip) {
					set(bridge, "local %s", addr)
					set("chain", "vip of %s: %s", bridge, addr)
					set(strings.Join(servingIn(v, s, n, i), " "), "from %s", addr)
				}
			}
		}
		for node := range v.Nodes() {
			endpoint := func(host cluster.Host) {
				for i, addr := range n.Addrs(host) {
					mac := planner.EndpointMAC(n.Addrs(host)[0]).String()
					switch {
					case node == self:
						set("hair", "own %s", addr)
						continue
					case i == 0 && at(node) != "":
						set(at(node), "%s %s", tunnel, mac)
					}
					if at(node) != "" {
						set(mac, "neighbour %s", addr)
					}
				}
			}
			for t := range v.TasksOfNode(node.ID) {
				if host := cluster.AddressIn(t.Addresses, n.VNI); host != 0 && !t.Dead() {
					endpoint(host)
				}
			}
			for a := range v.AttachmentsOfNode(node.ID) {
				if a.NetworkID == n.ID && a.Ended.IsZero() {
					endpoint(a.Address.Host)
				}
			}
			if node == self || at(node) == "" {
				continue
			}
			mac := planner.BridgeMAC(n.VNI, node.Index).String()
			if set(at(node), "%s %s", tunnel, mac); n == ingress {
				set(fmt.Sprint(uint32(node.Index)<<20), "peer %s", mac)
			}
		}
	}
	for node := range v.Nodes() {
		if any && node.DataAddr != "" { // Without one it has joined, and was never there.
			set("a node", "node %s", node.DataAddr)
		}
	}
	for s := range v.Services() {
		for _, p := range s.Ports {
			for six := range families {
				if p.PublishMode != swarm.PortConfigPublishModeIngress || ingress == nil {
					continue
				}
				what, backends := fmt.Sprintf("from %s-%d, IPv6 %v", p.Protocol, p.PublishedPort, six), ""
				for i, subnet := range ingress.Subnets {
					if subnet.Prefix.Addr().Is6() == six {
						backends = strings.Join(servingIn(v, s, ingress, i), " ")
					}
				}
				if _, is := want[what]; is {
					return nil, fmt.Errorf("port %d of %s is another service's", p.PublishedPort, s.Spec.Name)
				}
				want[what] = backends
			}
		}
	}
	return want, nil
}

// servingIn are the addresses of a service's tasks that clients may be led to, in one of a network's
// subnets.
func servingIn(v store.View, s *cluster.Service, n *cluster.Network, subnet int) (addrs []string) {
	for t := range v.TasksOfService(s.ID) {
		if host := cluster.AddressIn(t.Addresses, n.VNI); host != 0 && serves(v, t) {
			addrs = append(addrs, n.Addrs(host)[subnet].String())
		}
	}
	slices.Sort(addrs)
	return addrs
}

func serves(v store.View, t *cluster.Task) bool {
	node := v.Node(t.NodeID)
	return t.Status.State == cluster.StateRunning && t.Live() && node != nil && node.Status.State != cluster.NodeDown
}

// carries is what a plane and its engine have, in the words of expectedPlane.
func (m *Machine) carries(clusterID string) (map[string]string, error) {
	existing, err := m.Plane.Dump(m.cluster.t.Context(), clusterID)
	if err != nil {
		return nil, err
	}
	got := map[string]string{}
	for _, o := range existing.Objects {
		switch o := o.(type) {
		case planner.Bridge:
			got["bridge "+o.Name] = o.Alias
		case planner.Tunnel:
			got["tunnel "+o.Name] = o.Bridge + " " + o.Local.String()
		case planner.Address:
			switch {
			case strings.HasPrefix(o.Link, planner.WirePrefix):
			case o.Prefix.IsSingleIP():
				got["local "+o.Prefix.Addr().String()] = o.Link
			default:
				got[fmt.Sprintf("gateway of %s, IPv6 %v", o.Link, o.Prefix.Addr().Is6())] = o.Prefix.String()
			}
		case planner.Route:
			if o.Table == 255 {
				got["local "+o.Dst.Addr().String()] = o.Link
			}
		case planner.Chain:
			backends := strings.Fields(o.Backends)
			slices.Sort(backends)
			kind, rest, _ := strings.Cut(o.Name, "-")
			if kind == "p" {
				got[fmt.Sprintf("from %s, IPv6 %v", rest, o.IPv6)] = strings.Join(backends, " ")
				continue
			}
			_, vip, _ := strings.Cut(rest, "-")
			got["from "+strings.ReplaceAll(vip, "_", ":")] = strings.Join(backends, " ")
		case planner.Element:
			switch o.Set {
			case planner.SetVIP:
				got[fmt.Sprintf("vip of %s: %s", o.A, o.B)] = "chain"
			case planner.SetHair:
				got["own "+o.A] = "hair"
			case planner.SetPeers:
				got["peer "+o.A] = o.Value
			case planner.SetNodes:
				got["node "+o.A] = "a node"
			}
		case planner.Forward:
			got[o.Link+" "+o.MAC.String()] = o.Node.String()
		case planner.Neighbour:
			if !o.Addr.IsLinkLocalUnicast() { // These stand for nodes.
				got["neighbour "+o.Addr.String()] = o.MAC.String()
			}
		}
	}
	for _, name := range m.Driver.Networks() {
		got["engine "+name] = strings.TrimSpace(got["engine "+name] + " it")
	}
	return got, nil
}

// unlike tells how what there is differs from what there should be.
func unlike(got, want map[string]string) (differences []string) {
	for what, how := range want {
		if is, there := got[what]; !there || is != how {
			differences = append(differences, fmt.Sprintf("%s is %q (%v), want %q", what, is, there, how))
		}
	}
	for what, is := range got {
		if _, wanted := want[what]; !wanted {
			differences = append(differences, fmt.Sprintf("%s is %q, and shouldn't be", what, is))
		}
	}
	slices.Sort(differences)
	return differences
}

// samePlane tells how the machine's plane differs from what the database says.
func (m *Machine) samePlane(v store.View) error {
	self := v.Node(nodeID(m))
	if self == nil {
		return errors.New("the node isn't in the database")
	}
	if self.DataAddr != m.dataAddress() {
		return fmt.Errorf("%s takes packets at %s, and the database says %s", m.Name, m.dataAddress(), self.DataAddr)
	}
	want, err := expectedPlane(v, self)
	if err != nil {
		return err
	}
	got, err := m.carries(v.Cluster().ID)
	if err != nil {
		return err
	}
	if differences := unlike(got, want); len(differences) > 0 {
		return fmt.Errorf("%s:\n%s", m.Name, strings.Join(differences, "\n"))
	}
	if err := m.sameNames(v, want); err != nil {
		return err
	}
	if faults := m.Driver.Faults(); len(faults) > 0 {
		m.cluster.t.Errorf("the engine of %s: %q", m.Name, faults)
	}
	return nil
}

// sameNames tells how what the machine's name server was told differs from what the database says, of
// the networks whose bridges are expected.
func (m *Machine) sameNames(v store.View, expected map[string]string) error {
	got, want, any := map[string]string{}, map[string]string{}, false
	for n := range v.Networks() {
		_, here := expected[fmt.Sprintf("bridge skb%x", n.VNI)]
		if any = any || here; here && !n.Spec.Ingress {
			for name, addrs := range expectedNames(v, n) {
				want[n.Spec.Name+": "+name] = addrs
			}
		}
	}
	names := m.names.Load()
	if (names != nil) != any || any && !names.Complete {
		return fmt.Errorf("%s answers with %+v, and is on networks: %v", m.Name, names, any)
	}
	if names == nil {
		return nil
	}
	for id, in := range names.Networks {
		n := v.Network(id)
		if n == nil {
			return fmt.Errorf("%s knows names of a network that isn't there", m.Name)
		}
		for name, record := range in.Names {
			var addrs []string
			for _, addr := range record.Addrs {
				addrs = append(addrs, addr.String())
			}
			slices.Sort(addrs)
			got[n.Spec.Name+": "+name] = strings.Join(addrs, " ")
		}
	}
	if differences := unlike(got, want); len(differences) > 0 {
		return fmt.Errorf("%s knows names:\n%s", m.Name, strings.Join(differences, "\n"))
	}
	return nil
}

// expectedNames are the names in a network by the database: each has an owner, and none leads to
// what doesn't serve.
func expectedNames(v store.View, n *cluster.Network) map[string]string {
	all := map[string][]string{}
	name := func(name string, addrs ...string) { all[name] = append(all[name], addrs...) }
	addrsOf := func(host cluster.Host) (addrs []string) {
		for _, addr := range n.Addrs(host) {
			addrs = append(addrs, addr.String())
		}
		return addrs
	}
	for s := range v.Services() {
		on := slices.IndexFunc(s.Spec.TaskTemplate.Networks, func(c swarm.NetworkAttachmentConfig) bool { return c.Target == n.ID })
		var tasks []string
		for i := range n.Subnets {
			tasks = append(tasks, servingIn(v, s, n, i)...)
		}
		if on >= 0 {
			leads := tasks
			if vip := cluster.AddressIn(s.VirtualIPs, n.VNI); vip != 0 {
				leads = addrsOf(vip)
			}
			for _, called := range append([]string{s.Spec.Name}, s.Spec.TaskTemplate.Networks[on].Aliases...) {
				name(called, leads...)
				name("tasks."+called, tasks...)
			}
		}
	}
	for t := range v.Tasks() {
		host, r := cluster.AddressIn(t.Addresses, n.VNI), v.Revision(t.ServiceID, t.Revision)
		if host == 0 || t.Dead() || r == nil {
			continue
		}
		var addrs []string
		if serves(v, t) {
			addrs = addrsOf(host)
		}
		name(r.TaskName(t), addrs...)
		name(strings.TrimSuffix(r.TaskName(t), "."+t.ID), addrs...)
	}
	for a := range v.Attachments() {
		if a.NetworkID == n.ID && a.Ended.IsZero() {
			name(a.Name, addrsOf(a.Address.Host)...)
		}
	}
	want := map[string]string{}
	for name, addrs := range all {
		slices.Sort(addrs)
		want[name] = strings.Join(slices.Compact(addrs), " ")
	}
	return want
}

// Carry waits until the planes of all machines that are on are as the database says.
func (c *Cluster) Carry() {
	c.t.Helper()
	c.Eventually(time.Minute, "all planes are as the database says", func() error {
		v := c.Leader().manager().Store().View()
		for _, m := range c.Alive() {
			if err := m.samePlane(v); err != nil {
				return err
			}
		}
		return nil
	})
}

// mesh makes a service on a network of its own, with a published port, and gives its ID.
func (c *Cluster) mesh() string {
	m := c.Machines[0]
	if c.Leader().manager().Store().View().IngressNetwork() == nil {
		m.Do(http.MethodPost, "/networks/create", network.CreateRequest{Name: "ingress", CreateOptions: network.CreateOptions{Driver: "overlay", Ingress: true}}, nil)
	}
	spec := Spec("mesh", "app:1", 4)
	spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: m.NewNetwork("mesh")}}
	spec.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{TargetPort: 80, PublishedPort: 80}}}
	return m.Create(spec)
}

// TestMesh_EveryPlaneIsAsTheDatabaseSays has services on networks with published ports come, be
// updated, scaled and removed, while a node and the leader are killed.
func TestMesh_EveryPlaneIsAsTheDatabaseSays(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{Networks: true})
		m := c.Machines[0]
		if v := c.Leader().manager().Store().View(); v.IngressNetwork() == nil {
			m.Do(http.MethodPost, "/networks/create", network.CreateRequest{Name: "ingress", CreateOptions: network.CreateOptions{Driver: "overlay", Ingress: true}}, nil)
		}
		front, back := m.NewNetwork("front"), m.NewNetwork("back")
		web := Spec("web", "app:1", 4)
		web.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: front}, {Target: back}}
		web.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{TargetPort: 80, PublishedPort: 8080}}}
		db := Spec("db", "app:1", 2)
		db.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: back}}
		webID, dbID := m.Create(web), m.Create(db)
		c.Runs(time.Minute, webID, "app:1", 4)
		c.Runs(time.Minute, dbID, "app:1", 2)
		c.Carry()
		m.Update(webID, func(spec *swarm.ServiceSpec) { spec.TaskTemplate.ContainerSpec.Image = "app:2" })
		c.Runs(time.Minute, webID, "app:2", 4)
		c.Carry()
		m.Update(dbID, func(spec *swarm.ServiceSpec) {
			spec.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{TargetPort: 5432, PublishedPort: 5432}}}
		})
		c.Carry()
		c.Machines[4].Crash()
		c.Eventually(2*time.Minute, "nothing is wanted of the dead node", func() error {
			for task := range c.Leader().manager().Store().View().TasksOfNode(nodeID(c.Machines[4])) {
				if task.Live() {
					return fmt.Errorf("task %s is", task.ID)
				}
			}
			return nil
		})
		c.Runs(2*time.Minute, webID, "app:2", 4)
		c.Carry()
		c.Machines[4].Restart()
		leader := c.Leader()
		leader.Crash()
		c.Runs(2*time.Minute, webID, "app:2", 4)
		leader.Restart()
		c.Carry()
		c.Manager().Do(http.MethodDelete, "/services/"+webID, nil, nil)
		time.Sleep(time.Minute)
		c.Carry()

		// Whoever stops with its tasks leaves nothing, and makes all of it again.
		gone := c.Machines[4]
		eachID := c.Manager().Create(Spec("each", "app:1", 8))
		c.Runs(time.Minute, eachID, "app:1", 8)
		gone.Stop()
		gone.Flags = func(cfg *node.Config) { cfg.StopTasks = true }
		gone.Restart()
		c.Carry()
		gone.Stop()
		existing, err := gone.Plane.Dump(t.Context(), "")
		list, listErr := gone.Driver.List(t.Context(), nodeID(gone))
		if err := errors.Join(err, listErr); err != nil || len(existing.Objects)+len(list)+len(gone.Driver.Networks()) > 0 {
			t.Errorf("a node that stopped with its tasks has %v, %v and networks %q (%v)", existing.Objects, list, gone.Driver.Networks(), err)
		}
		gone.Restart()
		c.Runs(time.Minute, eachID, "app:1", 8)
		c.Carry()
		c.Manager().Do(http.MethodDelete, "/services/"+eachID, nil, nil)
		time.Sleep(time.Minute)

		// Whoever leaves leaves nothing.
		gone.Do(http.MethodPost, "/swarm/leave", nil, nil)
		if existing, err := gone.Plane.Dump(t.Context(), ""); err != nil || len(existing.Objects) > 0 || len(gone.Driver.Networks()) > 0 {
			t.Errorf("a node that left has %v and networks %q (%v)", existing.Objects, gone.Driver.Networks(), err)
		}
		if gone.names.Load() != nil {
			t.Error("its names are still answered")
		}
		if faults := gone.Driver.Faults(); len(faults) > 0 {
			t.Errorf("its engine: %q", faults)
		}

		// Of one that was killed all is there until it is cleared, which a daemon that runs prevents.
		dead := c.Machines[3]
		c.Runs(time.Minute, c.Manager().Create(Spec("each", "app:1", 8)), "app:1", 8)
		was, cfg := nodeID(dead), dead.config()
		if err := node.Clear(t.Context(), cfg, true); err == nil || !strings.Contains(err.Error(), "another skep daemon uses it") {
			t.Errorf("clear while the daemon runs: %v", err)
		}
		dead.Crash()
		left := func() (objects, containers int) {
			existing, err := dead.Plane.Dump(t.Context(), "")
			list, listErr := dead.Driver.List(t.Context(), was)
			if err != nil || listErr != nil {
				t.Fatal(err, listErr)
			}
			return len(existing.Objects), len(list)
		}
		if objects, containers := left(); objects == 0 || containers == 0 || dead.names.Load() == nil {
			t.Errorf("a node that was killed left %d objects and %d containers", objects, containers)
		}
		if err := node.Clear(t.Context(), cfg, false); err != nil {
			t.Error(err)
		}
		if objects, containers := left(); objects > 0 || containers > 0 || len(dead.Driver.Networks()) > 0 || dead.names.Load() != nil {
			t.Errorf("after it was cleared there are %d objects, %d containers, networks %q", objects, containers, dead.Driver.Networks())
		}
		if err := node.Clear(t.Context(), cfg, false); !errors.Is(err, cluster.ErrNotFound) {
			t.Errorf("clear nothing: %v", err)
		}
		manager := c.Machines[2]
		manager.Crash()
		if err := node.Clear(t.Context(), manager.config(), false); !errors.Is(err, cluster.ErrPrecondition) {
			t.Errorf("clear a manager: %v", err)
		}
		manager.Restart() // Nothing happened to it.
		c.Eventually(30*time.Second, "the manager is back", func() error {
			if manager.manager() == nil {
				return errors.New("it isn't one")
			}
			return nil
		})
	})
}
