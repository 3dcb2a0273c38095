package address

import (
	"net/netip"
	"slices"

	"skep/cluster"
	"skep/store"
)

// ForAttachment chooses an address in a network for an attachment of an ID: one that is asked for, if
// asked is valid. It says which task is to lose it; nil for none.
func ForAttachment(view store.View, n *cluster.Network, id string, asked netip.Addr, now cluster.Time) (a cluster.Address, from *cluster.Task, err error) {
	if asked.IsValid() {
		return askedFor(view, n, asked, now)
	}
	r := Of(n)
	host, ok := r.Choose(id, func(host cluster.Host) (used bool) {
		used, from = placeTaken(view, n, host, now)
		return used
	})
	if !ok {
		return a, nil, cluster.Errorf(cluster.ErrPrecondition, "no free address in network %s (%d in use)", n.Spec.Name, r.Size())
	}
	return cluster.Address{VNI: n.VNI, Host: host}, from, nil
}

func askedFor(view store.View, n *cluster.Network, asked netip.Addr, now cluster.Time) (a cluster.Address, from *cluster.Task, err error) {
	for _, s := range n.Subnets {
		host, inside := s.Number(asked)
		if !inside {
			continue
		}
		// A range is what skep chooses from; a user may ask for others.
		whole := *n
		whole.Subnets = nil
		for _, s := range n.Subnets {
			s.Range, s.Parts = netip.Prefix{}, slices.Clone(s.Parts)
			for i := range s.Parts {
				s.Parts[i].Range = netip.Prefix{}
			}
			whole.Subnets = append(whole.Subnets, s)
		}
		if !Of(&whole).has(host) {
			return a, nil, cluster.Errorf(cluster.ErrInvalid, "address %s of network %s is reserved", asked, n.Spec.Name)
		}
		used, from := placeTaken(view, n, host, now)
		if used {
			return a, nil, cluster.Errorf(cluster.ErrPrecondition, "Address already in use: %s in network %s", asked, n.Spec.Name)
		}
		return cluster.Address{VNI: n.VNI, Host: host}, from, nil
	}
	return a, nil, cluster.Errorf(cluster.ErrInvalid, "address %s isn't in a subnet of network %s", asked, n.Spec.Name)
}

// AttachmentRestsUntil is until when the address of an attachment that has ended rests; 0 while it
// hasn't.
func AttachmentRestsUntil(a *cluster.Attachment) cluster.Time {
	if a.Ended.IsZero() {
		return 0
	}
	return a.Ended.Add(Rest)
}
