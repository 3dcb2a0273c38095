package node

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// listenAPI opens one socket of the Docker Engine API: unix:///path or
// tcp://host:port. It has no authentication of its own, so TCP is for loopback
// addresses only, and group says who may use the other kind.
func listenAPI(host string, group *int) (net.Listener, error) {
	scheme, addr, ok := strings.Cut(host, "://")
	switch {
	case ok && scheme == "unix":
		return listenUnix(addr, group)
	case ok && scheme == "tcp":
		name, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", host, err)
		}
		if ip := net.ParseIP(name); name != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return nil, fmt.Errorf("listen on %s: the API gives whoever reaches it root's rights: only loopback addresses are allowed; use ssh or a TLS proxy from elsewhere", host)
		}
		listener, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", host, err)
		}
		return listener, nil
	}
	return nil, fmt.Errorf("listen on %q: want unix:///path or tcp://127.0.0.1:port", host)
}

// listenUnix opens a socket that only its owner and a group may use, the daemon's unless
// one is given. A socket that nobody answers is what a killed daemon left behind.
func listenUnix(path string, group *int) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("listen on unix://%s: %w", path, err)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		return nil, errors.Join(fmt.Errorf("listen on unix://%s: another process answers there", path), conn.Close())
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("listen on unix://%s: there is a file that is no socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("listen on unix://%s: %w", path, err)
		}
	}
	// The mask keeps the socket closed to others, and to the daemon's group where it is for
	// another one, in the moment before the Chmod.
	mask := syscall.Umask(0o177)
	listener, err := net.Listen("unix", path)
	syscall.Umask(mask)
	if err != nil {
		return nil, fmt.Errorf("listen on unix://%s: %w", path, err)
	}
	if group != nil {
		if err := os.Chown(path, -1, *group); err != nil {
			return nil, errors.Join(fmt.Errorf("protect unix://%s: %w", path, err), listener.Close())
		}
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(fmt.Errorf("protect unix://%s: %w", path, err), listener.Close())
	}
	return listener, nil
}
