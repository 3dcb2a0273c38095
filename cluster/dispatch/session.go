package dispatch

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/dispatch/networks"
	"skep/store"
)

// Why a session ended.
var (
	errReplaced = errors.New("a newer session of the same node took its place")
	errStopping = errors.New("this manager stops serving agents")
	errCopy     = errors.New("the machine is a copy of the node's")
	errIsolated = errors.New("this manager has lost its leader")
	errSilent   = errors.New("the agent was silent for too long")
	errStalled  = errors.New("the agent took nothing for too long")
	errLeft     = errors.New("the agent stopped in order")
	errHalting  = fmt.Errorf("%w with its machine", errLeft)
	errPace     = errors.New("the heartbeat period has changed")
	errCrowd    = errors.New("too many connections of the node haven't opened a session")
	errRestless = errors.New("the agent said too often that the state of its node is another one")
	errTooMuch  = errors.New("more reports are waiting for the leader than this manager holds")
)

// causes are what the ends of sessions are counted by; the first that fits, or else "connection".
var causes = []struct {
	err  error
	name string
}{
	{errReplaced, "replaced"}, {errStopping, "stopping"}, {errCopy, "copy"}, {errIsolated, "isolated"}, {errSilent, "silent"},
	{errStalled, "stalled"}, {errHalting, "halting"}, {errLeft, "left"}, {errPace, "pace"}, {errRestless, "restless"}, {errTooMuch, "too_much"},
	{cluster.ErrDenied, "refused"},
}

func causeOf(end error) string {
	for _, cause := range causes {
		if errors.Is(end, cause.err) {
			return cause.name
		}
	}
	return "connection"
}

const (
	// maxMarks is how many tasks may wait to be sent before a complete set replaces them.
	maxMarks = 4096
	// joinPatience is how long this replica may take to apply the entry of a node that just joined.
	joinPatience = 2 * time.Second
	// helloLimit is how long an agent may take to say Hello, and maxOpening how many of
	// its connections may be about to.
	helloLimit = 10 * time.Second
	maxOpening = 4
	// maxTurns is how often in a turnSpan an agent may say that its node's state is another one
	// (its engine is away, something else is wrong, it stops): each time is a write. Engines and
	// daemons that are restarted over and over take seconds each time.
	maxTurns = 12
	turnSpan = time.Minute
	// refuseLimit is how long an agent may take to read why it is refused.
	refuseLimit = time.Second
)

// session is one agent's connection. The reader is ServeSession's goroutine, the
// writer is its own.
type session struct {
	d      *Dispatcher
	nodeID string
	// run is the agent's, and warning what it warned of last; the reader's.
	run, warning string
	// addr is the address the node gives itself, dataAddr another one for packets of networks,
	// and engine what its engine calls itself.
	addr, dataAddr, engine string
	// build is what Hello said.
	build cluster.Build
	// engineAway is what the agent said last; the reader's.
	engineAway bool
	// heartbeat is the longest silence, either way, for as long as the session lasts.
	heartbeat time.Duration
	// opened is when it began.
	opened  time.Time
	conn    net.Conn
	ctx     context.Context
	cancel  context.CancelCauseFunc
	silence *idleTimer
	// late has gossip look after a node whose heartbeat is overdue: it may have lost its power.
	late *idleTimer
	wake chan struct{}
	// beaten has a signal after a heartbeat of the agent's.
	beaten chan struct{}
	// networks is what the agent is told of networks; the writer's.
	networks *networks.Reader

	mu  sync.Mutex // guards the fields below
	due outgoing
	// described is what the agent last said of its node, and size how large that is.
	described cluster.NodeNews
	size      int
	// streams are the log requests that are under way.
	streams    map[uint64]*logStream
	lastStream uint64
}

// outgoing is what the writer has to send.
type outgoing struct {
	// view is what the marks are up to, all of them; ahead is set when it has changes that
	// fanOut hasn't got to yet.
	view  store.View
	ahead bool
	marks pending
	// since is when the oldest mark was made; zero where nothing is measured.
	since    time.Time
	requests []cluster.LogRequest
	lease    int64
	cancels  []uint64
	// calls are managers that the agent is to call.
	calls []string
	// credits are bytes of logs that were taken, by the request.
	credits map[uint64]int
	// refused, when set, is sent last.
	refused *refusal
}

// ServeSession serves one agent's connection, whose certificate says that it is
// id, until either side ends it. It closes conn and says why the session ended.
func (d *Dispatcher) ServeSession(ctx context.Context, conn net.Conn, id cluster.Identity) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { conn.Close(); close(closed) })
	defer func() {
		if stop() {
			conn.Close()
			return
		}
		<-closed
	}()
	s := &session{
		d: d, nodeID: id.NodeID, conn: conn, ctx: ctx, cancel: cancel, heartbeat: d.heartbeat(d.config.Store.View()),
		opened: d.config.Now(), wake: make(chan struct{}, 1), beaten: make(chan struct{}, 1), streams: make(map[uint64]*logStream),
	}
	s.silence = newIdleTimer(d.config.Now, s.silenceLimit(), func() { cancel(errSilent) })
	defer s.silence.stop()
	s.late = newIdleTimer(d.config.Now, s.heartbeat*lateTwentieths/20, func() { d.config.Probe(s.nodeID) })
	defer s.late.stop()
	err := s.serve()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if s.networks != nil { // It was one.
		d.config.Metrics.Ends.Add(1, causeOf(err))
	}
	return fmt.Errorf("serve session of node %s: %w", s.nodeID, err)
}

