package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sockets are where questions of one Listen come in.
type sockets struct {
	at Listen
	// link is the bridge's number: another bridge of the same name has another one.
	link    int
	packets *net.UDPConn
	conns   *net.TCPListener

	serving sync.WaitGroup
	failed  chan struct{} // closed when one of them failed
	once    sync.Once
}

// bind opens the sockets of a Listen. They are bound to the bridge, so that what comes in elsewhere
// doesn't reach them; the address may come later than they do.
func bind(at Listen, link int) (*sockets, error) {
	control := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			if at.Bridge != "" {
				if failed = unix.BindToDevice(int(fd), at.Bridge); failed != nil {
					failed = fmt.Errorf("bind to %s (which needs CAP_NET_RAW before Linux 5.7): %w", at.Bridge, failed)
					return
				}
			}
			if at.Addr.Addr().Is4() {
				failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
			} else {
				failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1)
			}
		})
		if err != nil {
			return err
		}
		return failed
	}}
	packets, err := control.ListenPacket(context.Background(), "udp", at.Addr.String())
	if err != nil {
		return nil, err
	}
	conns, err := control.Listen(context.Background(), "tcp", at.Addr.String())
	if err != nil {
		_ = packets.Close()
		return nil, err
	}
	return &sockets{at: at, link: link, packets: packets.(*net.UDPConn), conns: conns.(*net.TCPListener), failed: make(chan struct{})}, nil
}

// serve answers what comes in, until stop.
func (k *sockets) serve(s *Server, wake func()) {
	run := func(serve func() error) {
		k.serving.Go(func() {
			if err := serve(); err != nil {
				s.cfg.Log.Warn("take questions", "addr", k.at.Addr.String(), "err", err)
				k.once.Do(func() { close(k.failed) })
				wake()
			}
		})
	}
	run(func() error { return s.ServePackets(k.packets, k.at) })
	run(func() error { return s.ServeConns(k.conns, k.at) })
}

// broken tells whether one of them failed.
func (k *sockets) broken() bool {
	select {
	case <-k.failed:
		return true
	default:
		return false
	}
}

// stop takes no more questions after d. What was taken is still answered, which serving waits for.
func (k *sockets) stop(d time.Duration) {
	_ = k.packets.SetReadDeadline(time.Now().Add(d))
	_ = k.conns.SetDeadline(time.Now().Add(d))
	go func() {
		k.serving.Wait()
		_, _ = k.packets.Close(), k.conns.Close()
	}()
}

// files are copies of the numbers of the sockets' files, the caller's to close.
func (k *sockets) files() (packets, conns int, err error) {
	if packets, err = copyOf(k.packets); err != nil {
		return 0, 0, err
	}
	if conns, err = copyOf(k.conns); err != nil {
		_ = unix.Close(packets)
		return 0, 0, err
	}
	return packets, conns, nil
}

func copyOf(conn syscall.Conn) (number int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { number, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	return number, errors.Join(err, failed)
}

// adopt makes sockets of the files that another process had them in.
func adopt(at Listen, link, packets, conns int) (*sockets, error) {
	p, c := os.NewFile(uintptr(packets), "packets"), os.NewFile(uintptr(conns), "conns")
	defer p.Close()
	defer c.Close()
	packet, err := net.FilePacketConn(p)
	if err != nil {
		return nil, err
	}
	listener, err := net.FileListener(c)
	if err != nil {
		_ = packet.Close()
		return nil, err
	}
	udp, isUDP := packet.(*net.UDPConn)
	tcp, isTCP := listener.(*net.TCPListener)
	if !isUDP || !isTCP {
		_, _ = packet.Close(), listener.Close()
		return nil, fmt.Errorf("adopt sockets of %s: they are of another kind", at.Addr)
	}
	return &sockets{at: at, link: link, packets: udp, conns: tcp, failed: make(chan struct{})}, nil
}
