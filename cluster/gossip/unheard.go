package gossip

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
)

const (
	// unheardPings is how many pings a member may leave without an answer until it counts.
	unheardPings = 2
	// unheardAtOnce is how many members are asked at the same time.
	unheardAtOnce = 64
)

// Unheard lists the members that don't answer over UDP now, by ID, as far as they can be asked
// before ctx ends. Probes fall back to TCP, so such a member is alive as long as nothing else
// happens; but news reach it late, and it is suspected at the least trouble.
func (g *Gossip) Unheard(ctx context.Context) []string {
	var mu sync.Mutex // guards unheard
	var unheard []string
	var asked sync.WaitGroup
	slots := make(chan struct{}, unheardAtOnce)
	for _, m := range g.Members() {
		addr, err := netip.ParseAddrPort(m.Addr)
		if err != nil || m.Left || m.NodeID == g.config.NodeID {
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			continue
		}
		asked.Go(func() {
			defer func() { <-slots }()
			for range unheardPings {
				if _, err := g.list.Ping(m.NodeID, net.UDPAddrFromAddrPort(addr)); err == nil {
					return
				}
			}
			mu.Lock()
			defer mu.Unlock()
			unheard = append(unheard, m.NodeID)
		})
	}
	asked.Wait()
	slices.Sort(unheard)
	return unheard
}
