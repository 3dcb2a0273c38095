package up

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Ports are tried, not guessed: one process listens on each machine, and ends with the ssh session that
// holds its standard input; another one on each machine asks those of all others for a nonce.

const (
	controlPort = "2377/tcp"
	gossipTCP   = "7946/tcp"
	gossipUDP   = "7946/udp"
)

// dataPort is that of networks that span nodes.
func dataPort(n int) string {
	if n == 0 {
		n = 4789
	}
	return strconv.Itoa(n) + "/udp"
}

const (
	// dialLimit is how long a port may take to answer.
	dialLimit = 3 * time.Second
	// tries is how often a packet is sent, since one may be lost.
	tries = 4
	// mostNonce bounds what is read of a stranger.
	mostNonce = 128
)

// Listening is what a listener says when it is ready: the ports that somebody else has.
type Listening struct{ Taken []string }

// Listen answers at ports for who knows the nonce, which is the first line of in, until in ends.
// Somebody else's ports are said.
func Listen(ctx context.Context, ports []string, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lines := bufio.NewReader(io.LimitReader(in, 1<<20))
	nonce, err := lines.ReadString('\n')
	if nonce = strings.TrimSpace(nonce); err != nil || len(nonce) < 16 || len(nonce) > mostNonce {
		return errors.New("listen: want a nonce on standard input")
	}
	var open []io.Closer
	var work sync.WaitGroup
	said := Listening{Taken: []string{}}
	for _, p := range ports {
		port, proto, _ := strings.Cut(p, "/")
		switch proto {
		case "tcp":
			l, err := new(net.ListenConfig).Listen(ctx, "tcp", ":"+port)
			if err != nil {
				said.Taken = append(said.Taken, p)
				continue
			}
			open = append(open, l)
			work.Go(func() { answerTCP(l, nonce) })
		case "udp":
			l, err := new(net.ListenConfig).ListenPacket(ctx, "udp", ":"+port)
			if err != nil {
				said.Taken = append(said.Taken, p)
				continue
			}
			open = append(open, l)
			work.Go(func() { answerUDP(l, nonce) })
		}
	}
	err = json.NewEncoder(out).Encode(said)
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, lines)
		close(ended)
	}()
	if err == nil {
		select {
		case <-ended:
		case <-ctx.Done():
		}
	}
	for _, l := range open {
		_ = l.Close()
	}
	work.Wait()
	return err
}

func answerTCP(l net.Listener, nonce string) {
	limit := make(chan struct{}, 64)
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		select {
		case limit <- struct{}{}:
		default:
			_ = conn.Close()
			continue
		}
		go func() {
			defer func() { _ = conn.Close(); <-limit }()
			_ = conn.SetDeadline(time.Now().Add(dialLimit))
			asked := make([]byte, len(nonce))
			if _, err := io.ReadFull(conn, asked); err == nil && string(asked) == nonce {
				_, _ = conn.Write(asked)
			}
		}()
	}
}

func answerUDP(l net.PacketConn, nonce string) {
	packet := make([]byte, 64<<10)
	for {
		n, from, err := l.ReadFrom(packet)
		if err != nil {
			return
		}
		// No more is answered than was asked, and nothing to who doesn't know it.
		if bytes.HasPrefix(packet[:n], []byte(nonce)) {
			_, _ = l.WriteTo(packet[:len(nonce)], from)
		}
	}
}

// Target is a port of another machine to try.
type Target struct {
	To, Addr, Port string
	// Held tells that a daemon has it, which needn't know the nonce.
	Held bool `json:",omitempty"`
	// Size is how large a packet is that is tried beside a small one; 0 for none.
	Size int `json:",omitempty"`
}

// Asking is what a dialer is told by standard input.
type Asking struct {
	Nonce   string
	Targets []Target
}

// Dial tries all targets at once and says which can't be reached.
func Dial(ctx context.Context, asking Asking) []Cut {
	var mu sync.Mutex // guards cuts
	cuts := []Cut{}
	var work sync.WaitGroup
	limit := make(chan struct{}, 128)
	for _, t := range asking.Targets {
		work.Go(func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			why, large := t.try(ctx, asking.Nonce)
			if why == "" {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			cuts = append(cuts, Cut{t.To, t.Addr, t.Port, why, large})
		})
	}
	work.Wait()
	return cuts
}

