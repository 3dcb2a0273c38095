package gossip

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"skep/cluster/gossip/guard"
)

// While all is well nodes probe each other at a fifth of the rate that Timing names, and
// don't look for news to pass on: this was most of what an idle worker cost. Anything but a ping and its answer, sent or received, means that
// something isn't: a probe that failed, somebody who is suspected, came or left. From then on,
// and for a while after the last such message, all is at the full rate. So only the first
// probe that a dead node doesn't answer comes later, and Doubt makes that up where it counts.

const (
	// calmProbes is how many probe intervals lie between probes while all is well.
	calmProbes = 5
	// waryProbes is after how many probe intervals without trouble all is well again.
	waryProbes = 30
	// doubtPings is how many pings a doubted node may leave without an answer. One doesn't wait for the answer to
	// the one before: all together decide, and the time counts.
	doubtPings = 2
	// maxDoubts is how many nodes are looked after at once: when it is most of them, the
	// fault may be this node's, and the probes find out soon enough.
	maxDoubts = 8
)

// calm is whether all is well, and what waits because it is.
type calm struct {
	interval time.Duration
	done     <-chan struct{}
	// stirred has one signal after anything that isn't calm.
	stirred chan struct{}

	mu    sync.Mutex    // guards the fields below
	news  *time.Ticker  // has news passed on; nil before start
	often time.Duration // how often, when there are any
	end   *time.Timer   // ends the time after the last trouble; nil when all is well
	hurry chan struct{} // closed at the next trouble
}

var _ memberlist.PingDelegate = (*calm)(nil)

func newCalm(interval time.Duration, done <-chan struct{}) *calm {
	return &calm{interval: interval, done: done, stirred: make(chan struct{}, 1), hurry: make(chan struct{})}
}

// start takes over the ticker that has news passed on. All begins with the news that this
// node is here.
func (c *calm) start(news *time.Ticker, often time.Duration) {
	c.mu.Lock()
	c.news, c.often = news, often
	c.mu.Unlock()
	c.stir()
}

// AckPayload is what an answer to a ping has with it.
func (c *calm) AckPayload() []byte { return nil }

// NotifyPingComplete is called when a probe was answered, and the next one waits for its
// return: memberlist leaves out those that would have been due meanwhile.
func (c *calm) NotifyPingComplete(*memberlist.Node, time.Duration, []byte) {
	c.mu.Lock()
	troubled, hurry := c.end != nil, c.hurry
	c.mu.Unlock()
	if troubled {
		return
	}
	timer := time.NewTimer((calmProbes - 1) * c.interval)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-hurry:
	case <-c.done:
	}
}

// stir takes note of trouble.
func (c *calm) stir() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end != nil {
		c.end.Reset(waryProbes * c.interval)
	} else {
		c.end = time.AfterFunc(waryProbes*c.interval, c.settle)
		close(c.hurry)
		if c.news != nil {
			c.news.Reset(c.often)
		}
	}
	select {
	case c.stirred <- struct{}{}:
	default:
	}
}

func (c *calm) settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end != nil {
		c.end, c.hurry = nil, make(chan struct{})
		if c.news != nil {
			c.news.Reset(waryProbes * c.interval)
		}
	}
}

// troubled tells whether there was trouble a while ago.
func (c *calm) troubled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.end != nil
}

// observe stirs when a packet is anything but a ping or its answer.
func (c *calm) observe(packet []byte) {
	if len(packet) > 5 && packet[0] == guard.CRCMsg {
		packet = packet[5:]
	}
	if len(packet) == 0 || packet[0] != guard.PingMsg && packet[0] != guard.AckMsg {
		c.stir()
	}
}

// Doubt looks after a node at once whose other connections just ended, and suspects it when
// it doesn't answer, as after a probe of memberlist's. It returns at once.
func (g *Gossip) Doubt(nodeID string) {
	select {
	case g.doubts <- struct{}{}:
	default:
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	addr, err := netip.ParseAddrPort(g.members[nodeID])
	if err != nil || nodeID == g.config.NodeID || g.closed {
		<-g.doubts
		return
	}
	g.doubting.Go(func() {
		defer func() { <-g.doubts }()
		answers := make(chan bool, doubtPings)
		for i := range doubtPings {
			g.doubting.Go(func() {
				time.Sleep(time.Duration(i) * g.config.Timing.ProbeTimeout / doubtPings)
				_, err := g.list.Ping(nodeID, net.UDPAddrFromAddrPort(addr))
				answers <- err == nil
			})
		}
		for range doubtPings {
			if <-answers {
				return
			}
		}
		if incarnation, here := g.states.Load().incarnation(nodeID); here {
			g.guard.Inject(accuse(nodeID, g.config.NodeID, incarnation))
		}
	})
}

// accuse is the message that a node is suspected, as memberlist writes it.
func accuse(nodeID, from string, incarnation uint32) []byte {
	message := []byte{guard.SuspectMsg, 0x83}
	text := func(s string) {
		message = binary.BigEndian.AppendUint16(append(message, 0xda), uint16(len(s)))
		message = append(message, s...)
	}
	text("Incarnation")
	message = binary.BigEndian.AppendUint32(append(message, 0xce), incarnation)
	text("Node")
	text(nodeID)
	text("From")
	text(from)
	return message
}
