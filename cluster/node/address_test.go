package node

import (
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"

	"skep/cluster"
)

func TestResolve(t *testing.T) {
	one := map[string][]net.IP{
		"lo": {net.ParseIP("127.0.0.1")}, "eth0": {net.ParseIP("10.1.0.5"), net.ParseIP("fe80::1")}, "docker0": {net.ParseIP("172.17.0.1")},
	}
	two := map[string][]net.IP{"eth0": {net.ParseIP("10.1.0.5")}, "eth1": {net.ParseIP("10.2.0.5")}}
	tests := []struct {
		name, listen, advertise string
		local                   map[string][]net.IP
		want                    addresses
		err                     string
	}{
		{"what the docker command sends by default", "0.0.0.0:2377", "", one, addresses{"10.1.0.5:2377", "10.1.0.5:2377", "10.1.0.5", "10.1.0.5"}, ""},
		{"several nodes on one machine", "127.0.1.2", "127.0.1.2", one, addresses{"127.0.1.2:2377", "127.0.1.2:2377", "127.0.1.2", "127.0.1.2"}, ""},
		{"bound where it is advertised", "0.0.0.0:2377", "127.0.1.3", one, addresses{"127.0.1.3:2377", "127.0.1.3:2377", "127.0.1.3", "127.0.1.3"}, ""},
		{"an address that isn't this machine's", "0.0.0.0:2377", "198.51.100.7", one, addresses{"0.0.0.0:2377", "198.51.100.7:2377", "0.0.0.0", "198.51.100.7"}, ""},
		{"interface and port", "eth0:3000", "eth0:4000", one, addresses{"10.1.0.5:3000", "10.1.0.5:4000", "10.1.0.5", "10.1.0.5"}, ""},
		{"IPv6", "[::1]:2377", "", one, addresses{"[::1]:2377", "[::1]:2377", "::1", "::1"}, ""},
		{"too many to choose from", "", "", two, addresses{}, "could not choose an IP address to advertise"},
		{"none to choose", "", "", map[string][]net.IP{"lo": {net.ParseIP("127.0.0.1")}}, addresses{}, "could not choose an IP address to advertise"},
		{"no such interface", "", "eth9", one, addresses{}, "neither an IP address nor a network interface"},
		{"bad port", "10.1.0.5:99999", "", one, addresses{}, "no valid port"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := resolve(test.listen, test.advertise, func() (map[string][]net.IP, error) { return test.local, nil })
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
	known := map[string][]net.IP{"eth0": {net.IPv4(10, 0, 0, 1), net.IPv6loopback}, "eth1": {net.IPv4(10, 0, 0, 2), net.IPv4(10, 0, 0, 3)}}
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
