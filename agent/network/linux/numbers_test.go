package linux_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	dockernetwork "github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"
	mdns "github.com/miekg/dns"

	"skep/agent/network"
	"skep/agent/network/dns"
	"skep/agent/network/linux"
)

// numbersFile is set to where TestNumbers writes what it measured, as JSON: `lab bench` does so.
const numbersFile = "SKEP_NUMBERS"

// The roles of what is measured.
const (
	roleEcho  = "echo"  // takes what comes on port 81, and sends it back on port 82
	rolePour  = "pour"  // sends to an address for a while, and prints bytes a second
	rolePing  = "ping"  // asks an address by one connection, and prints the median in nanoseconds
	roleDial  = "dial"  // asks an address by one connection after the other, and prints how many a second
	roleLook  = "look"  // asks a server for a name for a while, and prints how many answers came, or the median in nanoseconds
	roleCarry = "carry" // carries a large account, and follows the changes that standard input says
)

const (
	rounds  = 8
	pouring = 500 * time.Millisecond
	dialing = 500 * time.Millisecond
	pings   = 2000
)

// again is how often more a round measures, to take the least: a ping takes several times as long while the
// scheduler has its two ends on different processors, which says nothing about the path.
var again = map[string]int{rolePing: 2}

func playNumbers(as string) error {
	switch as {
	case roleEcho:
		return echo()
	case rolePour:
		return pour(os.Args[1])
	case rolePing:
		return ping(os.Args[1])
	case roleDial:
		return dial(os.Args[1])
	case roleLook:
		return look(os.Args[1], os.Args[2], os.Args[3])
	case roleCarry:
		return carry(os.Args[1], os.Args[2])
	}
	return fmt.Errorf("no role %s", as)
}

func echo() error {
	sink, err := net.Listen("tcp", ":81")
	if err != nil {
		return err
	}
	back, err := net.Listen("tcp", ":82")
	if err != nil {
		return err
	}
	fmt.Println("ready")
	each := func(l net.Listener, do func(net.Conn)) error {
		for {
			conn, err := l.Accept()
			if err != nil {
				return err
			}
			go func() {
				defer conn.Close()
				do(conn)
			}()
		}
	}
	go func() { _ = each(sink, func(c net.Conn) { _, _ = io.Copy(io.Discard, struct{ io.Reader }{c}) }) }()
	return each(back, func(c net.Conn) {
		buf := make([]byte, 64)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			if _, err := c.Write(buf[:n]); err != nil {
				return
			}
		}
	})
}

