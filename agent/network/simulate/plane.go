// Package simulate is a network.Plane in memory, for tests, the lab and clusters without a
// kernel of their own.
//
// It refuses what a kernel refuses: an object whose link, table or chain isn't there, one
// that is there already, the removal of a chain that a map leads to. It has no goroutines;
// a Plane may be used by several.
package simulate

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"skep/agent/network"
)

// Plane is a kernel's objects for networks.
type Plane struct {
	mu      sync.Mutex // guards the fields below
	objects map[network.ObjectKey]network.Object
	ports   map[string][]string // the containers' ports, by bridge
	guarded map[bool]bool
	watches map[*func()]struct{}
	wires   int // how many WireGuard devices were made: each has another key
	fail    error
	// reserved are ports as "8080/tcp", and others what programs have.
	reserved, others map[string]bool
	reserves         int
}

var _ network.Plane = (*Plane)(nil)

// New returns a Plane without objects.
func New() *Plane {
	return &Plane{objects: map[network.ObjectKey]network.Object{}, ports: map[string][]string{}, guarded: map[bool]bool{}, watches: map[*func()]struct{}{}}
}

// Fail has all that follows fail with err; nil ends that.
func (p *Plane) Fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = err
}

// SetOthers has programs of the machine have these ports, such as "8080/tcp", and no others. It tells whether they
// couldn't, since one is reserved.
func (p *Plane) SetOthers(ports ...string) (refused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.others = map[string]bool{}
	for _, port := range ports {
		p.others[port] = !p.reserved[port]
		refused = refused || p.reserved[port]
	}
	return refused
}

// Reserves is how often Reserve was called.
func (p *Plane) Reserves() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reserves
}

// Reserve keeps ports from others that don't have them.
func (p *Plane) Reserve(ports []network.Port) (taken []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reserved = map[string]bool{}
	p.reserves++
	for _, port := range ports {
		name := fmt.Sprintf("%d/%s", port.Published, port.Protocol)
		if p.reserved[name] = !p.others[name]; p.others[name] {
			taken = append(taken, name)
		}
	}
	return taken
}

// Watch calls changed after each change.
func (p *Plane) Watch(ctx context.Context, changed func()) error {
	p.mu.Lock()
	p.watches[&changed] = struct{}{}
	p.mu.Unlock()
	<-ctx.Done()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.watches, &changed)
	return ctx.Err()
}

// Guard puts an engine's firewall before what is forwarded, of IPv4 or of IPv6.
func (p *Plane) Guard(v6 bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.guarded[v6] = true
	p.noticeLocked()
}

func (p *Plane) noticeLocked() {
	for changed := range p.watches {
		(*changed)()
	}
}

// Connect adds a container's port to a bridge, as an engine does.
func (p *Plane) Connect(bridge, port string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ports[bridge] = append(p.ports[bridge], port)
	p.noticeLocked()
}

// Disconnect takes a container's port away.
func (p *Plane) Disconnect(bridge, port string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ports[bridge] = slices.DeleteFunc(p.ports[bridge], func(other string) bool { return other == port })
	maps.DeleteFunc(p.objects, func(_ network.ObjectKey, o network.Object) bool {
		hairpin, is := o.(network.Hairpin)
		return is && hairpin.Link == port
	})
	p.noticeLocked()
}

// HasBridge tells whether a bridge is there.
func (p *Plane) HasBridge(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.has(network.Bridge{Name: name})
}

// Dump lists what there is.
func (p *Plane) Dump(_ context.Context, _ string) (network.Existing, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail != nil {
		return network.Existing{}, p.fail
	}
	out := network.Existing{Ports: map[string][]string{}, Guarded: maps.Clone(p.guarded)}
	for _, o := range p.objects {
		out.Objects = append(out.Objects, o)
	}
	for bridge, ports := range p.ports {
		if p.has(network.Bridge{Name: bridge}) {
			out.Ports[bridge] = slices.Clone(ports)
		}
	}
	return out, nil
}

// Apply carries out steps.
func (p *Plane) Apply(_ context.Context, steps []network.Step) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail != nil {
		return p.fail
	}
	defer p.noticeLocked()
	var failed []error
	for _, step := range steps {
		if err := p.apply(step); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", step, err))
		}
	}
	return errors.Join(failed...)
}

var (
	errExists  = errors.New("file exists")
	errMissing = errors.New("no such file or directory")
	errBusy    = errors.New("device or resource busy")
)

