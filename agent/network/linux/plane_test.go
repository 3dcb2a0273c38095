package linux_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"skep/agent/network"
	"skep/agent/network/linux"
	"skep/agent/network/networktest"
)

// inNamespace is set in the process that has a network namespace of its own.
const inNamespace = "SKEP_TEST_NETNS"

// TestMain runs the tests in a network namespace of their own, with a kernel's objects that
// are nobody else's.
func TestMain(m *testing.M) {
	if as := os.Getenv(role); as != "" {
		if err := play(as); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if os.Getuid() != 0 {
		os.Exit(m.Run())
	}
	if os.Getenv(inNamespace) != "" {
		// Namespaces have names in a folder, which is this process's alone.
		for _, step := range []func() error{
			func() error { return syscall.Mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, "") },
			func() error { return os.MkdirAll("/run/netns", 0o755) },
			func() error { return syscall.Mount("netns", "/run/netns", "tmpfs", 0, "") },
			func() error { return os.MkdirAll("/run/wireguard", 0o755) },
			func() error { return syscall.Mount("wireguard", "/run/wireguard", "tmpfs", 0, "") },
		} {
			if err := step(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
		go haveWires(wiresFile(0)("c"))
		os.Exit(m.Run())
	}
	self := exec.Command("/proc/self/exe", os.Args[1:]...)
	self.Env = append(os.Environ(), inNamespace+"=1")
	self.Stdin, self.Stdout, self.Stderr = os.Stdin, os.Stdout, os.Stderr
	self.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	if err := self.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func kernel(t *testing.T) *linux.Plane {
	if os.Getenv(inNamespace) == "" {
		if os.Getenv("SKEP_REQUIRE_DOCKER") == "1" {
			t.Fatal("needs root, and a kernel with network namespaces")
		}
		t.Skip("needs root")
	}
	return linux.New(slog.New(slog.NewTextHandler(testWriter{t}, nil)), wiresFile(0))
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) { w.t.Log(string(p)); return len(p), nil }

// TestPlane_HasWhatIsDesired goes from any account of networks to any other in a real kernel: after
// at most two rounds what a dump lists is what is desired, and nothing is left to do.
func TestPlane_HasWhatIsDesired(t *testing.T) {
	plane := kernel(t)
	ctx := context.Background()
	rapid.Check(t, func(t *rapid.T) {
		settle(t, ctx, plane, networktest.Wanted(t))
	})
	settle(t, ctx, plane, &network.Wanted{Cluster: "c"})
}

// TestPlane_TakesAnyAccount has anything be wrong in an account: what is left of it the kernel takes
// without refusing a step.
func TestPlane_TakesAnyAccount(t *testing.T) {
	plane := kernel(t)
	ctx := context.Background()
	rapid.Check(t, func(t *rapid.T) {
		w, _ := networktest.Any(t)
		settle(t, ctx, plane, w)
	})
	settle(t, ctx, plane, &network.Wanted{Cluster: "c"})
}

// TestPlane_ANumberOfAnotherNetwork gives a network the number of one that is gone, which the node
// didn't hear of meanwhile: the bridge is made anew, without the containers of the old one.
func TestPlane_ANumberOfAnotherNetwork(t *testing.T) {
	plane := kernel(t)
	ctx := context.Background()
	w := &network.Wanted{
		Cluster: "c", Self: network.Node{Index: 1, Addr: netip.MustParseAddr("192.0.2.1")}, DataPort: 4789,
		Networks: []network.Network{{ID: "old", VNI: 4097, MTU: 1450, Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("10.0.1.0/24"), Gateway: netip.MustParseAddr("10.0.1.1")}}}},
	}
	settle(t, ctx, plane, w)
	defer settle(t, ctx, plane, &network.Wanted{Cluster: "c"})
	if out, err := exec.Command("ip", "link", "add", "ve", "master", "skb1001", "type", "veth", "peer", "name", "ve2").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	defer func() { _ = exec.Command("ip", "link", "del", "ve").Run() }()
	w.Networks[0].ID = "new"
	settle(t, ctx, plane, w)
	existing, err := plane.Dump(ctx, "c")
	if err != nil || len(existing.Ports["skb1001"]) > 0 {
		t.Errorf("%v, the new network has the ports %v", err, existing.Ports)
	}
}

// TestPlane_RemovesASecondRule has two rules of one priority, as a daemon that is killed between adding one
// and removing the one before leaves them, or anybody's hand: only the right one stays.
func TestPlane_RemovesASecondRule(t *testing.T) {
	plane := kernel(t)
	ctx := context.Background()
	w := &network.Wanted{
		Cluster: "c", Self: network.Node{Index: 1, Addr: netip.MustParseAddr("192.0.2.1")}, DataPort: 4789, Marks: network.Marks{Peer: 0x3ff00000, LocalClient: 0x40000000},
		Nodes:    []network.Node{{Index: 2, Addr: netip.MustParseAddr("192.0.2.2")}},
		Networks: []network.Network{{ID: "in", VNI: 4097, MTU: 1450, Ingress: true, Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("10.0.1.0/24"), Gateway: netip.MustParseAddr("10.0.1.1")}}}},
	}
	defer settle(t, ctx, plane, &network.Wanted{Cluster: "c"})
	add := func(rule string) {
		t.Helper()
		if out, err := exec.Command("ip", append([]string{"rule", "add"}, strings.Fields(rule)...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	left := func() int {
		out, _ := exec.Command("ip", "rule", "list", "pref", "10002").CombinedOutput()
		return strings.Count(string(out), "\n")
	}
	add("pref 10002 iif skb1001 fwmark 0x500000/0x3ff00000 lookup 10005 protocol 91")
	settle(t, ctx, plane, w)
	if n := left(); n != 1 {
		t.Errorf("%d rules of the priority, after one before", n)
	}
	add("pref 10002 iif skb1001 fwmark 0x500000/0x3ff00000 lookup 10005 protocol 91")
	settle(t, ctx, plane, w)
	if n := left(); n != 1 {
		t.Errorf("%d rules of the priority, after one behind", n)
	}
	// Both are there when the replacement begins.
	w.Marks.Peer = 0x000ffc00
	add("pref 10002 iif skb1001 fwmark 0x800/0xffc00 lookup 10002 protocol 91")
	settle(t, ctx, plane, w)
	if n := left(); n != 1 {
		t.Errorf("%d rules of the priority, after the new one was there", n)
	}
}

// two is an account of two networks, the first with all there is.
func two() *network.Wanted {
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	net := func(id string, vni uint32, third string) network.Network {
		return network.Network{
			ID: id, VNI: vni, MTU: 1450, Subnets: []network.Subnet{{Prefix: prefix(third + "0/24"), Gateway: addr(third + "1")}},
			Endpoints: []network.Endpoint{{Node: 1, Addrs: []netip.Addr{addr(third + "5")}}, {Node: 2, Addrs: []netip.Addr{addr(third + "6")}}},
			Services:  []network.Service{{VIP: addr(third + "2"), Backends: []netip.Addr{addr(third + "5"), addr(third + "6")}}},
		}
	}
	w := &network.Wanted{
		Cluster: "c", Self: network.Node{Index: 1, Addr: addr("192.0.2.1")}, DataPort: 4789, Marks: network.Marks{Peer: 0x3ff00000, LocalClient: 0x40000000},
		Nodes:    []network.Node{{Index: 2, Addr: addr("192.0.2.2")}},
		Networks: []network.Network{net("in", 4097, "10.0.1."), net("web", 4098, "10.0.2.")},
		Ports:    []network.Port{{Protocol: "tcp", Published: 80, Target: 8080, Backends: []netip.Addr{addr("10.0.1.5")}}},
	}
	w.Networks[0].Ingress = true
	return w
}

// TestPlane_MendsWhatWasHalfMade begins with what a daemon that was killed between two steps of the kernel
// leaves, or an older one.
func TestPlane_MendsWhatWasHalfMade(t *testing.T) {
	plane := kernel(t)
	ctx := context.Background()
	for _, left := range []string{
		"ip link add skb1001 type bridge",
		"ip link add skb1001 type bridge; ip link set skb1001 alias skep/c/in",
		"ip link add skb1001 address 02:5b:10:01:00:01 mtu 1450 type bridge; ip link set skb1001 alias skep/c/in; ip link set skb1001 up",
		"ip link add skx1001 type vxlan id 4097 dstport 4789 local 192.0.2.1",
		"ip link add skx1001 mtu 1450 type vxlan id 4097 dstport 4789 local 192.0.2.1; ip link set skx1001 alias skep/c/in; ip link set skx1001 up",
		"ip link add skx1001 mtu 1450 type vxlan id 9 dstport 4790 local 192.0.2.1; ip link set skx1001 alias skep/c/in; ip link set skx1001 up",
		"nft add table ip skep",
		"nft 'add table ip skep; add chain ip skep layout; add set ip skep vip { type ipv4_addr; }; add element ip skep vip { 10.0.1.2 }'",
		"nft 'add table ip skep; add chain ip skep v-1001-10.0.1.2; add rule ip skep v-1001-10.0.1.2 drop'",
		"ip link set lo up; ip route add local 10.0.1.2 dev lo table local",
	} {
		if out, err := exec.Command("sh", "-c", left).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", left, err, out)
		}
		settle(t, ctx, plane, two())
		settle(t, ctx, plane, &network.Wanted{Cluster: "c"})
	}
}

// TestPlane_OneNetworkInTheWay has somebody else's link where a bridge should be: that is said, and the
// other network is there.
func TestPlane_OneNetworkInTheWay(t *testing.T) {
	plane := kernel(t)
	ctx := context.Background()
	for _, foreign := range []string{"ip link add skb1001 type veth", "ip link add skb1001 type bridge; ip link set skb1001 alias skep/other/in", "ip link add skb1001 type bridge; ip link set skb1001 alias mine"} {
		if out, err := exec.Command("sh", "-c", foreign).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", foreign, err, out)
		}
		w := two()
		for range 2 {
			existing, err := plane.Dump(ctx, "c")
			if err != nil {
				t.Fatal(err)
			}
			err = plane.Apply(ctx, network.Plan(network.Desired(w, existing), existing.Objects, true))
			if err == nil || !strings.Contains(err.Error(), "ip link delete skb1001") {
				t.Errorf("%s: it says %v", foreign, err)
			}
		}
		existing, err := plane.Dump(ctx, "c")
		if err != nil {
			t.Fatal(err)
		}
		there := keys(existing.Objects)
		for _, want := range keys(network.Desired(w, network.Existing{})) {
			if strings.Contains(want, "1002") && !slices.Contains(there, want) {
				t.Errorf("%s: no %s", foreign, want)
			}
		}
		_ = exec.Command("ip", "link", "del", "skb1001").Run()
		settle(t, ctx, plane, &network.Wanted{Cluster: "c"})
	}
}

