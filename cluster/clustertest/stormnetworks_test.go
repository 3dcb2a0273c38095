package clustertest

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"skep/agent"
	"skep/cluster"
)

// What the storm's users do with networks: they make and remove them, have services on them and publish
// ports, and put containers of their own on them. Much is refused, since others were faster: what counts
// is what planes, names and engines have in the end.

// guest is a container of a user's.
type guest struct {
	m    *Machine
	name string
}

// guests are the users' containers on networks.
type guests struct {
	mu sync.Mutex // guards the fields below
	// here are those that were made, and may be gone.
	here []guest
	made int
	// anew counts how often a machine lost all it had: what is made for the node that it was must
	// not be made on what it is now.
	anew map[*Machine]int
}

// mostGuests is how many containers users have at a time.
const mostGuests = 6

// networkUser asks for random things until stop is closed, of a random manager each time.
func (s *storm) networkUser(random *rand.Rand, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(100+random.IntN(2000)) * time.Millisecond):
		}
		m := s.c.Machines[random.IntN(s.c.managers)]
		host := s.c.Machines[random.IntN(len(s.c.Machines))]
		if m.off() {
			continue
		}
		switch random.IntN(16) {
		case 0, 1, 2:
			s.makeNetwork(m, random)
		case 3, 4:
			s.ask(m, http.MethodDelete, "/networks/"+lan(random), nil)
		case 5, 6, 7, 8, 9, 10:
			s.changeNetworked(m, random)
		case 11, 12, 13:
			s.attach(host, lan(random), random)
		default:
			s.discard(random)
		}
	}
}

// ask asks for something, and notes it unless it is refused.
func (s *storm) ask(m *Machine, method, path string, body any) {
	if err := m.Try(method, path, body, nil); err == nil {
		text, _ := json.Marshal(body)
		s.note("user by %s: %s %s %s", m.Name, method, path, text)
	}
}

// lan is the name of one of the users' networks.
func lan(random *rand.Rand) string { return fmt.Sprint("lan-", random.IntN(3)) }

func (s *storm) makeNetwork(m *Machine, random *rand.Rand) {
	if random.IntN(8) == 0 { // As users do who want another subnet for it.
		s.ask(m, http.MethodDelete, "/networks/ingress", nil)
		s.ask(m, http.MethodPost, "/networks/create", network.CreateRequest{Name: "ingress", CreateOptions: network.CreateOptions{Driver: "overlay", Ingress: true}})
		return
	}
	options := network.CreateOptions{Driver: "overlay", Attachable: random.IntN(4) > 0, Internal: random.IntN(4) == 0, Options: map[string]string{}}
	if random.IntN(3) == 0 {
		options.EnableIPv6 = new(true)
	}
	if random.IntN(4) == 0 {
		options.Options["encrypted"] = ""
	}
	// Those from the pool are given again at once; these may also be so in another form.
	if subnets := []string{"10.77.0.0/26", "10.77.0.64/26", "10.77.0.0/25", "", "", ""}; random.IntN(2) == 0 {
		if subnet := subnets[random.IntN(len(subnets))]; subnet != "" {
			options.IPAM = &network.IPAM{Config: []network.IPAMConfig{{Subnet: subnet}}}
		}
	}
	s.ask(m, http.MethodPost, "/networks/create", network.CreateRequest{Name: lan(random), CreateOptions: options})
}

// changeNetworked makes a service, or changes its networks, its ports or something else.
func (s *storm) changeNetworked(m *Machine, random *rand.Rand) {
	name := []string{"mesh", "net-1", "net-2"}[random.IntN(3)]
	var service swarm.Service
	switch outcomeOf(m.Try(http.MethodGet, "/services/"+name, nil, &service)) {
	case absent:
		spec := Spec(name, "app:1", uint64(1+random.IntN(3)))
		if random.IntN(3) == 0 {
			spec.UpdateConfig.Order = swarm.UpdateOrderStartFirst
		}
		spec.EndpointSpec = &swarm.EndpointSpec{}
		s.edit(m, &spec, random)
		s.edit(m, &spec, random)
		s.ask(m, http.MethodPost, "/services/create", spec)
		return
	case done:
	default:
		return
	}
	path := fmt.Sprintf("/services/%s/update?version=%d", service.ID, service.Version.Index)
	switch random.IntN(14) {
	case 0:
		s.ask(m, http.MethodDelete, "/services/"+service.ID, nil)
		return
	case 1:
		path += "&rollback=previous"
	default:
		s.edit(m, &service.Spec, random)
	}
	s.ask(m, http.MethodPost, path, service.Spec)
}

