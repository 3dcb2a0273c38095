package console

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"skep/cluster"
	"skep/store"
)

const (
	// maxTabs is how many tabs are told of changes at the same time.
	maxTabs = 200
	// beat is how often they are, at most.
	beat = 500 * time.Millisecond
	// clockBeats is after how many beats what isn't in the database is to be shown anew, and
	// allBeats after how many all is, since ages grow.
	clockBeats, allBeats = 4, 20
	// maxPending is how many topics wait for a tab that takes none before it is told to show
	// all anew.
	maxPending = 64
)

// Topics are what sections change with. Those of one service or node end with its ID.
const (
	topicAll      = "all"
	topicClock    = "clock" // health, and raft's state
	topicTasks    = "tasks"
	topicServices = "services"
	topicNodes    = "nodes"
	topicNetworks = "networks"
	topicData     = "data" // secrets and configs
	topicEvents   = "events"
	topicService  = "service:"
	topicNode     = "node:"
)

// topicsOf adds the topics of a change of the database.
func topicsOf(change store.Change, add func(string)) {
	object := change.After
	if object == nil {
		object = change.Before
	}
	switch object := object.(type) {
	case *cluster.Task:
		add(topicTasks)
		add(topicService + object.ServiceID)
		if object.NodeID != "" {
			add(topicNode + object.NodeID)
		}
	case *cluster.Service:
		add(topicServices)
		add(topicService + object.ID)
	case *cluster.Rollout:
		add(topicServices)
		add(topicService + object.ServiceID)
	case *cluster.Revision:
		add(topicService + object.ServiceID)
	case *cluster.Node:
		add(topicNodes)
		add(topicNode + object.ID)
	case *cluster.Network, *cluster.Attachment:
		add(topicNetworks)
	case *cluster.Secret, *cluster.Config:
		add(topicData)
	case *cluster.Cluster:
		add(topicClock)
	}
}

// hub tells all tabs what has changed. Its goroutine (run) is there while there are tabs.
type hub struct {
	console *Console

	mu   sync.Mutex // guards what follows, and all tabs
	tabs map[*tab]struct{}
	stop context.CancelFunc // ends run
}

// tab is a page that is open somewhere.
type tab struct {
	ready   chan struct{} // has one place, filled when there is something pending
	pending map[string]struct{}
}

// join adds a tab; false when there are too many.
func (h *hub) join() (*tab, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.tabs) >= maxTabs {
		return nil, false
	}
	if h.tabs == nil {
		h.tabs = map[*tab]struct{}{}
	}
	if len(h.tabs) == 0 {
		ctx, cancel := context.WithCancel(context.Background())
		h.stop = cancel
		go h.run(ctx)
	}
	t := &tab{ready: make(chan struct{}, 1), pending: map[string]struct{}{}}
	h.tabs[t] = struct{}{}
	return t, true
}

func (h *hub) leave(t *tab) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if delete(h.tabs, t); len(h.tabs) == 0 {
		h.stop()
	}
}

// tell notes topics for all tabs.
func (h *hub) tell(ctx context.Context, topics map[string]struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(topics) == 0 || ctx.Err() != nil {
		return // Another run tells those tabs that there are now.
	}
	for t := range h.tabs {
		if maps.Copy(t.pending, topics); len(t.pending) > maxPending {
			clear(t.pending)
			t.pending[topicAll] = struct{}{}
		}
		select {
		case t.ready <- struct{}{}:
		default:
		}
	}
}

// take is what a tab hasn't been told yet.
func (h *hub) take(t *tab) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	topics := slices.Sorted(maps.Keys(t.pending))
	clear(t.pending)
	return topics
}

// run follows the database, by one subscription, until ctx ends.
func (h *hub) run(ctx context.Context) {
	for ctx.Err() == nil {
		another := h.console.ManagerChanged()
		if manager := h.console.Manager(); manager != nil {
			h.follow(ctx, manager, another)
			continue
		}
		select {
		case <-ctx.Done():
		case <-another:
		}
	}
}

// follow tells what changes in one manager's database, until the node has another one.
func (h *hub) follow(ctx context.Context, manager Manager, another <-chan struct{}) {
	changes := manager.Store().Subscribe()
	defer changes.Close()
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	dirty := map[string]struct{}{topicAll: {}}
	add := func(topic string) { dirty[topic] = struct{}{} }
	seen := h.lastEvent()
	moved := manager.Changed()
	for beats := 1; ; {
		select {
		case <-ctx.Done():
			return
		case <-another:
			return
		case <-moved:
			moved = manager.Changed()
			add(topicClock)
		case <-changes.Ready():
			news, _, lost := changes.Take()
			if lost {
				add(topicAll)
			}
			for _, change := range news {
				topicsOf(change, add)
			}
		case <-ticker.C:
			if beats%clockBeats == 0 {
				add(topicClock)
			}
			if beats%allBeats == 0 {
				add(topicAll)
			}
			beats++
			if last := h.lastEvent(); last != seen {
				seen = last
				add(topicEvents)
			}
			h.tell(ctx, dirty)
			clear(dirty)
		}
	}
}

// lastEvent is the time of the last event, which is no other's.
func (h *hub) lastEvent() int64 {
	if events := h.console.Events(); len(events) > 0 {
		return events[len(events)-1].TimeNano
	}
	return 0
}

// serveLive tells a tab what changes, until it is closed.
func (c *Console) serveLive(w http.ResponseWriter, r *http.Request) {
	t, ok := c.hub.join()
	if !ok {
		http.Error(w, fmt.Sprintf("%d tabs are told of changes, and no more can be: close some", maxTabs), http.StatusServiceUnavailable)
		return
	}
	defer c.hub.leave(t)
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	if _, err := fmt.Fprint(w, ": hello\n\n"); err != nil || control.Flush() != nil {
		return
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case <-t.ready:
		}
		if _, err := fmt.Fprintf(w, "event: change\ndata: %s\n\n", strings.Join(c.hub.take(t), " ")); err != nil || control.Flush() != nil {
			return
		}
	}
}
