package address_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"pgregory.net/rapid"

	"skep/cluster"
	"skep/scheduler/address"
	"skep/store"
)

// world is a database with two networks of few addresses and the ingress network.
type world struct {
	t  interface{ Fatal(...any) }
	db *store.Memory
}

func newWorld(t interface{ Fatal(...any) }) world {
	w := world{t, store.NewMemory(func() time.Time { return time.Unix(1, 0) })}
	for i, name := range []string{"front", "back", "ingress"} {
		n := network("10.0." + fmt.Sprint(i) + ".0/29 gateway=10.0." + fmt.Sprint(i) + ".1")
		n.ID, n.VNI, n.Spec.Name, n.Spec.Ingress = name, cluster.FirstVNI+uint32(i), name, name == "ingress"
		w.must(func(tx *store.Tx) error { return tx.Put(n) })
	}
	w.must(func(tx *store.Tx) error {
		return errors.Join(tx.Put(&cluster.Network{ID: "local", Spec: swarm.NetworkSpec{Annotations: swarm.Annotations{Name: "local"}}}),
			tx.Put(&cluster.Node{ID: "n1", ManagerAddr: "10.1.1.1:2400"}))
	})
	return w
}

func (w world) must(fn func(*store.Tx) error) {
	if err := w.db.Update(context.Background(), fn); err != nil {
		w.t.Fatal(err)
	}
}

// put writes a service with networks and ports, as the API does.
func (w world) put(id, mode, networks, ports string) error {
	return w.db.Update(context.Background(), func(tx *store.Tx) error {
		old := tx.Service(id)
		next := &cluster.Service{ID: id}
		if old != nil {
			*next = *old
		}
		next.Spec = swarm.ServiceSpec{Annotations: swarm.Annotations{Name: "the-" + id}, EndpointSpec: &swarm.EndpointSpec{Mode: swarm.ResolutionMode(mode), Ports: configs(ports)}}
		for _, name := range strings.Fields(networks) {
			next.Spec.TaskTemplate.Networks = append(next.Spec.TaskTemplate.Networks, swarm.NetworkAttachmentConfig{Target: name})
		}
		if err := address.Provide(tx.View, old, next); err != nil {
			return err
		}
		return tx.Put(next)
	})
}

func (w world) remove(id string) {
	w.must(func(tx *store.Tx) error { tx.Delete(tx.Service(id)); return nil })
}

// configs reads ports such as 8080:80/tcp, of the nodes of tasks with h before them.
func configs(text string) []swarm.PortConfig {
	var list []swarm.PortConfig
	for _, word := range strings.Fields(text) {
		p := cluster.ParsePorts(strings.TrimPrefix(word, "h"))[0]
		if !strings.HasPrefix(word, "h") {
			p.PublishMode = swarm.PortConfigPublishModeIngress
		}
		list = append(list, p)
	}
	return list
}

// ports writes what the service has.
func (w world) ports(id string) string {
	var list []string
	for _, p := range w.db.View().Service(id).Ports {
		text := cluster.FormatPorts([]swarm.PortConfig{p})
		if p.PublishMode == swarm.PortConfigPublishModeHost {
			text = "h" + text
		}
		list = append(list, text)
	}
	return strings.Join(list, " ")
}

