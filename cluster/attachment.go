package cluster

import "net/netip"

// AttachRequest asks the leader for a container's place in a network, in the name of the node whose
// engine makes the container.
type AttachRequest struct {
	// ID is the attachment's, chosen by the asker, so that it may ask again when no answer came.
	ID string `cbor:"1,keyasint"`
	// Network is the network's ID or name.
	Network string `cbor:"2,keyasint"`
	// Name and Aliases are what the container is called in the network.
	Name    string   `cbor:"3,keyasint,omitempty"`
	Aliases []string `cbor:"4,keyasint,omitempty"`
	// Asked is the address that the user wants; invalid for any.
	Asked netip.Addr `cbor:"5,keyasint,omitzero"`
}

// Attached answers an AttachRequest.
type Attached struct {
	// Network is nil when the cluster has none of that name.
	Network *Network `cbor:"1,keyasint,omitempty"`
	// Attachment is nil when containers may not be put on the network.
	Attachment *Attachment `cbor:"2,keyasint,omitempty"`
}

// DetachRequest tells the leader of attachments whose containers are gone, or have left their networks.
type DetachRequest struct {
	IDs []string `cbor:"1,keyasint"`
}

// MaxDetach is how many attachments are freed at once.
const MaxDetach = 500
