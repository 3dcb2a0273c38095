package networks

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"skep/cluster"
)

// maxPart is how many bytes one update may have; what is larger is told in parts. A single
// service may be larger, but never too large for a frame: no entry of the log is.
const maxPart = 1 << 20

// encode is the update in as many parts as it takes.
func encode(u *cluster.NetworkUpdate) ([]cbor.RawMessage, error) {
	data, err := cluster.Encode(u)
	if err != nil {
		return nil, fmt.Errorf("tell of network %q: %w", u.NetworkID, err)
	}
	first, second, ok := halve(u)
	if len(data) <= maxPart || !ok {
		return []cbor.RawMessage{data}, nil
	}
	head, err := encode(first)
	if err != nil {
		return nil, err
	}
	tail, err := encode(second)
	if err != nil {
		return nil, err
	}
	return append(head, tail...), nil
}

// halve cuts an update in two; false when there is too little in it. More is set in all parts but
// the last, and where it was.
func halve(u *cluster.NetworkUpdate) (first, second *cluster.NetworkUpdate, ok bool) {
	first = &cluster.NetworkUpdate{
		NetworkID: u.NetworkID, Full: u.Full, From: u.From, To: u.To, Network: u.Network, Settings: u.Settings, GoneNodes: u.GoneNodes, More: true,
	}
	second = &cluster.NetworkUpdate{NetworkID: u.NetworkID, From: u.To, To: u.To, More: u.More}
	first.Services, second.Services = half(u.Services)
	first.Endpoints, second.Endpoints = half(u.Endpoints)
	first.Gone, second.Gone = half(u.Gone)
	first.Nodes, second.Nodes = half(u.Nodes)
	return first, second, len(second.Services)+len(second.Endpoints)+len(second.Gone)+len(second.Nodes) > 0
}

func half[T any](list []T) (first, second []T) {
	cut := (len(list) + 1) / 2
	return list[:cut], list[cut:]
}