// try says why the target can't be reached, and whether that is so for large packets only.
func (t Target) try(ctx context.Context, nonce string) (why string, large bool) {
	port, proto, _ := strings.Cut(t.Port, "/")
	addr := net.JoinHostPort(t.Addr, port)
	if proto == "tcp" {
		return t.tcp(ctx, addr, nonce), false
	}
	if why := packets(ctx, addr, nonce, 0); why != "" {
		return why, false
	}
	if t.Size > 0 {
		if why := packets(ctx, addr, nonce, t.Size); why != "" {
			return why, true
		}
	}
	return "", false
}

func (t Target) tcp(ctx context.Context, addr, nonce string) string {
	conn, err := (&net.Dialer{Timeout: dialLimit}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return reason(err)
	}
	defer conn.Close()
	if t.Held {
		return ""
	}
	_ = conn.SetDeadline(time.Now().Add(dialLimit))
	if _, err := conn.Write([]byte(nonce)); err != nil {
		return reason(err)
	}
	answer := make([]byte, len(nonce))
	if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != nonce {
		return "another machine or program answers"
	}
	return ""
}

// packets sends some until one is answered, none of which may be cut into pieces.
func packets(ctx context.Context, addr, nonce string, size int) string {
	dialer := net.Dialer{Timeout: dialLimit, Control: func(network, _ string, raw syscall.RawConn) error {
		var set error
		err := raw.Control(func(fd uintptr) {
			if network == "udp6" {
				set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
			} else {
				set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
			}
		})
		return errors.Join(err, set)
	}}
	conn, err := dialer.DialContext(ctx, "udp", addr)
	if err != nil {
		return reason(err)
	}
	defer conn.Close()
	packet := make([]byte, max(size, len(nonce)))
	copy(packet, nonce)
	answer, why := make([]byte, len(nonce)), "no answer"
	for range tries {
		if _, err := conn.Write(packet); err != nil {
			why = reason(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(dialLimit / tries))
		n, err := conn.Read(answer)
		switch {
		case err == nil && string(answer[:n]) == nonce:
			return ""
		case err == nil:
			return "another machine or program answers"
		case !errors.Is(err, os.ErrDeadlineExceeded):
			why = reason(err)
			time.Sleep(dialLimit / tries)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return why
}

// reason is an error of the kernel's in few words.
func reason(err error) string {
	for no, words := range map[syscall.Errno]string{
		syscall.ECONNREFUSED: "refused", syscall.EHOSTUNREACH: "no route", syscall.ENETUNREACH: "no route",
		syscall.EMSGSIZE: "too large", syscall.ECONNRESET: "cut off", syscall.EACCES: "forbidden", syscall.EPERM: "forbidden by this machine's firewall",
	} {
		if errors.Is(err, no) {
			return words
		}
	}
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		return "no answer"
	}
	return fmt.Sprint(err)
}

// headers are what is before a packet's content, of the interface's MTU.
func headers(addr string) int {
	if strings.Contains(addr, ":") {
		return 40 + 8
	}
	return 20 + 8
}

// targets are the ports that one machine tries of all others. Managers' 2377 is asked of all, since
// every node reaches every manager.
func targets(l List, w World, from string, held map[string][]string) (all []Target) {
	mtu := 0
	for _, m := range l.Machines {
		s := w[m.Host]
		if addr, err := address(m, s); m.Host == from && err == nil {
			for _, a := range s.Addresses {
				if a.IP.String() == addr {
					mtu = a.MTU
				}
			}
		}
	}
	data := dataPort(portOf(w))
	for _, m := range l.Machines {
		s := w[m.Host]
		addr, err := address(m, s)
		if m.Host == from || s.Err != "" || err != nil {
			continue
		}
		ports := []string{gossipTCP, gossipUDP, data}
		if m.Role == "manager" {
			ports = append(ports, controlPort)
		}
		for _, p := range ports {
			t := Target{To: m.Host, Addr: addr, Port: p}
			for _, h := range held[m.Host] {
				t.Held = t.Held || h == p
			}
			if t.Held && (strings.HasSuffix(p, "/udp") || !member(s)) {
				continue // Who has it answers no nonce; another program's is a problem already.
			}
			if p == data && mtu > 0 {
				t.Size = mtu - headers(addr)
			}
			all = append(all, t)
		}
	}
	return all
}

// portOf is the cluster's port for networks, if there is one.
func portOf(w World) int {
	for _, s := range w {
		if s.Cluster != nil && s.Cluster.DataPort != 0 {
			return s.Cluster.DataPort
		}
	}
	return 0
}

// asked are the ports that a machine listens at.
func asked(w World) []string { return []string{controlPort, gossipTCP, gossipUDP, dataPort(portOf(w))} }