// settle plans and applies until nothing is left to do, and wants what there is then to be
// what is desired.
func settle(t interface {
	Fatal(...any)
	Fatalf(string, ...any)
}, ctx context.Context, plane network.Plane, w *network.Wanted) {
	if err := settleNow(ctx, plane, w); err != nil {
		t.Fatal(err)
	}
	existing, err := plane.Dump(ctx, w.Cluster)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := keys(existing.Objects), keys(network.Desired(w, existing)); !slices.Equal(got, want) {
		t.Fatalf("there is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// settleNow does so in two rounds at most.
func settleNow(ctx context.Context, plane network.Plane, w *network.Wanted) error {
	for round := 0; ; round++ {
		existing, err := plane.Dump(ctx, w.Cluster)
		if err != nil {
			return err
		}
		steps := network.Plan(network.Desired(w, existing), existing.Objects, true)
		if len(steps) == 0 {
			return nil
		}
		if round == 2 {
			return fmt.Errorf("still to do after %d rounds: %v", round, steps)
		}
		if err := plane.Apply(ctx, steps); err != nil {
			return err
		}
	}
}

func keys(objects []network.Object) []string {
	list := make([]string, len(objects))
	for i, o := range objects {
		if c, is := o.(network.Chain); is {
			c.Backends = network.Digest(c.Backends)
			o = c
		}
		list[i] = o.String()
	}
	slices.Sort(list)
	return list
}

// TestWatch_IsntToldOfOwnChanges has a plane change a service, and then another program do the same.
func TestWatch_IsntToldOfOwnChanges(t *testing.T) {
	plane, ctx, w := kernel(t), t.Context(), two()
	settle(t, ctx, plane, w)
	defer settle(t, ctx, plane, &network.Wanted{Cluster: w.Cluster})
	told := make(chan struct{}, 1000)
	go func() { _ = plane.Watch(ctx, func() { told <- struct{}{} }) }()
	change := func(by *linux.Plane, name string) {
		t.Helper()
		if err := by.Apply(ctx, []network.Step{{Do: network.Add, Object: network.Chain{Name: name, Backends: "10.0.1.5 10.0.1.6"}}}); err != nil {
			t.Fatal(err)
		}
	}
	other := linux.New(slog.New(slog.DiscardHandler), wiresFile(0))
	for i := 0; len(told) == 0; i++ { // until it listens
		change(other, fmt.Sprint("v-before-", i))
		time.Sleep(20 * time.Millisecond)
		if i > 200 {
			t.Fatal("it isn't told of what others do")
		}
	}
	for quiet := false; !quiet; { // News of one transaction come in several pieces.
		select {
		case <-told:
		case <-time.After(200 * time.Millisecond):
			quiet = true
		}
	}
	for i := range 5 {
		change(plane, fmt.Sprint("v-own-", i))
	}
	select {
	case <-told:
		t.Error("it is told of what it did itself")
	case <-time.After(200 * time.Millisecond):
	}
	change(other, "v-other")
	select {
	case <-told:
	case <-time.After(5 * time.Second):
		t.Error("it isn't told of what another did afterwards")
	}
}

// TestWatch_IsntToldOfLooseCables has a cable made, and then put into a bridge.
func TestWatch_IsntToldOfLooseCables(t *testing.T) {
	plane, ctx, w := kernel(t), t.Context(), two()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs ip")
	}
	settle(t, ctx, plane, w)
	defer settle(t, ctx, plane, &network.Wanted{Cluster: w.Cluster})
	told := make(chan struct{}, 1000)
	go func() { _ = plane.Watch(ctx, func() { told <- struct{}{} }) }()
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	quiet := func() (heard bool) {
		for {
			select {
			case <-told:
				heard = true
			case <-time.After(300 * time.Millisecond):
				return heard
			}
		}
	}
	for i := 0; !quiet(); i++ { // until it listens
		ip("link", "set", w.Networks[0].Bridge(), "up", "txqueuelen", strconv.Itoa(500+i))
		if i > 20 {
			t.Fatal("it isn't told of what others do")
		}
	}
	ip("link", "add", "cable0", "type", "veth", "peer", "name", "cable1")
	defer func() { _ = exec.Command("ip", "link", "del", "cable0").Run() }()
	ip("link", "set", "cable1", "up")
	if quiet() {
		t.Error("it is told of a cable in no bridge")
	}
	ip("link", "set", "cable0", "master", w.Networks[0].Bridge())
	if !quiet() {
		t.Error("it isn't told of a cable in its bridge")
	}
	ip("link", "set", "cable0", "nomaster")
	quiet()
	ip("link", "del", "cable0")
	if quiet() {
		t.Error("it is told of the end of a cable in no bridge")
	}
}

// TestPlane_MendsWhatOthersChange has rules flushed, a bridge and a rule removed and a tunnel
// set down by other programs: it is noticed, and mended, without anybody telling.
func TestPlane_MendsWhatOthersChange(t *testing.T) {
	plane := kernel(t)
	for _, program := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("needs ", program)
		}
	}
	prefix := netip.MustParsePrefix("10.0.1.0/24")
	w := &network.Wanted{
		Cluster: "c", Self: network.Node{Index: 1, Addr: netip.MustParseAddr("192.0.2.1")}, DataPort: 4789, Marks: network.Marks{Peer: 0x3ff00000, LocalClient: 0x40000000},
		Nodes: []network.Node{{Index: 2, Addr: netip.MustParseAddr("192.0.2.2")}},
		Networks: []network.Network{{
			ID: "web", VNI: 4097, MTU: 1450, Ingress: true, Subnets: []network.Subnet{{Prefix: prefix, Gateway: prefix.Addr().Next()}},
			Endpoints: []network.Endpoint{{Node: 2, Addrs: []netip.Addr{netip.MustParseAddr("10.0.1.6")}}},
			Services:  []network.Service{{VIP: netip.MustParseAddr("10.0.1.2"), Backends: []netip.Addr{netip.MustParseAddr("10.0.1.6")}}},
		}},
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- network.Run(ctx, network.Config{
			Plane: plane, Wanted: func() (*network.Wanted, bool) { return w, true }, Changed: make(chan struct{}), Log: slog.New(slog.DiscardHandler),
		})
	}()
	defer func() {
		cancel()
		<-ended
		settle(t, context.Background(), plane, &network.Wanted{Cluster: "c"})
	}()
	right := func(after string) {
		t.Helper()
		deadline := time.Now().Add(10 * time.Second)
		for {
			existing, err := plane.Dump(ctx, "c")
			if err == nil && len(network.Plan(network.Desired(w, existing), existing.Objects, true)) == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: not mended, %v", after, err)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	right("the start")
	for _, command := range []string{
		"nft flush ruleset", "nft delete rule ip skep layout handle 999 || nft flush chain ip skep pre", "nft flush chain ip skep v-1001-10.0.1.2",
		"nft delete rule ip skep v-1001-10.0.1.2 handle $(nft -a list chain ip skep v-1001-10.0.1.2 | sed -n 's/.*dnat.*handle //p')",
		"nft 'flush chain ip skep post; delete set ip skep hair'", "ip rule del pref 10002", "ip link set skx1001 down", "ip link del skx1001", "ip addr flush dev skb1001", "ip link del skb1001",
		"ip link set skb1001 type bridge nf_call_iptables 0", "ip link set skb1001 type bridge nf_call_ip6tables 0",
	} {
		if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		right(command)
	}
	// What nft makes of it can be read by people.
	out, err := exec.Command("nft", "list", "table", "ip", "skep").CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"skb1001" . 10.0.1.2 : goto v-1001-10.0.1.2`) || !strings.Contains(string(out), "dnat to 10.0.1.6") {
		t.Errorf("nft list: %v\n%s", err, out)
	}
	t.Logf("%s", out)
	// What is bridged passes by netfilter.
	out, err = exec.Command("ip", "-d", "link", "show", "dev", "skb1001").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "nf_call_iptables 1 nf_call_ip6tables 1") {
		t.Errorf("ip link: %v\n%s", err, out)
	}
	// The tunnel neither learns nor floods.
	out, err = exec.Command("bridge", "-d", "link", "show", "dev", "skx1001").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "learning off flood off mcast_flood off bcast_flood off") {
		t.Errorf("bridge link: %v\n%s", err, out)
	}
}
