package networks

import (
	"cmp"
	"iter"
	"net/netip"
	"reflect"
	"slices"
	"sync"

	"github.com/fxamacker/cbor/v2"

	"skep/cluster"
	"skep/store"
)

// Hub knows what changes in the networks that agents are told of.
type Hub struct {
	mu sync.Mutex // guards the fields below, and journals
	// recorded is the index up to which changes were recorded.
	recorded uint64
	// ingress is the ID of the ingress network; "" when there is none, or nothing is published.
	ingress  string
	journals map[string]*journal
	readers  map[*Reader]struct{}
	// most is how many changes a journal has.
	most int
}

// NewHub makes a Hub that knows nothing: Record begins with all being lost.
func NewHub() *Hub {
	return &Hub{journals: make(map[string]*journal), readers: make(map[*Reader]struct{}), most: maxEntries}
}

// Record takes in the changes up to view, in order. Lost means that they aren't complete. It
// gives the Readers that have something to tell now, or that should see whether they have.
func (h *Hub) Record(changes []store.Change, view store.View, lost bool) map[*Reader]struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := &recording{h, view, make(map[*journal]struct{}), make(map[*Reader]struct{}), false}
	h.recorded = max(h.recorded, view.Index())
	if lost {
		for _, j := range h.journals {
			j.reset(view.Index())
		}
		r.wakeAll()
		h.ingress = ingressOf(view)
		return r.woken
	}
	for _, c := range changes {
		r.take(c)
	}
	if r.publishing {
		r.publish(ingressOf(view))
	}
	for j := range r.touched {
		for reader := range j.readers {
			r.woken[reader] = struct{}{}
		}
	}
	return r.woken
}

// ingressOf is the ingress network while it is of use: on nodes of a cluster that publishes nothing
// there is nothing of it.
func ingressOf(view store.View) string {
	if n := view.IngressNetwork(); n != nil && view.Publishes(n) {
		return n.ID
	}
	return ""
}

// publish has all nodes hear of the ingress network from now on, or no more.
func (r *recording) publish(ingress string) {
	if ingress == r.ingress {
		return
	}
	for _, id := range []string{r.ingress, ingress} {
		if j := r.journals[id]; j != nil && id != "" {
			j.reset(r.view.Index()) // What changed while nobody heard of it may not be noted.
		}
	}
	r.ingress = ingress
	r.wakeAll()
}

// recording is the changes up to one view being recorded.
type recording struct {
	*Hub
	view    store.View
	touched map[*journal]struct{}
	woken   map[*Reader]struct{}
	// publishing is set when the ingress network may be of use only now, or no more.
	publishing bool
}

func (r *recording) wakeAll() {
	for reader := range r.readers {
		r.woken[reader] = struct{}{}
	}
}

// wake wakes the sessions of some nodes.
func (r *recording) wake(nodes map[string]bool) {
	for reader := range r.readers {
		if nodes[reader.nodeID] {
			r.woken[reader] = struct{}{}
		}
	}
}

// changed notes a change in a network's account.
func (r *recording) changed(networkID, key string) {
	if j := r.journals[networkID]; j != nil { // Else nobody hears of it.
		j.add(r.view.Index(), key, r.most)
		r.touched[j] = struct{}{}
	}
}

func (r *recording) take(c store.Change) {
	object := c.After
	if object == nil {
		object = c.Before
	}
	switch object.(type) {
	case *cluster.Task:
		r.task(store.Sides[cluster.Task](c))
	case *cluster.Service:
		r.service(store.Sides[cluster.Service](c))
	case *cluster.Network:
		r.network(store.Sides[cluster.Network](c))
	case *cluster.Attachment:
		r.attachment(store.Sides[cluster.Attachment](c))
	case *cluster.Node:
		r.node(store.Sides[cluster.Node](c))
	case *cluster.Cluster:
		before, after := store.Sides[cluster.Cluster](c)
		if !reflect.DeepEqual(before.NetworkSettings(), after.NetworkSettings()) {
			r.changed(nodesAccount, settingsKey)
		}
	}
}

// presence is what accounts have of a task, but for its place.
type presence struct {
	there  bool
	nodeID string
	phase  cluster.EndpointPhase
}

func presenceOf(t *cluster.Task) presence {
	if t == nil || t.Dead() {
		return presence{}
	}
	return presence{true, t.NodeID, phaseOf(t)}
}

func addressesOf(t *cluster.Task) []cluster.Address {
	if t == nil {
		return nil
	}
	return t.Addresses
}

func (r *recording) task(before, after *cluster.Task) {
	was, is := addressesOf(before), addressesOf(after)
	if len(was)+len(is) == 0 {
		return
	}
	r.publishing = true
	same := presenceOf(before) == presenceOf(after)
	for _, a := range was {
		if !same || !slices.Contains(is, a) {
			r.moved(before.ID, a)
		}
	}
	for _, a := range is {
		if !slices.Contains(was, a) {
			r.moved(after.ID, a)
		}
	}
	if after == nil {
		after = before
	}
	if before == nil || !same || !slices.Equal(was, is) {
		r.wakeSharing(after.NodeID)
	}
}

