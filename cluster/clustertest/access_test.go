package clustertest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/ca"
	"skep/cluster/manager"
)

// TestControlPort_RoleByRoute calls every route of the control port, and every
// protocol, as everybody who might try.
func TestControlPort_RoleByRoute(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 1, Options{})
		leader := c.Leader()
		view := leader.node.Manager().Store().View()
		own, err := ca.ParseRoot(view.Cluster().RootCert, view.Cluster().RootKey)
		if err != nil {
			t.Fatal(err)
		}
		foreign, err := ca.NewRoot(rand.Reader, time.Now(), view.Cluster().ID)
		if err != nil {
			t.Fatal(err)
		}
		worker, other := nodeID(c.Machines[3]), c.Machines[0]
		if other == leader {
			other = c.Machines[1]
		}
		id := func(node string, role swarm.NodeRole) cluster.Identity {
			return cluster.Identity{NodeID: node, Role: role, ClusterID: view.Cluster().ID}
		}
		callers := []struct {
			name string
			// shows is nil for a caller without a certificate.
			shows func() *tls.Certificate
			// handshake is false when the caller shouldn't even get through that.
			handshake, node, manager bool
		}{
			{"nobody", nil, true, false, false},
			{"worker", issued(t, own, id(worker, swarm.NodeRoleWorker), time.Now()), true, true, false},
			{"manager", issued(t, own, id(nodeID(other), swarm.NodeRoleManager), time.Now()), true, true, true},
			{"worker with a manager's certificate", issued(t, own, id(worker, swarm.NodeRoleManager), time.Now()), true, true, false},
			{"node that was removed", issued(t, own, id("removedremovedremovedremo", swarm.NodeRoleManager), time.Now()), true, false, false},
			{"manager of another CA", issued(t, foreign, id(nodeID(other), swarm.NodeRoleManager), time.Now()), false, false, false},
			{"manager of another cluster", issued(t, own, cluster.Identity{NodeID: nodeID(other), Role: swarm.NodeRoleManager, ClusterID: "another"}, time.Now()), false, false, false},
			{"manager, expired", issued(t, own, id(nodeID(other), swarm.NodeRoleManager), time.Now().Add(-100*24*time.Hour)), false, false, false},
		}
		routes := []struct {
			method, path string
			// who may call: "anybody", "nodes", "managers" or "nobody".
			who string
		}{
			{"POST", "/v1/join", "anybody"},
			{"POST", "/v1/renew", "nobody"}, // It has a protocol of its own: see overdue_test.go.
			{"POST", "/v1/leave", "nodes"},
			{"POST", "/v1/manager", "managers"},
			{"GET", "/v1/health", "managers"},
			{"GET", "/v1/timeline", "managers"},
			{"POST", "/v1/relay", "managers"},
			{"POST", "/v1/logs", "managers"},
			{"GET", "/v1/api/v1.51/services", "managers"},
			{"GET", "/v1/api/v1.51/swarm", "managers"},
			{"GET", "/v1/unknown", "managers"},
		}
		for _, caller := range callers {
			for _, route := range routes {
				if route.path == "/v1/leave" && caller.node {
					continue // it would take the node out
				}
				status, err := call(leader, caller.shows, cluster.ProtocolHTTP, route.method, route.path)
				if !caller.handshake {
					if err == nil {
						t.Errorf("%s got through the handshake to %s", caller.name, route.path)
					}
					continue
				}
				if err != nil {
					t.Errorf("%s at %s: %v", caller.name, route.path, err)
					continue
				}
				allowed := route.who == "anybody" || (route.who == "nodes" && caller.node) || caller.manager && route.who != "nobody"
				if refused := status == http.StatusForbidden; refused == allowed {
					t.Errorf("%s at %s %s: status %d, allowed should be %v", caller.name, route.method, route.path, status, allowed)
				}
			}
		}
		for _, caller := range callers {
			if caller.name == "manager" || caller.name == "worker with a manager's certificate" || caller.name == "node that was removed" {
				continue // raft looks at the certificate only; see DESIGN
			}
			conn, err := dial(leader, caller.shows, cluster.ProtocolRaft)
			if err != nil {
				continue
			}
			conn.SetDeadline(time.Now().Add(time.Minute))
			if _, err := conn.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
				t.Errorf("%s may speak raft", caller.name)
			}
			conn.Close()
		}
		c.Same()
	})
}

