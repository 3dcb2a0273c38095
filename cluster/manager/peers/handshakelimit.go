package peers

import (
	"context"
	"sync"
)

// maxHandshakes is how many handshakes a manager has under way with one other, for what is
// forwarded. Until they are done the other one may take them for a stranger's, of whom it keeps
// maxFromOne for each address and closes the oldest: with more than that, all begun again when
// they are closed, none would ever be done. When a leader is elected hundreds of requests
// may have waited for it; the first connections serve them one after the other.
const maxHandshakes = maxFromOne / 2

// handshakeLimit has those wait who would have too many handshakes with one address.
type handshakeLimit struct {
	mu    sync.Mutex // guards addrs
	addrs map[string]*addrHandshakes
}

type addrHandshakes struct {
	places chan struct{}
	users  int // who have a place, or wait for one
}

// acquire waits for a place at addr; done gives it back.
func (t *handshakeLimit) acquire(ctx context.Context, addr string) (done func(), err error) {
	t.mu.Lock()
	if t.addrs == nil {
		t.addrs = map[string]*addrHandshakes{}
	}
	at := t.addrs[addr]
	if at == nil {
		at = &addrHandshakes{places: make(chan struct{}, maxHandshakes)}
		t.addrs[addr] = at
	}
	at.users++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if at.users--; at.users == 0 {
			delete(t.addrs, addr)
		}
	}
	select {
	case at.places <- struct{}{}:
		return func() { <-at.places; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
