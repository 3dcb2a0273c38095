package clustertest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"sync"
	"time"

	"skep/cluster"
)

// How long after it fell silent a member is suspected, and given up, and how long one that left
// is listed: what cluster/gossip shows on a small network.
const (
	suspectAfter = 400 * time.Millisecond
	goneAfter    = time.Second
	leftFor      = 30 * time.Second
)

// air is the gossip that all machines of a cluster share: a member hears of those
// it reaches, as long as each of the two understands the key that the other sends
// with. Real gossip is more forgiving, since a third member may pass news on.
type air struct {
	wire *wire

	mu    sync.Mutex // guards the fields below, and all ears' keys
	ears  map[string]*ear
	plugs map[string]*datagrams // of real gossip
}

func newAir(w *wire) *air {
	return &air{wire: w, ears: map[string]*ear{}, plugs: map[string]*datagrams{}}
}

// join adds a machine; it is a member until it is closed.
func (a *air) join(nodeID, ip string, keys [][]byte) *ear {
	e := &ear{air: a, keys: keys, member: cluster.Member{NodeID: nodeID, Addr: ip}, heard: map[string]heard{}, changed: make(chan struct{}, 1), done: make(chan struct{})}
	a.mu.Lock()
	a.ears[ip] = e
	a.mu.Unlock()
	go e.listen()
	return e
}

// reached lists the machines that ip reaches now.
func (a *air) reached(ip string) []cluster.Member {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wire.mu.Lock()
	defer a.wire.mu.Unlock()
	var members []cluster.Member
	own := a.ears[ip]
	for other, e := range a.ears {
		if own == nil || !own.understandsLocked(e) || !e.understandsLocked(own) {
			continue
		}
		if a.wire.down[other] || a.wire.down[ip] || a.wire.strangersLocked(ip, other) {
			continue
		}
		if a.wire.lostLocked(other, ip) {
			continue
		}
		members = append(members, e.member)
	}
	return members
}

type heard struct {
	member cluster.Member
	at     time.Time
}

// ear is one machine's gossip: a node.Gossip.
type ear struct {
	air     *air
	member  cluster.Member
	changed chan struct{}
	done    chan struct{}
	once    sync.Once
	// keys are as gossip's: the first sends, all are understood.
	keys [][]byte

	mu    sync.Mutex // guards the fields below
	heard map[string]heard
	shown []cluster.Member
}

// listen is the member's goroutine.
func (e *ear) listen() {
	for {
		e.update(time.Now())
		timer := time.NewTimer(50 * time.Millisecond)
		select {
		case <-timer.C:
		case <-e.done:
			timer.Stop()
			return
		}
	}
}

func (e *ear) update(now time.Time) {
	reached := e.air.reached(e.member.Addr)
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, m := range reached {
		e.heard[m.NodeID] = heard{m, now}
	}
	var shown []cluster.Member
	for id, h := range e.heard {
		silence := now.Sub(h.at)
		if silence >= leftFor || silence >= goneAfter && !h.member.Left {
			delete(e.heard, id)
			continue
		}
		h.member.Suspect = silence >= suspectAfter && !h.member.Left
		shown = append(shown, h.member)
	}
	sort.Slice(shown, func(i, j int) bool { return shown[i].NodeID < shown[j].NodeID })
	same := len(shown) == len(e.shown)
	for i := 0; same && i < len(shown); i++ {
		same = shown[i] == e.shown[i]
	}
	if e.shown = shown; !same {
		select {
		case e.changed <- struct{}{}:
		default:
		}
	}
}

func (e *ear) Join(context.Context, []cluster.Member) error { return nil }

func (e *ear) Members() []cluster.Member {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]cluster.Member(nil), e.shown...)
}

func (e *ear) Changed() <-chan struct{} { return e.changed }

// Doubt does nothing: who is reached is looked at all the time.
func (e *ear) Doubt(string) {}

// Unheard has nobody: there is no other way than the one that is looked at all the time.
func (e *ear) Unheard(context.Context) []string { return nil }

// Twins has nobody: what memberlist makes of two with one name is its own tests' matter.
func (e *ear) Twins() []cluster.Twin { return nil }

func (e *ear) SetKeys(keys [][]byte) error {
	if len(keys) == 0 {
		return fmt.Errorf("set gossip keys: none: %w", cluster.ErrInvalid)
	}
	e.air.mu.Lock()
	defer e.air.mu.Unlock()
	e.keys = keys
	return nil
}

// understandsLocked tells whether the member can read what another sends.
func (e *ear) understandsLocked(other *ear) bool {
	return slices.ContainsFunc(e.keys, func(key []byte) bool { return bytes.Equal(key, other.keys[0]) })
}

// Leave tells those that the member reaches.
func (e *ear) Leave(time.Duration) error {
	e.air.mu.Lock()
	ears := slices.Collect(maps.Values(e.air.ears))
	e.air.mu.Unlock()
	heardBy := slices.DeleteFunc(ears, func(other *ear) bool {
		return other == e || !slices.Contains(e.air.reached(other.member.Addr), e.member)
	})
	err := e.Close()
	for _, other := range heardBy {
		other.mu.Lock()
		other.heard[e.member.NodeID] = heard{cluster.Member{NodeID: e.member.NodeID, Left: true}, time.Now()}
		other.mu.Unlock()
	}
	return err
}

func (e *ear) Close() error {
	e.once.Do(func() {
		close(e.done)
		e.air.mu.Lock()
		defer e.air.mu.Unlock()
		if e.air.ears[e.member.Addr] == e {
			delete(e.air.ears, e.member.Addr)
		}
	})
	return nil
}
