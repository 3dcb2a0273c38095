package linux_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"skep/agent/network"
	"skep/agent/network/linux"
	wires "skep/agent/network/wire"
)

// The roles in which this test's binary runs in other namespaces.
const (
	role      = "SKEP_TEST_ROLE"
	rolePlane = "plane" // settles what standard input has, as JSON
	roleRun   = "run"   // keeps it so
	roleServe = "serve" // answers by TCP and UDP on port 80 with its name and the caller's address
	roleAsk   = "ask"   // asks an address and prints the answer
	roleCheck = "check" // says what networks lack here
	roleMany  = "many"  // asks an address by connection after connection until standard input ends, and prints what failed
	roleTalk  = "talk"  // asks an address by one connection from a port, for each line of standard input
	roleNames = "names" // answers from a file of names
	roleHold  = "hold"  // has port 53 at all addresses
	roleQuery = "query" // asks, by a protocol, an address for a name, and prints the answer
	roleWires = "wires" // has the WireGuard devices that a file lists
	roleKeys  = "keys"  // prints the public keys of the devices here
	roleSniff = "sniff" // prints what it saw on a link when standard input ends
	roleBulk  = "bulk"  // sends to an address by several connections for a while, and prints bytes a second and the longest time in which none went on
	roleForge = "forge" // sends a VXLAN packet of network 4098 from an address to another, for 10.0.1.5
)

func play(as string) error {
	switch as {
	case rolePlane:
		var w network.Wanted
		if err := json.NewDecoder(os.Stdin).Decode(&w); err != nil {
			return err
		}
		return settleNow(context.Background(), linux.New(slog.Default(), wiresFile(w.Self.Index)), &w)
	case roleRun:
		var w network.Wanted
		if err := json.NewDecoder(os.Stdin).Decode(&w); err != nil {
			return err
		}
		return network.Run(context.Background(), network.Config{
			Plane: linux.New(slog.Default(), wiresFile(w.Self.Index)), Wanted: func() (*network.Wanted, bool) { return &w, true }, Log: slog.Default(),
		})
	case roleKeys:
		return printKeys()
	case roleWires:
		return wires.Process(context.Background(), wires.Config{File: os.Args[1], Build: "test", Log: slog.Default()})
	case roleSniff:
		return sniff(os.Args[1])
	case roleServe:
		return serve(os.Args[1])
	case roleAsk:
		said, err := ask(os.Args[1], os.Args[2])
		fmt.Print(said)
		return err
	case roleMany:
		return many(os.Args[1], os.Args[2])
	case roleTalk:
		return talk(os.Args[1], os.Args[2], os.Args[3])
	case roleCheck:
		return linux.Check()
	case roleNames:
		return answerNames(os.Args[1])
	case roleHold:
		return holdPort()
	case roleQuery:
		return query(os.Args[1], os.Args[2], os.Args[3])
	case roleForge:
		return forge(os.Args[1], os.Args[2])
	}
	if as == roleBulk {
		return bulk(os.Args[1])
	}
	return playNumbers(as)
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
	if err := serveSCTP(name); err != nil {
		return err
	}
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

// many asks until standard input ends.
func many(protocol, addr string) error {
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	for n, failed := 0, 0; ; n++ {
		select {
		case <-ended:
			fmt.Printf("%d of %d failed\n", failed, n)
			return nil
		default:
		}
		if _, err := ask(protocol, addr); err != nil {
			if failed++; failed < 4 {
				fmt.Println(n, err)
			}
		}
	}
}

// talk asks for each line that it reads, by one connection from a port, and prints what came.
func talk(protocol, port, addr string) error {
	dialer := net.Dialer{Timeout: 2 * time.Second, Control: func(_, _ string, c syscall.RawConn) (err error) {
		// One port may be at the end of connections to several addresses.
		return errors.Join(c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1) }), err)
	}}
	number, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	dialer.LocalAddr = &net.TCPAddr{Port: number}
	if protocol == "udp" {
		dialer.LocalAddr = &net.UDPAddr{Port: number}
	}
	conn, err := dialer.Dial(protocol, addr)
	if err != nil {
		fmt.Println(err)
		return err
	}
	defer conn.Close()
	buf := make([]byte, 100)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
		n := 0
		if _, err = fmt.Fprintln(conn, "who?"); err == nil {
			n, err = conn.Read(buf)
		}
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(strings.TrimSpace(string(buf[:n])))
	}
	return nil
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
	if protocol == "sctp" {
		return askSCTP(addr)
	}
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
		mtu := strconv.Itoa(n.MTU) // The engine's containers have it, too: a bridge drops what is larger, and says so to nobody.
		r.in(host, "ip", "link", "add", port, "mtu", mtu, "type", "veth", "peer", "name", inside, "mtu", mtu, "netns", name)
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
	for host := range r.wanted {
		if out, err := r.settles(host); err != nil {
			r.Fatalf("%s: %v\n%s", host, err, out)
		}
	}
}

