package linux_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"skep/agent/network"
)

// TestReserve: nobody else gets a reserved port, by either family; nothing waits in the socket, and who
// calls is refused. What somebody else has is told, as long as it is so, and keeps no other from being reserved.
func TestReserve(t *testing.T) {
	plane := kernel(t)
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	other, err := net.Listen("tcp4", "127.0.0.1:8081")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ports := []network.Port{
		{Protocol: "tcp", Published: 8080}, {Protocol: "udp", Published: 8080}, {Protocol: "tcp", Published: 8081}, {Protocol: "sctp", Published: 8080},
		{Protocol: "tcp", Published: 8082, HostIP: netip.MustParseAddr("127.0.0.1")}, {Protocol: "tcp", Published: 8083, HostIP: netip.MustParseAddr("203.0.113.9")},
	}
	taken := func(ports []network.Port, want ...string) {
		t.Helper()
		if got := plane.Reserve(ports); !slices.Equal(got, want) {
			t.Errorf("others have %q, want %q", got, want)
		}
	}
	taken(ports, "8081/tcp")
	free := func(want bool, network, addr string) {
		t.Helper()
		var err error
		if strings.HasPrefix(network, "tcp") {
			var l net.Listener
			if l, err = net.Listen(network, addr); err == nil {
				l.Close()
			}
		} else {
			var l net.PacketConn
			if l, err = net.ListenPacket(network, addr); err == nil {
				l.Close()
			}
		}
		if (err == nil) != want || err != nil && !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("listen to %s %s: %v, want that to work: %v", network, addr, err, want)
		}
	}
	for _, addr := range []string{":8080", "127.0.0.1:8080"} {
		free(false, "tcp4", addr)
		free(false, "udp4", addr)
	}
	free(false, "tcp6", "[::1]:8080")
	free(false, "udp6", ":8080")
	free(false, "tcp4", "127.0.0.1:8082")
	free(true, "tcp4", ":8083")
	free(true, "udp4", ":8081")
	if _, err := net.Dial("tcp", "127.0.0.1:8080"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("call a reserved port: %v", err)
	}
	conn, err := net.Dial("udp", "127.0.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 10 {
		_, _ = conn.Write(make([]byte, 1000))
	}
	table, err := os.ReadFile("/proc/thread-self/net/udp6")
	if err != nil || !strings.Contains(string(table), ":1F90 ") || strings.Count(string(table), "00000000:00000000 ") != strings.Count(string(table), "\n")-1 {
		t.Errorf("packets wait in the socket: %v\n%s", err, table)
	}

	taken(ports, "8081/tcp")
	other.Close()
	taken(ports)
	free(false, "tcp4", "127.0.0.1:8081")
	taken(nil)
	for _, addr := range []string{":8080", ":8081", "127.0.0.1:8082"} {
		free(true, "tcp", addr)
		free(true, "udp", addr)
	}
}
