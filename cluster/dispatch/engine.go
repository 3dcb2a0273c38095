package dispatch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"skep/cluster"
)

const (
	// callLimit is how long it may take until an agent has called.
	callLimit = 10 * time.Second
	// passCallLimit is how long another manager may take to say whether it has told the agent.
	passCallLimit = 2 * time.Second
	// maxEngineBody bounds what other managers may send.
	maxEngineBody = 4 << 10
)

// DialEngine opens a connection to a node's engine, by which one request can be made, of those
// that agents pass on. Its node's agent calls this manager for it. It returns ErrUnavailable
// when the agent can't be told, or doesn't come.
func (d *Dispatcher) DialEngine(ctx context.Context, nodeID string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	came, err := d.engines.await(nodeID)
	if err != nil {
		return nil, err
	}
	defer d.engines.forget(nodeID, came)
	if err := d.haveCall(ctx, nodeID); err != nil {
		return nil, err
	}
	select {
	case conn := <-came:
		return conn, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("ask the engine of node %s: its agent doesn't call this manager: %w: %w", nodeID, cluster.ErrUnavailable, ctx.Err())
	}
}

// haveCall has a node's agent told to call this manager.
func (d *Dispatcher) haveCall(ctx context.Context, nodeID string) error {
	if s := d.session(nodeID); s != nil {
		s.callEngine(d.config.NodeID)
		return nil
	}
	for _, peer := range d.whoToAsk(nodeID) {
		asking, cancel := context.WithTimeout(ctx, passCallLimit)
		err := d.post(asking, peer, "/v1/engine", engineBody{NodeID: nodeID, Manager: d.config.NodeID}, nil)
		cancel()
		if err == nil {
			return nil
		}
		if !errors.Is(err, cluster.ErrNotFound) {
			d.config.Log.Debug("ask another manager for an engine", "manager", peer.NodeID, "node", nodeID, "err", err)
		}
	}
	return fmt.Errorf("ask the engine of node %s: the node has no session with any manager: %w", nodeID, cluster.ErrUnavailable)
}

// engineBody is what POST /v1/engine asks for: that a node's agent calls the manager that asks.
type engineBody struct {
	NodeID  string `cbor:"1,keyasint"`
	Manager string `cbor:"2,keyasint"`
}

func (d *Dispatcher) serveEngine(w http.ResponseWriter, r *http.Request) {
	var body engineBody
	if !readBody(w, r, maxEngineBody, &body) {
		return
	}
	if !sentBy(r, body.Manager) {
		http.Error(w, "an agent calls only the manager that asks", http.StatusForbidden)
		return
	}
	s := d.session(body.NodeID)
	if s == nil {
		http.Error(w, "no session of this node here", http.StatusNotFound)
		return
	}
	s.callEngine(body.Manager)
	w.WriteHeader(http.StatusNoContent)
}

// callEngine has the agent call a manager. One that takes nothing in is told no more often than
// it would answer.
func (s *session) callEngine(managerID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.due.calls) < cluster.MaxEngineRequests {
		s.due.calls = append(s.due.calls, managerID)
	}
	s.wakeWriter()
}

// ServeEngine takes the connection of an agent that was asked to call, whose certificate says that it is id.
// It closes one that nobody waits for.
func (d *Dispatcher) ServeEngine(conn net.Conn, id cluster.Identity) error {
	cluster.NoticeSilence(conn)
	if d.config.Store.View().Node(id.NodeID) != nil && d.engines.take(id.NodeID, conn) {
		return nil
	}
	return errors.Join(fmt.Errorf("nobody asks the engine of node %s: %w", id.NodeID, cluster.ErrDenied), conn.Close())
}

// engineConns are the connections to nodes' engines, and who waits for one. Which of a node's
// calls somebody gets doesn't matter: they are all alike.
type engineConns struct {
	mu      sync.Mutex // guards the fields below
	waiting map[string][]chan net.Conn
	open    map[*engineConn]bool
	ended   bool
}

// engineConn is a connection to a node's engine.
type engineConn struct {
	net.Conn
	nodeID string
	of     *engineConns
}

// await gives a channel that receives the next connection of a node that nobody else waits for.
func (e *engineConns) await(nodeID string) (chan net.Conn, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		return nil, fmt.Errorf("ask the engine of node %s: this manager stops: %w", nodeID, cluster.ErrUnavailable)
	}
	count := len(e.waiting[nodeID])
	for conn := range e.open {
		if conn.nodeID == nodeID {
			count++
		}
	}
	if count >= cluster.MaxEngineRequests {
		return nil, fmt.Errorf("ask the engine of node %s: %d requests are under way already, try again later: %w", nodeID, count, cluster.ErrUnavailable)
	}
	if e.waiting == nil {
		e.waiting, e.open = make(map[string][]chan net.Conn), make(map[*engineConn]bool)
	}
	came := make(chan net.Conn, 1)
	e.waiting[nodeID] = append(e.waiting[nodeID], came)
	return came, nil
}

// forget ends the wait; a connection that came and wasn't taken is closed.
func (e *engineConns) forget(nodeID string, came chan net.Conn) {
	e.mu.Lock()
	e.waiting[nodeID] = slices.DeleteFunc(e.waiting[nodeID], func(other chan net.Conn) bool { return other == came })
	if len(e.waiting[nodeID]) == 0 {
		delete(e.waiting, nodeID)
	}
	e.mu.Unlock()
	select {
	case conn := <-came:
		conn.Close()
	default:
	}
}

// take gives a node's connection to who has waited longest; false when nobody does.
func (e *engineConns) take(nodeID string, conn net.Conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	waiting := e.waiting[nodeID]
	if e.ended || len(waiting) == 0 {
		return false
	}
	e.waiting[nodeID] = waiting[1:]
	kept := &engineConn{conn, nodeID, e}
	e.open[kept] = true
	waiting[0] <- kept
	return true
}

// cut breaks the connections to nodes.
func (e *engineConns) cut(node func(nodeID string) bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for conn := range e.open {
		if node(conn.nodeID) {
			cluster.Break(conn.Conn)
		}
	}
}

// end breaks all of them, now and from now on.
func (e *engineConns) end() {
	e.mu.Lock()
	e.ended = true
	e.mu.Unlock()
	e.cut(func(string) bool { return true })
}

// Close closes the connection.
func (c *engineConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite says that nothing more comes this way: the input of an exec has ended.
func (c *engineConn) CloseWrite() error { return cluster.CloseWrite(c.Conn) }
