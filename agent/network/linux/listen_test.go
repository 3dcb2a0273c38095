package linux

import (
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"

	"skep/cluster"
)

// TestListens looks at this process's own sockets, of each kind.
func TestListens(t *testing.T) {
	port := func(protocol string, number uint16) []cluster.PublishedPort {
		return []cluster.PublishedPort{{Protocol: protocol, Published: 1, Target: 1}, {Protocol: protocol, Published: 2, Target: number}}
	}
	check := func(what string, ports []cluster.PublishedPort, want bool) {
		t.Helper()
		if got := Listens(os.Getpid(), ports); got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	if lo, err := netlink.LinkByName("lo"); err != nil {
		t.Fatal(err)
	} else if err := netlink.LinkSetUp(lo); err != nil && os.Getuid() == 0 {
		t.Fatal(err)
	}
	for _, at := range []string{"127.0.0.1:0", "[::]:0"} {
		listener, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		number := netip.MustParseAddrPort(listener.Addr().String()).Port()
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		check("listens by TCP at "+at, port("tcp", number), true)
		check("the number is UDP's at "+at, port("udp", number), false)
		check("a client of "+at, port("tcp", netip.MustParseAddrPort(conn.LocalAddr().String()).Port()), false)
		listener.Close()
		check("has closed "+at, port("tcp", number), false)
		conn.Close()

		packets, err := net.ListenPacket("udp", at)
		if err != nil {
			t.Fatal(err)
		}
		number = netip.MustParseAddrPort(packets.LocalAddr().String()).Port()
		check("listens by UDP at "+at, port("udp", number), true)
		check("the number is TCP's at "+at, port("tcp", number), false)
		packets.Close()
	}
	check("that can't be known: SCTP", port("sctp", 5), true)
	if !Listens(1<<30, port("tcp", 1)) {
		t.Error("that can't be known: there is no such process")
	}
}
