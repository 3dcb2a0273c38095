package linux_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"skep/agent/network"
	"skep/agent/network/linux"
)

// The roles in which this test's binary runs in other namespaces.
const (
	role      = "SKEP_TEST_ROLE"
	rolePlane = "plane" // settles what standard input has, as JSON
	roleServe = "serve" // answers by TCP and UDP on port 80 with its name and the caller's address
	roleAsk   = "ask"   // asks an address and prints the answer
	roleForge = "forge" // sends a VXLAN packet of network 4098 from an address to another, for 10.0.1.5
)

func play(as string) error {
	switch as {
	case rolePlane:
		var w network.Wanted
		if err := json.NewDecoder(os.Stdin).Decode(&w); err != nil {
			return err
		}
		return settleNow(context.Background(), linux.New(slog.Default()), &w)
	case roleServe:
		return serve(os.Args[1])
	case roleAsk:
		said, err := ask(os.Args[1], os.Args[2])
		fmt.Print(said)
		return err
	case roleForge:
		return forge(os.Args[1], os.Args[2])
	}
	return fmt.Errorf("no role %s", as)
}

// serve answers each line of a connection, and each packet.
func serve(name string) error {
	packets, err := net.ListenPacket("udp", ":80")
	if err != nil {
		return err
	}
	go func() {
		buf := make([]byte, 100)
		for {
			_, from, err := packets.ReadFrom(buf)
			if err != nil {
				return
			}
			fmt.Fprint(writerTo{packets, from}, name, " ", from.(*net.UDPAddr).IP)
		}
	}()
	l, err := net.Listen("tcp", ":80")
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			for in := bufio.NewScanner(conn); in.Scan(); {
				fmt.Fprintln(conn, name, conn.RemoteAddr().(*net.TCPAddr).IP)
			}
		}()
	}
}

// forge sends a VXLAN packet as any program can.
func forge(from, to string) error {
	conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(to), 4789)))
	if err != nil {
		return err
	}
	defer conn.Close()
	mac := network.EndpointMAC(netip.MustParseAddr("10.0.1.5"))
	packet := append([]byte{8, 0, 0, 0, 0, 0x10, 0x02, 0}, mac[:]...)
	packet = append(packet, 2, 0, 0, 0, 0, 1, 8, 0)
	_, err = conn.Write(append(packet, make([]byte, 46)...))
	return err
}

type writerTo struct {
	net.PacketConn
	to net.Addr
}

func (w writerTo) Write(p []byte) (int, error) { return w.WriteTo(p, w.to) }

// ask asks once, and waits for a second at most.
func ask(protocol, addr string) (string, error) {
	conn, err := net.DialTimeout(protocol, addr, time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if protocol == "ip4:icmp" {
		if _, err := conn.Write([]byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}); err != nil { // an echo request
			return "", err
		}
		answer := make([]byte, 100)
		n, err := conn.Read(answer)
		const header = 20
		if err == nil && (n < header+8 || answer[header] != 0) {
			err = fmt.Errorf("ICMP type %d", answer[header])
		}
		return "echo", err
	}
	if _, err := fmt.Fprintln(conn, "who?"); err != nil {
		return "", err
	}
	buf := make([]byte, 100)
	n, err := conn.Read(buf)
	return strings.TrimSpace(string(buf[:n])), err
}

// rack is some hosts on one wire, each a network namespace, with containers in namespaces of
// their own.
type rack struct {
	*testing.T
	wanted map[string]*network.Wanted // by host
}

// wire is where the hosts and outside clients are.
const wire = "192.0.2."