// settles has one host's kernel be as it should.
func (r *rack) settles(host string) (string, error) {
	account, err := json.Marshal(r.wanted[host])
	if err != nil {
		return "", err
	}
	plane := r.as(rolePlane, host)
	plane.Stdin = bytes.NewReader(account)
	out, err := plane.CombinedOutput()
	return string(out), err
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

// asks has somebody ask an address n times, or up to enough times until so many different answers came, and lists
// these.
func (r *rack) asks(from, protocol, addr string, n, different int) []string {
	r.Helper()
	// Of two that are chosen by chance one is left out once in 2^63 tests.
	const enough = 64
	var answers []string
	for i := 0; i < n || i < enough && len(answers) < different; i++ {
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

// want fails unless the answers to n questions, or to as many as it takes to have different ones, are these.
func (r *rack) want(from, protocol, addr string, n int, want ...string) {
	r.Helper()
	if got := r.asks(from, protocol, addr, n, len(want)); !slices.Equal(got, want) {
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
		w.Ports = []network.Port{port("tcp"), port("udp"), port("sctp"), one}
	})
	r.settle()
	r.container("a", "h1", "10.255.0.5", "10.0.1.5")
	r.container("b", "h2", "10.255.0.6", "10.0.1.6")
	r.container("c", "h3", "10.0.1.7")
	r.container("i1", "h1", "10.0.2.5")
	r.container("i3", "h3", "10.0.2.6")
	r.namespace("out", wire+"100/24")
	r.settle() // The containers' ports are there now.

	for _, protocol := range []string{"tcp", "udp", "sctp"} {
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

// TestPackets_WhileALargeTableIsReplaced has clients ask a virtual IP and a published port by new connections
// while a table with 2,000 services of 10 tasks each is replaced by one of another form: none fails.
func TestPackets_WhileALargeTableIsReplaced(t *testing.T) {
	r := newRack(t, "h1")
	at := func(host int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, byte(host >> 8), byte(host)}) }
	web := network.Network{
		ID: "web", VNI: 4098, MTU: 1450, Ingress: true, Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("10.1.0.0/16"), Gateway: at(1)}},
		Endpoints: []network.Endpoint{{Addrs: []netip.Addr{at(5)}, Node: 1}, {Addrs: []netip.Addr{at(6)}, Node: 1}},
		Services:  []network.Service{{VIP: at(2), Backends: []netip.Addr{at(6)}}},
	}
	for i := range 2000 {
		s := network.Service{VIP: at(1<<12 + i)}
		for task := range 10 {
			s.Backends = append(s.Backends, at(1<<15+10*i+task))
		}
		web.Services = append(web.Services, s)
	}
	r.each(func(w *network.Wanted) {
		w.Networks = []network.Network{web}
		w.Ports = []network.Port{{Protocol: "tcp", Published: 8080, Target: 80, Backends: []netip.Addr{at(6)}}}
	})
	r.settle()
	r.namespace("out", wire+"99/24")
	r.container("a", "h1", "10.1.0.5")
	r.container("b", "h1", "10.1.0.6")
	r.settle()
	type client struct {
		*exec.Cmd
		in  io.Closer
		out bytes.Buffer
	}
	var clients []*client
	for from, to := range map[string]string{"a": "10.1.0.2:80", "out": wire + "1:8080"} {
		c := &client{Cmd: r.as(roleMany, from, "tcp", to)}
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		c.in, c.Stdout, c.Stderr = in, &c.out, &c.out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
		clients = append(clients, c)
	}
	time.Sleep(500 * time.Millisecond)
	for _, mark := range []uint32{0x80000000, 0x40000000} {
		r.each(func(w *network.Wanted) { w.Marks.LocalClient = mark })
		began := time.Now()
		r.settle()
		t.Logf("replaced in %v", time.Since(began))
	}
	for _, c := range clients {
		_ = c.in.Close()
		err := c.Wait()
		if said := c.out.String(); err != nil || !strings.HasPrefix(said, "0 of ") || strings.HasPrefix(said, "0 of 0 ") {
			t.Errorf("%v: %s", err, said)
		} else {
			t.Log(said)
		}
	}
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

// TestPackets_ThroughTheEnginesFirewall has nodes drop what is forwarded unless a rule accepts it, as engines
// set it up, in either kind of iptables, or not at all yet.
func TestPackets_ThroughTheEnginesFirewall(t *testing.T) {
	r := newRack(t, "h1", "h2", "h3")
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("needs iptables of both kinds")
		}
	}
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	ingress := network.Network{
		ID: "ingress", VNI: 4097, MTU: 1450, Ingress: true, Subnets: []network.Subnet{{Prefix: prefix("10.255.0.0/24"), Gateway: addr("10.255.0.1")}},
		Endpoints: []network.Endpoint{{Addrs: []netip.Addr{addr("10.255.0.5")}, Node: 1}},
	}
	r.each(func(w *network.Wanted) {
		w.Networks = []network.Network{ingress}
		w.Ports = []network.Port{{Protocol: "tcp", Published: 8080, Target: 80, Backends: []netip.Addr{addr("10.255.0.5")}}}
	})
	engine := func(host, program string) {
		for _, rule := range []string{
			"-P FORWARD DROP", "-N DOCKER-USER", "-A DOCKER-USER -j RETURN", "-N ISOLATION", "-A FORWARD -j DOCKER-USER", "-A FORWARD -j ISOLATION",
			"-A FORWARD -i skb1001 ! -o skb1001 -j ACCEPT", "-A FORWARD -i skb1001 -o skb1001 -j ACCEPT", "-A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
			"-A ISOLATION -i skb1001 -o docker0 -j DROP", "-A ISOLATION -i docker0 -o skb1001 -j DROP",
		} {
			r.in(host, append([]string{program}, strings.Fields(rule)...)...)
		}
	}
	engine("h1", "iptables-nft")
	engine("h2", "iptables-legacy")
	r.settle()
	r.container("a", "h1", "10.255.0.5")
	r.namespace("x", "")
	r.in("h2", "ip", "link", "add", "docker0", "type", "bridge")
	r.in("h2", "ip", "link", "add", "vx", "type", "veth", "peer", "name", "eth0", "netns", "x")
	r.in("h2", "ip", "link", "set", "vx", "master", "docker0", "up")
	r.in("h2", "ip", "addr", "add", "172.17.0.1/16", "dev", "docker0")
	r.in("h2", "ip", "link", "set", "docker0", "up")
	r.in("x", "ip", "addr", "add", "172.17.0.2/16", "dev", "eth0")
	r.in("x", "ip", "link", "set", "eth0", "up")
	r.in("x", "ip", "route", "add", "default", "via", "172.17.0.1")
	r.namespace("out", wire+"100/24")
	r.settle()
	for _, host := range []string{"1", "2", "3"} {
		r.want("out", "tcp", wire+host+":8080", 2, "a "+wire+"100")
	}
	r.want("x", "tcp", wire+"2:8080", 2, "a "+wire+"2") // a container of the engine's own bridge
	rules := func(host, program string) (n int) {
		out, err := exec.Command("ip", "netns", "exec", host, program, "-S").Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(out), "conntrack")
	}
	for host, program := range map[string]string{"h1": "iptables-nft", "h2": "iptables-legacy"} {
		if n := rules(host, program); n != 2 {
			t.Errorf("%s has %d rules of skep's in its firewall, want 2", host, n)
		}
	}
	// Another firewall beside the engine's has the last word: it is said which.
	r.in("h2", "iptables-nft", "-P", "FORWARD", "DROP")
	if out, err := r.settles("h2"); err == nil || !strings.Contains(out, "iptables-nft drops what is forwarded") {
		t.Errorf("beside a firewall without the engine's chain: %v, %s", err, out)
	}
	r.in("h2", "iptables-nft", "-P", "FORWARD", "ACCEPT")
	// Somebody flushes the chain, and adds what was there.
	r.in("h1", "iptables-nft", "-F", "DOCKER-USER")
	r.in("h1", "iptables-nft", "-A", "DOCKER-USER", "-j", "RETURN")
	r.want("out", "tcp", wire+"1:8080", 1, "no answer")
	r.settle()
	r.want("out", "tcp", wire+"1:8080", 2, "a "+wire+"100")
	r.each(func(w *network.Wanted) { w.Networks, w.Ports = nil, nil })
	r.settle()
	for host, program := range map[string]string{"h1": "iptables-nft", "h2": "iptables-legacy"} {
		if n := rules(host, program); n != 0 {
			t.Errorf("%s has %d rules of skep's left in its firewall", host, n)
		}
	}
}

