package up

import (
	"encoding/json"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

const testNonce = "0123456789abcdef0123"

// free are ports that nobody has.
func free(t *testing.T, protocols ...string) (ports []string) {
	t.Helper()
	for _, proto := range protocols {
		var addr net.Addr
		if proto == "tcp" {
			l, err := net.Listen("tcp", ":0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			addr = l.Addr()
		} else {
			l, err := net.ListenPacket("udp", ":0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			addr = l.LocalAddr()
		}
		_, port, _ := net.SplitHostPort(addr.String())
		ports = append(ports, port+"/"+proto)
	}
	return ports
}

func TestPorts_ThoseThatAreCutAreFound(t *testing.T) {
	ports := free(t, "tcp", "udp", "tcp", "udp", "tcp")
	open, shut, other := ports[:2], ports[2:4], ports[4]
	stranger, err := net.Listen("tcp", ":"+strings.TrimSuffix(other, "/tcp"))
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	go func() {
		for {
			conn, err := stranger.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "220 mail.example.org ESMTP ready\r\n")
			_ = conn.Close()
		}
	}()
	in, feed := io.Pipe()
	said, out := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- Listen(t.Context(), append(slices.Clone(open), other), in, out) }()
	go func() { _, _ = io.WriteString(feed, testNonce+"\n") }()
	var listening Listening
	if err := json.NewDecoder(said).Decode(&listening); err != nil || !slices.Equal(listening.Taken, []string{other}) {
		t.Fatalf("taken: %v, %v", listening.Taken, err)
	}
	var targets []Target
	for _, p := range ports {
		targets = append(targets, Target{To: "b", Addr: "127.0.0.1", Port: p})
	}
	targets = append(targets, Target{To: "held", Addr: "127.0.0.1", Port: other, Held: true}, Target{To: "large", Addr: "127.0.0.1", Port: open[1], Size: 1400})
	found := map[string]string{}
	for _, c := range Dial(t.Context(), Asking{testNonce, targets}) {
		found[c.To+" "+c.Port] = c.Why
	}
	want := map[string]string{"b " + shut[0]: "refused", "b " + shut[1]: "refused", "b " + other: "another machine or program answers"}
	if len(found) != len(want) {
		t.Errorf("cut: %v, want %v", found, want)
	}
	for k, why := range want {
		if found[k] != why {
			t.Errorf("%s: %q, want %q", k, found[k], why)
		}
	}
	// Who doesn't know the nonce gets nothing.
	cuts := Dial(t.Context(), Asking{"another nonce, long enough", []Target{{To: "b", Addr: "127.0.0.1", Port: open[0]}, {To: "b", Addr: "127.0.0.1", Port: open[1]}}})
	if len(cuts) != 2 {
		t.Errorf("with another nonce: %v", cuts)
	}
	_ = feed.Close()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it listens on, without anybody")
	}
	if cuts := Dial(t.Context(), Asking{testNonce, []Target{{To: "b", Addr: "127.0.0.1", Port: open[0]}}}); len(cuts) != 1 {
		t.Error("the port is still open")
	}
}

func TestTargets_AreWhatNodesNeed(t *testing.T) {
	s := newSimulated("a", "b", "c")
	l := list(t, "machines: [{host: a}, {host: b}, {host: c, role: worker}]")
	s.machines["a"].running, s.machines["a"].in = v1, true
	w := World{}
	for _, host := range l.Hosts() {
		w[host] = &Sight{Arch: "amd64", Reached: s.addr(host), Facts: s.facts(s.machines[host])}
	}
	var got []string
	for _, x := range targets(l, w, "b", map[string][]string{"a": {controlPort, gossipTCP, gossipUDP}, "c": {gossipTCP}}) {
		line := x.To + " " + x.Port
		if x.Held {
			line += " held"
		}
		got = append(got, line)
	}
	want := "a 7946/tcp held, a 4789/udp, a 2377/tcp held, c 7946/udp, c 4789/udp"
	if strings.Join(got, ", ") != want {
		t.Errorf("got %s, want %s", strings.Join(got, ", "), want)
	}
}