func newRack(t *testing.T, hosts ...string) *rack {
	kernel(t)
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs iproute2")
	}
	r := &rack{t, map[string]*network.Wanted{}}
	r.run("ip", "link", "add", "wire", "type", "bridge")
	r.run("ip", "link", "set", "wire", "up")
	t.Cleanup(func() { r.run("ip", "link", "del", "wire") })
	for i, host := range hosts {
		r.namespace(host, wire+fmt.Sprint(i+1)+"/24")
		r.in(host, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
		w := &network.Wanted{
			Cluster: "c", Self: network.Node{Index: uint16(i + 1), Addr: netip.MustParseAddr(wire + fmt.Sprint(i+1))}, DataPort: 4789, Seed: 7,
			Marks: network.Marks{Peer: 0x3ff00000, LocalClient: 0x40000000},
		}
		for _, other := range r.wanted {
			w.Nodes = append(w.Nodes, other.Self)
			other.Nodes = append(other.Nodes, w.Self)
		}
		r.wanted[host] = w
	}
	return r
}

// namespace makes a namespace with an address on the wire.
func (r *rack) namespace(name, addr string) {
	r.run("ip", "netns", "add", name)
	r.Cleanup(func() { r.run("ip", "netns", "del", name) })
	r.in(name, "ip", "link", "set", "lo", "up")
	if addr != "" {
		r.Cleanup(func() { r.run("ip", "link", "del", "w-"+name) }) // The kernel removes a namespace later.
		r.run("ip", "link", "add", "w-"+name, "type", "veth", "peer", "name", "eth0", "netns", name)
		r.run("ip", "link", "set", "w-"+name, "master", "wire", "up")
		r.in(name, "ip", "addr", "add", addr, "dev", "eth0")
		r.in(name, "ip", "link", "set", "eth0", "up")
	}
}

// container makes a container of a host, on some networks by its addresses there, with the first one's
// gateway, and has it serve.
func (r *rack) container(name, host string, addrs ...string) {
	r.Helper()
	r.namespace(name, "")
	for i, addr := range addrs {
		n := r.network(host, netip.MustParseAddr(addr))
		port, inside := fmt.Sprintf("v%d%s", i, name), fmt.Sprintf("eth%d", i)
		mac := network.EndpointMAC(netip.MustParseAddr(addr)).String()
		r.in(host, "ip", "link", "add", port, "type", "veth", "peer", "name", inside, "netns", name)
		r.in(host, "ip", "link", "set", port, "master", n.Bridge(), "up")
		r.in(name, "ip", "link", "set", inside, "address", mac, "up")
		r.in(name, "ip", "addr", "add", addr+"/24", "dev", inside)
		if i == 0 {
			r.in(name, "ip", "route", "add", "default", "via", n.Subnets[0].Gateway.String())
		}
	}
	r.serves(name)
}

// serves has a namespace answer with its name.
func (r *rack) serves(name string) {
	r.Helper()
	server := r.as(roleServe, name, name)
	out, err := server.StdoutPipe()
	if err != nil {
		r.Fatal(err)
	}
	server.Stderr = os.Stderr
	if err := server.Start(); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		r.Fatal(err)
	}
}

// network is the network of a host that has the address.
func (r *rack) network(host string, addr netip.Addr) *network.Network {
	networks := r.wanted[host].Networks
	i := slices.IndexFunc(networks, func(n network.Network) bool { return n.Subnets[0].Prefix.Contains(addr) })
	if i < 0 {
		r.Fatalf("%s has no network for %s", host, addr)
	}
	return &networks[i]
}

// settle has all hosts' kernels be as they should.
func (r *rack) settle() {
	r.Helper()
	for host, w := range r.wanted {
		account, err := json.Marshal(w)
		if err != nil {
			r.Fatal(err)
		}
		plane := r.as(rolePlane, host)
		plane.Stdin = bytes.NewReader(account)
		if out, err := plane.CombinedOutput(); err != nil {
			r.Fatalf("%s: %v\n%s", host, err, out)
		}
	}
}

