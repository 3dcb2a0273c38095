package linux

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"skep/agent/network"
)

// TestSetMAC sets the address of an interface of another namespace, twice, and none where there is none.
func TestSetMAC(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("SKEP_REQUIRE_DOCKER") != "" {
			t.Fatal("root is needed to make namespaces")
		}
		t.Skip("root is needed to make namespaces")
	}
	const namespace = "skep-setmac"
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("ip", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	run("netns", "add", namespace)
	t.Cleanup(func() { run("netns", "del", namespace) })
	run("-n", namespace, "link", "add", "eth1", "type", "veth", "peer", "name", "other")
	run("-n", namespace, "addr", "add", "10.0.0.5/24", "dev", "eth1")
	run("-n", namespace, "link", "set", "eth1", "up")
	addr := netip.MustParseAddr("10.0.0.5")
	for range 2 {
		if err := setMAC("/run/netns/"+namespace, addr, network.EndpointMAC(addr)); err != nil {
			t.Fatal(err)
		}
		if link := run("-n", namespace, "link", "show", "eth1"); !strings.Contains(link, "02:42:0a:00:00:05") {
			t.Errorf("it is %s", link)
		}
	}
	for where, addr := range map[string]string{"/run/netns/" + namespace: "10.0.0.6", "/run/netns/skep-nowhere": "10.0.0.5"} {
		if err := setMAC(where, netip.MustParseAddr(addr), network.MAC{2}); err == nil {
			t.Errorf("a MAC was set of %s in %s", addr, where)
		}
	}
}