func pour(addr string) error {
	conn, err := net.DialTimeout("tcp", addr, 2*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	buf, sent, begin := make([]byte, 128<<10), 0, time.Now()
	_ = conn.SetDeadline(begin.Add(pouring))
	for time.Since(begin) < pouring {
		n, err := conn.Write(buf)
		if sent += n; err != nil {
			break
		}
	}
	fmt.Println(float64(sent) / time.Since(begin).Seconds())
	return nil
}

func ping(addr string) error {
	conn, err := net.DialTimeout("tcp", addr, 2*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	var took []time.Duration
	buf := []byte{1}
	for range pings {
		begin := time.Now()
		if _, err := conn.Write(buf); err != nil {
			return err
		}
		if _, err := conn.Read(buf); err != nil {
			return err
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	fmt.Println(took[len(took)/2].Nanoseconds())
	return nil
}

func dial(addr string) error {
	begin, n := time.Now(), 0
	buf := []byte{1}
	for ; time.Since(begin) < dialing; n++ {
		conn, err := net.DialTimeout("tcp", addr, 2*time.Second)
		if err != nil {
			return err
		}
		_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
		_ = conn.(*net.TCPConn).SetLinger(0) // or ports run out
		if _, err := conn.Write(buf); err != nil {
			return err
		}
		if _, err := conn.Read(buf); err != nil {
			return err
		}
		_ = conn.Close()
	}
	fmt.Println(float64(n) / time.Since(begin).Seconds())
	return nil
}

// look asks by some sockets at once, or for the median by one.
func look(server, name, what string) error {
	question, err := new(mdns.Msg).SetQuestion(name, mdns.TypeA).Pack()
	if err != nil {
		return err
	}
	askers := 8
	if what == "median" {
		askers = 1
	}
	ended, end := make(chan error, askers), time.Now().Add(dialing)
	took := make([][]time.Duration, askers)
	for i := range askers {
		go func() {
			ended <- func() error {
				conn, err := net.Dial("udp", server)
				if err != nil {
					return err
				}
				defer conn.Close()
				_ = conn.SetDeadline(end.Add(2 * time.Second))
				buf := make([]byte, 512)
				for time.Now().Before(end) {
					begin := time.Now()
					if _, err := conn.Write(question); err != nil {
						return err
					}
					n, err := conn.Read(buf)
					if err != nil {
						return err
					}
					took[i] = append(took[i], time.Since(begin))
					var answer mdns.Msg
					if err := answer.Unpack(buf[:n]); len(took[i]) == 1 && (err != nil || len(answer.Answer) != 1) {
						return fmt.Errorf("%s is asked for %s: %v, %v", server, name, answer.Answer, err)
					}
				}
				return nil
			}()
		}()
	}
	for range askers {
		if err := <-ended; err != nil {
			return err
		}
	}
	all := slices.Concat(took...)
	slices.Sort(all)
	if what == "median" {
		fmt.Println(all[len(all)/2].Nanoseconds())
	} else {
		fmt.Println(len(all))
	}
	return nil
}

// worked is how long a process had processors.
func worked(pid int) (total time.Duration) {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, thread := range threads {
		text, _ := os.ReadFile(thread)
		var ran int64
		_, _ = fmt.Sscan(string(text), &ran)
		total += time.Duration(ran)
	}
	return total
}

// answers has a process answer names of 10,000 endpoints on a host's network, and returns its ID.
func (r *rack) answers(host string, n *network.Network) int {
	r.Helper()
	gateway := n.Subnets[0].Gateway
	names := &dns.Network{Subnets: []netip.Prefix{n.Subnets[0].Prefix}, Names: map[string]dns.Record{"web": {Addrs: []netip.Addr{n.Services[0].VIP}}}}
	for i := range 10_000 {
		names.Names[fmt.Sprintf("web.%d", i)] = dns.Record{Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}}
	}
	file := filepath.Join(r.TempDir(), "names")
	if err := dns.WriteFile(file, &dns.Names{
		Complete: true, Askers: map[netip.Addr]*dns.Asker{n.Endpoints[0].Addrs[0]: {Networks: []string{n.ID}}}, Networks: map[string]*dns.Network{n.ID: names},
		Listen: []dns.Listen{{Addr: netip.AddrPortFrom(gateway, network.NamesPort), Bridge: n.Bridge(), From: n.Subnets[0].Prefix}}, Resolvers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")},
	}); err != nil {
		r.Fatal(err)
	}
	c := r.at(roleNames, named(host), file)
	c.Env, c.Stderr = append(c.Env, "GOMAXPROCS=1"), os.Stderr
	if err := c.Start(); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	return c.Process.Pid
}

// What a large account has.
const (
	manyServices = 2000
	manyTasks    = 10
)

// large is a network with many services of some tasks each, all on one node, and something of number 5
// on the node before it. One service has one of its tasks alone.
func large(node uint16, tasks int) network.Network {
	at := func(host int) netip.Addr { return netip.AddrFrom4([4]byte{10, 64, byte(host >> 8), byte(host)}) }
	n := network.Network{ID: "large", VNI: 4100, MTU: 1450, Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("10.64.0.0/16"), Gateway: at(1)}}}
	n.Endpoints = append(n.Endpoints, network.Endpoint{Addrs: []netip.Addr{at(5)}, Node: node - 1})
	const first = 10 + manyServices
	for i := range manyServices {
		s := network.Service{VIP: at(10 + i)}
		for k := range tasks {
			addr := at(first + i*tasks + k)
			n.Endpoints = append(n.Endpoints, network.Endpoint{Addrs: []netip.Addr{addr}, Node: node})
			s.Backends = append(s.Backends, addr)
		}
		n.Services = append(n.Services, s)
	}
	middle := &n.Services[manyServices/2]
	middle.Backends = middle.Backends[:1]
	return n
}

// watched is the kernel's plane, and says when the kernel has a service's steps. What follows, forgetting the
// connections that ended with them, takes the longer the more connections the machine has.
func watched(settled *atomic.Bool) *linux.Plane {
	plane := linux.New(slog.Default(), wiresFile(0))
	plane.SetFault(func(steps []network.Step, do func() error) error {
		err := do()
		ofService := func(s network.Step) bool { _, is := s.Object.(network.Chain); return is }
		if settled.Load() && err == nil && slices.ContainsFunc(steps, ofService) {
			fmt.Println(time.Now().UnixNano())
		}
		return err
	})
	return plane
}

// carry keeps the kernel as the account that standard input begins with wants it, with a large network of
// tasks each service has. For each line after that a task comes to the first service, or goes. At the end it
// prints what it takes in memory: of Go, and in all.
func carry(node, tasks string) error {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	before := resident()
	in.Scan()
	var w network.Wanted
	if err := json.Unmarshal(in.Bytes(), &w); err != nil {
		return err
	}
	at, err := strconv.Atoi(node)
	if err != nil {
		return err
	}
	each, err := strconv.Atoi(tasks)
	if err != nil {
		return err
	}
	w.Networks = append(slices.Clone(w.Networks), large(uint16(at), each))
	services := w.Networks[len(w.Networks)-1].Services
	all := services[0].Backends
	var known atomic.Pointer[network.Wanted]
	known.Store(&w)
	settled, ready, changed := new(atomic.Bool), make(chan struct{}, 1), make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- network.Run(ctx, network.Config{
			Plane: watched(settled), Changed: changed, Log: slog.Default(),
			Wanted: func() (*network.Wanted, bool) { return known.Load(), true },
			Carried: func([]string) {
				select {
				case ready <- struct{}{}:
				default:
				}
			},
		})
	}()
	<-ready
	time.Sleep(time.Second) // It looks once more at what it did itself.
	settled.Store(true)
	fmt.Println("ready")
	for i := 0; in.Scan(); i++ {
		next := w
		next.Networks = slices.Clone(w.Networks)
		n := &next.Networks[len(next.Networks)-1]
		n.Services = slices.Clone(services)
		n.Services[0].Backends = all[:len(all)-1+i%2]
		known.Store(&next)
		changed <- struct{}{}
	}
	rss := resident() - before
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fmt.Println(m.HeapAlloc, rss)
	cancel()
	<-ended
	return nil
}

