package dns_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"go.uber.org/goleak"

	"skep/agent/network/dns"
)

// start runs a server on this machine's loopback, for an asker there.
func start(t testing.TB, exchange func(context.Context, string, *mdns.Msg, netip.AddrPort) (*mdns.Msg, error)) (server *dns.Server, at string) {
	packets, conns := listen(t)
	at = packets.LocalAddr().String()
	return serve(t, packets, conns, exchange, dns.Listen{}), at
}

func serve(t testing.TB, packets *net.UDPConn, conns *net.TCPListener, exchange func(context.Context, string, *mdns.Msg, netip.AddrPort) (*mdns.Msg, error), listen dns.Listen) *dns.Server {
	server := dns.NewServer(dns.Config{Exchange: exchange, Random: rand.New(rand.NewPCG(1, 2)), Log: slog.New(slog.DiscardHandler)})
	ended := make(chan error, 2)
	go func() { ended <- server.ServePackets(packets, listen) }()
	go func() { ended <- server.ServeConns(conns, listen) }()
	t.Cleanup(func() {
		_ = packets.SetReadDeadline(time.Now())
		_ = conns.SetDeadline(time.Now())
		for range 2 {
			if err := <-ended; err != nil {
				t.Errorf("it ended with %v", err)
			}
		}
		_, _ = packets.Close(), conns.Close()
		if t, is := t.(*testing.T); is {
			goleak.VerifyNone(t)
		}
	})
	return server
}

// listen takes a port that is free for both.
func listen(t testing.TB) (*net.UDPConn, *net.TCPListener) {
	for range 100 {
		packets, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		conns, err := net.Listen("tcp", packets.LocalAddr().String())
		if err == nil {
			return packets, conns.(*net.TCPListener)
		}
		_ = packets.Close() // Somebody's connection has the port.
	}
	t.Fatal("no port is free for UDP and TCP")
	return nil, nil
}

// here has the asker of these tests, on the network front, where "many" has 200 addresses.
func here() *dns.Names {
	n := names()
	n.Askers[netip.MustParseAddr("127.0.0.1")] = n.Askers[addr("10.0.1.5")]
	many := dns.Record{Shuffle: true}
	for i := range 200 {
		many.Addrs = append(many.Addrs, netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}))
	}
	n.Networks["front"].Names["many"] = many
	return n
}

func askServer(network, at, name string) (*mdns.Msg, error) {
	client := &mdns.Client{Net: network, Timeout: 5 * time.Second}
	reply, _, err := client.Exchange(new(mdns.Msg).SetQuestion(name, mdns.TypeA), at)
	return reply, err
}

func TestServer_Answers(t *testing.T) {
	server, at := start(t, func(_ context.Context, network string, q *mdns.Msg, resolver netip.AddrPort) (*mdns.Msg, error) {
		if resolver.Addr() != addr("198.51.100.53") {
			return nil, fmt.Errorf("asked %v", resolver)
		}
		reply := new(mdns.Msg).SetReply(q)
		reply.Answer = []mdns.RR{&mdns.A{Hdr: mdns.RR_Header{Name: q.Question[0].Name, Rrtype: mdns.TypeA, Class: mdns.ClassINET, Ttl: 60}, A: net.IPv4(203, 0, 113, 1)}}
		return reply, nil
	})
	check := func(network, name, want string) {
		t.Helper()
		reply, err := askServer(network, at, name)
		if got := told(reply, nil); err != nil || got != want {
			t.Errorf("%s by %s: %s, %v, want %s", name, network, got, err, want)
		}
	}
	check("udp", "web.", "SERVFAIL") // It knows nothing yet.
	server.Set(here())
	for _, network := range []string{"udp", "tcp"} {
		check(network, "web.", "NOERROR 10.0.1.2")
		check(network, "nobody.", "NXDOMAIN")
		check(network, "example.com.", "NOERROR 203.0.113.1")
	}
	short, err := askServer("udp", at, "many.")
	if err != nil || !short.Truncated || len(short.Answer) == 0 || len(short.Answer) >= 200 {
		t.Errorf("200 addresses by UDP: truncated %v, %d of them, %v", short.Truncated, len(short.Answer), err)
	}
	whole, err := askServer("tcp", at, "many.")
	if err != nil || whole.Truncated || len(whole.Answer) != 200 {
		t.Errorf("200 addresses by TCP: truncated %v, %d of them, %v", whole.Truncated, len(whole.Answer), err)
	}
}

