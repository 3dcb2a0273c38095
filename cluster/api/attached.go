package api

import (
	"cmp"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/scheduler/address"
	"skep/store"
)

// What the leader does of attachments: a manager's control port is asked by the API of the node whose
// engine has the container, which may be a worker.

const (
	// maxNodeAttachments is how many attachments a node may have: a worker that makes more than any
	// machine has containers would use up networks' addresses.
	maxNodeAttachments = 1000
	// maxAliases, and maxAliasBytes for each, is what a container may be called besides its name.
	maxAliases, maxAliasBytes = 32, 255
	// maxAttachmentID is how long an ID may be: nodes choose them, and an ID has 25 characters.
	maxAttachmentID = 32
)

// Attach gives a container of a node a place in a network. There is no network in the answer when there
// is none of that name or ID, and no attachment when containers may not be put on it. Asking again for
// the same ID changes nothing.
func Attach(tx *store.Tx, nodeID string, r cluster.AttachRequest) (*cluster.Attached, error) {
	if err := checkAttachRequest(r); err != nil {
		return nil, err
	}
	n := tx.Network(r.Network)
	if n == nil {
		n = tx.NetworkNamed(r.Network)
	}
	// Names are found without regard to case, and those of networks differ by it.
	if n == nil || n.ID != r.Network && n.Spec.Name != r.Network {
		return &cluster.Attached{}, nil
	}
	answer := &cluster.Attached{Network: n}
	if !n.Spec.Attachable || n.Spec.Ingress || !n.Spans() {
		return answer, nil
	}
	if known := tx.Attachment(r.ID); known != nil {
		if known.NodeID != nodeID || known.NetworkID != n.ID || !known.Ended.IsZero() {
			return nil, fail(cluster.ErrInvalid, "attachment %s is another one", r.ID)
		}
		answer.Attachment = known
		return answer, nil
	}
	node := tx.Node(nodeID)
	if err := carriesOverlay(node, n.Encrypted()); err != nil {
		return nil, err
	}
	count := 0
	for range tx.AttachmentsOfNode(nodeID) {
		count++
	}
	if count >= maxNodeAttachments {
		return nil, fail(cluster.ErrPrecondition, "node %s has %d containers on networks of the cluster, and may have no more: remove some", nodeID, count)
	}
	at, from, err := address.ForAttachment(tx.View, n, r.ID, r.Asked, cluster.At(tx.Now()))
	if err != nil {
		return nil, err
	}
	if from != nil {
		loser := *from
		loser.Addresses = slices.DeleteFunc(slices.Clone(loser.Addresses), func(a cluster.Address) bool { return a == at })
		if err := tx.Put(&loser); err != nil {
			return nil, err
		}
	}
	attachment := &cluster.Attachment{ID: r.ID, NodeID: nodeID, NetworkID: n.ID, Address: at, Name: r.Name, Aliases: r.Aliases}
	if err := tx.Put(attachment); err != nil {
		return nil, err
	}
	told := *attachment // The store owns the other.
	answer.Attachment = &told
	return answer, nil
}

func checkAttachRequest(r cluster.AttachRequest) error {
	switch {
	case len(r.ID) == 0 || len(r.ID) > maxAttachmentID:
		return fail(cluster.ErrInvalid, "attach a container: its ID is none")
	case len(r.Network) > maxAliasBytes, len(r.Name) > maxAliasBytes, len(r.Aliases) > maxAliases,
		slices.ContainsFunc(r.Aliases, func(alias string) bool { return len(alias) > maxAliasBytes }):
		return fail(cluster.ErrInvalid, "attach a container to network %s: a container may have %d names in a network, of %d bytes each", brief(r.Network), maxAliases, maxAliasBytes)
	}
	return nil
}

// carriesOverlay says why a node can't have containers on networks that span nodes.
func carriesOverlay(node *cluster.Node, encrypted bool) error {
	has := func(driver string) bool {
		return slices.Contains(node.Description.Engine.Plugins, swarm.PluginDescription{Type: "Network", Name: driver})
	}
	switch {
	case node == nil:
		return fail(cluster.ErrDenied, "the node isn't part of the swarm")
	case node.Index == 0:
		return fail(cluster.ErrPrecondition, "node %s has no index for overlay networks: only %d nodes get one", node.ID, cluster.MaxIndex)
	case !has(cluster.OverlayDriver):
		return fail(cluster.ErrPrecondition, "node %s carries no overlay networks: its status says why", node.ID)
	case encrypted && !has(cluster.EncryptedOverlay):
		return fail(cluster.ErrPrecondition, "node %s carries no encrypted overlay networks: its status says why", node.ID)
	}
	return nil
}

// Detach frees places of a node's containers, which are gone or have left their networks. Of nodes that
// share an engine any may say so.
func Detach(tx *store.Tx, nodeID string, ids []string) error {
	own := tx.Node(nodeID)
	for _, id := range ids {
		a := tx.Attachment(id)
		if a == nil || !a.Ended.IsZero() {
			continue
		}
		if a.NodeID != nodeID {
			if other := tx.Node(a.NodeID); own == nil || other == nil || own.SharedEngine() == "" || other.SharedEngine() != own.SharedEngine() {
				return fail(cluster.ErrDenied, "attachment %s is another node's", id)
			}
		}
		if err := endAttachment(tx, a); err != nil {
			return err
		}
	}
	return nil
}

func endAttachment(tx *store.Tx, a *cluster.Attachment) error {
	next := *a
	next.Ended = cluster.At(tx.Now())
	return tx.Put(&next)
}

// leaveAttachments has another node on the engine of one that is gone have the places of its containers, which are there
// as before; where there is none they are freed.
func leaveAttachments(tx *store.Tx, node *cluster.Node) error {
	var open []*cluster.Attachment
	for a := range tx.AttachmentsOfNode(node.ID) {
		if a.Ended.IsZero() {
			open = append(open, a)
		}
	}
	heir := sharesEngine(tx.View, node)
	for _, a := range open {
		var err error
		if heir == nil {
			err = endAttachment(tx, a)
		} else {
			next := *a
			next.NodeID = heir.ID
			err = tx.Put(&next)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sharesEngine finds another node that shares a node's engine, one that isn't down if there is any.
func sharesEngine(view store.View, node *cluster.Node) (found *cluster.Node) {
	for n := range view.Nodes() {
		if n.ID != node.ID && node.SharedEngine() != "" && n.SharedEngine() == node.SharedEngine() &&
			(found == nil || found.Status.State == cluster.NodeDown && n.Status.State != cluster.NodeDown) {
			found = n
		}
	}
	return found
}

// RestedAttachments are those whose address may be given to others at a time, up to most, and when the
// next will be; 0 for never.
func RestedAttachments(view store.View, now cluster.Time, most int) (rested []*cluster.Attachment, next cluster.Time) {
	for a := range view.Attachments() {
		switch until := address.AttachmentRestsUntil(a); {
		case until == 0:
		case until <= now && len(rested) < most:
			rested = append(rested, a)
		case next == 0 || until < next:
			next = until
		}
	}
	return rested, next
}

// attachmentsIn lists the containers that are on a network, by name.
func attachmentsIn(view store.View, n *cluster.Network) (list []*cluster.Attachment) {
	for _, holder := range view.AddressHolders(n.VNI) {
		if a := view.Attachment(holder.ID); holder.Kind == "attachment" && a != nil && a.Ended.IsZero() {
			list = append(list, a)
		}
	}
	slices.SortFunc(list, func(a, b *cluster.Attachment) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
	})
	return list
}
