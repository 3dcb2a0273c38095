package cluster

import (
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// silentAfter is after how long without a word a connection's other end is asked whether
	// it is there, again and again, and silentLimit is how long it may stay silent then.
	silentAfter = 5 * time.Second
	silentLimit = 15 * time.Second
)

// NoticeSilence has the kernel break a connection whose other end has gone without a word,
// as a machine does that lost its power, some twenty seconds later. What waits on it needs no
// deadline then. It does nothing where there is no TCP.
func NoticeSilence(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	for !ok {
		over, more := conn.(interface{ NetConn() net.Conn }) // TLS, and what counts connections
		if !more {
			return
		}
		conn = over.NetConn()
		tcp, ok = conn.(*net.TCPConn)
	}
	// What fails here fails when the connection is broken already.
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: silentAfter, Interval: silentAfter, Count: int(silentLimit / silentAfter)})
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	// Nobody is asked while something that was sent hasn't been acknowledged.
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int((silentAfter+silentLimit)/time.Millisecond))
	})
}

// Break closes a connection at once. Closing one over TLS would first tell the other end, and
// wait seconds for one that takes nothing.
func Break(conn net.Conn) {
	if over, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = over.NetConn()
	}
	_ = conn.Close() // It is over either way.
}

// CloseWrite says to the other end that nothing more comes.
func CloseWrite(conn net.Conn) error {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return fmt.Errorf("close one direction of a connection to %s: %w", conn.RemoteAddr(), ErrUnsupported)
}
