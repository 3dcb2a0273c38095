package dns_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	mdns "github.com/miekg/dns"

	"skep/agent/network/dns"
	"skep/cluster"
)

var sameNames = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{}), cmpopts.EquateEmpty()}

func TestFile_HasWhatWasWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "names")
	n := here()
	n.Listen = []dns.Listen{{Addr: netip.MustParseAddrPort("10.0.1.1:27053"), Bridge: "skb1001", From: netip.MustParsePrefix("10.0.1.0/24")}, {Addr: netip.MustParseAddrPort("[fd00:1::1]:27053")}}
	for _, n := range []*dns.Names{{}, n, large()} {
		if err := dns.WriteFile(path, n); err != nil {
			t.Fatal(err)
		}
		got, err := dns.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(n, got, sameNames); diff != "" {
			t.Errorf("written and read:\n%s", diff)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// TestFile_IsReadWholeOrNotAtAll cuts the file at each place, and changes each of its bytes.
func TestFile_IsReadWholeOrNotAtAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "names")
	if err := dns.WriteFile(path, names()); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	running := strings.TrimSpace(string(boot))
	if _, err := dns.ParseFile(whole, running); err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		if _, err := dns.ParseFile(whole[:i], running); err == nil {
			t.Errorf("the first %d bytes are taken for the whole", i)
		}
		changed := append([]byte(nil), whole...)
		changed[i]++
		if _, err := dns.ParseFile(changed, running); err == nil {
			t.Errorf("byte %d may be another", i)
		}
	}
	if _, err := dns.ParseFile(whole, "another start"); !errors.Is(err, cluster.ErrInvalid) {
		t.Errorf("from before the machine started: %v", err)
	}
	if err := os.Truncate(path, 200<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := dns.ReadFile(path); !errors.Is(err, cluster.ErrInvalid) {
		t.Errorf("too large: %v", err)
	}
}

// FuzzFile has anything be in a file whose digest is right: it is read, and answered from, or refused.
func FuzzFile(f *testing.F) {
	const running = "this start"
	for _, n := range []*dns.Names{{}, here()} {
		whole, err := dns.FileOf(n, running)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(whole[dns.FileBody:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		n, err := dns.ParseFile(dns.SealFile(body), running)
		if err != nil {
			return
		}
		for asker := range n.Askers {
			for _, name := range []string{"web.", "tasks.web.", "5.1.0.10.in-addr.arpa.", "example.com."} {
				q := new(mdns.Msg).SetQuestion(name, mdns.TypeA)
				reply, _ := dns.Answer(n, asker, q, func([]netip.Addr) {})
				if reply == nil {
					continue
				}
				dns.Fit(q, reply, false)
				if _, err := reply.Pack(); err != nil {
					t.Errorf("an answer that can't be sent: %v\n%v", err, reply)
				}
			}
		}
		again, err := dns.FileOf(n, running)
		if err != nil {
			t.Fatal(err)
		}
		got, err := dns.ParseFile(again, running)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(n, got, sameNames); diff != "" {
			t.Errorf("written and read:\n%s", diff)
		}
	})
}

// large has 10,000 tasks of 1,000 services in ten networks.
func large() *dns.Names {
	n := &dns.Names{Complete: true, Askers: map[netip.Addr]*dns.Asker{}, Networks: map[string]*dns.Network{}}
	for k := range 10 {
		net := &dns.Network{Subnets: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/16", k))}, Names: map[string]dns.Record{}, Addresses: map[netip.Addr]string{}}
		n.Networks[fmt.Sprintf("network%018d", k)] = net
		for s := range 100 {
			name := fmt.Sprintf("service-%d-%d", k, s)
			var all []netip.Addr
			for i := range 10 {
				a := netip.AddrFrom4([4]byte{10, byte(k), byte(s), byte(i)})
				all = append(all, a)
				task := fmt.Sprintf("%s.%d.%025d", name, i, i)
				net.Names[task] = dns.Record{Addrs: []netip.Addr{a}}
				net.Names[fmt.Sprintf("%s.%d", name, i)] = dns.Record{Addrs: []netip.Addr{a}}
				net.Addresses[a] = task + ".network"
				if i == 0 && s < 20 {
					n.Askers[a] = &dns.Asker{Networks: []string{fmt.Sprintf("network%018d", k)}}
				}
			}
			net.Names[name] = dns.Record{Addrs: all[:1]}
			net.Names["tasks."+name] = dns.Record{Addrs: all, Shuffle: true}
		}
	}
	return n
}

// BenchmarkFile writes and reads the names of 10,000 tasks, all and after a change of one network of ten.
func BenchmarkFile(b *testing.B) {
	path := filepath.Join(b.TempDir(), "names")
	n := large()
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			if err := dns.WriteFile(path, n); err != nil {
				b.Fatal(err)
			}
		}
	})
	if err := dns.WriteFile(path, n); err != nil {
		b.Fatal(err)
	}
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if _, err := dns.ReadFile(path); err != nil {
				b.Fatal(err)
			}
		}
	})
}
