package api

import (
	"context"
	"iter"
	"strconv"
	"sync"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

const (
	// keptEvents is how many events are kept for clients that ask with since.
	keptEvents = 2048
	// behindEvents is how many events a client may be behind before it is cut off.
	behindEvents = 1024
)

// recorder keeps the last events and passes new ones on.
type recorder struct {
	mu sync.Mutex // guards what follows
	// kept has at least the last keptEvents; it is cut back when it has twice as many.
	// An event that is kept never changes: its readers share it.
	kept []*events.Message
	// listeners are the readers' channels, and how each is cut off.
	listeners map[chan *events.Message]func()
}

func newRecorder() *recorder {
	return &recorder{listeners: map[chan *events.Message]func(){}}
}

// listen returns the kept events and a channel with all that follow. When its reader is too
// slow the channel is closed, and cut is called, which must not wait: the reader may be busy
// with a client that takes nothing.
func (r *recorder) listen(cut func()) (past []*events.Message, live <-chan *events.Message, stop func()) {
	channel := make(chan *events.Message, behindEvents)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listeners[channel] = cut
	return append(past, r.kept[max(0, len(r.kept)-keptEvents):]...), channel, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.listeners, channel)
	}
}

// record gives the event a time of its own, later than that of the one before:
// several come of one write, clocks differ, and a client that asks for what was after
// the last one that it saw must be told neither more nor less.
func (r *recorder) record(message events.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.kept); n > 0 && message.TimeNano <= r.kept[n-1].TimeNano {
		message.TimeNano = r.kept[n-1].TimeNano + 1
		message.Time = message.TimeNano / int64(time.Second)
	}
	if len(r.kept) == 2*keptEvents {
		r.kept = append(r.kept[:0:0], r.kept[keptEvents:]...)
	}
	r.kept = append(r.kept, &message)
	for channel, cut := range r.listeners {
		select {
		case channel <- &message:
		default:
			delete(r.listeners, channel)
			close(channel)
			cut()
		}
	}
}

