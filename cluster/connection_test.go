package cluster

import (
	"crypto/tls"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNoticeSilence reads back what the kernel was told, of a connection that is wrapped as ours are.
func TestNoticeSilence(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	NoticeSilence(tls.Client(conn, &tls.Config{}))
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct{ level, option, want int }{
		"whether it asks":                      {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		"after how many seconds of silence":    {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 5},
		"every how many seconds":               {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 5},
		"how often":                            {unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
		"how many milliseconds unacknowledged": {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 20_000},
	} {
		var got int
		var failed error
		if err := raw.Control(func(fd uintptr) { got, failed = unix.GetsockoptInt(int(fd), c.level, c.option) }); err != nil || failed != nil {
			t.Fatal(err, failed)
		}
		if got != c.want {
			t.Errorf("%s: %d, want %d", what, got, c.want)
		}
	}
	ours, theirs := net.Pipe() // There is no kernel behind it.
	NoticeSilence(ours)
	ours.Close()
	theirs.Close()
}
