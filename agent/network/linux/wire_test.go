package linux_test

import (
	"bytes"
	"context"
	"encoding/binary"
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
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skep/agent/network"
	"skep/agent/network/linux"
	wires "skep/agent/network/wire"
	"skep/cluster"
)

// wiresFile is where the devices of a host are listed; that of 0 is the test's own namespace.
func wiresFile(index uint16) func(string) string {
	return func(string) string { return fmt.Sprintf("/run/wireguard/wires-%d", index) }
}

// haveWires has the devices that a file lists, as the daemon's helper does.
func haveWires(file string) {
	for ; ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(file); err == nil {
			_ = wires.Process(context.Background(), wires.Config{File: file, Build: "test", Log: slog.New(slog.DiscardHandler)})
		}
	}
}

// printKeys prints the keys of this namespace's devices.
func printKeys() error {
	existing, err := linux.New(slog.Default(), wiresFile(0)).Dump(context.Background(), "c")
	if err != nil {
		return err
	}
	var keys cluster.WireKeys
	i := 0
	for _, o := range existing.Objects {
		if w, is := o.(network.Wire); is && i < len(keys) {
			keys[i] = cluster.WireKey{Generation: w.Generation(), Public: w.Public}
			i++
		}
	}
	return json.NewEncoder(os.Stdout).Encode(keys)
}

// seen is what went over a link.
type seen struct {
	// Ports has how many UDP packets were for which port, either way, and Came those of them that came in; Clear is
	// how many frames had what clients ask.
	Ports, Came map[uint16]int
	Clear       int
}

// sniff reads all frames of a link.
func sniff(name string) error {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	const all = uint16(unix.ETH_P_ALL>>8 | unix.ETH_P_ALL<<8&0xff00)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(all))
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index})
	}
	if err != nil {
		return err
	}
	timeout := unix.Timeval{Usec: 50_000}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout)
	var ended atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		ended.Store(true)
	}()
	fmt.Println("ready")
	saw, frame := seen{Ports: map[uint16]int{}, Came: map[uint16]int{}}, make([]byte, 1<<16)
	for !ended.Load() {
		n, from, err := unix.Recvfrom(fd, frame, 0)
		if err != nil {
			continue
		}
		// The switch gives everybody what it doesn't know the place of.
		to, _ := from.(*unix.SockaddrLinklayer)
		if to != nil && to.Pkttype == unix.PACKET_OTHERHOST {
			continue
		}
		const ipUDP = 17
		if n > 38 && frame[12] == 8 && frame[13] == 0 && frame[23] == ipUDP {
			port := binary.BigEndian.Uint16(frame[36:])
			if saw.Ports[port]++; to == nil || to.Pkttype != unix.PACKET_OUTGOING {
				saw.Came[port]++
			}
		}
		if bytes.Contains(frame[:n], []byte("who?")) {
			saw.Clear++
		}
	}
	return json.NewEncoder(os.Stdout).Encode(saw)
}

// sniffs begins to watch a host's link to the others, and returns what ends that.
func (r *rack) sniffs(host string) func() seen {
	r.Helper()
	c := r.as(roleSniff, host, "eth0")
	in, _ := c.StdinPipe()
	out, _ := c.StdoutPipe()
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		r.Fatal(err)
	}
	ready := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(out, ready); err != nil {
		r.Fatal(err)
	}
	return func() (saw seen) {
		r.Helper()
		_ = in.Close()
		if err := json.NewDecoder(out).Decode(&saw); err != nil {
			r.Fatal(err)
		}
		_ = c.Wait()
		return saw
	}
}