// issued makes a certificate as that root would.
func issued(t *testing.T, root *ca.Root, id cluster.Identity, at time.Time) func() *tls.Certificate {
	t.Helper()
	key, csr, err := ca.NewRequest(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := root.Issue(rand.Reader, csr, id, at, 90*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := tls.X509KeyPair(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	return func() *tls.Certificate { return &certificate }
}

// dial connects as somebody who trusts anything and shows what he likes.
func dial(to *Machine, shows func() *tls.Certificate, protocol string) (net.Conn, error) {
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}}
	if shows != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return shows(), nil }
	}
	return manager.Dial(context.Background(), machineNetwork{to.cluster.wire, "127.0.9.9"}, to.IP+":2377", config)
}

// call makes one request; the error is the connection's.
func call(to *Machine, shows func() *tls.Certificate, protocol, method, path string) (int, error) {
	conn, err := dial(to, shows, protocol)
	if err != nil {
		return 0, err
	}
	client := &http.Client{Transport: &http.Transport{
		DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "https://manager"+path, bytes.NewReader([]byte("no message")))
	if err != nil {
		return 0, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return 0, err
	}
	return response.StatusCode, nil
}

// TestJoin_Refusals joins with what must not let anybody in.
func TestJoin_Refusals(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 0, Options{})
		first := c.Machines[0]
		var of swarm.Swarm
		first.Do(http.MethodGet, "/swarm", nil, &of)
		good, err := cluster.ParseJoinToken(of.JoinTokens.Worker)
		if err != nil {
			t.Fatal(err)
		}
		stranger := c.add(2)
		join := func(token, remote string) error {
			return stranger.Try(http.MethodPost, "/swarm/join", swarm.JoinRequest{
				ListenAddr: stranger.IP, AdvertiseAddr: stranger.IP, RemoteAddrs: []string{remote}, JoinToken: token,
			}, nil)
		}
		wrong := good
		wrong.Secret = cluster.NewID(rand.Reader)
		otherCA := good
		otherCA.Digest = strings.Repeat("0", len(good.Digest))
		for _, test := range []struct{ name, token, remote, want string }{
			{"wrong secret", wrong.String(), first.IP, "a valid join token is necessary"},
			{"wrong CA", otherCA.String(), first.IP, "remote CA does not match fingerprint"},
			{"no token", "", first.IP, "a join token is necessary"},
			{"garbage", "SWMTKN-1-x", first.IP, "invalid join token"},
			{"nobody there", good.String(), "127.0.1.77", "connection refused"},
		} {
			err := join(test.token, test.remote)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: %v; want %q", test.name, err, test.want)
			}
			if err != nil && test.token != "" && strings.Contains(err.Error(), good.Secret) {
				t.Errorf("%s: the error shows the token's secret", test.name)
			}
			if state := stranger.node.Info().LocalNodeState; state != swarm.LocalNodeStateInactive {
				t.Errorf("%s: the node is %s afterwards", test.name, state)
			}
		}
		if count := first.node.Manager().Store().View().NodeCount(); count != 1 {
			t.Errorf("there are %d nodes after refused joins", count)
		}
		if err := join(good.String(), first.IP); err != nil {
			t.Errorf("join with the right token: %v", err)
		}
	})
}

// TestInit_AndJoinUndoThemselves gives orders that can't work on this machine: the
// error says why, and the node is as it was.
func TestInit_AndJoinUndoThemselves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 0, Options{})
		other := c.add(2)
		taken, err := machineNetwork{c.wire, other.IP}.Listen(other.IP + ":2377")
		if err != nil {
			t.Fatal(err)
		}
		var of swarm.Swarm
		c.Machines[0].Do(http.MethodGet, "/swarm", nil, &of)
		for what, try := range map[string]func() error{
			"init": func() error {
				return other.Try(http.MethodPost, "/swarm/init", swarm.InitRequest{ListenAddr: other.IP, AdvertiseAddr: other.IP}, nil)
			},
			"join": func() error {
				return other.Try(http.MethodPost, "/swarm/join", swarm.JoinRequest{
					ListenAddr: other.IP, AdvertiseAddr: other.IP, RemoteAddrs: []string{c.Machines[0].IP}, JoinToken: of.JoinTokens.Manager,
				}, nil)
			},
		} {
			if err := try(); err == nil || !strings.Contains(err.Error(), "address already in use") {
				t.Errorf("%s with its port taken: %v", what, err)
			}
			if state := other.node.Info().LocalNodeState; state != swarm.LocalNodeStateInactive {
				t.Errorf("after a failed %s the node is %s", what, state)
			}
		}
		taken.Close()
		if err := other.Try(http.MethodPost, "/swarm/init", swarm.InitRequest{ListenAddr: other.IP, AdvertiseAddr: other.IP}, nil); err != nil {
			t.Errorf("init with its port free again: %v", err)
		}
	})
}
