package peers

import (
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"skep/cluster"
)

// inbound takes what other managers send to raft. Raft believes whatever name stands in a
// request, and its transport doesn't say by which connection one came. So each connection
// has a transport of its own here, whose requests are the peer's with the certificate:
// authorize is asked about each, and a request that it refuses is answered with the reason.
type inbound struct {
	config    raft.NetworkTransportConfig
	authorize func(from string, request any) error
	// patience is for how long a request waits to be believed.
	patience time.Duration
	log      *slog.Logger
	// heard has the requests that were let through, but for heartbeats: those go to beat,
	// since they may not wait for a disk.
	heard chan raft.RPC
	beat  atomic.Pointer[func(raft.RPC)]
	// beaten is called after each heartbeat, if it is there.
	beaten func()
	// lost has the last manager whose connection to this one ended.
	lost chan string
	// turn has one at a time of heartbeats, which raft handles in their connections' goroutines, and of requests to
	// stand for election. Raft becomes a candidate a moment before it notes that it was asked to: a heartbeat of that
	// moment, of the leader that hands over, would make it a follower again, and nobody would lead.
	turn chan struct{}

	mu   sync.Mutex // guards the fields below
	open map[*incoming]bool
	done chan struct{} // closed by close
	over bool
	// beating counts the heartbeats that raft is handling. None begins once over is set.
	beating sync.WaitGroup
}

func newInbound(config raft.NetworkTransportConfig, authorize func(string, any) error, patience time.Duration, log *slog.Logger) *inbound {
	return &inbound{config: config, authorize: authorize, patience: patience, log: log, heard: make(chan raft.RPC), lost: make(chan string, 1),
		turn: make(chan struct{}, 1), open: map[*incoming]bool{}, done: make(chan struct{})}
}

// serve answers a connection of the node from until it ends.
func (in *inbound) serve(conn net.Conn, from string) {
	c := &incoming{Conn: conn, from: from, of: in, gone: make(chan struct{})}
	in.mu.Lock()
	if in.over {
		in.mu.Unlock()
		conn.Close()
		return
	}
	in.open[c] = true
	in.mu.Unlock()
	config := in.config
	config.Stream = newOnly(c)
	transport := raft.NewNetworkTransportWithConfig(&config)
	defer transport.Close()
	transport.SetHeartbeatHandler(func(rpc raft.RPC) { c.pass(rpc, true) })
	for {
		select {
		case rpc := <-transport.Consumer():
			c.pass(rpc, false)
		case <-c.gone:
			return
		case <-in.done:
			return
		}
	}
}

// closeExcept ends the connections of those who don't belong.
func (in *inbound) closeExcept(belongs func(from string) bool) {
	in.mu.Lock()
	var foreign []*incoming
	for c := range in.open {
		if !belongs(c.from) {
			foreign = append(foreign, c)
		}
	}
	in.mu.Unlock()
	for _, c := range foreign {
		c.Close()
	}
}

// close ends all connections; no more are served.
func (in *inbound) close() {
	in.mu.Lock()
	if !in.over {
		in.over = true
		close(in.done)
	}
	in.mu.Unlock()
	in.closeExcept(func(string) bool { return false })
}

// wait waits, after close, until no heartbeat is being handled. Raft handles one in the
// goroutine of its connection, which its own shutdown doesn't wait for, and panics when
// the term of one can't be stored: the database is closed after this.
func (in *inbound) wait() { in.beating.Wait() }

// handle has raft handle a heartbeat, unless close was called or raft takes none yet.
func (in *inbound) handle(rpc raft.RPC) (handled bool) {
	handler := in.beat.Load()
	in.mu.Lock()
	if in.over || handler == nil {
		in.mu.Unlock()
		return false
	}
	in.beating.Add(1)
	in.mu.Unlock()
	defer in.beating.Done()
	in.turn <- struct{}{}
	defer func() { <-in.turn }()
	(*handler)(rpc)
	if in.beaten != nil {
		in.beaten()
	}
	return true
}

