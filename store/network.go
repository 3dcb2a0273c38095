package store

import (
	"iter"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

var networks = &kindOf[cluster.Network]{
	number: 9,
	word:   "network",
	weigh:  weighNetwork,
	most:   maxNetworks,
	key:    func(n *cluster.Network) string { return n.ID },
	blank:  func(id string) (*cluster.Network, error) { return &cluster.Network{ID: id}, nil },
	name:   func(n *cluster.Network) string { return n.Spec.Name },
	meta:   inMeta[cluster.Network](func(n *cluster.Network) *cluster.Meta { return &n.Meta }),
	times:  func(n *cluster.Network) []time.Time { return []time.Time{n.CreatedAt, n.UpdatedAt} },
	share:  func(in *interner, n *cluster.Network) { in.share(&n.ID) },
	uniques: func(n *cluster.Network) []cluster.Unique {
		if !n.Spans() {
			return nil
		}
		return []cluster.Unique{cluster.UniqueVNI(n.VNI)}
	},
	refersByID: true,
	references: func(spec *swarm.TaskSpec) iter.Seq2[string, string] {
		return func(yield func(id, name string) bool) {
			for _, attachment := range spec.Networks {
				if _, engines := cluster.PredefinedNetwork(attachment.Target); !engines && !yield(attachment.Target, "") {
					return
				}
			}
		}
	},
}

// Network finds a network by its ID.
func (v View) Network(id string) *cluster.Network { return networks.get(v, id) }

// NetworkNamed finds a network by its name, without regard to case.
func (v View) NetworkNamed(name string) *cluster.Network { return networks.named(v, name) }

// Networks lists the networks in the order of their IDs.
func (v View) Networks() iter.Seq[*cluster.Network] { return networks.list(v) }

// NetworksWithPrefix lists the networks whose ID begins with prefix.
func (v View) NetworksWithPrefix(prefix string) iter.Seq[*cluster.Network] {
	return networks.withPrefix(v, prefix)
}

// NetworkOfVNI finds the network that has a VXLAN identifier.
func (v View) NetworkOfVNI(vni uint32) *cluster.Network {
	holder, _ := v.Holder(cluster.UniqueVNI(vni))
	return v.Network(holder.ID)
}

// IngressNetwork is the network by which published ports are carried; nil when there is none.
// It reads all networks: there are few.
func (v View) IngressNetwork() *cluster.Network {
	for n := range v.Networks() {
		if n.Spec.Ingress {
			return n
		}
	}
	return nil
}