// keeps has a host's helper run while there are devices to have.
func (r *rack) keeps(host string) (helper func() *os.Process) {
	var current atomic.Pointer[os.Process]
	stop, stopped := make(chan struct{}), make(chan struct{})
	file := wiresFile(r.wanted[host].Self.Index)("c")
	go func() {
		defer close(stopped)
		for {
			if _, err := os.Stat(file); err == nil {
				c := r.as(roleWires, host, file)
				c.SysProcAttr.Pdeathsig = 0 // It would be that of a thread.
				if err := c.Start(); err == nil {
					current.Store(c.Process)
					ended := make(chan struct{})
					go func() { defer close(ended); _ = c.Wait() }()
					select {
					case <-ended:
					case <-stop:
						_ = c.Process.Kill()
						<-ended
					}
					current.Store(nil)
				}
			}
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	r.Cleanup(func() { close(stop); <-stopped; _ = os.Remove(file) })
	return current.Load
}

// tellKeys has all hosts know the keys of these.
func (r *rack) tellKeys(hosts ...string) {
	r.Helper()
	for _, host := range hosts {
		out, err := r.as(roleKeys, host).Output()
		var keys cluster.WireKeys
		if err != nil || json.Unmarshal(out, &keys) != nil {
			r.Fatalf("keys of %s: %v, %s", host, err, out)
		}
		index := r.wanted[host].Self.Index
		r.each(func(w *network.Wanted) {
			for i := range w.Nodes {
				if w.Nodes[i].Index == index {
					w.Nodes[i].Keys = keys
				}
			}
		})
	}
}

// encryptedRack is three hosts with an encrypted network, web, and a container each: a, b and c. The
// third host's key isn't told.
func encryptedRack(t *testing.T) (r *rack, helpers map[string]func() *os.Process) {
	r = newRack(t, "h1", "h2", "h3")
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	network4 := func(id string, vni uint32, third string) network.Network {
		n := network.Network{ID: id, VNI: vni, MTU: 1370, Subnets: []network.Subnet{{Prefix: prefix("10.0." + third + ".0/24"), Gateway: addr("10.0." + third + ".1")}}}
		for i := range 3 {
			n.Endpoints = append(n.Endpoints, network.Endpoint{Addrs: []netip.Addr{addr(fmt.Sprint("10.0.", third, ".", 5+i))}, Node: uint16(1 + i)})
		}
		return n
	}
	safe, plain := network4("web", 4098, "1"), network4("plain", 4099, "2")
	safe.Encrypted = true
	helpers = map[string]func() *os.Process{}
	r.each(func(w *network.Wanted) {
		w.Networks, w.MTU, w.Generation = []network.Network{safe, plain}, 1500, 1
	})
	for host := range r.wanted {
		helpers[host] = r.keeps(host)
	}
	r.settle()
	r.tellKeys("h1", "h2")
	r.settle()
	r.container("a", "h1", "10.0.1.5", "10.0.2.5")
	r.container("b", "h2", "10.0.1.6", "10.0.2.6")
	r.container("c", "h3", "10.0.1.7", "10.0.2.7")
	r.settle()
	return r, helpers
}

// vxlan is how many packets in clear were for the data port.
func (s seen) vxlan() int { return s.Ports[4789] }

// TestEncrypted_NothingInClear has containers on two hosts talk by an encrypted network: what goes
// over the wire is WireGuard's. A host whose key isn't known is sent nothing.
func TestEncrypted_NothingInClear(t *testing.T) {
	r, _ := encryptedRack(t)
	over := r.sniffs("h2")
	for _, protocol := range []string{"tcp", "udp"} {
		r.want("a", protocol, "10.0.1.6:80", 3, "b 10.0.1.5")
		r.want("b", protocol, "10.0.1.5:80", 3, "a 10.0.1.6")
		r.want("a", protocol, "10.0.1.7:80", 1, "no answer")
	}
	saw := over()
	if saw.vxlan() != 0 || saw.Clear != 0 || saw.Ports[27055] == 0 {
		t.Errorf("of an encrypted network the wire has %+v", saw)
	}
	// The same by a network in clear is seen.
	over = r.sniffs("h2")
	r.want("a", "tcp", "10.0.2.6:80", 1, "b 10.0.2.5")
	if saw := over(); saw.vxlan() == 0 || saw.Clear == 0 {
		t.Errorf("of a network in clear the wire has %+v", saw)
	}
	over = r.sniffs("h3")
	r.want("a", "udp", "10.0.1.7:80", 1, "no answer")
	// It knows the others' keys, and may ask them for a session, again and again: that stays without an answer.
	if saw := over(); len(saw.Came) != 0 {
		t.Errorf("a host whose key isn't known was sent %+v", saw)
	}
	// Its key comes: it is one of them.
	r.tellKeys("h3")
	r.settle()
	r.want("a", "tcp", "10.0.1.7:80", 1, "c 10.0.1.5")
}

// TestEncrypted_Forged sends packets of the encrypted network from a node, in clear, and has its own
// VXLAN port be led around the WireGuard device: neither gets through, but without the rule both do.
func TestEncrypted_Forged(t *testing.T) {
	r, _ := encryptedRack(t)
	r.namespace("forger", wire9)
	for _, host := range []string{"h1", "h2"} { // It counts as a node.
		w := r.wanted[host]
		w.Nodes = append(w.Nodes, network.Node{Index: 9, Addr: netip.MustParsePrefix(wire9).Addr()})
	}
	r.settle()
	came := func() string {
		out, err := exec.Command("ip", "netns", "exec", "h1", "cat", "/sys/class/net/skx1002/statistics/rx_packets").Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	forged := func() bool {
		before := came()
		for range 3 {
			if out, err := r.as(roleForge, "forger", netip.MustParsePrefix(wire9).Addr().String(), wire1).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		}
		time.Sleep(100 * time.Millisecond)
		return came() != before
	}
	// The device's address is another's, and the way to the other node isn't the device's.
	r.in("h1", "ip", "link", "set", "skw1-1", "down")
	r.in("h1", "ip", "addr", "add", "169.254.200.1/32", "dev", "eth0")
	r.in("h1", "ip", "route", "replace", "169.254.200.2/32", "via", wire2, "dev", "eth0")
	leaks := func() bool {
		over := r.sniffs("h2")
		r.want("a", "udp", "10.0.1.6:80", 1, "no answer")
		return over().vxlan() != 0
	}
	if forged() {
		t.Error("a packet that was forged came in")
	}
	if leaks() {
		t.Error("a packet went out in clear")
	}
	r.in("h1", "nft", "flush", "set", "ip", "skep", "encrypted")
	if !forged() {
		t.Error("without the rule a packet that was forged didn't come in either")
	}
	if !leaks() {
		t.Error("without the rule a packet didn't go out in clear either")
	}
}

const (
	wire1 = wire + "1"
	wire2 = wire + "2"
	wire9 = wire + "9/24"
)

// TestEncrypted_KeysAreRotated has a connection and new ones be used while all hosts get new keys, twice, in
// the worst order: one host long before the others. No request fails, and by UDP, where nobody sends anything
// again, no packet is lost.
func TestEncrypted_KeysAreRotated(t *testing.T) {
	r, _ := encryptedRack(t)
	stop, failed, asked := make(chan struct{}), make(chan string, 100), 0
	ended := make(chan struct{})
	byTCP, _ := r.talks("a", "tcp", 0, "10.0.1.6:80")
	byUDP, _ := r.talks("a", "udp", 0, "10.0.1.6:80")
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
			}
			for protocol, ask := range map[string]func() string{"tcp": byTCP, "udp": byUDP} {
				if said := ask(); said != "b 10.0.1.5" {
					select {
					case failed <- protocol + ": " + said:
					default:
					}
				}
				asked++
			}
			time.Sleep(time.Millisecond)
		}
	}()
	met := func(generation uint32) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			r.settle()
			out, err := exec.Command("ip", "netns", "exec", "h1", "ip", "route", "show", "169.254.200.2").Output()
			back, err2 := exec.Command("ip", "netns", "exec", "h2", "ip", "route", "show", "169.254.200.1").Output()
			device := fmt.Sprintf("-%x ", generation)
			if err == nil && err2 == nil && strings.Contains(string(out), device) && strings.Contains(string(back), device) {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("generation %d isn't in use: %s, %s", generation, out, back)
			}
		}
	}
	for generation := uint32(2); generation < 4; generation++ {
		r.wanted["h1"].Generation = generation
		r.settle()
		r.tellKeys("h1") // The others know it, and have none themselves.
		r.settle()
		time.Sleep(300 * time.Millisecond)
		r.wanted["h2"].Generation, r.wanted["h3"].Generation = generation, generation
		r.settle()
		r.tellKeys("h2")
		r.settle()
		met(generation)
		time.Sleep(300 * time.Millisecond)
	}
	close(stop)
	<-ended
	close(failed)
	for said := range failed {
		t.Errorf("a request while keys were rotated: %s", said)
	}
	if asked < 100 {
		t.Errorf("only %d requests", asked)
	}
	t.Logf("%d requests over two rotations", asked)
	out, err := exec.Command("ip", "netns", "exec", "h1", "ip", "-br", "link").Output()
	if names := slices.DeleteFunc(strings.Fields(string(out)), func(s string) bool { return !strings.HasPrefix(s, "skw") }); err != nil || !slices.Equal(names, []string{"skw1-2", "skw1-3"}) {
		t.Errorf("%v, the devices are %v", err, names)
	}
}

