package agent

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sort"

	"skep/cluster"
)

const (
	// maxNetworks is of how many networks a node is told at most, and maxInNetwork how many
	// services, endpoints and nodes each account has: more than a subnet of /16 has addresses.
	maxNetworks  = 10_000
	maxInNetwork = 1 << 17
)

// account is what managers told of one network or, without a Network, of the nodes. It
// doesn't change: an update makes another one, so whoever works with one may take its time.
type account struct {
	// To is the index of the last update that it took in.
	To      uint64           `cbor:"1,keyasint"`
	Network *cluster.Network `cbor:"2,keyasint,omitempty"`
	// Services and Endpoints are in the order of their IDs, Nodes in that of their indexes.
	Services  []cluster.NetworkService  `cbor:"3,keyasint,omitempty"`
	Endpoints []cluster.NetworkEndpoint `cbor:"4,keyasint,omitempty"`
	Nodes     []cluster.NetworkNode     `cbor:"5,keyasint,omitempty"`
	Settings  cluster.NetworkSettings   `cbor:"6,keyasint,omitzero"`
	// Dropped is set when managers tell no more of the network: it stays until no container is
	// on it and the engine has forgotten it.
	Dropped bool `cbor:"7,keyasint,omitempty"`
}

// with is the account after an update.
func (a *account) with(u *cluster.NetworkUpdate) (*account, error) {
	next := account{To: u.To, Network: a.Network, Settings: a.Settings}
	if u.Network != nil {
		next.Network = u.Network
	}
	if u.Settings != nil {
		next.Settings = *u.Settings
	}
	next.Services = revised(a.Services, u.Services, u.Gone, func(s *cluster.NetworkService) string { return s.ID })
	next.Endpoints = revised(a.Endpoints, u.Endpoints, u.Gone, func(e *cluster.NetworkEndpoint) string { return e.ID })
	next.Nodes = revised(a.Nodes, u.Nodes, u.GoneNodes, func(n *cluster.NetworkNode) uint16 { return n.Index })
	switch {
	case u.NetworkID != "" && (next.Network == nil || next.Network.ID != u.NetworkID):
		return nil, cluster.Errorf(cluster.ErrInvalid, "take in network %s: the update doesn't say what it is", u.NetworkID)
	case max(len(next.Services), len(next.Endpoints), len(next.Nodes)) > maxInNetwork:
		return nil, cluster.Errorf(cluster.ErrInvalid, "take in network %s: there is too much in it", u.NetworkID)
	}
	return &next, nil
}

// revised is a list in the order of its keys after some entries have come, others have
// changed, and those with the keys in gone have gone. Of what stays nothing is looked at, but on the way to a key.
func revised[T any, K cmp.Ordered](list, news []T, gone []K, key func(*T) K) []T {
	if len(news)+len(gone) == 0 {
		return list
	}
	latest := make(map[K]*T, len(news)+len(gone)) // nil for what has gone
	for _, k := range gone {
		latest[k] = nil
	}
	for i := range news {
		latest[key(&news[i])] = &news[i]
	}
	next := make([]T, 0, len(list)+len(news))
	for _, k := range slices.Sorted(maps.Keys(latest)) {
		at := sort.Search(len(list), func(i int) bool { return key(&list[i]) >= k })
		next, list = append(next, list[:at]...), list[at:]
		if len(list) > 0 && key(&list[0]) == k {
			list = list[1:]
		}
		if now := latest[k]; now != nil {
			next = append(next, *now)
		}
	}
	return append(next, list...)
}

