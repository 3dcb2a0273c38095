package network

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
)

// follow has a plane that is as it should be for one account be so for the next one without looking at
// what is there: with thousands of services a look takes hundreds of times as long as the steps of one.
// It is false when the accounts differ in more than in what is on their networks, or a step failed: then
// it takes a look. Both accounts are sound.
func follow(ctx context.Context, plane Plane, from, to *Wanted) bool {
	before, after, ok := narrow(from, to)
	if !ok {
		return false
	}
	steps := Plan(Desired(after, Existing{}), Desired(before, Existing{}), true)
	return len(steps) == 0 || plane.Apply(ctx, steps) == nil
}

// narrow are two accounts without the endpoints, services and ports that are in both, and without nodes that
// no endpoint is on. It is false when they differ in anything else.
func narrow(a, b *Wanted) (before, after *Wanted, ok bool) {
	if !reflect.DeepEqual(a.bare(), b.bare()) {
		return nil, nil, false
	}
	x, y := *a, *b
	x.Networks, y.Networks = slices.Clone(a.Networks), slices.Clone(b.Networks)
	named := map[uint16]bool{}
	for i := range x.Networks {
		n, m := &x.Networks[i], &y.Networks[i]
		n.Endpoints, m.Endpoints = differing(n.Endpoints, m.Endpoints, func(e *Endpoint) netip.Addr { return e.Addrs[0] },
			func(a, b *Endpoint) bool {
				return a.Node == b.Node && a.Gone == b.Gone && slices.Equal(a.Addrs, b.Addrs)
			})
		n.Services, m.Services = differing(n.Services, m.Services, func(s *Service) netip.Addr { return s.VIP },
			func(a, b *Service) bool {
				return a.VIP == b.VIP && a.Affinity == b.Affinity && slices.Equal(a.Backends, b.Backends)
			})
		for _, e := range append(slices.Clone(n.Endpoints), m.Endpoints...) {
			named[e.Node] = true
		}
	}
	type claim struct {
		protocol  string
		hostIP    netip.Addr
		published uint16
	}
	x.Ports, y.Ports = differing(x.Ports, y.Ports, func(p *Port) claim { return claim{p.Protocol, p.HostIP, p.Published} },
		func(a, b *Port) bool {
			return a.Protocol == b.Protocol && a.HostIP == b.HostIP && a.Published == b.Published && a.Target == b.Target && a.Affinity == b.Affinity && slices.Equal(a.Backends, b.Backends)
		})
	x.Nodes = slices.DeleteFunc(slices.Clone(x.Nodes), func(n Node) bool { return !named[n.Index] })
	y.Nodes = x.Nodes
	return &x, &y, true
}

// bare is an account without what is on its networks.
func (w *Wanted) bare() Wanted {
	bare := *w
	bare.Ports, bare.Networks = nil, slices.Clone(w.Networks)
	for i := range bare.Networks {
		bare.Networks[i].Endpoints, bare.Networks[i].Services = nil, nil
	}
	return bare
}

// differing are two lists, whose keys are each there once, without what is in both. Mostly they begin and end
// alike.
func differing[T any, K comparable](a, b []T, key func(*T) K, same func(a, b *T) bool) (onlyA, onlyB []T) {
	for len(a) > 0 && len(b) > 0 && same(&a[0], &b[0]) {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && same(&a[len(a)-1], &b[len(b)-1]) {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	left := make(map[K]*T, len(a))
	for i := range a {
		left[key(&a[i])] = &a[i]
	}
	for i := range b {
		if was := left[key(&b[i])]; was != nil && same(was, &b[i]) {
			delete(left, key(&b[i]))
		} else {
			onlyB = append(onlyB, b[i])
		}
	}
	for i := range a {
		if left[key(&a[i])] != nil {
			onlyA = append(onlyA, a[i])
		}
	}
	return onlyA, onlyB
}