// datagrams is how many packets of UDP came to a namespace.
func (r *rack) datagrams(namespace string) string {
	r.Helper()
	out, err := exec.Command("ip", "netns", "exec", namespace, "cat", "/proc/net/snmp").Output()
	if err != nil {
		r.Fatal(err)
	}
	lines := slices.DeleteFunc(strings.Split(string(out), "\n"), func(line string) bool { return !strings.HasPrefix(line, "Udp: ") })
	return strings.Fields(lines[1])[1] // The first line has the names.
}

// each changes the account of every host.
func (r *rack) each(change func(*network.Wanted)) {
	for _, w := range r.wanted {
		change(w)
	}
}

// as runs this binary in a namespace.
func (r *rack) as(what, namespace string, args ...string) *exec.Cmd {
	c := exec.Command("ip", append([]string{"netns", "exec", namespace, "/proc/self/exe"}, args...)...)
	self, err := os.Executable()
	if err != nil {
		r.Fatal(err)
	}
	c.Args[4] = self
	c.Env = append(os.Environ(), role+"="+what)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

func (r *rack) in(namespace string, command ...string) {
	r.Helper()
	r.run("ip", append([]string{"netns", "exec", namespace}, command...)...)
}

func (r *rack) run(name string, args ...string) {
	r.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		r.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// asks has somebody ask an address n times, and lists what different answers came.
func (r *rack) asks(from, protocol, addr string, n int) []string {
	r.Helper()
	var answers []string
	for range n {
		out, err := r.as(roleAsk, from, protocol, addr).Output()
		said := string(out)
		if err != nil {
			said = "no answer"
		}
		if !slices.Contains(answers, said) {
			answers = append(answers, said)
		}
	}
	slices.Sort(answers)
	return answers
}

// want fails unless the answers are these.
func (r *rack) want(from, protocol, addr string, n int, want ...string) {
	r.Helper()
	if got := r.asks(from, protocol, addr, n); !slices.Equal(got, want) {
		r.Errorf("%s asks %s %s: %q, want %q", from, protocol, addr, got, want)
	}
}

// TestPackets_GoWhereTheyShould has containers on three hosts talk to each other, to virtual
// IPs, and clients from outside to published ports.
func TestPackets_GoWhereTheyShould(t *testing.T) {
	r := newRack(t, "h1", "h2", "h3")
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	ingress := network.Network{
		ID: "ingress", VNI: 4097, MTU: 1450, Ingress: true, Subnets: []network.Subnet{{Prefix: prefix("10.255.0.0/24"), Gateway: addr("10.255.0.1")}},
		Endpoints: []network.Endpoint{{Addrs: []netip.Addr{addr("10.255.0.5")}, Node: 1}, {Addrs: []netip.Addr{addr("10.255.0.6")}, Node: 2}},
	}
	web := network.Network{
		ID: "web", VNI: 4098, MTU: 1450, Subnets: []network.Subnet{{Prefix: prefix("10.0.1.0/24"), Gateway: addr("10.0.1.1")}},
		Endpoints: []network.Endpoint{{Addrs: []netip.Addr{addr("10.0.1.5")}, Node: 1}, {Addrs: []netip.Addr{addr("10.0.1.6")}, Node: 2}, {Addrs: []netip.Addr{addr("10.0.1.7")}, Node: 3}},
		Services:  []network.Service{{VIP: addr("10.0.1.2"), Backends: []netip.Addr{addr("10.0.1.5"), addr("10.0.1.6")}}, {VIP: addr("10.0.1.3")}},
	}
	back := network.Network{
		ID: "back", VNI: 4099, MTU: 1450, Internal: true, Subnets: []network.Subnet{{Prefix: prefix("10.0.2.0/24"), Gateway: addr("10.0.2.1")}},
		Endpoints: []network.Endpoint{{Addrs: []netip.Addr{addr("10.0.2.5")}, Node: 1}, {Addrs: []netip.Addr{addr("10.0.2.6")}, Node: 3}},
	}
	port := func(protocol string) network.Port {
		return network.Port{Protocol: protocol, Published: 8080, Target: 80, Backends: []netip.Addr{addr("10.255.0.5"), addr("10.255.0.6")}}
	}
	r.each(func(w *network.Wanted) {
		w.Networks = []network.Network{ingress, web, back}
		one := port("tcp")
		one.Published, one.HostIP = 9090, addr(wire+"1")
		w.Ports = []network.Port{port("tcp"), port("udp"), one}
	})
	r.settle()
	r.container("a", "h1", "10.255.0.5", "10.0.1.5")
	r.container("b", "h2", "10.255.0.6", "10.0.1.6")
	r.container("c", "h3", "10.0.1.7")
	r.container("i1", "h1", "10.0.2.5")
	r.container("i3", "h3", "10.0.2.6")
	r.namespace("out", wire+"100/24")
	r.settle() // The containers' ports are there now.

	for _, protocol := range []string{"tcp", "udp"} {
		r.want("c", protocol, "10.0.1.5:80", 1, "a 10.0.1.7")
		r.want("c", protocol, "10.0.1.2:80", 12, "a 10.0.1.7", "b 10.0.1.7")
		// One's own virtual IP may lead to oneself.
		r.want("a", protocol, "10.0.1.2:80", 12, "a 10.0.1.1", "b 10.0.1.5")
		for _, host := range []string{"1", "2", "3"} {
			r.want("out", protocol, wire+host+":8080", 12, "a "+wire+"100", "b "+wire+"100")
		}
		// From the node itself, and from a container on it.
		r.want("h3", protocol, wire+"3:8080", 12, "a "+wire+"3", "b "+wire+"3")
		r.want("h3", protocol, "127.0.0.1:8080", 12, "a "+wire+"3", "b "+wire+"3")
		r.want("c", protocol, wire+"3:8080", 12, "a "+wire+"3", "b "+wire+"3")
		r.want("c", protocol, wire+"1:8080", 12, "a "+wire+"3", "b "+wire+"3")
		// What asks another node is balanced by its own.
		r.want("h1", protocol, wire+"3:8080", 12, "a "+wire+"1", "b "+wire+"1")
		// Within an internal network, and not out of it.
		r.want("i1", protocol, "10.0.2.6:80", 1, "i3 10.0.2.5")
		r.want("i1", protocol, "10.0.1.5:80", 1, "no answer")
		r.want("c", protocol, "10.0.2.6:80", 1, "no answer")
	}
	// A port of one address is of that one only, for whoever asks.
	r.want("out", "tcp", wire+"1:9090", 12, "a "+wire+"100", "b "+wire+"100")
	r.want("out", "tcp", wire+"2:9090", 1, "no answer")
	r.want("h1", "tcp", wire+"1:9090", 12, "a "+wire+"1", "b "+wire+"1")
	r.want("h1", "tcp", "127.0.0.1:9090", 1, "no answer")
	// A virtual IP that nobody serves is refused at once, and isn't the node.
	for _, protocol := range []string{"tcp", "udp"} {
		begin := time.Now()
		r.want("c", protocol, "10.0.1.3:80", 1, "no answer")
		if took := time.Since(begin); took > 700*time.Millisecond {
			t.Errorf("a virtual IP without backends refused by %s after %v", protocol, took)
		}
	}
	r.want("c", "ip4:icmp", "10.0.1.2", 1, "echo")
	r.want("c", "ip4:icmp", "10.0.1.3", 1, "echo")
	// Whoever isn't on the network doesn't reach its virtual IPs.
	r.want("i1", "tcp", "10.0.1.2:80", 2, "no answer")
	// Not a single packet gets into an internal network, or out of it.
	r.serves("out")
	r.in("out", "ip", "route", "add", "10.0.2.0/24", "via", wire+"1")
	into, outOf := r.datagrams("i1"), r.datagrams("out")
	r.want("out", "udp", "10.0.2.5:80", 1, "no answer")
	r.want("i1", "udp", wire+"100:80", 1, "no answer")
	if got := r.datagrams("i1"); got != into {
		t.Errorf("%s packets came into an internal network, after %s", got, into)
	}
	if got := r.datagrams("out"); got != outOf {
		t.Errorf("%s packets came out of an internal network, after %s", got, outOf)
	}
	// A node that hasn't heard of the port yet asks another, and is answered by a task of its own.
	r.wanted["h2"].Ports = nil
	r.settle()
	r.want("h2", "tcp", wire+"1:8080", 12, "a "+wire+"1", "b "+wire+"1")
}

// TestPackets_ConnectionsOutliveAnUpdate holds a connection while its backend is taken out of
// the list, and while the plane is planned anew.
func TestPackets_ConnectionsOutliveAnUpdate(t *testing.T) {
	r := newRack(t, "h1", "h2")
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	web := network.Network{
		ID: "web", VNI: 4098, MTU: 1450, Subnets: []network.Subnet{{Prefix: prefix("10.0.1.0/24"), Gateway: addr("10.0.1.1")}},
		Endpoints: []network.Endpoint{{Addrs: []netip.Addr{addr("10.0.1.5")}, Node: 1}, {Addrs: []netip.Addr{addr("10.0.1.6")}, Node: 2}, {Addrs: []netip.Addr{addr("10.0.1.7")}, Node: 2}},
		Services:  []network.Service{{VIP: addr("10.0.1.2"), Backends: []netip.Addr{addr("10.0.1.6")}}},
	}
	r.each(func(w *network.Wanted) { w.Networks = []network.Network{web} })
	r.settle()
	r.container("a", "h1", "10.0.1.5")
	r.container("b", "h2", "10.0.1.6")
	r.container("c", "h2", "10.0.1.7")
	r.settle()
	// cat keeps the connection: a line a second, and their answers.
	held := exec.Command("ip", "netns", "exec", "a", "bash", "-c", `exec 3<>/dev/tcp/10.0.1.2/80; while read x; do echo $x >&3; read -t 2 answer <&3 || exit 1; echo $answer; done`)
	in, _ := held.StdinPipe()
	out, _ := held.StdoutPipe()
	if err := held.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Process.Kill(); _ = held.Wait() }()
	answers := bufio.NewReader(out)
	say := func(when string) {
		t.Helper()
		if _, err := io.WriteString(in, "who?\n"); err != nil {
			t.Fatal(err)
		}
		if answer, err := answers.ReadString('\n'); err != nil || !strings.HasPrefix(answer, "b ") {
			t.Fatalf("%s: %q, %v", when, answer, err)
		}
	}
	say("at first")
	r.each(func(w *network.Wanted) { w.Networks[0].Services[0].Backends = []netip.Addr{addr("10.0.1.7")} })
	r.settle()
	say("after its backend was drained")
	r.want("a", "tcp", "10.0.1.2:80", 5, "c 10.0.1.5")
	// A table of another form is in the place of this one, in one transaction.
	r.each(func(w *network.Wanted) { w.Marks.LocalClient = 0x80000000 })
	r.settle()
	say("after the table was replaced")
	r.want("a", "tcp", "10.0.1.2:80", 5, "c 10.0.1.5")
}

// TestPackets_OfIPv6 is what goes where it should, by IPv6, over tunnels of IPv4.
func TestPackets_OfIPv6(t *testing.T) {
	r := newRack(t, "h1", "h2", "h3")
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	both := func(v4, v6 string) []network.Subnet {
		return []network.Subnet{
			{Prefix: prefix(v4 + "0/24"), Gateway: addr(v4 + "1")},
			{Prefix: prefix(v6 + "/64"), Gateway: addr(v6 + "1")},
		}
	}
	ingress := network.Network{
		ID: "ingress", VNI: 4097, MTU: 1450, Ingress: true, Subnets: both("10.255.0.", "fd00:ff::"),
		Endpoints: []network.Endpoint{{Addrs: []netip.Addr{addr("10.255.0.5"), addr("fd00:ff::5")}, Node: 1}, {Addrs: []netip.Addr{addr("10.255.0.6"), addr("fd00:ff::6")}, Node: 2}},
	}
	web := network.Network{
		ID: "web", VNI: 4098, MTU: 1450, Subnets: both("10.0.1.", "fd00:1::"),
		Endpoints: []network.Endpoint{
			{Addrs: []netip.Addr{addr("10.0.1.5"), addr("fd00:1::5")}, Node: 1}, {Addrs: []netip.Addr{addr("10.0.1.6"), addr("fd00:1::6")}, Node: 2},
			{Addrs: []netip.Addr{addr("10.0.1.7"), addr("fd00:1::7")}, Node: 3},
		},
		Services: []network.Service{{VIP: addr("fd00:1::2"), Backends: []netip.Addr{addr("fd00:1::5"), addr("fd00:1::6")}}, {VIP: addr("fd00:1::3")}},
	}
	r.each(func(w *network.Wanted) {
		w.Networks = []network.Network{ingress, web}
		w.Ports = []network.Port{{Protocol: "tcp", Published: 8080, Target: 80, Backends: []netip.Addr{addr("fd00:ff::5"), addr("fd00:ff::6")}}}
	})
	for i, host := range []string{"h1", "h2", "h3"} {
		r.in(host, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
		r.in(host, "ip", "addr", "add", fmt.Sprintf("fd99::%d/64", i+1), "dev", "eth0", "nodad")
	}
	r.settle()
	r.container("a", "h1", "10.255.0.5", "10.0.1.5")
	r.container("b", "h2", "10.255.0.6", "10.0.1.6")
	r.container("c", "h3", "10.0.1.7")
	for name, links := range map[string][]string{"a": {"fd00:ff::5", "fd00:1::5"}, "b": {"fd00:ff::6", "fd00:1::6"}, "c": {"fd00:1::7"}} {
		for i, own := range links {
			r.in(name, "ip", "addr", "add", own+"/64", "dev", fmt.Sprint("eth", i), "nodad")
		}
		r.in(name, "ip", "route", "add", "default", "via", links[0][:len(links[0])-1]+"1")
	}
	r.namespace("out", wire+"100/24")
	r.in("out", "ip", "addr", "add", "fd99::100/64", "dev", "eth0", "nodad")
	r.settle()

	r.want("c", "tcp", "[fd00:1::5]:80", 1, "a fd00:1::7")
	r.want("c", "tcp", "[fd00:1::2]:80", 12, "a fd00:1::7", "b fd00:1::7")
	for _, host := range []string{"1", "2", "3"} {
		r.want("out", "tcp", "[fd99::"+host+"]:8080", 12, "a fd99::100", "b fd99::100")
	}
	begin := time.Now()
	r.want("c", "tcp", "[fd00:1::3]:80", 1, "no answer")
	if took := time.Since(begin); took > 700*time.Millisecond {
		t.Errorf("a virtual IP without backends refused after %v", took)
	}
}

// TestPackets_OfStrangers has VXLAN packets come from who is no node, and from containers that take a
// node's address, themselves or by the engine's translation: none gets into a network. Containers reach
// no other network, and none of the node's ports but by their gateway.
func TestPackets_OfStrangers(t *testing.T) {
	r := newRack(t, "h1", "h2")
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	web := network.Network{
		ID: "web", VNI: 4098, MTU: 1450, Subnets: []network.Subnet{{Prefix: prefix("10.0.1.0/24"), Gateway: addr("10.0.1.1")}},
		Endpoints: []network.Endpoint{{Addrs: []netip.Addr{addr("10.0.1.5")}, Node: 1}, {Addrs: []netip.Addr{addr("10.0.1.6")}, Node: 2}},
		Services:  []network.Service{{VIP: addr("10.0.1.2"), Backends: []netip.Addr{addr("10.0.1.6")}}, {VIP: addr("10.0.1.3")}},
	}
	back := network.Network{
		ID: "back", VNI: 4099, MTU: 1450, Subnets: []network.Subnet{{Prefix: prefix("10.0.2.0/24"), Gateway: addr("10.0.2.1")}},
		Endpoints: []network.Endpoint{{Addrs: []netip.Addr{addr("10.0.2.5")}, Node: 1}, {Addrs: []netip.Addr{addr("10.0.2.6")}, Node: 2}},
		Services:  []network.Service{{VIP: addr("10.0.2.2"), Backends: []netip.Addr{addr("10.0.2.6")}}},
	}
	r.each(func(w *network.Wanted) { w.Networks = []network.Network{web, back} })
	r.settle()
	r.container("a", "h1", "10.0.1.5")
	r.container("b", "h2", "10.0.1.6")
	r.container("d", "h1", "10.0.2.5")
	r.container("e", "h2", "10.0.2.6")
	r.namespace("out", wire+"100/24")
	r.settle()
	// As the engine does for what leaves the node.
	r.in("h1", "nft", "add table ip engine; add chain ip engine post { type nat hook postrouting priority 100; }; add rule ip engine post ip saddr 10.0.0.0/16 oifname eth0 masquerade")
	// One that is none of skep's, on the engine's own bridge.
	r.namespace("x", "")
	r.in("h1", "ip", "link", "add", "docker0", "type", "bridge")
	r.in("h1", "ip", "link", "add", "vx", "type", "veth", "peer", "name", "eth0", "netns", "x")
	r.in("h1", "ip", "link", "set", "vx", "master", "docker0", "up")
	r.in("h1", "ip", "addr", "add", "172.17.0.1/16", "dev", "docker0")
	r.in("h1", "ip", "link", "set", "docker0", "up")
	r.in("x", "ip", "addr", "add", "172.17.0.2/16", "dev", "eth0")
	r.in("x", "ip", "link", "set", "eth0", "up")
	r.in("x", "ip", "route", "add", "default", "via", "172.17.0.1")
	for _, liar := range []string{"a", "x"} {
		r.in(liar, "ip", "addr", "add", wire+"2/32", "dev", "lo")
	}
	came := func(host string) string {
		out, err := exec.Command("ip", "netns", "exec", host, "cat", "/sys/class/net/skx1002/statistics/rx_packets").Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	for _, try := range []struct {
		who, from, host, to string
		comes               bool
	}{
		{"out", wire + "100", "h1", wire + "1", false},
		{"a", "10.0.1.5", "h1", wire + "1", false},
		{"a", wire + "2", "h1", wire + "1", false},
		{"a", wire + "2", "h1", "10.0.1.1", false},
		{"x", wire + "2", "h1", wire + "1", false},
		{"d", "10.0.2.5", "h2", wire + "2", false},
		{"h2", wire + "2", "h1", wire + "1", true},
		{"h1", wire + "1", "h2", wire + "2", true},
	} {
		before := came(try.host)
		if out, err := r.as(roleForge, try.who, try.from, try.to).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", try, err, out)
		}
		time.Sleep(100 * time.Millisecond)
		if after := came(try.host); (after != before) != try.comes {
			t.Errorf("a VXLAN packet of %s from %s to %s: %s packets came, after %s", try.who, try.from, try.to, after, before)
		}
	}

	r.serves("h1")
	r.want("a", "tcp", "10.0.1.2:80", 2, "b 10.0.1.5")
	r.want("d", "tcp", "10.0.2.2:80", 2, "e 10.0.2.5")
	for _, to := range []string{"10.0.1.3", "10.0.2.1", "10.0.2.2", "10.0.2.5", "10.0.2.6", wire + "1"} {
		for _, protocol := range []string{"tcp", "udp"} {
			r.want("a", protocol, to+":80", 1, "no answer")
		}
	}
}
