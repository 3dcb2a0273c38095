package node

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"skep/cluster"
)

// leastToken is how many characters a token for metrics has at least.
const leastToken = 16

// MetricsPort is a port of its own for metrics, with nothing else. Metrics name services and nodes, so
// beyond loopback it needs TLS, a token, or both.
type MetricsPort struct {
	// Addr is IP:PORT; empty for no such port.
	Addr string
	// TLS serves with the node's certificate. Without a token, clients need one of the cluster, too.
	TLS bool
	// TokenFile has what clients must show, and is read anew at each scrape; empty for none.
	TokenFile string
	// Insecure allows anybody.
	Insecure bool
	// NoServices leaves out what names services.
	NoServices bool
}

// Check refuses a port that would be open to those it isn't for.
func (p MetricsPort) Check() error {
	if p.Addr == "" {
		if p.TLS || p.TokenFile != "" || p.Insecure || p.NoServices {
			return cluster.Errorf(cluster.ErrInvalid, "how metrics are served needs an address: --metrics-addr")
		}
		return nil
	}
	if _, err := p.token(); err != nil {
		return fmt.Errorf("--metrics-token-file %s: %w", p.TokenFile, err)
	}
	at, err := netip.ParseAddrPort(p.Addr)
	switch {
	case err != nil:
		return cluster.Errorf(cluster.ErrInvalid, "--metrics-addr %q: want IP:PORT", p.Addr)
	case p.TokenFile != "" && !p.TLS && !p.Insecure && !at.Addr().IsLoopback():
		return cluster.Errorf(cluster.ErrInvalid, "--metrics-addr %s: everybody on the way would read the token: add --metrics-tls, or --metrics-insecure if that is what you want", p.Addr)
	case !p.TLS && p.TokenFile == "" && !p.Insecure && !at.Addr().IsLoopback():
		return cluster.Errorf(cluster.ErrInvalid, "--metrics-addr %s: anybody who reaches it would see what runs here: add --metrics-tls or --metrics-token-file, or --metrics-insecure if that is what you want", p.Addr)
	}
	return nil
}

// token is what clients must show now; empty for nothing.
func (p MetricsPort) token() (string, error) {
	if p.TokenFile == "" {
		return "", nil
	}
	text, err := os.ReadFile(p.TokenFile)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	if len(token) < leastToken {
		return "", cluster.Errorf(cluster.ErrInvalid, "the token has %d characters: want at least %d", len(token), leastToken)
	}
	return token, nil
}

// listenMetrics opens the port for metrics.
func (n *Node) listenMetrics() (net.Listener, error) {
	listener, err := net.Listen("tcp", n.cfg.MetricsPort.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen for metrics on %s: %w", n.cfg.MetricsPort.Addr, err)
	}
	if n.cfg.MetricsPort.TLS {
		return tls.NewListener(listener, &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: n.metricsTLS}), nil
	}
	return listener, nil
}

// metricsTLS is what the cluster's certificates allow now. A node without any has nobody to show metrics to.
func (n *Node) metricsTLS(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	m := n.current()
	if m == nil {
		return nil, fmt.Errorf("serve metrics: %w: this node is in no cluster, or locked", cluster.ErrUnavailable)
	}
	config, err := m.credentials.ServerTLS("http/1.1").GetConfigForClient(hello)
	if err == nil && n.cfg.MetricsPort.TokenFile == "" {
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return config, err
}