// silenceLimit is the silence after which the session ends.
func (s *session) silenceLimit() time.Duration { return silentHeartbeats * s.heartbeat }

func (s *session) serve() error {
	if !s.d.opening(s.nodeID, 1) {
		s.d.opening(s.nodeID, -1)
		return errCrowd
	}
	in := bufio.NewReader(&observedReader{s.conn, []*idleTimer{s.silence, s.late}})
	hello, err := s.open(in)
	s.d.opening(s.nodeID, -1)
	if err != nil {
		return err
	}
	if err := s.register(hello); errors.Is(err, errIsolated) {
		return s.reject(refusal{reason: err.Error()})
	} else if errors.Is(err, errCopy) {
		return s.reject(refuseCopy(s.nodeID))
	} else if err != nil {
		return err
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		s.cancel(s.write())
	}()
	err = s.read(in)
	s.unregister(err)
	s.cancel(err)
	<-written
	s.networks.Close()
	s.endStreams()
	return err
}

// open reads Hello and checks that this agent may have a session here.
func (s *session) open(in io.Reader) (*cluster.Hello, error) {
	var first cluster.FromAgent
	limit := time.AfterFunc(helloLimit, func() { s.cancel(errSilent) })
	defer limit.Stop()
	if err := cluster.ReadAgentFrame(in, &first); err != nil {
		return nil, err
	}
	hello := first.Hello
	if hello == nil {
		return nil, s.reject(refusal{reason: "the first message wasn't Hello"})
	}
	if hello.Format != cluster.WireFormat {
		return nil, s.reject(refusal{reason: fmt.Sprintf("the agent speaks format %d, this manager speaks %d: run the same version on both", hello.Format, cluster.WireFormat)})
	}
	if _, err := checkDescription(&hello.Description); err != nil {
		return nil, s.reject(refusal{reason: err.Error()})
	}
	s.run, s.warning = boundName(hello.Run), boundWarning(first.Warning)
	s.build, s.engineAway = hello.Build.Bounded(), first.EngineAway
	s.locate(hello, remoteIP(s.conn))
	for _, ready := range []chan struct{}{s.d.started, s.d.current} {
		select {
		case <-ready:
		case <-s.ctx.Done():
			return nil, context.Cause(s.ctx)
		}
	}
	if !s.awaitNode() {
		return nil, s.reject(refusal{reason: "node " + s.nodeID + " is not in the cluster, as far as this manager knows"})
	}
	if c := s.d.config.Store.View().Cluster(); c != nil {
		if err := s.build.Fits(c.ClusterLevel); err != nil {
			return nil, s.reject(refusal{reason: err.Error()})
		}
	}
	return hello, nil
}

// locate takes in where the node is, as Hello says, which came from an address. An agent from
// elsewhere isn't on loopback.
func (s *session) locate(hello *cluster.Hello, from string) {
	if addr, ok := checkAddr(hello.Addr); ok && (!isLoopback(addr) || believeLoopback(from)) {
		s.addr = addr
	} else {
		s.addr = from
	}
	if addr := checkDataAddr(hello.DataAddr); addr != s.addr && (!isLoopback(addr) || believeLoopback(from)) {
		s.dataAddr = addr
	}
	s.engine = boundName(hello.Engine)
}

// awaitNode waits for the node to be in this replica: one that joined a moment
// ago may be faster than the log.
func (s *session) awaitNode() bool {
	view := s.d.config.Store.View
	if view().Node(s.nodeID) != nil {
		return true
	}
	sub := s.d.config.Store.Subscribe()
	defer sub.Close()
	deadline := time.NewTimer(joinPatience)
	defer deadline.Stop()
	for view().Node(s.nodeID) == nil {
		select {
		case <-sub.Ready():
			sub.Take()
		case <-deadline.C:
			return false
		case <-s.ctx.Done():
			return false
		}
	}
	return true
}

// refusal is why an agent gets no session, or loses it.
type refusal struct {
	reason string
	// copy is set when its machine is a copy of the node's, and so has to stop the tasks.
	copy bool
}

func (r refusal) message() cluster.FromManager {
	return cluster.FromManager{Refused: r.reason, Copy: r.copy}
}