// networkSet is what the node knows of networks. It belongs to the taskSet.
type networkSet struct {
	// accounts are what managers told, by the network's ID; that of the nodes has "".
	accounts map[string]*account
	// told are the IDs that the present session told of, and staged its accounts that are older
	// than those above: they wait until the updates after them have caught up. allTold is set
	// when it has told everything, and complete once any has.
	told   map[string]bool
	staged map[string]*account
	// parts are accounts of which more is to come: nothing is done about them before.
	parts             map[string]*account
	allTold, complete bool
	// carried are the networks whose links the plane has, as of its last round that knew
	// everything; looked is set after the first such round. kept are those that the engine knows.
	carried, kept map[string]bool
	looked        bool
	// engineTold is set once the engine was told what to keep, and has nothing else. Before, it may have a
	// network that nobody knows of: the record may be older.
	engineTold bool
	// lookAgain asks for a look at the engine's networks though nothing seems to have changed.
	lookAgain bool
	// keys are those of the plane's WireGuard devices, as of its last round.
	keys cluster.WireKeys
	// uses are the addresses that the machine has in use, as of the last look.
	uses []cluster.AddressUse
	// missed is what observe says, away the nodes that nothing is led to, and silent those whose machines said nothing
	// when they were asked.
	missed missed
	away   map[string]bool
	silent map[string]bool
	// taken are published ports that other programs of the machine have.
	taken []string
	// problem keeps the plane from being as it should be, and engineProblem the engine's
	// networks; "" is nothing.
	problem, engineProblem string
}

func newNetworkSet(r *remembered) networkSet {
	n := networkSet{accounts: map[string]*account{}, carried: map[string]bool{}, kept: map[string]bool{}, silent: map[string]bool{}, uses: r.Uses}
	for _, id := range r.Kept {
		n.kept[id] = true
	}
	for _, a := range r.Networks {
		if a.Network != nil {
			n.accounts[a.Network.ID] = a
		} else {
			n.accounts[""] = a
		}
	}
	n.begin()
	return n
}

// begin forgets what the session before told, when another one begins.
func (n *networkSet) begin() {
	n.told, n.staged, n.parts, n.allTold = map[string]bool{}, map[string]*account{}, map[string]*account{}, false
}

// take takes in an update of the present session. An error means that the session must
// end.
func (n *networkSet) take(u *cluster.NetworkUpdate) error {
	held, staged := n.accounts[u.NetworkID], n.staged[u.NetworkID]
	base := cmp.Or(n.parts[u.NetworkID], staged, held)
	switch {
	case u.To == 0:
		return fmt.Errorf("update of network %q to nothing: %w", u.NetworkID, errGap)
	case u.Full:
		base = &account{}
	case !n.told[u.NetworkID] || base == nil || u.From != base.To || u.To < u.From:
		return fmt.Errorf("update of network %q from %d to %d: %w", u.NetworkID, u.From, u.To, errGap)
	}
	if u.Dropped {
		delete(n.parts, u.NetworkID)
		if staged != nil {
			return errBehind
		}
		n.drop(u.NetworkID, u.To)
		delete(n.told, u.NetworkID)
		return nil
	}
	next, err := base.with(u)
	if err != nil {
		return err
	}
	if held == nil && staged == nil && len(n.accounts)+len(n.staged)+len(n.parts) >= maxNetworks {
		return cluster.Errorf(cluster.ErrInvalid, "take in network %s: there are too many", u.NetworkID)
	}
	n.told[u.NetworkID] = true
	if u.More {
		n.parts[u.NetworkID] = next
		return nil
	}
	delete(n.parts, u.NetworkID)
	if held != nil && next.To < held.To {
		n.staged[u.NetworkID] = next
	} else {
		n.accounts[u.NetworkID] = next
		delete(n.staged, u.NetworkID)
	}
	n.completed()
	return nil
}

// end takes in that the session has told everything: there are no other networks.
func (n *networkSet) end(to uint64) {
	n.allTold = true
	for id := range n.accounts {
		if !n.told[id] && id != "" {
			n.drop(id, to)
		}
	}
	n.completed()
}

// completed notes when everything is known.
func (n *networkSet) completed() {
	n.complete = n.complete || n.allTold && n.told[""] && len(n.staged)+len(n.parts) == 0
}

// drop keeps of a network only that it is there.
func (n *networkSet) drop(id string, to uint64) {
	if a := n.accounts[id]; a != nil && !a.Dropped {
		n.accounts[id] = &account{To: max(to, a.To), Network: a.Network, Dropped: true}
	}
}

// behind tells whether the manager hasn't got as far as what was seen.
func (n *networkSet) behind() bool { return len(n.staged) > 0 }

// byVNI finds a network's account.
func byVNI(accounts map[string]*account, vni uint32) *account {
	var found *account
	for _, a := range accounts {
		if a.Network != nil && a.Network.VNI == vni && (found == nil || found.Dropped) {
			found = a
		}
	}
	return found
}