// attachment takes in that a container comes on a network, or leaves it. Its node is told of the
// network from then on, or no more.
func (r *recording) attachment(before, after *cluster.Attachment) {
	r.publishing = true
	for _, a := range []*cluster.Attachment{before, after} {
		if a != nil {
			r.moved(a.ID, a.Address)
			r.wake(map[string]bool{a.NodeID: true})
			r.wakeSharing(a.NodeID)
		}
	}
}

// moved notes that a task's endpoint changes, or an attachment's.
func (r *recording) moved(taskID string, a cluster.Address) {
	if n := r.view.NetworkOfVNI(a.VNI); n != nil {
		r.changed(n.ID, taskID)
	}
}

// wakeSharing wakes the sessions of those that share a node's engine: one of them hears of the
// networks of all.
func (r *recording) wakeSharing(nodeID string) {
	n := r.view.Node(nodeID)
	if n == nil || n.SharedEngine() == "" {
		return
	}
	nodes := make(map[string]bool)
	for _, other := range group(r.view, n) {
		nodes[other.ID] = true
	}
	r.wake(nodes)
}

func (r *recording) service(before, after *cluster.Service) {
	r.publishing = true
	seen := make(map[string]bool)
	look := func(networkID string) {
		n := r.view.Network(networkID)
		if seen[networkID] || n == nil {
			return
		}
		seen[networkID] = true
		was, on := placeIn(n, before)
		is, stays := placeIn(n, after)
		if on != stays || !reflect.DeepEqual(was, is) {
			r.changed(networkID, idOf(before, after))
		}
	}
	for _, s := range []*cluster.Service{before, after} {
		if s != nil {
			for _, attachment := range s.Spec.TaskTemplate.Networks {
				look(attachment.Target)
			}
		}
	}
	look(r.ingress)
}

func placeIn(n *cluster.Network, s *cluster.Service) (cluster.NetworkService, bool) {
	if s == nil {
		return cluster.NetworkService{}, false
	}
	return serviceIn(n, s)
}

func idOf(before, after *cluster.Service) string {
	if after != nil {
		return after.ID
	}
	return before.ID
}

func (r *recording) network(before, after *cluster.Network) {
	if before != nil {
		r.changed(before.ID, before.ID)
	}
	r.publishing = true
	if before == nil || after == nil || before.VNI != after.VNI || before.Spec.Ingress != after.Spec.Ingress {
		// It has other services, or endpoints: what changed while it wasn't there isn't noted.
		if n := cmp.Or(after, before); r.journals[n.ID] != nil {
			r.journals[n.ID].reset(r.view.Index())
		}
		r.wakeAll() // Who hears of it may be others.
	}
}

// standing is what accounts have of a node.
type standing struct {
	index  uint16
	addr   netip.Addr
	engine string
	down   bool
	keys   cluster.WireKeys
	// present and capable matter where an engine is shared.
	present, capable bool
}

func standingOf(n *cluster.Node) standing {
	if n == nil {
		return standing{}
	}
	s := standing{index: n.Index, addr: n.PacketAddr(), engine: n.SharedEngine(), down: n.Status.State == cluster.NodeDown, keys: n.WireKeys}
	s.present, s.capable = s.engine != "" && present(n), s.engine != "" && capable(n)
	return s
}

func (r *recording) node(before, after *cluster.Node) {
	was, is := standingOf(before), standingOf(after)
	if was == is && (before == nil) == (after == nil) {
		return
	}
	// Whom it matters to: the node, those that share its engine, before or now, and those that say
	// they have the address of one of these.
	nodes, addrs := make(map[string]bool), make(map[netip.Addr]bool)
	concern := func(nodeID string, s standing) {
		nodes[nodeID], addrs[s.addr] = true, s.addr.IsValid()
		r.changed(nodesAccount, indexKey(s.index))
	}
	if before != nil {
		concern(before.ID, was)
	}
	if after != nil {
		concern(after.ID, is)
	}
	if was.engine != "" || is.engine != "" {
		for n := range r.view.Nodes() {
			if s := standingOf(n); s.engine != "" && (s.engine == was.engine || s.engine == is.engine) {
				concern(n.ID, s)
			}
		}
	}
	for n := range r.view.Nodes() {
		if addrs[n.PacketAddr()] {
			r.changed(nodesAccount, indexKey(n.Index))
		}
	}
	for nodeID := range nodes {
		for t := range r.view.TasksOfNode(nodeID) {
			for _, a := range t.Addresses {
				if !t.Dead() {
					r.moved(t.ID, a)
				}
			}
		}
		for a := range r.view.AttachmentsOfNode(nodeID) {
			r.moved(a.ID, a.Address)
		}
	}
	r.wake(nodes)
}

// Reader is what one session tells its agent.
type Reader struct {
	hub    *Hub
	nodeID string
	// told is the index up to which the agent knows each network.
	told map[string]uint64
}