// refuseCopy is the refusal of a copy.
func refuseCopy(nodeID string) refusal {
	return refusal{copy: true, reason: fmt.Sprintf("another machine is node %s, and was there before: this one is a copy of its disk. It stops the node's tasks. "+
		"Stop the daemon, remove its data directory, and join it anew", nodeID)}
}

// reject sends the agent why it gets no session.
func (s *session) reject(r refusal) error {
	limit := time.AfterFunc(refuseLimit, func() { s.conn.Close() })
	defer limit.Stop()
	err := fmt.Errorf("%s: %w", r.reason, cluster.ErrDenied)
	if failed := cluster.WriteFrame(s.conn, r.message()); failed != nil {
		return errors.Join(err, failed)
	}
	return err
}

// register makes this the node's session, in the place of an older one.
func (s *session) register(hello *cluster.Hello) error {
	d := s.d
	size, err := checkDescription(&hello.Description)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended {
		return errStopping
	}
	if d.isolated {
		return errIsolated
	}
	// Changes up to here may be marked again by the hub; that does no harm.
	s.due = outgoing{view: d.config.Store.View(), marks: pending{full: true, peersToo: true}}
	s.due.ahead = s.due.view.Index() > d.published.Index()
	if d.heartbeat(s.due.view) != s.heartbeat {
		return errPace
	}
	if node := s.due.view.Node(s.nodeID); node != nil && node.Copy.Is(s.run) {
		d.outbox.addCopy(s.nodeID, s.addr)
		return errCopy
	}
	if s.due.view.Node(s.nodeID) == nil {
		return fmt.Errorf("%s: %w", removedReason(s.nodeID), cluster.ErrDenied)
	}
	if old := d.sessions[s.nodeID]; old != nil {
		old.cancel(errReplaced)
	}
	d.sessions[s.nodeID] = s
	s.networks = d.networks.NewReader(s.nodeID)
	d.outbox.setRun(s.nodeID, s.run)
	d.outbox.setWarning(s.nodeID, s.warning)
	d.outbox.addSession(s.describe(hello.Description, hello.WireKeys, hello.Uses, size), size, s.engineAway)
	return nil
}

// describe notes the agent's description of its node.
func (s *session) describe(of swarm.NodeDescription, keys cluster.WireKeys, uses []cluster.AddressUse, size int) cluster.NodeNews {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.described, s.size = cluster.NodeNews{NodeID: s.nodeID, Description: of, Addr: s.addr, Build: s.build, DataAddr: s.dataAddr, Engine: s.engine, WireKeys: keys, Uses: boundUses(uses)}, size
	return s.described
}

// describeAgain relays this session's description of the node again: the record has a copy's,
// which was taken for the node.
func (s *session) describeAgain() {
	s.mu.Lock()
	described, size := s.described, s.size
	s.mu.Unlock()
	if described.NodeID != "" {
		s.d.outbox.addNode(described, size)
	}
}

func (s *session) unregister(end error) {
	d := s.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sessions[s.nodeID] == s {
		delete(d.sessions, s.nodeID)
		d.outbox.removeSession(s.nodeID, errors.Is(end, errLeft), errors.Is(end, errHalting))
		if !errors.Is(end, errLeft) {
			d.config.Probe(s.nodeID)
		}
	}
}

// read takes in the agent's frames until the session ends. It waits for nothing
// but the agent, and a moment for whoever reads a log.
func (s *session) read(in io.Reader) error {
	for {
		var m cluster.FromAgent
		if err := cluster.ReadAgentFrame(in, &m); err != nil {
			return err
		}
		if m.Hello != nil {
			return fmt.Errorf("a second Hello: %w", cluster.ErrInvalid)
		}
		if warning := boundWarning(m.Warning); (m.EngineAway != s.engineAway || warning != s.warning || m.Leaving) && !s.d.turn(s.nodeID) {
			return errRestless
		}
		if m.EngineAway != s.engineAway {
			s.engineAway = m.EngineAway
			s.d.outbox.setEngine(s.nodeID, m.EngineAway)
		}
		if text := boundWarning(m.Warning); text != s.warning {
			s.warning = text
			s.d.outbox.setWarning(s.nodeID, text)
		}
		if m.Lease != 0 {
			s.d.outbox.ask(s.nodeID, m.Lease)
		}
		if m.Describe != nil {
			size, err := checkDescription(m.Describe)
			if err != nil {
				return err
			}
			s.d.outbox.addNode(s.describe(*m.Describe, m.WireKeys, m.Uses, size), size)
		}
		if len(m.Reports) > 0 {
			if err := s.report(m.Reports); err != nil {
				return err
			}
		}
		if m.Logs != nil {
			s.takeLogs(*m.Logs)
		}
		switch {
		case m.Leaving && m.Halting:
			return errHalting
		case m.Leaving:
			return errLeft
		case m.Describe == nil && len(m.Reports) == 0 && m.Logs == nil:
			cluster.Notify(s.beaten)
		}
	}
}

func remoteIP(conn net.Conn) string {
	addr, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return ""
	}
	return addr.Addr().String()
}
