package node

import (
	"net"
	"strings"
	"testing"
)

func TestAgain(t *testing.T) {
	lo := nic("lo", "127.0.0.1/8")
	at := func(networks ...string) interfaces { return interfaces{lo, nic("eth0", networks...)} }
	home, err := resolve("", "", at("10.1.0.5/24"))
	if err != nil {
		t.Fatal(err)
	}
	nat, err := resolve("0.0.0.0:3000", "198.51.100.7:4000", at("10.1.0.5/24"))
	if err != nil {
		t.Fatal(err)
	}
	inner, err := resolve("10.1.0.5:3000", "198.51.100.7:4000", at("10.1.0.5/24"))
	if err != nil {
		t.Fatal(err)
	}
	local, err := resolve("", "127.0.3.4", at("10.1.0.5/24"))
	if err != nil {
		t.Fatal(err)
	}
	flagged := home
	flagged.Flags = addressFlags{Advertise: "10.1.0.5"}
	tests := []struct {
		name      string
		before    addresses
		now       surroundings
		listen    string
		advertise string
		err       string
	}{
		{"nothing changed", home, surroundings{local: at("10.1.0.5/24")}, "10.1.0.5:2377", "10.1.0.5:2377", ""},
		{"another address beside it", home, surroundings{local: at("10.1.0.5/24", "10.1.0.6/24")}, "10.1.0.5:2377", "10.1.0.5:2377", ""},
		{"another address instead", home, surroundings{local: at("10.1.0.9/24")}, "10.1.0.9:2377", "10.1.0.9:2377", ""},
		{"another interface", home, surroundings{local: interfaces{lo, nic("eth1", "10.7.0.9/24"), nic("docker0", "172.17.0.1/16")}}, "10.7.0.9:2377", "10.7.0.9:2377", ""},
		{"two addresses, one of which leads to others", home, surroundings{local: at("10.1.0.8/24", "10.1.0.9/24"), towards: func() net.IP { return net.IPv4(10, 1, 0, 9) }}, "10.1.0.9:2377", "10.1.0.9:2377", ""},
		{"two addresses", home, surroundings{local: at("10.1.0.8/24", "10.1.0.9/24")}, "", "", "multiple addresses"},
		{"none yet", home, surroundings{local: append(at(), nic("eth1", "10.7.0.9/24")), patient: true}, "", "", "interface eth0 has no other yet"},
		{"none any more", home, surroundings{local: append(at(), nic("eth1", "10.7.0.9/24"))}, "10.7.0.9:2377", "10.7.0.9:2377", ""},
		{"a NAT's, with another address inside", nat, surroundings{local: at("10.1.0.9/24")}, "0.0.0.0:3000", "198.51.100.7:4000", ""},
		{"a NAT's, and bound to what was inside", inner, surroundings{local: at("10.1.0.9/24")}, "0.0.0.0:3000", "198.51.100.7:4000", ""},
		{"a NAT's, and bound to what is inside", inner, surroundings{local: at("10.1.0.5/24")}, "10.1.0.5:3000", "198.51.100.7:4000", ""},
		{"loopback is a whole network", local, surroundings{local: at("10.1.0.9/24")}, "127.0.3.4:2377", "127.0.3.4:2377", ""},
		{"a flag that is new", home, surroundings{flags: addressFlags{Advertise: "10.1.0.6"}, local: at("10.1.0.5/24", "10.1.0.6/24")}, "10.1.0.6:2377", "10.1.0.6:2377", ""},
		{"a flag that is new names a NAT", home, surroundings{flags: addressFlags{Advertise: "198.51.100.7"}, local: at("10.1.0.5/24")}, "0.0.0.0:2377", "198.51.100.7:2377", ""},
		{"a flag that is new says where to listen", nat, surroundings{flags: addressFlags{Listen: "10.1.0.5:5000"}, local: at("10.1.0.5/24")}, "10.1.0.5:5000", "198.51.100.7:4000", ""},
		{"a flag of before whose address is gone", flagged, surroundings{flags: flagged.Flags, local: at("10.1.0.9/24")}, "10.1.0.9:2377", "10.1.0.9:2377", ""},
		{"a flag that makes no sense", home, surroundings{flags: addressFlags{Advertise: "eth7"}, local: at("10.1.0.5/24")}, "", "", "neither an IP address"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.now.towards == nil {
				test.now.towards = func() net.IP { return nil }
			}
			got, err := test.before.settleAgain(test.now)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("got %+v, %v; want an error with %q", got, err, test.err)
				}
				return
			}
			if err != nil || got.Listen != test.listen || got.Control != test.advertise {
				t.Fatalf("got %+v, %v; want %s, advertised as %s", got, err, test.listen, test.advertise)
			}
			if more, err := got.settleAgain(test.now); err != nil || more != got {
				t.Errorf("settled once more it is %+v, %v; was %+v", more, err, got)
			}
		})
	}
	nowhere := home.everywhere()
	if back, err := nowhere.settleAgain(surroundings{local: at("10.1.0.5/24")}); err != nil || back != home {
		t.Errorf("when its address is back it is %+v, %v; want %+v", back, err, home)
	}
}