// TestServer_IsntHeldUpByResolvers floods it with names of a resolver that never answers: the
// cluster's own names are answered meanwhile, and no more than a bound of the others wait.
func TestServer_IsntHeldUpByResolvers(t *testing.T) {
	var waiting, most atomic.Int64
	release := make(chan struct{})
	server, at := start(t, func(ctx context.Context, _ string, _ *mdns.Msg, _ netip.AddrPort) (*mdns.Msg, error) {
		for n := waiting.Add(1); ; {
			if was := most.Load(); n <= was || most.CompareAndSwap(was, n) {
				break
			}
		}
		defer waiting.Add(-1)
		select {
		case <-release:
		case <-ctx.Done():
		}
		return nil, errors.New("no answer")
	})
	server.Set(here())
	conn, err := net.Dial("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	packed, err := new(mdns.Msg).SetQuestion("example.com.", mdns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5000 {
		if _, err := conn.Write(packed); err != nil {
			t.Fatal(err)
		}
		if i%50 == 0 {
			if reply, err := askServer("tcp", at, "web."); err != nil || told(reply, nil) != "NOERROR 10.0.1.2" {
				t.Fatalf("after %d questions for a resolver: %v, %v", i, reply, err)
			}
		}
	}
	close(release)
	if n := most.Load(); n < 100 || n > 128 {
		t.Errorf("%d questions of one container were with the resolver at once, want at most 128, and nearly as many to show it", n)
	}
}

// TestServer_ManyQuestionsOfOneConnection asks by IPv4 where IPv6 is listened on, as many questions as a
// connection may have, all at once: each gets its answer.
func TestServer_ManyQuestionsOfOneConnection(t *testing.T) {
	l, err := net.Listen("tcp", "[::]:0")
	if err != nil {
		t.Skip("needs IPv6:", err)
	}
	packets, conns := listen(t)
	_ = conns.Close()
	server := serve(t, packets, l.(*net.TCPListener), func(_ context.Context, _ string, q *mdns.Msg, _ netip.AddrPort) (*mdns.Msg, error) {
		return new(mdns.Msg).SetRcode(q, mdns.RcodeNameError), nil
	}, dns.Listen{})
	server.Set(here())
	raw, err := net.Dial("tcp4", fmt.Sprint("127.0.0.1:", l.Addr().(*net.TCPAddr).Port))
	if err != nil {
		t.Fatal(err)
	}
	conn := &mdns.Conn{Conn: raw}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	label := strings.Repeat("l", 63) + "."
	asks := []struct{ name, want string }{
		{"WEB.", "NOERROR 10.0.1.2"}, {"nobody.", "NXDOMAIN"}, {"xn--bcher-kva.example.", "NXDOMAIN"}, {`b\195\188cher.`, "NXDOMAIN"},
		{label + label + label + label[3:], "NXDOMAIN"}, // 255 bytes on the wire
	}
	const most = 128
	for i := range most {
		q := new(mdns.Msg).SetQuestion(asks[i%len(asks)].name, mdns.TypeA)
		q.Id = uint16(i)
		if err := conn.WriteMsg(q); err != nil {
			t.Fatal(err)
		}
	}
	for i := range most {
		reply, err := conn.ReadMsg()
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		if want := asks[reply.Id%uint16(len(asks))]; told(reply, nil) != want.want || reply.Question[0].Name != want.name {
			t.Errorf("%s: %s, want %s", want.name, told(reply, nil), want.want)
		}
	}
}

