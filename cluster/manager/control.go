package manager

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"golang.org/x/sync/errgroup"

	"skep/cluster"
	"skep/cluster/ca"
	"skep/cluster/manager/peers"
)

// Limits of the control port, which anybody can reach.
const (
	maxHeader     = 64 << 10
	maxAdmitBody  = 64 << 10
	readTimeout   = 10 * time.Second
	shutdownLimit = 2 * time.Second
)

// serveControl accepts connections on the control port until ctx ends.
func (m *Manager) serveControl(ctx context.Context) error {
	config := m.cfg.Credentials.Overdue(
		m.cfg.Credentials.ServerTLS(cluster.ProtocolRaft, cluster.ProtocolSession, cluster.ProtocolEngine, cluster.ProtocolManager, cluster.ProtocolHTTP, cluster.ProtocolRenew),
		map[string]ca.Known{cluster.ProtocolRaft: m.cfg.KnownManager, cluster.ProtocolRenew: m.knownNode})
	m.noteProtocolErrors(config)
	server := &http.Server{
		Handler:           answerOnce(m.routes()),
		ReadHeaderTimeout: readTimeout,
		IdleTimeout:       peers.IdleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(m.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       renewerContext,
		// Streams have deadlines of their own, and HTTP/2 isn't offered.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := server.Serve(m.port.Requests()); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve control port: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		return m.port.Serve(ctx, peers.PortConfig{
			TLS: config, Nodes: m.nodeAddrs, Now: m.cfg.Now, Log: m.log,
			Failed: func(conn net.Conn, err error) {
				if speaksNoTLS(err) {
					m.logProtocolError(conn.RemoteAddr().String(), "no TLS")
				}
				m.log.Debug("refuse a connection", "addr", conn.RemoteAddr().String(), "err", err)
			},
			Route: m.routeConn,
		})
	})
	g.Go(func() error {
		<-ctx.Done()
		m.port.Close()
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownLimit)
		defer cancel()
		if server.Shutdown(ending) != nil {
			server.Close()
		}
		return nil
	})
	return g.Wait()
}

// routeConn hands a connection, after its handshake, to whom it is for.
func (m *Manager) routeConn(ctx context.Context, conn *tls.Conn) {
	state := conn.ConnectionState()
	if state.NegotiatedProtocol == cluster.ProtocolHTTP || state.NegotiatedProtocol == "" {
		// A caller without a certificate of a node that is here has a stranger's place until
		// it hangs up: joining takes a moment, and nobody else has a reason to stay.
		if id, err := ca.Peer(state); err != nil || m.belongs(id) != nil {
			m.port.RequestAnonymous(conn)
			return
		}
		m.port.Request(conn)
		return
	}
	var err error
	var id cluster.Identity
	switch state.NegotiatedProtocol {
	case cluster.ProtocolRenew:
		if id, err = m.cfg.Credentials.OverduePeer(state, m.knownNode); err == nil {
			m.port.Request(&renewing{conn, renewer{id, ca.PeerKey(state)}})
			return
		}
	case cluster.ProtocolRaft:
		id, err = m.cfg.Credentials.OverduePeer(state, m.cfg.KnownManager)
	default:
		id, err = ca.Peer(state)
	}
	switch {
	case err != nil:
	case state.NegotiatedProtocol == cluster.ProtocolSession:
		if err := m.dispatch.ServeSession(ctx, conn, id); err != nil && ctx.Err() == nil {
			m.log.Debug("end session", "node", id.NodeID, "err", err)
		}
		conn.Close()
		return
	case state.NegotiatedProtocol == cluster.ProtocolEngine:
		if err := m.dispatch.ServeEngine(conn, id); err != nil {
			m.log.Debug("refuse a node's call", "node", id.NodeID, "err", err)
		}
		return
	case id.Role != swarm.NodeRoleManager:
		err = cluster.Errorf(cluster.ErrDenied, "%s is for managers", state.NegotiatedProtocol)
	case !m.transport.MayConnect(id.NodeID):
		err = cluster.Errorf(cluster.ErrDenied, "node %s is no manager of this cluster, as far as this one knows", id.NodeID)
	case state.NegotiatedProtocol == cluster.ProtocolManager:
		if err := m.serveCalls(ctx, conn, id); err != nil && ctx.Err() == nil {
			m.log.Debug("end a manager's calls", "node", id.NodeID, "err", err)
		}
		return
	default:
		go m.transport.Serve(conn, id.NodeID) // It is raft's, which outlives the port by a hand-over.
		return
	}
	if unsaid, due := m.turnedAway.Due(m.cfg.Now(), peers.Source(conn.RemoteAddr().String()).String()); due {
		m.log.Warn("refuse a connection", "addr", conn.RemoteAddr().String(), "err", err, "unsaid", unsaid)
	}
	conn.Close()
}

