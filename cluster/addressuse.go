package cluster

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
)

// AddressUse is a range of addresses that a node's machine has in use.
type AddressUse struct {
	Prefix netip.Prefix `cbor:"1,keyasint"`
	// By is what has it, as a user would say it: "network old of its engine".
	By string `cbor:"2,keyasint"`
	// Engine is set when it is a network of the engine's, which makes no other one that has any of
	// these addresses.
	Engine bool `cbor:"3,keyasint,omitempty"`
	// NetworkID is the network of the cluster that the range is of; empty for others.
	NetworkID string `cbor:"4,keyasint,omitempty"`
}

// MaxAddressUses is how many ranges are told of a node at most. A machine with more is a router.
const MaxAddressUses = 256

// SortAddressUses puts ranges in order, the engine's first, each once and no more than are told.
func SortAddressUses(used []AddressUse) []AddressUse {
	slices.SortFunc(used, func(a, b AddressUse) int {
		if a.Engine != b.Engine {
			if a.Engine {
				return -1
			}
			return 1
		}
		return cmp.Or(a.Prefix.Compare(b.Prefix), cmp.Compare(a.By, b.By))
	})
	type of struct {
		prefix    netip.Prefix
		networkID string
	}
	seen := map[of]bool{}
	used = slices.DeleteFunc(used, func(u AddressUse) bool {
		again := seen[of{u.Prefix, u.NetworkID}]
		seen[of{u.Prefix, u.NetworkID}] = true
		return again
	})
	return used[:min(len(used), MaxAddressUses)]
}

// takes tells whether a node with this range can't have a subnet besides. An engine refuses any
// overlap; of the machine's routes those that are wider stay behind the subnet's own, so that only
// what is the same or within it leads the network's packets astray.
func (u AddressUse) takes(subnet netip.Prefix) bool {
	return u.Prefix.Overlaps(subnet) && (u.Engine || u.Prefix.Bits() >= subnet.Bits())
}

// Clash says what keeps the network from a node whose machine uses these ranges; empty for
// nothing. What is there of the network itself is no clash.
func (n *Network) Clash(used []AddressUse) string {
	for _, u := range used {
		for _, s := range n.Subnets {
			if u.NetworkID != n.ID && u.takes(s.Prefix) {
				return fmt.Sprintf("its subnet %s overlaps %s, which %s has here", s.Prefix, u.Prefix, u.By)
			}
		}
	}
	return ""
}

// Clashes says which of the networks can't be on the node, and why; empty for none.
func (n *Node) Clashes(networks iter.Seq[*Network]) string {
	first, more := "", 0
	for network := range networks {
		switch clash := network.Clash(n.Uses); {
		case clash == "":
		case first == "":
			first = fmt.Sprintf("it gets no tasks of network %s: %s", network.Spec.Name, clash)
		default:
			more++
		}
	}
	if more > 0 {
		return fmt.Sprintf("%s (nor of %d more networks)", first, more)
	}
	return first
}

// Sentences are what is said of one thing, in a line; those that are empty are left out.
func Sentences(said ...string) string {
	return strings.Join(slices.DeleteFunc(said, func(s string) bool { return s == "" }), "; ")
}