// BenchmarkServer answers one name by UDP, on this machine.
func BenchmarkServer(b *testing.B) {
	server, at := start(b, nil)
	server.Set(here())
	packed, err := new(mdns.Msg).SetQuestion("web.", mdns.TypeA).Pack()
	if err != nil {
		b.Fatal(err)
	}
	b.RunParallel(func(pb *testing.PB) {
		conn, err := net.Dial("udp", at)
		if err != nil {
			b.Error(err)
			return
		}
		defer conn.Close()
		buf := make([]byte, 512)
		for pb.Next() {
			if _, err := conn.Write(packed); err != nil {
				b.Error(err)
				return
			}
			if _, err := conn.Read(buf); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// TestServer_HearsItsNetworkOnly asks where only another network is heard.
func TestServer_HearsItsNetworkOnly(t *testing.T) {
	packets, conns := listen(t)
	server := serve(t, packets, conns, nil, dns.Listen{From: netip.MustParsePrefix("10.0.1.0/24")})
	server.Set(here())
	client := &mdns.Client{Timeout: 200 * time.Millisecond}
	if reply, _, err := client.Exchange(new(mdns.Msg).SetQuestion("web.", mdns.TypeA), packets.LocalAddr().String()); err == nil {
		t.Errorf("somebody of another network is told %s", told(reply, nil))
	}
}

// TestServer_SlowResolversHoldUpNoConnection asks a name of a resolver that doesn't answer, and then one that is
// known, by one connection: the second is answered first.
func TestServer_SlowResolversHoldUpNoConnection(t *testing.T) {
	release := make(chan struct{})
	server, at := start(t, func(_ context.Context, _ string, q *mdns.Msg, _ netip.AddrPort) (*mdns.Msg, error) {
		<-release
		return new(mdns.Msg).SetRcode(q, mdns.RcodeNameError), nil
	})
	server.Set(here())
	conn, err := mdns.DialTimeout("tcp", at, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	for i, name := range []string{"example.com.", "web."} {
		q := new(mdns.Msg).SetQuestion(name, mdns.TypeA)
		q.Id = uint16(i)
		if err := conn.WriteMsg(q); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"NOERROR 10.0.1.2", "NXDOMAIN"} {
		reply, err := conn.ReadMsg()
		if got := told(reply, nil); err != nil || got != want {
			t.Fatalf("%s, %v, want %s", got, err, want)
		}
		if want != "NXDOMAIN" {
			close(release)
		}
	}
}

// TestServer_BoundsConnections opens more than one container may have.
func TestServer_BoundsConnections(t *testing.T) {
	server, at := start(t, nil)
	server.Set(here())
	served := 0
	for range 40 {
		conn, err := mdns.DialTimeout("tcp", at, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if err := conn.WriteMsg(new(mdns.Msg).SetQuestion("web.", mdns.TypeA)); err != nil {
			continue
		}
		if _, err := conn.ReadMsg(); err == nil {
			served++
		}
	}
	if served != 32 {
		t.Errorf("%d connections of one container are served, want 32", served)
	}
}

// TestExchange_TakesTheAnswerToItsQuestion has a resolver send what isn't the answer before the answer.
func TestExchange_TakesTheAnswerToItsQuestion(t *testing.T) {
	resolver, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer resolver.Close()
	other, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	go func() {
		buf := make([]byte, 4096)
		n, from, err := resolver.ReadFromUDP(buf)
		if err != nil {
			return
		}
		q := new(mdns.Msg)
		if q.Unpack(buf[:n]) != nil {
			return
		}
		send := func(by *net.UDPConn, change func(*mdns.Msg)) {
			m := new(mdns.Msg).SetRcode(q, mdns.RcodeRefused)
			change(m)
			if packed, err := m.Pack(); err == nil {
				_, _ = by.WriteToUDP(packed, from)
			}
		}
		send(other, func(*mdns.Msg) {})
		send(resolver, func(m *mdns.Msg) { m.Id++ })
		send(resolver, func(m *mdns.Msg) { m.Response = false })
		send(resolver, func(m *mdns.Msg) { m.Question[0].Name = "example.org." })
		_, _ = resolver.WriteToUDP([]byte("x"), from)
		_, _ = resolver.WriteToUDP([]byte("nothing that is a message of DNS"), from)
		q.Question[0].Name = "example.com."
		send(resolver, func(m *mdns.Msg) { m.Rcode = mdns.RcodeNameError })
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	q := new(mdns.Msg).SetQuestion("example.com.", mdns.TypeA)
	reply, err := dns.Exchange(ctx, "udp", q, resolver.LocalAddr().(*net.UDPAddr).AddrPort())
	if err != nil || reply.Rcode != mdns.RcodeNameError {
		t.Errorf("%v, %v, want the last one", reply, err)
	}
}
