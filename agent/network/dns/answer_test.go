package dns_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"

	"skep/agent/network/dns"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// names has two networks: front with web (a VIP), jobs by the tasks' addresses, and back.
// 10.0.1.5 is on front only, 10.0.1.6 on both.
func names() *dns.Names {
	return &dns.Names{
		Complete: true,
		Askers: map[netip.Addr]*dns.Asker{
			addr("10.0.1.5"): {Networks: []string{"front"}},
			addr("10.0.1.6"): {Networks: []string{"front", "back"}, Resolvers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")}},
			addr("10.0.2.6"): {Networks: []string{"front", "back"}},
		},
		Networks: map[string]*dns.Network{
			"front": {
				Subnets: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24"), netip.MustParsePrefix("fd00:1::/64")},
				Names: map[string]dns.Record{
					"web":       {Addrs: []netip.Addr{addr("10.0.1.2"), addr("fd00:1::2")}},
					"tasks.web": {Addrs: []netip.Addr{addr("10.0.1.5"), addr("10.0.1.6"), addr("fd00:1::5")}, Shuffle: true},
					"web.1":     {Addrs: []netip.Addr{addr("10.0.1.5")}},
					"gone":      {},
					"both":      {Addrs: []netip.Addr{addr("10.0.1.9")}},
				},
				Addresses: map[netip.Addr]string{addr("10.0.1.9"): "web.1." + strings.Repeat("n", 64), addr("10.0.1.5"): "web.1.abc.front", addr("fd00:1::5"): "web.1.abc.front"},
			},
			"back": {
				Subnets: []netip.Prefix{netip.MustParsePrefix("10.0.2.0/24")},
				Names:   map[string]dns.Record{"db": {Addrs: []netip.Addr{addr("10.0.2.2")}}, "both": {Addrs: []netip.Addr{addr("10.0.2.9")}}},
			},
		},
		Resolvers: []netip.AddrPort{netip.MustParseAddrPort("198.51.100.53:53")},
	}
}

// told is a reply in one line.
func told(reply *mdns.Msg, ask []netip.AddrPort) string {
	if ask != nil {
		return "ask " + ask[0].String()
	}
	if reply == nil {
		return "silence"
	}
	words := []string{mdns.RcodeToString[reply.Rcode]}
	for _, rr := range reply.Answer {
		switch rr := rr.(type) {
		case *mdns.A:
			words = append(words, rr.A.String())
		case *mdns.AAAA:
			words = append(words, rr.AAAA.String())
		case *mdns.PTR:
			words = append(words, rr.Ptr)
		}
	}
	return strings.Join(words, " ")
}

func TestAnswer(t *testing.T) {
	for _, test := range []struct{ from, name, typ, want string }{
		{"10.0.1.5", "web.", "A", "NOERROR 10.0.1.2"},
		{"10.0.1.5", "WeB.", "A", "NOERROR 10.0.1.2"},
		{"::ffff:10.0.1.5", "web.", "A", "NOERROR 10.0.1.2"},
		{"10.0.1.5", "web.", "AAAA", "NOERROR fd00:1::2"},
		{"10.0.1.5", "tasks.web.", "A", "NOERROR 10.0.1.6 10.0.1.5"},
		{"10.0.1.5", "web.1.", "A", "NOERROR 10.0.1.5"},
		// A known name of another type, and one that nobody serves, are no errors.
		{"10.0.1.5", "web.1.", "AAAA", "NOERROR"},
		{"10.0.1.5", "web.", "MX", "NOERROR"},
		{"10.0.1.5", "gone.", "A", "NOERROR"},
		// What one isn't on one doesn't know, whichever of one's addresses one asks from.
		{"10.0.1.5", "db.", "A", "NXDOMAIN"},
		{"10.0.1.6", "db.", "A", "NOERROR 10.0.2.2"},
		{"10.0.2.6", "db.", "A", "NOERROR 10.0.2.2"},
		{"10.0.1.5", "both.", "A", "NOERROR 10.0.1.9"},
		{"10.0.1.6", "both.", "A", "NOERROR 10.0.1.9 10.0.2.9"},
		{"10.0.1.5", "nobody.", "A", "NXDOMAIN"},
		{"10.0.1.5", ".", "NS", "NXDOMAIN"},
		// One label is nobody else's, whatever bytes it has.
		{"10.0.1.5", `nobody\.com.`, "A", "NXDOMAIN"},
		{"10.0.1.5", `b\195\188cher.`, "A", "NXDOMAIN"},
		{"10.0.1.5", `web\..`, "A", "NXDOMAIN"},
		{"10.0.1.5", strings.Repeat("w", 63) + ".", "A", "NXDOMAIN"},
		{"10.0.1.5", strings.Repeat(strings.Repeat("w", 49)+".", 5), "A", "ask 198.51.100.53:53"},
		{"10.0.1.5", "TASKS.WEB.", "AAAA", "NOERROR fd00:1::5"},
		{"10.0.1.5", "5.1.0.10.IN-ADDR.arpa.", "PTR", "NOERROR web.1.abc.front."},
		{"10.0.1.5", "9.1.0.10.in-addr.arpa.", "PTR", "NXDOMAIN"}, // of a network whose name is no label
		// What isn't the cluster's.
		{"10.0.1.5", "example.com.", "A", "ask 198.51.100.53:53"},
		{"10.0.1.6", "example.com.", "A", "ask 192.0.2.53:53"},
		{"10.0.1.5", "web.2.", "A", "ask 198.51.100.53:53"},
		// Addresses.
		{"10.0.1.5", "5.1.0.10.in-addr.arpa.", "PTR", "NOERROR web.1.abc.front."},
		{"10.0.1.5", "5.1.0.10.in-addr.arpa.", "A", "NOERROR"},
		{"10.0.1.5", "77.1.0.10.in-addr.arpa.", "PTR", "NXDOMAIN"},
		{"10.0.1.5", "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa.", "PTR", "NOERROR web.1.abc.front."},
		{"10.0.1.5", "6.2.0.10.in-addr.arpa.", "PTR", "ask 198.51.100.53:53"},
		{"10.0.1.5", "8.8.8.8.in-addr.arpa.", "PTR", "ask 198.51.100.53:53"},
		{"10.0.1.5", "x.1.0.10.in-addr.arpa.", "PTR", "ask 198.51.100.53:53"},
		// Somebody whom the node doesn't know.
		{"10.0.1.77", "web.", "A", "SERVFAIL"},
		{"10.0.1.77", "example.com.", "A", "SERVFAIL"},
	} {
		q := new(mdns.Msg).SetQuestion(test.name, mdns.StringToType[test.typ])
		if got := told(dns.Answer(names(), addr(test.from), q, slices.Reverse)); got != test.want {
			t.Errorf("%s asks for %s %s: %s, want %s", test.from, test.name, test.typ, got, test.want)
		}
	}
}

func TestAnswer_BeforeAllIsKnown(t *testing.T) {
	early := names()
	early.Complete = false
	for _, n := range []*dns.Names{nil, early} {
		for _, name := range []string{"web.", "nobody.", "example.com."} {
			if got := told(dns.Answer(n, addr("10.0.1.5"), new(mdns.Msg).SetQuestion(name, mdns.TypeA), slices.Reverse)); got != "SERVFAIL" {
				t.Errorf("%s: %s", name, got)
			}
		}
	}
}

func TestAnswer_WhatIsNoQuestion(t *testing.T) {
	question := func(change func(*mdns.Msg)) *mdns.Msg {
		m := new(mdns.Msg).SetQuestion("web.", mdns.TypeA)
		change(m)
		return m
	}
	for want, q := range map[string]*mdns.Msg{
		"silence": question(func(m *mdns.Msg) { m.Response = true }),
		"NOTIMP":  question(func(m *mdns.Msg) { m.Opcode = mdns.OpcodeUpdate }),
		"FORMERR": question(func(m *mdns.Msg) { m.Question = append(m.Question, m.Question[0]) }),
		"REFUSED": question(func(m *mdns.Msg) { m.Question[0].Qclass = mdns.ClassCHAOS }),
	} {
		if got := told(dns.Answer(names(), addr("10.0.1.5"), q, slices.Reverse)); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// FuzzAnswer has any packet come in: what is understood gets an answer that can be sent and fits it.
func FuzzAnswer(f *testing.F) {
	for _, name := range []string{"web.", "tasks.web.", "5.1.0.10.in-addr.arpa.", "example.com."} {
		m := new(mdns.Msg).SetQuestion(name, mdns.TypeA)
		m.SetEdns0(4096, true)
		packed, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed)
	}
	n := names()
	f.Fuzz(func(t *testing.T, packed []byte) {
		q := new(mdns.Msg)
		if q.Unpack(packed) != nil {
			return
		}
		reply, ask := dns.Answer(n, addr("10.0.1.5"), q, slices.Reverse)
		if reply == nil {
			if ask == nil && !q.Response {
				t.Fatal("no answer, and nobody to ask")
			}
			return
		}
		dns.Fit(q, reply, false)
		out, err := reply.Pack()
		if err != nil {
			t.Fatalf("an answer that can't be sent: %v\n%v", err, reply)
		}
		if len(out) > 1232 {
			t.Errorf("an answer of %d bytes", len(out))
		}
		if reply.Id != q.Id || !reply.Response {
			t.Errorf("it isn't an answer: %v", reply)
		}
		for _, rr := range reply.Answer {
			if a, is := rr.(*mdns.A); is && strings.HasPrefix(a.A.String(), "10.0.2.") {
				t.Errorf("an address of a network that the asker isn't on: %v", a)
			}
		}
	})
}
