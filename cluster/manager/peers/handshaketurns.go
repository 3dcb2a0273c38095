package peers

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"

	"skep/cluster"
)

const (
	// strangerPace is how many handshakes begin in a second with addresses of which no node
	// is known, once strangerBurst have. One takes 0.4 ms of a core, so that is a tenth of it,
	// and raft has the rest. Ten thousand nodes that join, three handshakes each, get theirs
	// within two minutes.
	strangerPace  = 256
	strangerBurst = 256
)

// handshakeTurns has connections wait until their handshake may begin. Addresses take turns,
// so whoever comes from elsewhere than a crowd needn't wait for it.
type handshakeTurns struct {
	waiting *anonymousConns
	now     func() time.Time
	wake    chan struct{} // has a signal when somebody waits
	// queue has the addresses of those that wait, the next one first; waiting.mu guards it.
	queue []netip.Addr
}

func newHandshakeTurns(waiting *anonymousConns, now func() time.Time) *handshakeTurns {
	return &handshakeTurns{waiting: waiting, now: now, wake: make(chan struct{}, 1)}
}

// wait tells whether the handshake may begin; if not, others took the place, or ctx ended.
func (t *handshakeTurns) wait(ctx context.Context, conn net.Conn) bool {
	one := t.waiting.admit(conn)
	defer one.leave()
	t.waiting.mu.Lock()
	if !slices.Contains(t.queue, one.source) {
		t.queue = append(t.queue, one.source)
	}
	t.waiting.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
	select {
	case <-one.left:
		return one.chosen
	case <-ctx.Done():
		return false
	}
}

// run lets those who wait begin until ctx ends.
func (t *handshakeTurns) run(ctx context.Context) error {
	var begun pace
	for ctx.Err() == nil {
		if !t.any() {
			select {
			case <-t.wake:
			case <-ctx.Done():
			}
		} else if begun.take(t.now(), strangerPace, strangerBurst) {
			t.next()
		} else {
			cluster.Sleep(ctx, time.Second/strangerPace)
		}
	}
	return ctx.Err()
}

func (t *handshakeTurns) any() bool {
	t.waiting.mu.Lock()
	defer t.waiting.mu.Unlock()
	return len(t.waiting.conns) > 0
}

// next gives the first address its turn, and puts it behind all others. Of its connections the
// newest one goes, since who opened those before it may have given up.
func (t *handshakeTurns) next() {
	t.waiting.mu.Lock()
	defer t.waiting.mu.Unlock()
	for len(t.queue) > 0 {
		source := t.queue[0]
		t.queue = t.queue[1:]
		for _, one := range slices.Backward(t.waiting.conns) {
			if one.source == source {
				one.chosen = true
				one.leaveLocked()
				t.queue = append(t.queue, source)
				return
			}
		}
	}
}

// pace bounds how often something is done. The zero value is ready.
type pace struct {
	used float64 // as of at
	at   time.Time
}

// take tells whether it may be done once more: burst times at once, and so often in a second
// after that.
func (p *pace) take(now time.Time, perSecond, burst float64) bool {
	// A clock that was set back takes nothing back, and begins anew.
	p.used, p.at = max(0, p.used-perSecond*max(0, now.Sub(p.at).Seconds())), now
	if p.used+1 > burst {
		return false
	}
	p.used++
	return true
}