// incoming is a connection that another manager opened.
type incoming struct {
	net.Conn
	from string
	of   *inbound
	// refused is set when nothing more is to be read.
	refused atomic.Bool
	once    sync.Once
	gone    chan struct{} // closed by Close
}

// authorizeAgain is how often it is looked whether a request is believed now.
const authorizeAgain = time.Millisecond

// authorized is inbound.authorize, with patience for what may be believed soon. A leader that others have
// elected may be heard before its own request for a vote, which comes by another
// connection; one that is refused doesn't try again for 10 ms, and then ever later.
func (c *incoming) authorized(request any) error {
	for waited := time.Duration(0); ; waited += authorizeAgain {
		err := c.of.authorize(c.from, request)
		if !errors.Is(err, cluster.ErrUnavailable) || waited >= c.of.patience {
			return err
		}
		select {
		case <-time.After(authorizeAgain):
		case <-c.gone:
			return err
		case <-c.of.done:
			return err
		}
	}
}

// pass hands a request on, or refuses it.
func (c *incoming) pass(rpc raft.RPC, beat bool) {
	if err := c.authorized(rpc.Command); err != nil {
		c.of.log.Debug("refuse a request of raft's", "node", c.from, "err", err)
		// What follows a snapshot's request is the snapshot, which nobody reads.
		_, snapshot := rpc.Command.(*raft.InstallSnapshotRequest)
		c.refused.Store(snapshot || errors.Is(err, cluster.ErrDenied))
		rpc.Respond(nil, err)
		return
	}
	if beat && c.of.handle(rpc) {
		return
	}
	if _, stand := rpc.Command.(*raft.TimeoutNowRequest); stand {
		c.of.turn <- struct{}{}
		defer func() { <-c.of.turn }()
		answer, to := make(chan raft.RPCResponse, 1), rpc.RespChan
		rpc.RespChan = answer
		defer func() {
			select {
			case a := <-answer:
				to <- a
			case <-c.of.done:
				to <- raft.RPCResponse{Error: net.ErrClosed}
			}
		}()
	}
	select {
	case c.of.heard <- rpc:
	case <-c.gone:
		rpc.Respond(nil, net.ErrClosed)
	case <-c.of.done:
		rpc.Respond(nil, net.ErrClosed)
	}
}

// Read reads as long as the other manager may say something.
func (c *incoming) Read(b []byte) (int, error) {
	if c.refused.Load() {
		return 0, net.ErrClosed
	}
	return c.Conn.Read(b)
}

// Close closes the connection. Raft does so when it meets its end.
func (c *incoming) Close() (err error) {
	c.once.Do(func() {
		close(c.gone)
		err = c.Conn.Close()
		c.of.mu.Lock()
		delete(c.of.open, c)
		c.of.mu.Unlock()
		select {
		case <-c.of.lost:
		default:
		}
		select {
		case c.of.lost <- c.from:
		default:
		}
	})
	return err
}

// only is the stream layer of one connection's transport, which accepts that connection,
// once.
type only struct {
	conn  *incoming
	first chan net.Conn
	once  sync.Once
	over  chan struct{}
}

var _ raft.StreamLayer = (*only)(nil)

func newOnly(conn *incoming) *only {
	o := &only{conn: conn, first: make(chan net.Conn, 1), over: make(chan struct{})}
	o.first <- conn
	return o
}

// Accept gives the connection, and then waits for Close.
func (o *only) Accept() (net.Conn, error) {
	select {
	case conn := <-o.first:
		return conn, nil
	case <-o.over:
		return nil, net.ErrClosed
	}
}

// Close closes the connection; the transport does so when it is closed.
func (o *only) Close() error {
	o.once.Do(func() { close(o.over) })
	return o.conn.Close()
}

// Addr is this end of the connection.
func (o *only) Addr() net.Addr { return o.conn.LocalAddr() }

// Dial is for others: nothing is sent by this transport but answers.
func (o *only) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) { return nil, net.ErrClosed }