func (p *Plane) apply(step network.Step) error {
	o := step.Object
	switch step.Do {
	case network.Remove:
		if !p.has(o) {
			return errMissing
		}
		if chain, is := o.(network.Chain); is && p.used(chain) {
			return errBusy
		}
		delete(p.objects, network.KeyOf(o))
		p.cascade(o)
		if bridge, is := o.(network.Bridge); is {
			p.orphan(bridge.Name)
		}
		return nil
	case network.Add:
		if p.has(o) {
			return errExists
		}
	case network.Replace:
		if !p.has(o) {
			return errMissing
		}
		if _, is := o.(network.Table); is {
			p.cascade(o)
		}
	}
	if needs := p.missing(o); needs != "" {
		return fmt.Errorf("%s: %w", needs, errMissing)
	}
	if wire, is := o.(network.Wire); is {
		was, _ := p.objects[network.KeyOf(o)].(network.Wire)
		if wire.Public = was.Public; step.Do == network.Add {
			p.wires++
			wire.Public = sha256.Sum256(fmt.Appendf(nil, "%s %d", wire.Name, p.wires))
		}
		o = wire
	}
	p.objects[network.KeyOf(o)] = o
	return nil
}

// linkOf is the link of a name.
func linkOf(name string) network.Object {
	if strings.HasPrefix(name, network.WirePrefix) {
		return network.Wire{Name: name}
	}
	return network.Bridge{Name: name}
}

// Meet has a WireGuard device agree on a session with all its peers.
func (p *Plane) Meet(device string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, o := range p.objects {
		if peer, is := o.(network.WirePeer); is && peer.Link == device {
			peer.Met = true
			p.objects[key] = peer
		}
	}
	p.noticeLocked()
}

func (p *Plane) has(o network.Object) bool {
	_, there := p.objects[network.KeyOf(o)]
	return there
}

// missing names what o needs and isn't there.
func (p *Plane) missing(o network.Object) string {
	var needs []network.Object
	switch o := o.(type) {
	case network.Address:
		needs = []network.Object{linkOf(o.Link)}
	case network.WirePeer:
		needs = []network.Object{network.Wire{Name: o.Link}}
	case network.Tunnel:
		needs = []network.Object{network.Bridge{Name: o.Bridge}}
	case network.Sysctl:
		needs = []network.Object{network.Bridge{Name: strings.Split(o.Name, ".")[3]}}
	case network.Hairpin:
		if !slices.Contains(p.ports[o.Bridge], o.Link) {
			return o.Link
		}
	case network.BridgeEntry:
		needs = []network.Object{network.Tunnel{Name: o.Link}}
	case network.Forward:
		needs = []network.Object{network.Tunnel{Name: o.Link}}
	case network.Neighbour:
		needs = []network.Object{network.Bridge{Name: o.Link}}
	case network.Route:
		needs = []network.Object{linkOf(o.Link)}
	case network.Chain:
		needs = []network.Object{network.Table{IPv6: o.IPv6}}
	case network.Element:
		needs = []network.Object{network.Table{IPv6: o.IPv6}}
		switch o.Set {
		case network.SetVIP, network.SetMesh, network.SetMeshAddr:
			needs = append(needs, network.Chain{IPv6: o.IPv6, Name: o.Value})
		}
	}
	for _, n := range needs {
		if !p.has(n) {
			return n.String()
		}
	}
	return ""
}

// used tells whether a map leads to the chain.
func (p *Plane) used(chain network.Chain) bool {
	for _, o := range p.objects {
		if e, is := o.(network.Element); is && e.IPv6 == chain.IPv6 && e.Value == chain.Name {
			return true
		}
	}
	return false
}

// orphan takes the ports of a bridge that is gone away from it. Tunnels stay.
func (p *Plane) orphan(bridge string) {
	delete(p.ports, bridge)
	for key, o := range p.objects {
		if tunnel, is := o.(network.Tunnel); is && tunnel.Bridge == bridge {
			tunnel.Bridge = ""
			p.objects[key] = tunnel
			maps.DeleteFunc(p.objects, func(_ network.ObjectKey, o network.Object) bool {
				entry, is := o.(network.BridgeEntry)
				return is && entry.Link == tunnel.Name
			})
		}
	}
}

// cascade removes what goes with a link or a table.
func (p *Plane) cascade(gone network.Object) {
	maps.DeleteFunc(p.objects, func(_ network.ObjectKey, o network.Object) bool {
		link := ""
		switch o := o.(type) {
		case network.Chain:
			t, is := gone.(network.Table)
			return is && t.IPv6 == o.IPv6
		case network.Element:
			t, is := gone.(network.Table)
			return is && t.IPv6 == o.IPv6
		case network.Address:
			link = o.Link
		case network.Sysctl:
			link = strings.Split(o.Name, ".")[3]
		case network.Hairpin:
			link = o.Bridge
		case network.BridgeEntry:
			link = o.Link
		case network.Forward:
			link = o.Link
		case network.Neighbour:
			link = o.Link
		case network.Route:
			link = o.Link
		case network.WirePeer:
			link = o.Link
		}
		switch gone := gone.(type) {
		case network.Bridge:
			return link == gone.Name
		case network.Wire:
			return link == gone.Name
		case network.Tunnel:
			return link == gone.Name
		}
		return false
	})
}