// NewReader makes the Reader of a node's session, whose agent knows nothing yet. It is to be
// closed.
func (h *Hub) NewReader(nodeID string) *Reader {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := &Reader{hub: h, nodeID: nodeID, told: make(map[string]uint64)}
	h.readers[r] = struct{}{}
	return r
}

// Close says that the session has ended.
func (r *Reader) Close() {
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	for networkID := range r.told {
		r.hub.leave(r, networkID)
	}
	delete(r.hub.readers, r)
}

// leave has the reader hear no more of a network.
func (h *Hub) leave(r *Reader, networkID string) {
	if j := h.journals[networkID]; j != nil {
		if delete(j.readers, r); len(j.readers) == 0 {
			delete(h.journals, networkID)
		}
	}
}

// News is what a session has to tell.
type News struct {
	// Updates come before the assignments, Dropped after them.
	Updates, Dropped []cbor.RawMessage
	// Behind is set when more has been recorded already, which a later view will have.
	Behind bool
}

// Next gives what brings the agent to view, when its own tasks have addresses in the
// networks of these VNIs. Recorded tells that Record was called with this view; one that is
// ahead of that may have changes that the journals don't. Touch has the agent told also how far
// this manager has got where nothing has changed: one that comes from a manager that was ahead
// waits for that.
func (r *Reader) Next(view store.View, recorded, touch bool, vnis iter.Seq[uint32]) (News, error) {
	var news News
	wanted := r.wanted(view, vnis)
	for _, networkID := range wanted {
		_, heard := r.told[networkID]
		parts, err := r.update(view, recorded, networkID, &news.Behind)
		if err != nil {
			return News{}, err
		}
		news.Updates = append(news.Updates, parts...)
		if told := r.told[networkID]; (touch || !heard) && told < view.Index() {
			// What others were told is as of the last change, and nothing has changed since.
			data, err := cluster.Encode(cluster.NetworkUpdate{NetworkID: networkID, From: told, To: view.Index()})
			if err != nil {
				return News{}, err
			}
			news.Updates, r.told[networkID] = append(news.Updates, data), view.Index()
		}
	}
	for networkID := range r.told {
		if _, found := slices.BinarySearch(wanted, networkID); found {
			continue
		}
		told := r.told[networkID]
		data, err := cluster.Encode(cluster.NetworkUpdate{NetworkID: networkID, From: told, To: max(told, view.Index()), Dropped: true})
		if err != nil {
			return News{}, err
		}
		news.Dropped = append(news.Dropped, data)
		delete(r.told, networkID)
		r.hub.mu.Lock()
		r.hub.leave(r, networkID)
		r.hub.mu.Unlock()
	}
	return news, nil
}

// wanted are the networks that the node is to hear of, sorted: the account of the nodes is first.
func (r *Reader) wanted(view store.View, vnis iter.Seq[uint32]) []string {
	list := []string{nodesAccount}
	r.hub.mu.Lock()
	ingress := r.hub.ingress
	r.hub.mu.Unlock()
	if n := view.Network(ingress); n != nil {
		list = append(list, n.ID)
	}
	add := func(vni uint32) {
		if n := view.NetworkOfVNI(vni); n != nil {
			list = append(list, n.ID)
		}
	}
	for vni := range vnis {
		add(vni)
	}
	attached := func(nodeID string) {
		for a := range view.AttachmentsOfNode(nodeID) {
			if a.Ended.IsZero() {
				add(a.Address.VNI)
			}
		}
	}
	attached(r.nodeID)
	if n := view.Node(r.nodeID); n != nil && n.SharedEngine() != "" {
		if sharing := group(view, n); carrierOf(sharing) == n {
			for _, other := range sharing {
				attached(other.ID)
				for t := range view.TasksOfNode(other.ID) {
					for _, a := range t.Addresses {
						if t.Assigned() {
							add(a.VNI)
						}
					}
				}
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// update is what brings the agent to the account of a network in view.
func (r *Reader) update(view store.View, recorded bool, networkID string, behind *bool) ([]cbor.RawMessage, error) {
	r.hub.mu.Lock()
	j := r.hub.journals[networkID]
	if j == nil {
		j = newJournal(networkID, max(r.hub.recorded, 1)) // No object is in the log's first entry.
		r.hub.journals[networkID] = j
	}
	j.readers[r] = struct{}{}
	*behind = *behind || j.last() > view.Index()
	told, hears := r.told[networkID]
	to, known := j.reached(view.Index())
	var m *message
	switch {
	case hears && told >= view.Index():
	case !recorded || !known:
		// What is told is as of this view, and nobody else may want it.
		to = view.Index()
		m = &message{networkID: networkID, from: fromNone, to: to}
	case !hears || told < j.begin:
		m = j.message(fromNone, to)
	case told < to:
		m = j.message(told, to)
	}
	r.hub.mu.Unlock()
	if m == nil {
		return nil, nil
	}
	r.told[networkID] = to
	return m.encoded(view)
}