// index is the number of the node in networks; 0 when it carries none.
func (n *networkSet) index(nodeID string) uint16 {
	if a := n.accounts[""]; a != nil {
		for _, node := range a.Nodes {
			if node.ID == nodeID {
				return node.Index
			}
		}
	}
	return 0
}

// attachments are the places of a task in networks, in the order of its revision, the ingress
// network last. lack is why it has to wait for them.
func (s *taskSet) attachments(t *taskState) (attached []Attachment, lack string) {
	task, n := t.assignment.Task, &s.networks
	if t.assignment.Revision == nil {
		return nil, ""
	}
	for _, local := range t.assignment.Revision.LocalNetworks {
		attached = append(attached, Attachment{Network: local}) // The driver makes it when it is needed.
	}
	for _, address := range task.Addresses {
		a := byVNI(n.accounts, address.VNI)
		if a == nil {
			return nil, fmt.Sprintf("waiting for a manager to tell of the network with the number %d", address.VNI)
		}
		if lack == "" {
			lack = s.lackOf(a, task.ID)
		}
		attached = append(attached, Attachment{Network: a.Network, Host: address.Host})
	}
	place := func(a Attachment) int {
		if a.Network.Spec.Ingress {
			return len(task.Addresses) + len(t.assignment.Revision.Spec.Networks)
		}
		for i, config := range t.assignment.Revision.Spec.Networks {
			if config.Target == a.Network.ID {
				return i
			}
		}
		return len(t.assignment.Revision.Spec.Networks)
	}
	slices.SortStableFunc(attached, func(a, b Attachment) int { return cmp.Compare(place(a), place(b)) })
	return attached, lack
}

// lackOf is why the task's container can't be on a network yet.
func (s *taskSet) lackOf(a *account, taskID string) string {
	n, reason := &s.networks, ""
	own := n.index(s.agent.cfg.NodeID)
	carrier, clash, other := n.carrier(a, taskID), n.clash(a), n.inTheWay(a.Network)
	switch {
	case carrier != 0 && carrier != own:
		return "" // Another node on the engine has it; the driver waits for it.
	case own == 0 || s.agent.cfg.Plane == nil:
		reason = "the node carries no networks"
	case clash != "":
		reason = clash
	case other != nil:
		reason = fmt.Sprintf("the engine has yet to forget network %s (%s)", other.Spec.Name, other.ID)
	case a.Network.Encrypted() && s.agent.cfg.NoEncryption != "":
		reason = "the node can't encrypt: " + s.agent.cfg.NoEncryption
	case !n.carried[a.Network.ID]:
		reason = cmp.Or(n.problem, "it is being made")
	case !n.kept[a.Network.ID]:
		reason = cmp.Or(n.engineProblem, "the engine doesn't know it yet")
	default:
		return ""
	}
	return fmt.Sprintf("waiting for network %s on this node: %s", a.Network.Spec.Name, reason)
}

// foreign are the ranges that matter to networks: not those of networks that managers tell of, which
// never clash with each other, nor of those that are on their way out.
func (n *networkSet) foreign(uses []cluster.AddressUse) []cluster.AddressUse {
	return cluster.SortAddressUses(slices.DeleteFunc(uses, func(u cluster.AddressUse) bool {
		a := n.accounts[u.NetworkID]
		return a != nil && a.Network != nil
	}))
}

// clashPasses tells whether a network waits for addresses of another one of the cluster's that the database doesn't
// have any more: that is on its way out of the engine, where another node may be removing it, which tells nobody.
func (n *networkSet) clashPasses(nodeID string) bool {
	passing := slices.DeleteFunc(slices.Clone(n.uses), func(u cluster.AddressUse) bool { return u.NetworkID == "" })
	if len(passing) == 0 || n.index(nodeID) == 0 {
		return false
	}
	for _, a := range n.accounts {
		if a.Network != nil && !a.Dropped && n.clashWith(a, passing) != "" {
			return true
		}
	}
	return false
}

// clash says which addresses, that the machine has in use, keep a network from being made; "" for
// none. One that the engine has stays: containers may be on it.
func (n *networkSet) clash(a *account) string { return n.clashWith(a, n.uses) }