// Run follows the database, whenever this node is a manager, and makes events of
// its changes, until ctx ends. Without it /events shows the engine's alone.
func (s *Server) Run(ctx context.Context) error {
	written := make(chan struct{})
	go func() {
		defer close(written)
		s.writeAudit(ctx)
	}()
	defer func() { <-written }()
	for {
		changed := s.Node.ManagerChanged()
		if manager := s.Node.Manager(); manager != nil {
			s.followStore(ctx, manager)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// followStore records what happens in one manager's database, as long as this
// node is that manager.
func (s *Server) followStore(ctx context.Context, manager Manager) {
	changes := manager.Store().Subscribe()
	defer changes.Close()
	seen, leader := manager.Store().View(), manager.LeaderID()
	var reachable map[string]bool // as the leader last saw it; nil on other managers, who don't know
	for {
		another, moved := s.Node.ManagerChanged(), manager.Changed()
		if now := s.Node.Manager(); now == nil || now.Store() != manager.Store() {
			return
		}
		if next := manager.LeaderID(); next != leader && next != "" {
			s.recordLeader(seen, leader, next)
			leader = next
		}
		if leader == manager.NodeID() {
			next := manager.Reachable()
			s.recordReachability(seen, reachable, next)
			reachable = next
		} else {
			reachable = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-another:
		case <-moved:
		case <-changes.Ready():
			news, view, lost := changes.Take()
			if lost {
				news = difference(seen, view)
			}
			names := serviceNames{seen: seen, view: view, news: news}
			for _, change := range news {
				s.recordChange(names, change)
			}
			seen = view
		}
	}
}

// serviceNames knows the names of services while changes are gone through: by
// the end of them a service may be gone again.
type serviceNames struct {
	seen, view store.View
	news       []store.Change
}

func (n serviceNames) name(serviceID string) (string, bool) {
	for _, view := range []store.View{n.view, n.seen} {
		if service := view.Service(serviceID); service != nil {
			return service.Spec.Name, true
		}
	}
	for _, change := range n.news {
		if service, ok := change.Before.(*cluster.Service); ok && service.ID == serviceID {
			return service.Spec.Name, true
		}
	}
	return "", false
}

// difference lists what must have happened between two views to the objects that
// there are events of.
func difference(before, after store.View) []store.Change {
	changes := compare(nil, before.Services(), after.Services(), func(o *cluster.Service) (string, uint64) { return o.ID, o.Version })
	changes = compare(changes, before.Nodes(), after.Nodes(), func(o *cluster.Node) (string, uint64) { return o.ID, o.Version })
	changes = compare(changes, before.Secrets(), after.Secrets(), func(o *cluster.Secret) (string, uint64) { return o.ID, o.Version })
	changes = compare(changes, before.Networks(), after.Networks(), func(o *cluster.Network) (string, uint64) { return o.ID, o.Version })
	return compare(changes, before.Configs(), after.Configs(), func(o *cluster.Config) (string, uint64) { return o.ID, o.Version })
}

// compare adds what happened to the objects of one kind: removals first.
func compare[T any](changes []store.Change, before, after iter.Seq[*T], key func(*T) (id string, version uint64)) []store.Change {
	now := map[string]bool{}
	for object := range after {
		id, _ := key(object)
		now[id] = true
	}
	old := map[string]*T{}
	for object := range before {
		id, _ := key(object)
		if old[id] = object; !now[id] {
			changes = append(changes, store.Change{Before: object})
		}
	}
	for object := range after {
		id, version := key(object)
		if was := old[id]; was == nil {
			changes = append(changes, store.Change{After: object})
		} else if _, seen := key(was); seen != version {
			changes = append(changes, store.Change{Before: was, After: object})
		}
	}
	return changes
}

// recordChange makes an event of a change, if it is one.
func (s *Server) recordChange(names serviceNames, change store.Change) {
	switch after := change.After.(type) {
	case *cluster.Service:
		before, _ := change.Before.(*cluster.Service)
		s.recordService(before, after)
	case *cluster.Node:
		before, _ := change.Before.(*cluster.Node)
		s.recordNode(before, after)
	case *cluster.Rollout:
		before, _ := change.Before.(*cluster.Rollout)
		if name, ok := names.name(after.ServiceID); ok && (before == nil || before.State != after.State) {
			attributes := map[string]string{"name": name, "updatestate.new": string(after.State)}
			if before != nil {
				attributes["updatestate.old"] = string(before.State)
			}
			s.emit(events.ServiceEventType, events.ActionUpdate, after.ServiceID, after.UpdatedAt, attributes)
		}
	case *cluster.Secret:
		s.recordDatum(events.SecretEventType, change.Before == nil, secretAsData(after))
	case *cluster.Config:
		s.recordDatum(events.ConfigEventType, change.Before == nil, configAsData(after))
	case *cluster.Network:
		action := events.ActionUpdate
		if change.Before == nil {
			action = events.ActionCreate
		}
		s.emit(events.NetworkEventType, action, after.ID, after.UpdatedAt, map[string]string{"name": after.Spec.Name})
	case nil:
		switch before := change.Before.(type) {
		case *cluster.Network:
			s.emit(events.NetworkEventType, events.ActionRemove, before.ID, s.Now(), map[string]string{"name": before.Spec.Name})
		case *cluster.Secret:
			s.emit(events.SecretEventType, events.ActionRemove, before.ID, s.Now(), map[string]string{"name": before.Spec.Name})
		case *cluster.Config:
			s.emit(events.ConfigEventType, events.ActionRemove, before.ID, s.Now(), map[string]string{"name": before.Spec.Name})
		case *cluster.Service:
			s.emit(events.ServiceEventType, events.ActionRemove, before.ID, s.Now(), map[string]string{"name": before.Spec.Name})
		case *cluster.Node:
			s.emit(events.NodeEventType, events.ActionRemove, before.ID, s.Now(), map[string]string{"name": nodeName(before)})
		}
	}
}

// recordDatum tells that a secret or config was made or has other labels.
func (s *Server) recordDatum(kind events.Type, created bool, d secretOrConfig) {
	action := events.ActionUpdate
	if created {
		action = events.ActionCreate
	}
	s.emit(kind, action, d.id, d.meta.UpdatedAt, map[string]string{"name": d.spec.Name})
}

func (s *Server) recordService(before, after *cluster.Service) {
	attributes := map[string]string{"name": after.Spec.Name}
	if before == nil {
		s.emit(events.ServiceEventType, events.ActionCreate, after.ID, after.CreatedAt, attributes)
		return
	}
	if old, now := image(before), image(after); old != now {
		attributes["image.old"], attributes["image.new"] = old, now
	}
	if old, now := before.Replicas(), after.Replicas(); old != now {
		attributes["replicas.old"], attributes["replicas.new"] = strconv.Itoa(old), strconv.Itoa(now)
	}
	s.emit(events.ServiceEventType, events.ActionUpdate, after.ID, after.UpdatedAt, attributes)
}

func (s *Server) recordNode(before, after *cluster.Node) {
	attributes := map[string]string{"name": nodeName(after)}
	if before == nil {
		s.emit(events.NodeEventType, events.ActionCreate, after.ID, after.CreatedAt, attributes)
		return
	}
	for _, field := range []struct{ name, old, now string }{
		{"availability", string(before.Spec.Availability), string(after.Spec.Availability)},
		{"role", string(before.Role), string(after.Role)},
		{"state", before.Status.State.String(), after.Status.State.String()},
	} {
		if field.old != field.now {
			attributes[field.name+".old"], attributes[field.name+".new"] = field.old, field.now
		}
	}
	s.emit(events.NodeEventType, events.ActionUpdate, after.ID, after.UpdatedAt, attributes)
}

// recordLeader tells of a change of leader, which isn't in the database.
func (s *Server) recordLeader(view store.View, old, now string) {
	for _, change := range []struct{ id, before, after string }{{old, "true", "false"}, {now, "false", "true"}} {
		if node := view.Node(change.id); node != nil {
			s.emit(events.NodeEventType, events.ActionUpdate, node.ID, s.Now(), map[string]string{
				"name": nodeName(node), "leader.old": change.before, "leader.new": change.after,
			})
		}
	}
}

// recordReachability tells of managers that answer the leader no more, or again. It
// isn't in the database either, and only the leader's own events have it.
func (s *Server) recordReachability(view store.View, old, now map[string]bool) {
	words := map[bool]swarm.Reachability{true: swarm.ReachabilityReachable, false: swarm.ReachabilityUnreachable}
	for id, after := range now {
		before, voted := old[id]
		before = before || !voted // It got its vote since, and so had answered.
		if node := view.Node(id); node != nil && old != nil && before != after {
			s.emit(events.NodeEventType, events.ActionUpdate, id, s.Now(), map[string]string{
				"name": nodeName(node), "reachability.old": string(words[before]), "reachability.new": string(words[after]),
			})
		}
	}
}

func (s *Server) emit(kind events.Type, action events.Action, id string, at time.Time, attributes map[string]string) {
	s.events.record(events.Message{
		Type: kind, Action: action, Scope: "swarm",
		Actor: events.Actor{ID: id, Attributes: attributes},
		Time:  at.Unix(), TimeNano: at.UnixNano(),
	})
}

func nodeName(node *cluster.Node) string {
	if node.Spec.Name != "" {
		return node.Spec.Name
	}
	return node.Description.Hostname
}

func image(service *cluster.Service) string {
	if service.Spec.TaskTemplate.ContainerSpec == nil {
		return ""
	}
	return service.Spec.TaskTemplate.ContainerSpec.Image
}
