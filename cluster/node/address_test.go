package node

import (
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"

	"skep/cluster"
)

// nic is an interface with addresses.
func nic(name string, networks ...string) Interface {
	made := Interface{Name: name, Loopback: name == "lo", Engine: ofEngine.MatchString(name)}
	for _, text := range networks {
		ip, network, err := net.ParseCIDR(text)
		if err != nil {
			panic(err)
		}
		made.Networks = append(made.Networks, net.IPNet{IP: ip, Mask: network.Mask})
	}
	return made
}

// TestInterfaces_OfTheEngine: what the engine made is no way to this machine.
func TestInterfaces_OfTheEngine(t *testing.T) {
	known := interfaces{nic("lo", "127.0.0.1/8"), nic("eth0", "10.1.0.5/24"), nic("lab0", "172.30.0.1/16")}
	if _, err := resolve("", "", known); err == nil {
		t.Error("an address was chosen though there are two")
	}
	got, err := resolve("", "", known.engines([]string{"lab0"}))
	if err != nil || got.IP != "10.1.0.5" {
		t.Errorf("got %+v, %v; want 10.1.0.5", got, err)
	}
}

func TestResolve(t *testing.T) {
	one := interfaces{
		nic("lo", "127.0.0.1/8", "::1/128"), nic("eth0", "10.1.0.5/24", "fe80::1/64"), nic("docker0", "172.17.0.1/16"),
		nic("br-0123456789ab", "172.18.0.1/16"), nic("docker_gwbridge", "172.19.0.1/16"),
	}
	own := func(listen, control, bind, ip, iface string) addresses {
		return addresses{Listen: listen, Control: control, Bind: bind, IP: ip, Own: iface != "", Interface: iface}
	}
	two := interfaces{nic("eth0", "10.1.0.5/24"), nic("eth1", "10.2.0.5/24")}
	tests := []struct {
		name, listen, advertise string
		local                   interfaces
		want                    addresses
		err                     string
	}{
		{"what the docker command sends by default", "0.0.0.0:2377", "", one, own("10.1.0.5:2377", "10.1.0.5:2377", "10.1.0.5", "10.1.0.5", "eth0"), ""},
		{"several nodes on one machine", "127.0.1.2", "127.0.1.2", one, own("127.0.1.2:2377", "127.0.1.2:2377", "127.0.1.2", "127.0.1.2", "lo"), ""},
		{"bound where it is advertised", "0.0.0.0:2377", "127.0.1.3", one, own("127.0.1.3:2377", "127.0.1.3:2377", "127.0.1.3", "127.0.1.3", "lo"), ""},
		{"an address that isn't this machine's", "0.0.0.0:2377", "198.51.100.7", one, own("0.0.0.0:2377", "198.51.100.7:2377", "0.0.0.0", "198.51.100.7", ""), ""},
		{"interface and port", "eth0:3000", "eth0:4000", one, own("10.1.0.5:3000", "10.1.0.5:4000", "10.1.0.5", "10.1.0.5", "eth0"), ""},
		{"IPv6", "[::1]:2377", "", one, own("[::1]:2377", "[::1]:2377", "::1", "::1", "lo"), ""},
		{"a bridge of the engine, by name", "", "docker0", one, own("172.17.0.1:2377", "172.17.0.1:2377", "172.17.0.1", "172.17.0.1", "docker0"), ""},
		{"only the engine's bridges", "", "", interfaces{one[0], one[2], one[3], one[4]}, addresses{}, "could not choose an IP address to advertise"},
		{"nobody's address", "", "0.0.0.0", one, addresses{}, "non-zero IP address"},
		{"nobody's address, with a port", "", "[::]:2377", one, addresses{}, "non-zero IP address"},
		{"everybody's address", "", "224.0.0.1", one, addresses{}, "non-zero IP address"},
		{"too many to choose from", "", "", two, addresses{}, "could not choose an IP address to advertise"},
		{"none to choose", "", "", interfaces{nic("lo", "127.0.0.1/8")}, addresses{}, "could not choose an IP address to advertise"},
		{"no such interface", "", "eth9", one, addresses{}, "neither an IP address nor a network interface"},
		{"bad port", "10.1.0.5:99999", "", one, addresses{}, "no valid port"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := resolve(test.listen, test.advertise, test.local)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("got %v, %v; want an error with %q", got, err, test.err)
				}
				return
			}
			if err != nil || got != test.want {
				t.Errorf("got %+v, %v; want %+v", got, err, test.want)
			}
		})
	}
}

// FuzzParseAddr reads an address: what it is, written out, is read as the same.
func FuzzParseAddr(f *testing.F) {
	for _, seed := range []string{"", "127.0.0.1", "eth0:2377", "eth0", "eth1", "[::1]:1", "::1", ":2377", "a:b:c", "[fe80::1%eth0]:1", "10.0.0.1:0", "10.0.0.1:65536"} {
		f.Add(seed)
	}
	known := interfaces{nic("eth0", "10.0.0.1/24", "::1/128"), nic("eth1", "10.0.0.2/24", "10.0.0.3/24")}
	f.Fuzz(func(t *testing.T, text string) {
		ip, port, err := parseAddr(text, 2377, known)
		if err != nil {
			if !errors.Is(err, cluster.ErrInvalid) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		host := ""
		if ip != nil {
			host = ip.String()
		}
		again, same, err := parseAddr(net.JoinHostPort(host, strconv.Itoa(port)), 1, known)
		if err != nil || port < 1 || port > 65535 || same != port || !again.Equal(ip) {
			t.Errorf("%q is %v port %d, which is %v port %d, %v", text, ip, port, again, same, err)
		}
	})
}
