package peers

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// from is a connection from an address.
type from struct {
	net.Conn
	addr   net.Addr
	closed *atomic.Int64
}

func (f from) RemoteAddr() net.Addr { return f.addr }
func (f from) Close() error         { f.closed.Add(1); return nil }

func connFrom(host string, closed *atomic.Int64) net.Conn {
	return from{addr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(host + ":1000")), closed: closed}
}

func TestHandshakeTurns_PaceAndFairness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		turns := newHandshakeTurns(&anonymousConns{log: slog.New(slog.DiscardHandler)}, time.Now)
		go turns.run(ctx)
		var begun, closed atomic.Int64
		var over sync.WaitGroup
		crowd := func(address int) {
			for ctx.Err() == nil {
				go func() {
					if turns.wait(ctx, connFrom(fmt.Sprint("10.0.0.", address), &closed)) {
						begun.Add(1)
					}
				}()
				time.Sleep(20 * time.Millisecond)
			}
		}
		const addresses = 50
		for i := range addresses {
			over.Go(func() { crowd(i + 1) })
		}
		time.Sleep(time.Second)
		before := begun.Load()
		time.Sleep(3 * time.Second)
		if n := begun.Load() - before; n > 3*strangerPace+1 || n < 2*strangerPace {
			t.Errorf("%d handshakes began in three seconds", n)
		}
		if n := len(turns.queue); n > 2*maxStrangers {
			t.Errorf("%d addresses are waiting", n)
		}
		if closed.Load() == 0 {
			t.Error("none of a crowd were closed")
		}
		for i := range 20 {
			began := time.Now()
			if !turns.wait(ctx, connFrom(fmt.Sprint("10.0.1.", i+1), &closed)) {
				t.Error("a connection from elsewhere was closed")
			}
			if took := time.Since(began); took > 2*addresses*time.Second/strangerPace {
				t.Errorf("a connection from elsewhere waited %s", took)
			}
		}
		cancel()
		over.Wait()
		synctest.Wait()
		if n := len(turns.waiting.conns); n != 0 {
			t.Errorf("%d are waiting after the end", n)
		}
	})
}

func TestHandshakeTurns_NobodyWaitsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		turns := newHandshakeTurns(&anonymousConns{log: slog.New(slog.DiscardHandler)}, time.Now)
		go turns.run(ctx)
		var closed atomic.Int64
		began := time.Now()
		for range strangerBurst {
			if !turns.wait(ctx, connFrom("10.0.0.1", &closed)) {
				t.Fatal("closed")
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("took %s", took)
		}
		cancel()
		synctest.Wait()
	})
}

func TestPace_AClockThatIsSetBack(t *testing.T) {
	var p pace
	now := time.Unix(1000, 0)
	for range 5 {
		p.take(now, 1, 2)
	}
	now = now.Add(-time.Hour)
	if p.take(now, 1, 2) {
		t.Error("it may at once")
	}
	if now = now.Add(time.Second); !p.take(now, 1, 2) {
		t.Error("it may not a second later")
	}
}

func TestNodeSources_Allowance(t *testing.T) {
	worker, many, nobody := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	now := time.Unix(1000, 0)
	there := map[netip.Addr]int{worker: 1, many: 10_000}
	sources := newNodeSources(func() map[netip.Addr]int { return there }, func() time.Time { return now })
	count := func(source netip.Addr, finish bool) (n int) {
		for range 2 * maxNodeBurst {
			shaken, ok := sources.admit(source)
			if !ok {
				break
			}
			if n++; finish {
				shaken()
			}
		}
		return n
	}
	if n := count(nobody, true); n != 0 {
		t.Errorf("nobody's address: %d", n)
	}
	if n := count(worker, true); n != nodeBurst {
		t.Errorf("a worker's address: %d at once", n)
	}
	if n := count(many, true); n != maxNodeBurst {
		t.Errorf("many nodes' address: %d at once", n)
	}
	now = now.Add(2 * time.Second)
	if n := count(worker, true); n != 2*nodePace {
		t.Errorf("a worker's address: %d in two seconds", n)
	}
	if n := count(many, false); n != maxNodeOpen {
		t.Errorf("many nodes' address: %d are open", n)
	}
	delete(there, worker)
	there[nobody] = managerWeight
	now = now.Add(2 * sourcesLook)
	if n := count(worker, true); n != 0 {
		t.Errorf("the address of a worker that was removed: %d", n)
	}
	if n := count(nobody, false); n != maxNodeOpen {
		t.Errorf("a manager's new address: %d are open", n)
	}
}