// edit changes one thing about a service.
func (s *storm) edit(m *Machine, spec *swarm.ServiceSpec, random *rand.Rand) {
	if spec.EndpointSpec == nil {
		spec.EndpointSpec = &swarm.EndpointSpec{}
	}
	switch random.IntN(9) {
	case 0, 1, 2: // Onto a network, or off it.
		var n network.Inspect
		if m.Try(http.MethodGet, "/networks/"+lan(random)+"?scope=swarm", nil, &n) != nil {
			return
		}
		on := &spec.TaskTemplate.Networks
		rest := slices.DeleteFunc(slices.Clone(*on), func(c swarm.NetworkAttachmentConfig) bool { return c.Target == n.ID })
		if len(rest) == len(*on) {
			rest = append(rest, swarm.NetworkAttachmentConfig{Target: n.ID, Aliases: []string{"db", spec.Name + "-db"}[:random.IntN(3)]})
		}
		*on = rest
	case 3, 4: // A port, the same one for several services, or any.
		port := swarm.PortConfig{Protocol: swarm.PortConfigProtocolTCP, TargetPort: uint32(80 + random.IntN(2)), PublishMode: swarm.PortConfigPublishModeIngress}
		if random.IntN(4) > 0 {
			port.PublishedPort = uint32(8000 + random.IntN(3))
		}
		ports := &spec.EndpointSpec.Ports
		rest := slices.DeleteFunc(slices.Clone(*ports), func(p swarm.PortConfig) bool { return p.PublishedPort == port.PublishedPort })
		if len(rest) == len(*ports) {
			rest = append(rest, port)
		}
		*ports = rest
	case 5:
		if spec.EndpointSpec.Mode == swarm.ResolutionModeDNSRR {
			spec.EndpointSpec.Mode = swarm.ResolutionModeVIP
		} else {
			spec.EndpointSpec.Mode, spec.EndpointSpec.Ports = swarm.ResolutionModeDNSRR, nil
		}
	case 6:
		spec.TaskTemplate.ContainerSpec.Image = fmt.Sprint("app:", random.IntN(1000))
	case 7:
		spec.Mode.Replicated = &swarm.ReplicatedService{Replicas: new(uint64(1 + random.IntN(3)))}
	case 8:
		spec.Labels = map[string]string{cluster.LabelStaticAddresses.Name: fmt.Sprint(random.IntN(2) == 0)}
	}
}

// drawn makes bytes of what a random source draws.
type drawn struct{ *rand.Rand }

func (d drawn) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(d.Uint32())
	}
	return len(p), nil
}

// attach does what the API does for `docker run --network`: the leader gives the container a place, and
// the engine makes it once the machine carries the network.
func (s *storm) attach(m *Machine, on string, random *rand.Rand) {
	g := &s.guests
	g.mu.Lock()
	g.made++
	name, anew, full := fmt.Sprint("guest-", g.made), g.anew[m], len(g.here) >= mostGuests
	g.mu.Unlock()
	m.mu.Lock()
	node := m.node
	m.mu.Unlock()
	if full || m.off() {
		return
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	answer, err := node.Attach(ctx, cluster.AttachRequest{ID: cluster.NewID(drawn{random}), Network: on, Name: name})
	if err != nil || answer.Attachment == nil {
		return // Where there was no answer, the agent finds that there is no container.
	}
	at := agent.Attachment{Network: answer.Network, Host: answer.Attachment.Address.Host}
	for waits := true; waits && g.still(m, anew); waits = cluster.Sleep(ctx, 100*time.Millisecond) {
		if g.run(m, anew, name, at) {
			s.note("user on %s: run %s on %s", m.Name, name, on)
			return
		}
	}
	giving, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = node.Detach(giving, []string{answer.Attachment.ID})
}

// still tells whether the machine has lost nothing since.
func (g *guests) still(m *Machine, anew int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.anew[m] == anew
}

// run has the machine's engine make a container, if it can.
func (g *guests) run(m *Machine, anew int, name string, at agent.Attachment) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.anew[m] != anew || m.Driver.Run(name, at) != nil {
		return false
	}
	g.here = append(g.here, guest{m, name})
	return true
}

// discard removes a container of a user's, whether or not the machine's daemon runs.
func (s *storm) discard(random *rand.Rand) {
	g := &s.guests
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.here) == 0 {
		return
	}
	i := random.IntN(len(g.here))
	s.note("user on %s: remove %s", g.here[i].m.Name, g.here[i].name)
	g.here[i].m.Driver.Discard(g.here[i].name)
	g.here = slices.Delete(g.here, i, i+1)
}

// evict removes all containers of users from a machine that is to lose all it has, or to leave.
func (s *storm) evict(m *Machine) {
	g := &s.guests
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.anew == nil {
		g.anew = map[*Machine]int{}
	}
	g.anew[m]++
	g.here = slices.DeleteFunc(g.here, func(one guest) bool {
		if one.m == m {
			m.Driver.Discard(one.name)
		}
		return one.m == m
	})
}

// placesAreTheirs waits until each container that runs has the places in networks that the database
// gives it, and nobody else has one: no address is given twice, and none to nobody.
func (s *storm) placesAreTheirs() {
	s.t.Helper()
	s.c.Eventually(2*time.Minute, "all containers have the places that are theirs", func() error {
		view := s.c.Leader().manager().Store().View()
		want := map[string]string{}
		for t := range view.Tasks() {
			if len(t.Addresses) > 0 && !t.Dead() {
				want[t.ID] = placesText(t.Addresses)
			}
		}
		for a := range view.Attachments() {
			if a.Ended.IsZero() {
				want[a.Name] = placesText([]cluster.Address{a.Address})
			}
		}
		got := map[string]string{}
		for _, m := range s.c.Machines {
			for id, places := range m.Driver.Places() {
				var addresses []cluster.Address
				for _, at := range places {
					addresses = append(addresses, cluster.Address{VNI: at.Network.VNI, Host: at.Host})
				}
				got[id] = placesText(addresses)
			}
		}
		if differences := unlike(got, want); len(differences) > 0 {
			return fmt.Errorf("%q", differences)
		}
		return nil
	})
}

func placesText(addresses []cluster.Address) string {
	var sorted []uint64
	for _, a := range addresses {
		sorted = append(sorted, uint64(cluster.UniqueAddress(a)))
	}
	slices.Sort(sorted)
	return fmt.Sprint(sorted)
}