// TestEncrypted_TheHelperIsKilled kills the process that has the devices: they come back with the keys that other
// nodes know, and nothing goes out in clear meanwhile. A node that leaves leaves nothing.
func TestEncrypted_TheHelperIsKilled(t *testing.T) {
	r, helpers := encryptedRack(t)
	r.want("a", "tcp", "10.0.1.6:80", 1, "b 10.0.1.5")
	ctx, cancel := context.WithCancel(context.Background())
	daemon := r.as(roleRun, "h1")
	account, err := json.Marshal(r.wanted["h1"])
	if err != nil {
		t.Fatal(err)
	}
	daemon.Stdin, daemon.Stderr = bytes.NewReader(account), os.Stderr
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = daemon.Process.Kill(); _ = daemon.Wait() }()
	time.Sleep(500 * time.Millisecond)
	// The daemon's death matters to nobody.
	for range 3 {
		over := r.sniffs("h2")
		begin := time.Now()
		if err := helpers["h1"]().Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for ctx.Err() == nil && !slices.Equal(r.asks("a", "tcp", "10.0.1.6:80", 1, 1), []string{"b 10.0.1.5"}) {
			if time.Since(begin) > 10*time.Second {
				t.Fatal("no answer 10 s after the helper was killed")
			}
		}
		t.Logf("%v after the helper was killed there is an answer", time.Since(begin))
		if saw := over(); saw.vxlan() != 0 || saw.Clear != 0 {
			t.Errorf("meanwhile the wire had %+v", saw)
		}
	}
	_ = daemon.Process.Kill()
	_ = daemon.Wait()
	r.want("a", "tcp", "10.0.1.6:80", 3, "b 10.0.1.5")
	r.each(func(w *network.Wanted) { w.Networks = nil })
	r.settle()
	out, err := exec.Command("ip", "netns", "exec", "h1", "sh", "-c", "ip -br link; ip route; nft list ruleset").Output()
	if err != nil || strings.Contains(string(out), "skw") || strings.Contains(string(out), "169.254") {
		t.Errorf("%v, left is\n%s", err, out)
	}
	if _, err := os.Stat(wiresFile(1)("c")); err == nil {
		t.Error("the file of devices is left")
	}
	for end := time.Now().Add(time.Second); helpers["h1"]() != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the helper is left")
		}
	}
}

