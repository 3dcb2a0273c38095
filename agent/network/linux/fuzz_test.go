package linux

import (
	"bytes"
	"testing"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"skep/agent/network"
)

// FuzzDump has the kernel, and iptables-save, say anything: what is understood of a set's element is
// written as the same again, a table's form likewise, and rules are those of a bridge.
func FuzzDump(f *testing.F) {
	for _, e := range []network.Element{
		{Set: network.SetVIP, A: "skb1001", B: "10.0.1.2", Value: "v-1001-10.0.1.2"}, {Set: network.SetMesh, A: "tcp", B: "80", Value: "p-tcp-80"},
		{Set: network.SetMeshAddr, A: "10.0.0.5", B: "udp/53", Value: "p"}, {Set: network.SetPeers, A: "02:5b:10:01:00:02", Value: "2097152"},
		{Set: network.SetNodes, A: "192.0.2.1"}, {Set: network.SetHair, A: "10.0.1.5", B: "10.0.1.5"}, {Set: network.SetGateways, A: "skb1001", B: "10.0.1.1"},
		{Set: network.SetInternal, A: "skb1001"}, {Set: network.SetSame, A: "skb1001", B: "skb1001"},
	} {
		key, err := encodeKey(false, e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(key, []byte{1, 0, 0, 0})
	}
	f.Add([]byte(layoutOf(network.Table{Layout: network.Layout, DataPort: 4789, Ingress: "skb1001"})), []byte{})
	f.Add([]byte(":FORWARD DROP [0:0]\n:DOCKER-USER - [0:0]\n-A DOCKER-USER -o skb1001 -m conntrack --ctstate DNAT -j ACCEPT\n"), []byte{})
	f.Add(append(make([]byte, unix.SizeofIfInfomsg), 8, 0, unix.IFLA_LINKINFO, 0, 4, 0, 2, 0), []byte{})
	f.Add(append(make([]byte, unix.SizeofIfInfomsg), 6, 0, 1, 0, 1, 2), []byte{}) // The last attribute isn't filled up.
	f.Fuzz(func(t *testing.T, a, b []byte) {
		for _, v6 := range []bool{false, true} {
			for _, name := range setNames {
				e, is := decodeElement(v6, name, nftables.SetElement{Key: a, Val: b})
				if !is || uint32(len(a)) != setOf(v6, name).KeyType.Bytes {
					continue
				}
				key, err := encodeKey(v6, e)
				if err != nil {
					t.Fatalf("element %s of %x can't be written: %v", e, a, err)
				}
				if again, is := decodeElement(v6, name, nftables.SetElement{Key: key, Val: b}); !is || again != e {
					t.Fatalf("element %s of %x is read as %s of %x", e, a, again, key)
				}
				_, _ = e.Key(), e.String()
			}
			if table := parseLayout(v6, string(a)); table.Layout != 0 && parseLayout(v6, layoutOf(table)) != table {
				t.Fatalf("table %s of %q is read as %s", table, a, parseLayout(v6, layoutOf(table)))
			}
			for _, p := range parseFirewall("iptables-nft", v6, string(a)).passes {
				if p.IPv6 != v6 || !bytes.Contains(a, []byte(p.Bridge)) {
					t.Fatalf("%s of %q", p, a)
				}
			}
		}
		ports := map[int]bridgePort{}
		if err := parseBridgePort(a, ports); err != nil && len(ports) > 0 {
			t.Fatalf("it has ports, and fails: %v", err)
		}
		if calls, err := parseCallsNetfilter(a); calls && err != nil {
			t.Fatalf("netfilter is called, and it fails: %v", err)
		}
		kind := netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWRULE)
		_ = ofFirewall(netlink.Message{Header: netlink.Header{Type: kind}, Data: a})
	})
}