func (n *networkSet) clashWith(a *account, uses []cluster.AddressUse) string {
	if n.kept[a.Network.ID] {
		return ""
	}
	return a.Network.Clash(uses)
}

// inTheWay finds a network that another one, which isn't on this machine yet, has to wait for: it is here, or
// may be, with the same number or some of the addresses. It is on its way out, since the database has
// one of them only; until then its bridge must stay below the engine's network, beside which the engine wouldn't
// make the other one.
func (n *networkSet) inTheWay(of *cluster.Network) (found *cluster.Network) {
	if n.carried[of.ID] || n.kept[of.ID] {
		return nil
	}
	for id, a := range n.accounts {
		here := a.Network != nil && id != of.ID && (a.Dropped || n.carried[id] || n.kept[id])
		if here && meet(a.Network, of) && (found == nil || id < found.ID) {
			found = a.Network
		}
	}
	return found
}

// meet tells whether two networks can't be on one machine.
func meet(a, b *cluster.Network) bool {
	return a.VNI == b.VNI || slices.ContainsFunc(a.Subnets, func(s cluster.Subnet) bool {
		return slices.ContainsFunc(b.Subnets, func(o cluster.Subnet) bool { return s.Prefix.Overlaps(o.Prefix) })
	})
}

// carrier is the index of the node that carries a network for a task; 0 when there is none.
func (n *networkSet) carrier(a *account, taskID string) uint16 {
	e, nodes := a.endpoint(taskID), n.accounts[""]
	if e == nil || nodes == nil || !slices.ContainsFunc(nodes.Nodes, func(node cluster.NetworkNode) bool { return node.Index == e.Node }) {
		return 0
	}
	return e.Node
}

// service finds a service of the network; nil when it isn't on it.
func (a *account) service(id string) *cluster.NetworkService {
	i, found := slices.BinarySearchFunc(a.Services, id, func(s cluster.NetworkService, id string) int { return cmp.Compare(s.ID, id) })
	if !found {
		return nil
	}
	return &a.Services[i]
}

// endpoint finds a task on the network, likewise.
func (a *account) endpoint(id string) *cluster.NetworkEndpoint {
	i, found := slices.BinarySearchFunc(a.Endpoints, id, func(e cluster.NetworkEndpoint, id string) int { return cmp.Compare(e.ID, id) })
	if !found {
		return nil
	}
	return &a.Endpoints[i]
}

// usesNetwork tells whether a container of the node may be on a network: where another one has its
// number by now, the tasks are on that one.
func (s *taskSet) usesNetwork(a *account) bool {
	vni := a.Network.VNI
	for _, t := range s.tasks {
		if !t.status.State.Terminal() && cluster.AddressIn(t.assignment.Task.Addresses, vni) != 0 && byVNI(s.networks.accounts, vni) == a {
			return true
		}
	}
	return false
}

// facts are what the plane and the names follow from, as they are now.
func (s *taskSet) facts() *facts {
	f := &facts{Cluster: s.agent.cfg.ClusterID, Node: s.agent.cfg.NodeID, MTU: s.agent.cfg.MTU(), Accounts: maps.Clone(s.networks.accounts), Encrypts: s.agent.cfg.NoEncryption == "", Complete: s.networks.complete, EngineTold: s.networks.engineTold, Away: s.networks.away, Gone: s.networks.gone()}
	maps.DeleteFunc(f.Accounts, func(_ string, a *account) bool {
		return a.Network != nil && (s.networks.clash(a) != "" || !a.Dropped && s.networks.inTheWay(a.Network) != nil)
	})
	for id, t := range s.tasks {
		task := t.assignment.Task
		if len(task.Addresses) == 0 {
			continue
		}
		f.Tasks = append(f.Tasks, ownTask{
			ID: id, Addresses: task.Addresses, Revision: t.assignment.Revision, Ended: t.status.State.Terminal(),
			Serves: t.status.State == cluster.StateRunning && t.status.Message != messageUnhealthy && !over(task) && !t.removing && !t.fenced && !t.disowned,
		})
	}
	slices.SortFunc(f.Tasks, func(a, b ownTask) int { return cmp.Compare(a.ID, b.ID) })
	return f
}
