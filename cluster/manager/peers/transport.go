package peers

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"skep/cluster"
	"skep/cluster/ca"
	"skep/cluster/timeline"
)

// Config is what a Transport works with; all of it is required but for what says otherwise.
type Config struct {
	// NodeID is this manager, Addr the control port that it advertises.
	NodeID, Addr string
	Network      Network
	Credentials  *ca.Credentials
	// KnownManager tells which managers may be heard over a certificate that has ended.
	KnownManager ca.Known
	// Told are the managers that this node was last told of; nil means none.
	Told func() []cluster.Peer
	// HeartbeatTimeout is raft's.
	HeartbeatTimeout time.Duration
	// Ask asks the manager at an address anything at all, by Client.
	Ask func(ctx context.Context, addr string) error
	// Believe decides whether a manager is at claimed, which is known to be elsewhere.
	Believe func(ctx context.Context, nodeID, known, claimed string) error
	// Heard is called after each heartbeat of a leader's.
	Heard func()
	// HandedOver is called when the leader has this manager stand in its place.
	HandedOver func()
	// Timeline takes which votes are asked for and given; nil for nobody.
	Timeline *timeline.Ring
	Now      func() time.Time
	Log      *slog.Logger
	// RaftLog takes what raft's own transport says.
	RaftLog hclog.Logger
}

// Transport is raft's transport, and all other connections of this manager to others.
type Transport struct {
	readdressed
	config Config
	client *http.Client
	calls  *callConns
	// callers are others' calls.
	callers callers
	turns   handshakeLimit
	placed  relocations
	once    sync.Once // ends all
}

var _ raft.Transport = (*Transport)(nil)
var _ raft.WithPreVote = (*Transport)(nil)
var _ raft.WithClose = (*Transport)(nil)

// New makes a Transport. Nothing is heard before Started.
func New(config Config) *Transport {
	t := &Transport{config: config}
	own := raft.NetworkTransportConfig{
		MaxPool: 4, Timeout: 10 * config.HeartbeatTimeout, Logger: config.RaftLog,
		// One in flight means no pipeline, and so not its wedge (hashicorp/raft #612).
		MaxRPCsInFlight:         1,
		MsgpackUseNewTimeFormat: true,
	}
	inbound := newInbound(own, t.authorizeNow, config.HeartbeatTimeout/4, config.Log)
	inbound.beaten = config.Heard
	own.Stream = newStreams(advertised(config.Addr), t.dialRaft)
	gated := newGatedTransport(raft.NewNetworkTransportWithConfig(&own), newHeartbeatPace(config.HeartbeatTimeout), config.Now)
	gated.timeline = config.Timeline
	gated.streams = own.Stream.(*streams)
	t.readdressed = readdressed{newSnapshotFilter(gated, inbound), newKnownAddrs()}
	t.calls = newCallConns(t.dialCalls, config.Now)
	t.client = &http.Client{Transport: &http.Transport{
		DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return t.dial(ctx, addr, cluster.ProtocolHTTP)
		},
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       IdleTimeout,
		ResponseHeaderTimeout: time.Minute,
	}}
	return t
}

// Tune sets what this transport does better than raft, so that raft does little of it.
func Tune(config *raft.Config) {
	config.CommitTimeout = commitTimeout
	config.MaxAppendEntries = entriesAtOnce
}

// Started lets r hear the other managers. Its log is looked at when a snapshot comes.
func (t *Transport) Started(r *raft.Raft, log raft.LogStore) {
	t.log = log
	t.raft.Store(r)
	go t.run()
}

// Run keeps connections to the other managers ready, and tells followers of commits while
// this manager leads, until ctx ends.
func (t *Transport) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return t.keepWarmConns(ctx) })
	g.Go(func() error { return t.sendCommits(ctx) })
	return g.Wait()
}

// Serve answers a connection that the manager from opened for raft, until it ends.
func (t *Transport) Serve(conn net.Conn, from string) { t.inbound.serve(conn, from) }

// Lost has the last manager whose connection to this one ended.
func (t *Transport) Lost() <-chan string { return t.inbound.lost }

// Client speaks to other managers' control ports in this manager's name.
func (t *Transport) Client() *http.Client { return t.client }

// Close breaks all connections and ends what Started began; then nobody calls raft any
// more, nor its database. Raft calls it, too.
func (t *Transport) Close() (err error) {
	t.once.Do(func() {
		t.client.CloseIdleConnections()
		t.calls.close()
		t.stop()
		t.inbound.close()
		t.inbound.wait()
		err = t.NetworkTransport.Close() // It closes the streams.
	})
	return err
}

// Break is Close for a process that is about to end: it waits for nothing.
func (t *Transport) Break() {
	_ = t.streams.Close() // What matters is why.
	t.calls.close()
	t.inbound.close()
}

// Stand has raft stand for election as one does to whom leadership is handed over.
func (t *Transport) Stand() error {
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(t.config.NodeID), Addr: []byte(t.config.Addr)}
	return t.TimeoutNow(raft.ServerID(t.config.NodeID), raft.ServerAddress(t.config.Addr),
		&raft.TimeoutNowRequest{RPCHeader: header}, &raft.TimeoutNowResponse{})
}

// Progress is how far each manager is that the leader of the term sends to.
func (t *Transport) Progress(term uint64) map[raft.ServerID]Progress { return t.matches.of(term) }

// Steady tells whether heartbeats were answered soon lately, until changed is closed.
func (t *Transport) Steady() (well bool, changed <-chan struct{}) { return t.pace.steady() }

// Unsteady has Steady say no for a while, as if an answer had been late.
func (t *Transport) Unsteady() { t.pace.noteDelay() }

// HandOver has attempts to send entries fail, rather than wait for managers that are away,
// until done: raft lets nothing else be done until they have ended.
func (t *Transport) HandOver() (done func()) {
	t.handing.Add(1)
	return sync.OnceFunc(func() { t.handing.Add(-1) })
}

// configuration is raft's present one; nil when it can't be had.
func (t *Transport) configuration() []raft.Server {
	r := t.raft.Load()
	if r == nil {
		return nil
	}
	future := r.GetConfiguration()
	if future.Error() != nil {
		return nil
	}
	return future.Configuration().Servers
}

// Servers are those of raft's configuration, each with the address where it is now.
func (t *Transport) Servers() []raft.Server {
	servers := slices.Clone(t.configuration())
	for i, server := range servers {
		if string(server.ID) == t.config.NodeID {
			servers[i].Address = raft.ServerAddress(t.config.Addr)
			continue
		}
		servers[i].Address = raft.ServerAddress(t.addrs.of(string(server.ID), string(server.Address)))
	}
	return servers
}

// Addr is where a manager is now; known when it told nothing else.
func (t *Transport) Addr(nodeID, known string) string { return t.addrs.of(nodeID, known) }

// Moved takes in where a manager is now, if it is a member of raft's configuration, known to
// be elsewhere, and believed.
func (t *Transport) Moved(ctx context.Context, nodeID, addr string) error {
	for _, server := range t.configuration() {
		configured := string(server.Address)
		if known := t.addrs.of(nodeID, configured); string(server.ID) == nodeID && known != addr {
			if err := t.config.Believe(ctx, nodeID, known, addr); err != nil {
				return err
			}
			t.config.Log.Info("a manager says that it is elsewhere", "node", nodeID, "from", configured, "to", addr)
			t.addrs.note(nodeID, addr, configured)
		}
	}
	return nil
}

// Forget drops the addresses that are older than raft's configuration.
func (t *Transport) Forget() { t.addrs.forget(t.configuration()) }