// talks has somebody keep a connection from a port, 0 for any, and returns what asks by it and what closes it.
func (r *rack) talks(from, protocol string, port int, addr string) (ask func() string, hangUp func()) {
	r.Helper()
	c := r.as(roleTalk, from, protocol, strconv.Itoa(port), addr)
	in, _ := c.StdinPipe()
	out, _ := c.StdoutPipe()
	if err := c.Start(); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	answers := bufio.NewReader(out)
	ask = func() string {
		_, _ = io.WriteString(in, "\n")
		answer, _ := answers.ReadString('\n')
		return strings.TrimSpace(answer)
	}
	return ask, func() { _ = in.Close(); _ = c.Wait() }
}

// TestPackets_OfFlowsToTheGone has a client keep its port: by UDP it is led to another task as soon as its own is
// drained, by TCP it stays with its own until that is gone, and hears of that at once.
func TestPackets_OfFlowsToTheGone(t *testing.T) {
	r := newRack(t, "h1", "h2")
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	web := network.Network{
		ID: "web", VNI: 4098, MTU: 1450, Subnets: []network.Subnet{{Prefix: prefix("10.0.1.0/24"), Gateway: addr("10.0.1.1")}},
		Endpoints: []network.Endpoint{{Addrs: []netip.Addr{addr("10.0.1.5")}, Node: 1}, {Addrs: []netip.Addr{addr("10.0.1.7")}, Node: 1}, {Addrs: []netip.Addr{addr("10.0.1.6")}, Node: 2}},
		Services:  []network.Service{{VIP: addr("10.0.1.2"), Backends: []netip.Addr{addr("10.0.1.6")}}},
	}
	r.each(func(w *network.Wanted) { w.Networks = []network.Network{web} })
	r.settle()
	r.container("a", "h1", "10.0.1.5")
	r.container("c", "h1", "10.0.1.7")
	r.container("b", "h2", "10.0.1.6")
	r.settle()
	udp, _ := r.talks("a", "udp", 0, "10.0.1.2:80")
	tcp, _ := r.talks("a", "tcp", 0, "10.0.1.2:80")
	say := func(when, protocol string, ask func() string, want string) {
		t.Helper()
		if got := ask(); !strings.Contains(got, want) {
			t.Errorf("%s, by %s: %q, want %q", when, protocol, got, want)
		}
	}
	say("at first", "udp", udp, "b 10.0.1.5")
	say("at first", "tcp", tcp, "b 10.0.1.5")
	r.each(func(w *network.Wanted) { w.Networks[0].Services[0].Backends = []netip.Addr{addr("10.0.1.7")} })
	r.settle()
	say("drained", "udp", udp, "c 10.0.1.5")
	say("drained", "tcp", tcp, "b 10.0.1.5")
	// The node has died.
	r.in("h2", "ip", "link", "set", "eth0", "down")
	r.each(func(w *network.Wanted) { w.Networks[0].Endpoints = w.Networks[0].Endpoints[:2] })
	delete(r.wanted, "h2")
	r.settle()
	say("gone", "udp", udp, "c 10.0.1.5")
	say("gone", "tcp", tcp, "reset by peer")
}

