package node

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"

	"skep/cluster"
	"skep/cluster/api"
)

// ConsolePort is a port for browsers of other machines, with the console and nothing else. It is always TLS. Who has a
// token is let in, or a code that "skep console" has printed on the node.
type ConsolePort struct {
	// Addr is IP:PORT; empty for no such port.
	Addr string
	// CertFile and KeyFile are PEM, read anew at each connection; empty for the node's own certificate, which browsers
	// don't know.
	CertFile, KeyFile string
	// TokenFile lists tokens: see console.ParseTokens. It is read anew at each request. One that others than its owner
	// can write, or that everybody can read, is none. Empty for none.
	TokenFile string
}

// Check refuses what can't be served.
func (p ConsolePort) Check() error {
	if p.Addr == "" {
		if p.CertFile != "" || p.KeyFile != "" || p.TokenFile != "" {
			return cluster.Errorf(cluster.ErrInvalid, "how the console is served needs an address: --console-addr")
		}
		return nil
	}
	if _, err := netip.ParseAddrPort(p.Addr); err != nil {
		return cluster.Errorf(cluster.ErrInvalid, "--console-addr %q: want IP:PORT", p.Addr)
	}
	if (p.CertFile == "") != (p.KeyFile == "") {
		return cluster.Errorf(cluster.ErrInvalid, "--console-cert and --console-key go together")
	}
	if p.CertFile != "" {
		if _, err := tls.LoadX509KeyPair(p.CertFile, p.KeyFile); err != nil {
			return fmt.Errorf("--console-cert %s, --console-key %s: %w", p.CertFile, p.KeyFile, err)
		}
	}
	text, err := p.tokens()
	if err == nil {
		err = api.CheckConsoleTokens(text)
	}
	if err != nil {
		return fmt.Errorf("--console-token-file %s: %w", p.TokenFile, err)
	}
	return nil
}

// tokens are what the file has now.
func (p ConsolePort) tokens() ([]byte, error) {
	if p.TokenFile == "" {
		return nil, nil
	}
	file, err := os.Open(p.TokenFile)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, cluster.Errorf(cluster.ErrInvalid, "it is no file")
	case info.Mode().Perm()&othersMay != 0:
		return nil, cluster.Errorf(cluster.ErrInvalid, "its permissions are %04o, so others could read the tokens or write some: chmod 600 or 640", info.Mode().Perm())
	}
	return io.ReadAll(io.LimitReader(file, maxTokenFile))
}

const (
	// othersMay are permissions that a file of tokens mustn't give: to write to its group, anything to everybody.
	othersMay = 0o027
	// maxTokenFile bounds what is read at each request: more is no list of tokens.
	maxTokenFile = 256 << 10
)

// knows tells whether a host is a name of this machine: any address, which nobody can have a name stand for, or one
// that the certificate is for.
func (p ConsolePort) knows(host string) bool {
	if _, err := netip.ParseAddr(trimBrackets(host)); err == nil {
		return true
	}
	if p.CertFile == "" {
		return false
	}
	pair, err := tls.LoadX509KeyPair(p.CertFile, p.KeyFile)
	return err == nil && pair.Leaf.VerifyHostname(host) == nil
}

// trimBrackets is an address of IPv6 as it is without a port.
func trimBrackets(host string) string {
	if n := len(host); n > 2 && host[0] == '[' && host[n-1] == ']' {
		return host[1 : n-1]
	}
	return host
}

// listenConsole opens the port for the console.
func (n *Node) listenConsole() (net.Listener, error) {
	port := n.cfg.ConsolePort
	listener, err := net.Listen("tcp", port.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen for the console on %s: %w", port.Addr, err)
	}
	config := func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if port.CertFile == "" {
			m := n.current()
			if m == nil {
				return nil, fmt.Errorf("serve console: %w: this node is in no cluster, or locked", cluster.ErrUnavailable)
			}
			config, err := m.credentials.ServerTLS("http/1.1").GetConfigForClient(hello)
			if err == nil {
				config.ClientAuth = tls.NoClientCert // A browser would ask its user for one.
			}
			return config, err
		}
		pair, err := tls.LoadX509KeyPair(port.CertFile, port.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("serve console: %w", err)
		}
		return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{pair}}, nil
	}
	return tls.NewListener(listener, &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: config}), nil
}
