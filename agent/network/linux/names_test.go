package linux_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"skep/agent/network"
	"skep/agent/network/dns"
)

func answerNames(file string) error {
	return dns.Process(context.Background(), dns.ProcessConfig{File: file, Build: "1", Now: time.Now, Random: rand.New(rand.NewPCG(1, 2)), Log: slog.Default()})
}

// holdPort has port 53 as a resolver of the node's own has.
func holdPort() error {
	packets, err := net.ListenPacket("udp4", "0.0.0.0:53")
	if err != nil {
		return err
	}
	defer packets.Close()
	l, err := net.Listen("tcp4", "0.0.0.0:53")
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Println("ready")
	select {}
}

func query(protocol, server, name string) error {
	client := &mdns.Client{Net: protocol, Timeout: time.Second}
	reply, _, err := client.Exchange(new(mdns.Msg).SetQuestion(name, mdns.TypeA), server)
	if err != nil {
		return err
	}
	fmt.Print(mdns.RcodeToString[reply.Rcode])
	for _, rr := range reply.Answer {
		if a, is := rr.(*mdns.A); is {
			fmt.Print(" ", a.A)
		}
	}
	return nil
}

// names is what a container is told, by a protocol, by whoever is at an address.
func (r *rack) names(from, protocol, server, name string) string {
	out, err := r.as(roleQuery, from, protocol, server, name).Output()
	if err != nil {
		return "no answer"
	}
	return string(out)
}

// TestPackets_AskForNames has containers ask their gateways, while the node's own resolver has port
// 53 at all addresses: each learns the names of its own networks, and only those.
func TestPackets_AskForNames(t *testing.T) {
	r := newRack(t, "h1")
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	front := network.Network{
		ID: "front", VNI: 4098, MTU: 1450, Subnets: []network.Subnet{{Prefix: prefix("10.0.1.0/24"), Gateway: addr("10.0.1.1")}},
		Endpoints: []network.Endpoint{{Addrs: []netip.Addr{addr("10.0.1.5")}, Node: 1}, {Addrs: []netip.Addr{addr("10.0.1.6")}, Node: 1}},
		Services:  []network.Service{{VIP: addr("10.0.1.2")}},
	}
	back := network.Network{
		ID: "back", VNI: 4099, MTU: 1450, Internal: true, Subnets: []network.Subnet{{Prefix: prefix("10.0.2.0/24"), Gateway: addr("10.0.2.1")}},
		Endpoints: []network.Endpoint{{Addrs: []netip.Addr{addr("10.0.2.6")}, Node: 1}},
	}
	file := filepath.Join(t.TempDir(), "names")
	n := &dns.Names{
		Complete: true,
		Askers: map[netip.Addr]*dns.Asker{
			addr("10.0.1.5"): {Networks: []string{"front"}}, addr("10.0.1.6"): {Networks: []string{"front", "back"}}, addr("10.0.2.6"): {Networks: []string{"front", "back"}},
		},
		Networks: map[string]*dns.Network{
			"front": {Subnets: []netip.Prefix{prefix("10.0.1.0/24")}, Names: map[string]dns.Record{"web": {Addrs: []netip.Addr{addr("10.0.1.2")}}}},
			"back":  {Subnets: []netip.Prefix{prefix("10.0.2.0/24")}, Names: map[string]dns.Record{"db": {Addrs: []netip.Addr{addr("10.0.2.2")}}}},
		},
		Resolvers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")},
	}
	for _, w := range []network.Network{front, back} {
		n.Listen = append(n.Listen, dns.Listen{Addr: netip.AddrPortFrom(w.Subnets[0].Gateway, network.NamesPort), Bridge: w.Bridge(), From: w.Subnets[0].Prefix})
	}
	if err := dns.WriteFile(file, n); err != nil {
		t.Fatal(err)
	}
	hold := r.as(roleHold, "h1")
	ready, err := hold.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	server := r.as(roleNames, "h1", file) // before there is any bridge
	server.Stderr = os.Stderr
	for _, c := range []*exec.Cmd{hold, server} {
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Process.Signal(syscall.SIGKILL); _ = c.Wait() })
	}
	if _, err := bufio.NewReader(ready).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	r.each(func(w *network.Wanted) { w.Networks = []network.Network{front, back} })
	r.settle()
	r.container("a", "h1", "10.0.1.5")
	r.container("b", "h1", "10.0.1.6", "10.0.2.6")
	r.settle()
	for end := time.Now().Add(10 * time.Second); r.names("a", "udp", "10.0.1.1:53", "web.") == "no answer" && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	for _, protocol := range []string{"udp", "tcp"} {
		for _, test := range []struct{ from, server, name, want string }{
			{"a", "10.0.1.1:53", "web.", "NOERROR 10.0.1.2"},
			{"a", "10.0.1.1:53", "db.", "NXDOMAIN"},
			{"b", "10.0.1.1:53", "db.", "NOERROR 10.0.2.2"},
			{"b", "10.0.2.1:53", "web.", "NOERROR 10.0.1.2"},
			{"a", fmt.Sprint("10.0.1.1:", network.NamesPort), "web.", "NOERROR 10.0.1.2"},
			// Not of another network's gateway, a virtual IP, or the node.
			{"a", "10.0.2.1:53", "web.", "no answer"},
			{"a", fmt.Sprint("10.0.2.1:", network.NamesPort), "web.", "no answer"},
			{"a", "10.0.1.2:53", "web.", "no answer"},
			{"a", wire + "1:53", "web.", "no answer"},
		} {
			if got := r.names(test.from, protocol, test.server, test.name); got != test.want {
				t.Errorf("%s asks %s by %s for %s: %s, want %s", test.from, test.server, protocol, test.name, got, test.want)
			}
		}
	}
	// A bridge of the same name that is another one.
	r.in("h1", "ip", "link", "del", front.Bridge())
	r.settle()
	r.in("h1", "ip", "link", "set", "v0a", "master", front.Bridge(), "up")
	got := ""
	for end := time.Now().Add(10 * time.Second); got != "NOERROR 10.0.1.2" && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		got = r.names("a", "udp", "10.0.1.1:53", "web.")
	}
	if got != "NOERROR 10.0.1.2" {
		t.Errorf("after the bridge was made anew: %s", got)
	}
}