// resident is what the process has in memory, in bytes.
func resident() int {
	text, _ := os.ReadFile("/proc/self/statm")
	pages := 0
	if fields := strings.Fields(string(text)); len(fields) > 1 {
		pages, _ = strconv.Atoi(fields[1])
	}
	return pages * os.Getpagesize()
}

// at runs this binary in a role in the network namespace of a file.
func (r *rack) at(what, namespace string, args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		r.Fatal(err)
	}
	c := exec.Command("nsenter", append([]string{"--net=" + namespace, self}, args...)...)
	c.Env = append(os.Environ(), role+"="+what)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

// measure is the number that a role prints.
func (r *rack) measure(what, namespace string, args ...string) float64 {
	r.Helper()
	c := r.at(what, namespace, args...)
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		r.Fatalf("%s %v in %s: %v", what, args, namespace, err)
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	if err != nil {
		r.Fatalf("%s %v in %s: %v", what, args, namespace, err)
	}
	return n
}

// echoes has a namespace answer what is measured.
func (r *rack) echoes(namespace string) {
	r.Helper()
	c := r.at(roleEcho, namespace)
	out, err := c.StdoutPipe()
	if err != nil {
		r.Fatal(err)
	}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		r.Fatal(err)
	}
}

func named(namespace string) string { return "/run/netns/" + namespace }