func TestProvide_Ports(t *testing.T) {
	w := newWorld(t)
	for i, step := range []struct{ id, asks, has, says string }{
		{"a", "8080:80/tcp 0:81/tcp 0:81/udp h0:9/tcp", "8080:80/tcp 30000:81/tcp 30000:81/udp h0:9/tcp", ""},
		{"b", "8080:80/tcp", "", "port '8080' is already in use by service 'the-a' (a) as an ingress port"},
		{"b", "30000:80/tcp", "", "port '30000' is already in use by service 'the-a' (a) as an ingress port"},
		{"b", "h8080:80/tcp", "", "port '8080' is already in use by service 'the-a' (a) as an ingress port"},
		{"b", "8080:80/udp h9000:9/tcp h30001:1/tcp", "8080:80/udp h9000:9/tcp h30001:1/tcp", ""},
		{"c", "9000:80/tcp", "", "port '9000' is already in use by service 'the-b' (b) as a host-published port"},
		{"c", "h9000:80/tcp", "h9000:80/tcp", ""},
		{"c", "0:80/tcp 0:80/tcp", "30002:80/tcp 30003:80/tcp", ""},
		{"c", "0:80/tcp 30002:81/tcp 0:80/tcp", "30003:80/tcp 30002:81/tcp 30004:80/tcp", ""}, // what is asked for goes first
		{"a", "0:81/tcp 8080:82/tcp", "30000:81/tcp 8080:82/tcp", ""},
		{"a", "0:82/tcp h8080:82/tcp", "30005:82/tcp h8080:82/tcp", ""},
		{"d", "2377:80/tcp", "", "port '2377' can't be published on all nodes: it is in use for the managers"},
		{"d", "2400:80/tcp", "", "it is in use for manager n1"},
		{"d", "7946:80/udp", "", "it is in use for gossip between nodes"},
		{"d", "4789:80/udp", "", "it is in use for networks between nodes"},
		{"d", "h2377:80/tcp 4789:80/tcp", "h2377:80/tcp 4789:80/tcp", ""},
		{"d", "", "", ""},
	} {
		err := w.put(step.id, "vip", "", step.asks)
		if step.says != "" {
			if err == nil || !strings.HasSuffix(err.Error(), step.says) || !errors.Is(err, cluster.ErrInvalid) {
				t.Errorf("%d: %s asks for %q: %v, want %s", i, step.id, step.asks, err, step.says)
			}
			continue
		}
		if err != nil {
			t.Errorf("%d: %s asks for %q: %v", i, step.id, step.asks, err)
		} else if got := w.ports(step.id); got != step.has {
			t.Errorf("%d: %s asks for %q and has %q, want %q", i, step.id, step.asks, got, step.has)
		}
	}
}

func TestProvide_DynamicPortsRunOut(t *testing.T) {
	w := newWorld(t)
	all := strings.TrimSpace(strings.Repeat("0:80/tcp ", 1+address.LastDynamicPort-address.FirstDynamicPort))
	if err := w.put("a", "vip", "", all); err != nil {
		t.Fatal(err)
	}
	err := w.put("b", "vip", "", "0:80/tcp")
	if !errors.Is(err, cluster.ErrPrecondition) || !strings.Contains(err.Error(), "no port from 30000 to 32767 is free for port 80/tcp") {
		t.Error(err)
	}
	w.remove("a")
	if err := w.put("b", "vip", "", "0:80/tcp"); err != nil {
		t.Error(err)
	}
}

func TestProvide_VirtualIPs(t *testing.T) {
	w := newWorld(t)
	ip := func(id string, i uint32) cluster.Host {
		return cluster.AddressIn(w.db.View().Service(id).VirtualIPs, cluster.FirstVNI+i)
	}
	put := func(id, mode, networks string) {
		t.Helper()
		if err := w.put(id, mode, networks, ""); err != nil {
			t.Fatal(err)
		}
	}
	put("a", "vip", "front local")
	first := ip("a", 0)
	if first == 0 || len(w.db.View().Service("a").VirtualIPs) != 1 {
		t.Fatalf("%+v", w.db.View().Service("a").VirtualIPs)
	}
	put("a", "vip", "back front ingress")
	if got := w.db.View().Service("a").VirtualIPs; ip("a", 0) != first || ip("a", 1) == 0 || len(got) != 2 {
		t.Errorf("with another network: %+v", got)
	}
	put("a", "dnsrr", "back front")
	if got := w.db.View().Service("a").VirtualIPs; got != nil {
		t.Errorf("without virtual IPs: %+v", got)
	}
	// 10.0.0.0/29 has five addresses beside the gateway.
	for i := range 5 {
		put(fmt.Sprint("s", i), "vip", "front")
	}
	err := w.put("a", "vip", "front", "")
	if !errors.Is(err, cluster.ErrPrecondition) || !strings.HasPrefix(err.Error(), "no free address in network front (5 in use)") {
		t.Errorf("in a full network: %v", err)
	}
	put("s3", "vip", "back")
	put("a", "vip", "front")
}