// TestForgets_OnlyWhatCanBeOver lists connections after such changes only that can be the end of one: a list is as long as there are connections.
func TestForgets_OnlyWhatCanBeOver(t *testing.T) {
	chain := func(backends string) network.Chain {
		return network.Chain{Name: "p-tcp-80", Port: 80, Backends: backends}
	}
	const a, b = "10.0.1.5", "10.0.1.6"
	for _, c := range []struct {
		what    string
		step    network.Step
		forgets bool
	}{
		{"a backend comes", network.Step{Do: network.Replace, Object: chain(a + " " + b), Was: chain(a)}, false},
		{"the first one comes", network.Step{Do: network.Replace, Object: chain(a), Was: chain("")}, false},
		{"one goes", network.Step{Do: network.Replace, Object: chain(b), Was: chain(a + " " + b)}, true},
		{"the last one goes", network.Step{Do: network.Replace, Object: chain(""), Was: chain(a)}, true},
		{"one is in another's place", network.Step{Do: network.Replace, Object: chain(b), Was: chain(a)}, true},
		{"it isn't known which there were", network.Step{Do: network.Replace, Object: chain(a + " " + b), Was: chain(network.Digest(a))}, true},
		{"the service goes", network.Step{Do: network.Remove, Object: chain(a)}, true},
		{"a way to a task comes", network.Step{Object: network.Neighbour{Addr: netip.MustParseAddr(a)}}, false},
		{"a way to a task goes", network.Step{Do: network.Remove, Object: network.Neighbour{Addr: netip.MustParseAddr(a)}}, true},
	} {
		if got := linux.Forgets(c.step); got != c.forgets {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}

// TestPackets_OfBeginningsToTheGone has clients begin a connection to a node that is dead, by virtual IP and by a published port:
// what they send again goes to another task as soon as theirs is out of the list.
func TestPackets_OfBeginningsToTheGone(t *testing.T) {
	r := newRack(t, "h1", "h2")
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	backend := addr("10.0.1.6")
	web := network.Network{
		ID: "web", VNI: 4098, MTU: 1450, Ingress: true, Subnets: []network.Subnet{{Prefix: prefix("10.0.1.0/24"), Gateway: addr("10.0.1.1")}},
		Endpoints: []network.Endpoint{{Addrs: []netip.Addr{addr("10.0.1.5")}, Node: 1}, {Addrs: []netip.Addr{addr("10.0.1.7")}, Node: 1}, {Addrs: []netip.Addr{backend}, Node: 2}},
	}
	lead := func() {
		t.Helper()
		r.each(func(w *network.Wanted) {
			n := web
			n.Services = []network.Service{{VIP: addr("10.0.1.2"), Backends: []netip.Addr{backend}}}
			w.Networks = []network.Network{n}
			w.Ports = []network.Port{{Protocol: "tcp", Published: 8080, Target: 80, Backends: []netip.Addr{backend}}}
		})
		r.settle()
	}
	lead()
	r.container("a", "h1", "10.0.1.5")
	r.container("c", "h1", "10.0.1.7")
	r.namespace("client", wire+"100/24")
	lead()
	r.in("h2", "ip", "link", "set", "eth0", "down")
	delete(r.wanted, "h2")
	answers := make(chan string, 2)
	for from, to := range map[string]string{"a": "10.0.1.2:80", "client": wire + "1:8080"} {
		ask, _ := r.talks(from, "tcp", 0, to)
		go func() { answers <- from + " hears " + ask() }()
	}
	time.Sleep(300 * time.Millisecond)
	backend = addr("10.0.1.7")
	lead()
	for range 2 {
		if answer := <-answers; !strings.Contains(answer, " hears c ") {
			t.Error(answer)
		}
	}
}

// TestPackets_ToTheGoneAreHurried has clients wait for an answer while the node that would give it dies: one in a container by
// virtual IP, and one each outside and on the node itself by a published port, by both families. As soon as the node is known to be dead each of
// them hears that there will be none; packets that TCP sends again would come seconds later. Who asks by the task's own address
// hears so, too, also who asks anew. When the node is back all is as before.
func TestPackets_ToTheGoneAreHurried(t *testing.T) {
	r := newRack(t, "h1", "h2")
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	for _, host := range []string{"h1", "h2"} {
		r.in(host, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
	}
	r.in("h1", "ip", "addr", "add", "fd77::1/64", "dev", "eth0", "nodad")
	web := network.Network{
		ID: "web", VNI: 4098, MTU: 1450, Subnets: []network.Subnet{{Prefix: prefix("10.0.1.0/24"), Gateway: addr("10.0.1.1")}},
		Endpoints: []network.Endpoint{{Addrs: []netip.Addr{addr("10.0.1.5")}, Node: 1}, {Addrs: []netip.Addr{addr("10.0.1.6")}, Node: 2}},
		Services:  []network.Service{{VIP: addr("10.0.1.2"), Backends: []netip.Addr{addr("10.0.1.6")}}},
	}
	ingress := network.Network{
		ID: "ingress", VNI: 4097, MTU: 1450, Ingress: true,
		Subnets:   []network.Subnet{{Prefix: prefix("10.0.0.0/24"), Gateway: addr("10.0.0.1")}, {Prefix: prefix("fd00::/64"), Gateway: addr("fd00::1")}},
		Endpoints: []network.Endpoint{{Addrs: []netip.Addr{addr("10.0.0.6"), addr("fd00::6")}, Node: 2}},
	}
	r.each(func(w *network.Wanted) {
		w.Networks = []network.Network{ingress, web}
		w.Ports = []network.Port{{Protocol: "tcp", Published: 8080, Target: 80, Backends: []netip.Addr{addr("10.0.0.6"), addr("fd00::6")}}}
	})
	r.settle()
	r.namespace("client", wire+"100/24")
	r.in("client", "ip", "addr", "add", "fd77::64/64", "dev", "eth0", "nodad")
	r.container("a", "h1", "10.0.1.5")
	r.container("b", "h2", "10.0.0.6", "10.0.1.6")
	r.in("b", "ip", "addr", "add", "fd00::6/64", "dev", "eth0", "nodad")
	r.in("b", "ip", "route", "add", "default", "via", "fd00::1")
	r.settle()
	clients := map[string]func() string{}
	for what, at := range map[string][2]string{
		"a container, by virtual IP": {"a", "10.0.1.2:80"}, "a container, by address": {"a", "10.0.1.6:80"}, "a client outside": {"client", wire + "1:8080"}, "the node itself": {"h1", "127.0.0.1:8080"}, "a client outside, by IPv6": {"client", "[fd77::1]:8080"},
	} {
		ask, _ := r.talks(at[0], "tcp", 0, at[1])
		if got := ask(); !strings.HasPrefix(got, "b ") {
			t.Fatalf("%s is answered %q", what, got)
		}
		clients[what] = ask
	}
	// Packets to b still arrive, so the clients have nothing to send again; but it answers no more.
	r.in("b", "nft", "add table inet mute; add chain inet mute out { type filter hook output priority 0; }; add rule inet mute out tcp sport 80 tcp flags & psh != 0 drop")
	type heard struct{ what, answer string }
	answers := make(chan heard, len(clients))
	began := time.Now()
	for what, ask := range clients {
		go func() { answers <- heard{what, ask()} }()
	}
	time.Sleep(300 * time.Millisecond)
	gone := func(gone bool) {
		t.Helper()
		h1 := r.wanted["h1"]
		h1.Networks[0].Endpoints = []network.Endpoint{{Addrs: ingress.Endpoints[0].Addrs, Node: 2, Gone: gone}}
		h1.Networks[1].Endpoints = []network.Endpoint{web.Endpoints[0], {Addrs: web.Endpoints[1].Addrs, Node: 2, Gone: gone}}
		if out, err := r.settles("h1"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	gone(true)
	for range clients {
		h := <-answers
		if took := time.Since(began); !strings.Contains(h.answer, "reset by peer") || took > 1500*time.Millisecond {
			t.Errorf("%s hears %q after %v", h.what, h.answer, took)
		}
	}
	began = time.Now()
	for _, protocol := range []string{"tcp", "udp"} {
		r.want("a", protocol, "10.0.1.6:80", 1, "no answer")
	}
	if took := time.Since(began); took > 700*time.Millisecond {
		t.Errorf("who asks anew is refused after %v", took)
	}
	r.in("b", "nft", "delete table inet mute")
	gone(false)
	r.want("a", "tcp", "10.0.1.6:80", 1, "b 10.0.1.5")
	r.want("a", "tcp", "10.0.1.2:80", 1, "b 10.0.1.5")
	r.want("client", "tcp", wire+"1:8080", 1, "b "+wire+"100")
	r.want("client", "tcp", "[fd77::1]:8080", 1, "b fd77::64")
}

// TestPackets_FromOnePort has a client ask by every node from one and the same port, which it may, since it asks
// three addresses. The task that answers sees one client: each answer must go to the node that was asked, while the
// other connections are there, and after they have ended.
func TestPackets_FromOnePort(t *testing.T) {
	r := newRack(t, "h1", "h2", "h3")
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	ingress := network.Network{
		ID: "ingress", VNI: 4097, MTU: 1450, Ingress: true,
		Subnets: []network.Subnet{
			{Prefix: prefix("10.255.0.0/24"), Gateway: addr("10.255.0.1")},
			{Prefix: prefix("fd00:ff::/64"), Gateway: addr("fd00:ff::1")},
		},
		Endpoints: []network.Endpoint{{Addrs: []netip.Addr{addr("10.255.0.5"), addr("fd00:ff::5")}, Node: 1}},
	}
	port := func(protocol string) network.Port {
		return network.Port{Protocol: protocol, Published: 8080, Target: 80, Backends: []netip.Addr{addr("10.255.0.5"), addr("fd00:ff::5")}}
	}
	r.each(func(w *network.Wanted) {
		w.Networks, w.Ports = []network.Network{ingress}, []network.Port{port("tcp"), port("udp")}
	})
	for i, host := range []string{"h1", "h2", "h3"} {
		r.in(host, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
		r.in(host, "ip", "addr", "add", fmt.Sprintf("fd99::%d/64", i+1), "dev", "eth0", "nodad")
	}
	r.settle()
	r.container("a", "h1", "10.255.0.5")
	r.in("a", "ip", "addr", "add", "fd00:ff::5/64", "dev", "eth0", "nodad")
	r.in("a", "ip", "route", "add", "default", "via", "fd00:ff::1")
	r.namespace("out", wire+"100/24")
	r.in("out", "ip", "addr", "add", "fd99::100/64", "dev", "eth0", "nodad")
	r.settle()
	for i, by := range []struct{ protocol, hosts, client string }{
		{"tcp", wire + "%s:8080", wire + "100"}, {"udp", wire + "%s:8080", wire + "100"},
		{"tcp", "[fd99::%s]:8080", "fd99::100"}, {"udp", "[fd99::%s]:8080", "fd99::100"},
	} {
		for _, order := range []string{"231", "312", "123"} {
			var asks, closes []func()
			for n, host := range strings.Split(order, "") {
				ask, hangUp := r.talks("out", by.protocol, 40000+i, fmt.Sprintf(by.hosts, host))
				asks, closes = append(asks, func() {
					t.Helper()
					if got, want := ask(), "a "+by.client; got != want {
						t.Errorf("by %s and h%s, %d of %s open: %q, want %q", by.protocol, host, n+1, order, got, want)
					}
				}), append(closes, hangUp)
				for _, ask := range asks {
					ask()
				}
			}
			// A table of another form in the place of this one leaves them as they are.
			r.each(func(w *network.Wanted) { w.Marks.LocalClient ^= 0xc0000000 })
			r.settle()
			for _, ask := range asks {
				ask()
			}
			// Whoever answered remembers them when the next ones come.
			for _, hangUp := range closes {
				hangUp()
			}
		}
	}
}