// firewall has the rules of an engine's on a host, with a bridge of its own networks.
func (r *rack) firewall(host, bridge string) {
	r.Helper()
	for _, rule := range []string{
		"-P FORWARD DROP", "-N DOCKER-USER", "-A DOCKER-USER -j RETURN", "-A FORWARD -j DOCKER-USER",
		"-A FORWARD -o " + bridge + " -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
		"-A FORWARD -i " + bridge + " ! -o " + bridge + " -j ACCEPT", "-A FORWARD -i " + bridge + " -o " + bridge + " -j ACCEPT",
	} {
		if out, err := exec.Command("ip", append([]string{"netns", "exec", host, "iptables-nft"}, strings.Fields(rule)...)...).CombinedOutput(); err != nil && !strings.HasPrefix(rule, "-N") {
			r.Fatalf("iptables %s: %v: %s", rule, err, out)
		}
	}
}

// overlay makes a real Docker Swarm of engines on two hosts, and containers on an attachable network over
// both; it returns the containers' namespaces, the second one's address, and the first one's engine.
func (r *rack) overlay(one, two string) (from, to, addr string, engine int) {
	r.Helper()
	ctx := r.Context()
	engines := []*client.Client{r.engine(one), r.engine(two)}
	for i, c := range engines {
		self := r.wanted[[]string{one, two}[i]].Self.Addr.String()
		if i == 0 {
			if _, err := c.SwarmInit(ctx, swarm.InitRequest{ListenAddr: self + ":2377", AdvertiseAddr: self, DataPathPort: 4790}); err != nil {
				r.Fatal(err)
			}
			continue
		}
		s, err := engines[0].SwarmInspect(ctx)
		if err != nil {
			r.Fatal(err)
		}
		if err := c.SwarmJoin(ctx, swarm.JoinRequest{ListenAddr: self + ":2377", AdvertiseAddr: self, RemoteAddrs: []string{r.wanted[one].Self.Addr.String() + ":2377"}, JoinToken: s.JoinTokens.Worker}); err != nil {
			r.Fatal(err)
		}
	}
	if _, err := engines[0].NetworkCreate(ctx, "ov", dockernetwork.CreateOptions{Driver: "overlay", Attachable: true}); err != nil {
		r.Fatal(err)
	}
	var spaces []string
	for i, c := range engines {
		made, err := c.ContainerCreate(ctx, &container.Config{Image: "answer:1", Cmd: []string{"x"}}, &container.HostConfig{NetworkMode: "ov"}, nil, nil, fmt.Sprint("x", i))
		if err == nil {
			err = c.ContainerStart(ctx, made.ID, container.StartOptions{})
		}
		if err != nil {
			r.Fatal(err)
		}
		r.Cleanup(func() { _ = c.ContainerRemove(context.Background(), made.ID, container.RemoveOptions{Force: true}) })
		found, err := c.ContainerInspect(ctx, made.ID)
		if err != nil {
			r.Fatal(err)
		}
		spaces = append(spaces, fmt.Sprintf("/proc/%d/ns/net", found.State.Pid))
		addr = found.NetworkSettings.Networks["ov"].IPAddress
	}
	pid, err := os.ReadFile(filepath.Join(filepath.Dir(strings.TrimPrefix(engines[0].DaemonHost(), "unix://")), "pid"))
	if err != nil {
		r.Fatal(err)
	}
	if engine, err = strconv.Atoi(strings.TrimSpace(string(pid))); err != nil {
		r.Fatal(err)
	}
	return spaces[0], spaces[1], addr, engine
}