// TestProvide_PropertyNothingHasTwoOwners writes services at random: what the database has is
// what the specs ask for, and what is theirs alone; whatever stays asked for stays.
func TestProvide_PropertyNothingHasTwoOwners(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		owners := map[cluster.Unique]string{}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			id := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "id")
			if w.db.View().Service(id) != nil && rapid.IntRange(0, 5).Draw(t, "remove") == 0 {
				w.remove(id)
				maps.DeleteFunc(owners, func(_ cluster.Unique, owner string) bool { return owner == id })
				continue
			}
			before := w.db.View().Service(id)
			mode := rapid.SampledFrom([]string{"vip", "vip", "dnsrr"}).Draw(t, "mode")
			networks := rapid.SampledFrom([]string{"", "front", "back", "front back", "local"}).Draw(t, "networks")
			asks := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"80:1/tcp", "80:2/tcp", "80:1/udp", "0:1/tcp", "0:2/tcp", "30000:3/tcp", "30001:3/tcp", "h80:1/tcp", "h30002:1/tcp"}), 0, 4, func(s string) string {
				published, rest, _ := strings.Cut(strings.TrimPrefix(s, "h"), ":")
				if published == "0" {
					return s
				}
				return published + rest[len(rest)-3:] // as the API wants it
			}).Draw(t, "ports")
			if err := w.put(id, mode, networks, strings.Join(asks, " ")); err != nil {
				if w.db.View().Service(id) != before {
					t.Fatal("it was written, and refused")
				}
				continue
			}
			s := w.db.View().Service(id)
			maps.DeleteFunc(owners, func(_ cluster.Unique, owner string) bool { return owner == id })
			take := func(u cluster.Unique) {
				if owner := owners[u]; owner != "" {
					t.Fatalf("%s is %s's and %s's", u, owner, id)
				}
				if holder, held := w.db.View().Holder(u); !held || holder.ID != id {
					t.Fatalf("%s should be %s's: %v", u, id, holder)
				}
				owners[u] = id
			}
			for _, a := range s.VirtualIPs {
				take(cluster.UniqueAddress(a))
				if before != nil && cluster.AddressIn(before.VirtualIPs, a.VNI) != 0 && !slices.Contains(before.VirtualIPs, a) {
					t.Fatalf("the virtual IP %v became %v", before.VirtualIPs, a)
				}
			}
			if want := len(strings.Fields(strings.ReplaceAll(networks, "local", ""))); mode == "vip" && len(s.VirtualIPs) != want || mode == "dnsrr" && s.VirtualIPs != nil {
				t.Fatalf("on %q with %s: %v", networks, mode, s.VirtualIPs)
			}
			for i, p := range s.Ports {
				asked := s.Spec.EndpointSpec.Ports[i]
				if p.PublishMode == swarm.PortConfigPublishModeIngress {
					take(cluster.UniquePort(p.Protocol, p.PublishedPort))
				}
				dynamic := asked.PublishedPort == 0 && p.PublishMode == swarm.PortConfigPublishModeIngress
				if asked.PublishedPort = p.PublishedPort; asked != p || p.PublishedPort == 0 || dynamic && before == nil && p.PublishedPort < address.FirstDynamicPort {
					t.Fatalf("asked for %+v, has %+v", s.Spec.EndpointSpec.Ports[i], p)
				}
			}
			if len(s.Ports) != len(asks) {
				t.Fatalf("asked for %v, has %v", asks, s.Ports)
			}
		}
	})
}