const (
	// bulkFlows is how many connections send at the same time, for bulkFor; of what each sends little waits in the
	// kernel, so that it notices when the way stands still.
	bulkFlows  = 4
	bulkFor    = 3 * time.Second
	bulkBuffer = 64 << 10
)

// bulk sends as much as the way takes.
func bulk(addr string) error {
	var sent, latest, stall atomic.Int64
	var flows sync.WaitGroup
	begin := time.Now()
	for range bulkFlows {
		conn, err := net.DialTimeout("tcp", addr, 2*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := errors.Join(conn.(*net.TCPConn).SetWriteBuffer(bulkBuffer), conn.SetDeadline(begin.Add(2*bulkFor))); err != nil {
			return err
		}
		flows.Go(func() {
			for buf := make([]byte, bulkBuffer); time.Since(begin) < bulkFor; {
				n, err := conn.Write(buf)
				sent.Add(int64(n))
				now := int64(time.Since(begin))
				if rest := now - latest.Swap(now); rest > stall.Load() {
					stall.Store(rest) // Two at once may lose the lesser one.
				}
				if err != nil {
					return
				}
			}
		})
	}
	flows.Wait()
	return json.NewEncoder(os.Stdout).Encode(bulkResult{float64(sent.Load()) / time.Since(begin).Seconds(), time.Duration(stall.Load())})
}

type bulkResult struct {
	BytesPerSecond float64
	Stall          time.Duration
}

// TestEncrypted_Bulk has a container send as much as the way takes for seconds, by connections whose packets are as large as they
// may be: they go on all the time, by a network in clear and by an encrypted one.
func TestEncrypted_Bulk(t *testing.T) {
	r, _ := encryptedRack(t)
	r.echoes(named("b"))
	for what, addr := range map[string]string{"in clear": "10.0.2.6:81", "encrypted": "10.0.1.6:81"} {
		out, err := r.as(roleBulk, "a", addr).Output()
		var got bulkResult
		if err != nil || json.Unmarshal(out, &got) != nil {
			t.Fatalf("%s: %v, %s", what, err, out)
		}
		t.Logf("%s: %.1f MB/s, never more than %v without progress", what, got.BytesPerSecond/1e6, got.Stall)
		if got.Stall > time.Second || got.BytesPerSecond < 1e6 {
			t.Errorf("%s: %+v", what, got)
		}
	}
}