// TestNumbers measures what packets cost, each path beside what it is compared with, in turns.
func TestNumbers(t *testing.T) {
	file := os.Getenv(numbersFile)
	if file == "" {
		t.Skip("only on request: it needs a quiet machine for minutes")
	}
	r := newRack(t, "h1", "h2", "h3", "h4", "h5", "h6", "h7")
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	ends := func(base string, hosts ...int) (list []network.Endpoint) {
		for i, host := range hosts {
			list = append(list, network.Endpoint{Addrs: []netip.Addr{addr(fmt.Sprint(base, 5+i))}, Node: uint16(host)})
		}
		return list
	}
	ingress := network.Network{
		ID: "ingress", VNI: 4097, MTU: 1450, Ingress: true, Subnets: []network.Subnet{{Prefix: prefix("10.255.0.0/24"), Gateway: addr("10.255.0.1")}},
		Endpoints: ends("10.255.0.", 1, 2),
	}
	web := network.Network{
		ID: "web", VNI: 4098, MTU: 1450, Subnets: []network.Subnet{{Prefix: prefix("10.0.1.0/24"), Gateway: addr("10.0.1.1")}},
		Endpoints: ends("10.0.1.", 1, 2), Services: []network.Service{{VIP: addr("10.0.1.2"), Backends: []netip.Addr{addr("10.0.1.6")}}},
	}
	for _, host := range []string{"h1", "h2"} {
		r.wanted[host].Networks = []network.Network{ingress, web}
		r.wanted[host].Ports = []network.Port{{Protocol: "tcp", Published: 8082, Target: 82, Backends: []netip.Addr{addr("10.255.0.6")}}}
		r.firewall(host, "skb1001")
		r.firewall(host, "skb1002")
	}
	for _, host := range []string{"h3", "h4"} {
		r.firewall(host, "skb1004")
	}
	results := map[string]float64{}
	changes := r.carries(results)
	const largeVIP, largeTask = 10 + manyServices/2, 10 + manyServices + manyServices/2*manyTasks
	at := func(host int) string { return fmt.Sprintf("10.64.%d.%d", host>>8, host&0xff) }
	r.wanted["h3"].Networks, r.wanted["h4"].Networks = []network.Network{large(4, 1)}, []network.Network{large(4, 1)} // for where containers are
	r.plug("c", "h3", at(5))
	r.plug("d", "h4", at(largeTask))
	for _, host := range []string{"h1", "h2"} {
		if out, err := r.settles(host); err != nil {
			t.Fatalf("%s: %v\n%s", host, err, out)
		}
	}
	r.plug("a", "h1", "10.255.0.5", "10.0.1.5")
	r.plug("b", "h2", "10.255.0.6", "10.0.1.6")
	r.namespace("out", wire+"100/24")
	for _, host := range []string{"h1", "h2"} {
		if out, err := r.settles(host); err != nil { // The containers' ports are there now.
			t.Fatalf("%s: %v\n%s", host, err, out)
		}
	}
	from, to, theirs, engine := r.overlay("h6", "h7")
	names := r.answers("h1", &web)
	time.Sleep(2 * time.Second) // until it listens
	for _, namespace := range []string{named("b"), named("d"), to} {
		r.echoes(namespace)
	}
	all := map[string][]float64{}
	paths := []struct{ name, what, from, to string }{
		{"throughput", rolePour, named("a"), "10.0.1.6:81"},
		{"throughput of Docker Swarm", rolePour, from, theirs + ":81"},
		{"latency by address", rolePing, named("a"), "10.0.1.6:82"},
		{"latency by VIP", rolePing, named("a"), "10.0.1.2:82"},
		{"latency by mesh", rolePing, named("out"), wire + "1:8082"},
		{"latency of Docker Swarm", rolePing, from, theirs + ":82"},
		{"connections with 1 service", roleDial, named("a"), "10.0.1.2:82"},
		{"connections with 2000 services", roleDial, named("c"), at(largeVIP) + ":82"},
	}
	end, bound := t.Deadline()
	for round := range rounds + 1 {
		if bound && round > 1 && time.Until(end) < time.Minute {
			t.Logf("%d rounds: there is no time for more", round-1)
			break
		}
		for i := range paths {
			p := paths[(i+round)%len(paths)] // Nobody is always the one after the same.
			n := r.measure(p.what, p.from, p.to)
			for range again[p.what] {
				n = min(n, r.measure(p.what, p.from, p.to))
			}
			if round > 0 { // The first round fills caches.
				all[p.name] = append(all[p.name], n)
			}
		}
		for _, who := range []struct {
			name, from, server, ask string
			pid                     int
		}{{"names", named("a"), "10.0.1.1:53", "web.", names}, {"names of the engine", from, "127.0.0.11:53", "x1.", engine}} {
			before := worked(who.pid)
			count := r.measure(roleLook, who.from, who.server, who.ask, "rate")
			rate, median := count/(worked(who.pid)-before).Seconds(), r.measure(roleLook, who.from, who.server, who.ask, "median")
			if round > 0 {
				all[who.name], all[who.name+" median"] = append(all[who.name], rate), append(all[who.name+" median"], median)
			}
		}
		took := changes()
		if round > 0 {
			all["change"] = append(all["change"], took.Seconds()*1000)
		}
	}
	for name, list := range all {
		t.Logf("%s: %.4g", name, list)
		slices.Sort(list)
		results[name] = (list[(len(list)-1)/2] + list[len(list)/2]) / 2
	}
	text, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", text)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// plug is container without a server.
func (r *rack) plug(name, host string, addrs ...string) {
	r.Helper()
	r.namespace(name, "")
	for i, addr := range addrs {
		n := r.network(host, netip.MustParseAddr(addr))
		port, inside := fmt.Sprintf("v%d%s", i, name), fmt.Sprintf("eth%d", i)
		mtu := strconv.Itoa(n.MTU) // The engine's containers have it, too: a bridge drops what is larger, and says so to nobody.
		r.in(host, "ip", "link", "add", port, "mtu", mtu, "type", "veth", "peer", "name", inside, "mtu", mtu, "netns", name)
		r.in(host, "ip", "link", "set", port, "master", n.Bridge(), "up")
		r.in(name, "ip", "link", "set", inside, "address", network.EndpointMAC(netip.MustParseAddr(addr)).String(), "up")
		r.in(name, "ip", "addr", "add", fmt.Sprintf("%s/%d", addr, n.Subnets[0].Prefix.Bits()), "dev", inside)
		if i == 0 {
			r.in(name, "ip", "route", "add", "default", "via", n.Subnets[0].Gateway.String())
		}
	}
}

// carries has three hosts carry 2,000 services, and measures what a process with 10,000 endpoints takes. It
// returns what changes a service on all three, and says how long that took until the last kernel had it.
func (r *rack) carries(results map[string]float64) (change func() time.Duration) {
	r.Helper()
	type one struct {
		in  io.WriteCloser
		out *bufio.Reader
		cmd *exec.Cmd
	}
	start := func(host string, tasks int) one {
		c := r.at(roleCarry, named(host), "4", strconv.Itoa(tasks))
		in, _ := c.StdinPipe()
		out, _ := c.StdoutPipe()
		c.Stderr = os.Stderr
		if err := c.Start(); err != nil {
			r.Fatal(err)
		}
		r.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
		account, err := json.Marshal(r.wanted[host])
		if err != nil {
			r.Fatal(err)
		}
		if _, err := in.Write(append(account, '\n')); err != nil {
			r.Fatal(err)
		}
		return one{in, bufio.NewReader(out), c}
	}
	line := func(o one) string {
		text, err := o.out.ReadString('\n')
		if err != nil {
			r.Fatalf("a host that carries a large account: %v", err)
		}
		return strings.TrimSpace(text)
	}
	begin := time.Now()
	small := start("h6", 5)
	line(small)
	r.Logf("10,000 endpoints were carried after %v", time.Since(begin))
	for range 5 {
		fmt.Fprintln(small.in)
		line(small)
	}
	_ = small.in.Close()
	var heap, rss float64
	if _, err := fmt.Sscan(line(small), &heap, &rss); err != nil {
		r.Fatal(err)
	}
	results["heap MB"], results["resident MB"] = heap/(1<<20), rss/(1<<20)
	_ = small.cmd.Wait()
	w := *r.wanted["h6"]
	if out, err := r.settles("h6"); err != nil { // as before
		r.Fatalf("%v: %s", err, out)
	}
	*r.wanted["h6"] = w
	begin = time.Now()
	var hosts []one
	for _, host := range []string{"h3", "h4", "h5"} {
		hosts = append(hosts, start(host, manyTasks))
	}
	for _, o := range hosts {
		line(o)
	}
	r.Logf("2,000 services were carried by three hosts after %v", time.Since(begin))
	return func() time.Duration {
		begin := time.Now().UnixNano()
		for _, o := range hosts {
			fmt.Fprintln(o.in)
		}
		last := begin
		for _, o := range hosts {
			at, err := strconv.ParseInt(line(o), 10, 64)
			if err != nil {
				r.Fatal(err)
			}
			last = max(last, at)
		}
		return time.Duration(last - begin)
	}
}