// routes are the control port's: who may call what is said here, once.
func (m *Manager) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /v1/join", onLeader(m, m.admit))
	mux.Handle("POST /v1/renew", m.allowRenewal(onLeader(m, m.renew)))
	mux.Handle("POST /v1/leave", m.allow(anyNode, onLeader(m, m.leave)))
	mux.Handle("POST /v1/attach", m.allow(anyNode, onLeader(m, m.attach)))
	mux.Handle("POST /v1/detach", m.allow(anyNode, onLeader(m, m.detach)))
	mux.Handle("POST /v1/manager", m.allow(managers, onLeader(m, m.ready)))
	mux.Handle("POST /v1/here", m.allow(managers, onAny(m, m.here)))
	mux.Handle("POST /v1/keep", m.allow(managers, onAny(m, m.keep)))
	mux.Handle("POST /v1/lost", m.allow(managers, onLeader(m, m.lost)))
	mux.Handle("GET /v1/health", m.allow(managers, http.HandlerFunc(m.serveHealth)))
	mux.Handle("GET /v1/timeline", m.allow(managers, http.HandlerFunc(m.serveTimeline)))
	mux.Handle("/v1/api/", m.allow(managers, http.StripPrefix("/v1/api", m.cfg.API)))
	mux.Handle("/v1/", m.allow(managers, m.dispatch.Handler()))
	return mux
}

// Who may call a route.
var (
	anyNode  = func(cluster.Identity, *cluster.Node) bool { return true }
	managers = func(id cluster.Identity, node *cluster.Node) bool {
		return id.Role == swarm.NodeRoleManager && (node == nil || node.Role == swarm.NodeRoleManager)
	}
)

// allow lets a request through when its caller's certificate is this cluster's
// and who agrees. Everybody else is refused.
func (m *Manager) allow(who func(cluster.Identity, *cluster.Node) bool, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, err := m.caller(r)
		if err == nil {
			switch node := m.store.View().Node(id.NodeID); {
			case who(id, node):
			case id.Role == swarm.NodeRoleManager:
				err = cluster.Errorf(cluster.ErrDenied, "node %s is not a manager any more: ask another one", id.NodeID)
			default:
				err = cluster.Errorf(cluster.ErrDenied, "a %s may not call %s", id.Role, r.URL.Path)
			}
		}
		if err != nil {
			m.logRefusal(r, err)
			w.Header().Set("Connection", "close")
			refuse(w, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, id)))
	})
}

type callerKey struct{}

// callerOf is who calls a route behind allow.
func callerOf(r *http.Request) cluster.Identity {
	return r.Context().Value(callerKey{}).(cluster.Identity)
}

// caller reads who calls from the certificate. A node that isn't in the store
// any more was removed; only an empty store (a new manager's) can't tell.
func (m *Manager) caller(r *http.Request) (cluster.Identity, error) {
	if r.TLS == nil {
		return cluster.Identity{}, cluster.Errorf(cluster.ErrDenied, "read certificate: no certificate")
	}
	id, err := ca.Peer(*r.TLS)
	if err != nil {
		return cluster.Identity{}, err
	}
	return id, m.belongs(id)
}

func (m *Manager) belongs(id cluster.Identity) error {
	view := m.store.View()
	if view.Cluster() != nil && view.Node(id.NodeID) == nil {
		return cluster.Errorf(cluster.ErrDenied, "node %s is not part of the swarm", id.NodeID)
	}
	return nil
}

// nodeAddrs are the addresses of the nodes and of the managers that this one knows.
func (m *Manager) nodeAddrs() (nodes, managers []string) {
	for node := range m.store.View().Nodes() {
		nodes = append(nodes, node.Status.Addr)
	}
	others := m.Elsewhere()
	if m.cfg.Peers != nil { // Raft's configuration may be older.
		others = append(others, m.cfg.Peers()...)
	}
	managers = append(managers, m.cfg.Addr)
	for _, other := range others {
		managers = append(managers, other.Addr)
	}
	return nodes, managers
}

// answerOnce has a connection without a certificate end with its first answer: whoever
// joins has one question, and nobody else has a reason to stay.
func answerOnce(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}
