package dns

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

const (
	// ttl is how long, in seconds, an answer may be kept: an address is given to another
	// task no sooner than 30 s after its end.
	ttl = 5
	// packet is the most that an answer over UDP has, unless the asker takes more.
	packet = dns.MinMsgSize
	// largestPacket is the most whatever it takes: larger ones would be cut into fragments.
	largestPacket = 1232
)

// Answer answers a container's question, or says whom to ask instead. from is who asks, and
// shuffle puts addresses into an order of chance.
func Answer(n *Names, from netip.Addr, question *dns.Msg, shuffle func([]netip.Addr)) (reply *dns.Msg, ask []netip.AddrPort) {
	refuse := func(code int) (*dns.Msg, []netip.AddrPort) {
		reply := new(dns.Msg).SetRcode(question, code)
		reply.RecursionAvailable = true
		return reply, nil
	}
	switch {
	case question.Response:
		return nil, nil // An answer to an answer would go to and fro.
	case question.Opcode != dns.OpcodeQuery:
		return refuse(dns.RcodeNotImplemented)
	case len(question.Question) != 1:
		return refuse(dns.RcodeFormatError)
	case question.Question[0].Qclass != dns.ClassINET:
		return refuse(dns.RcodeRefused)
	case n == nil || !n.Complete:
		return refuse(dns.RcodeServerFailure)
	}
	asker := n.Askers[from.Unmap()]
	if asker == nil {
		return refuse(dns.RcodeServerFailure) // It may be one that is just being made.
	}
	q := question.Question[0]
	name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
	reply = new(dns.Msg).SetReply(question)
	reply.RecursionAvailable = true

	if record, known := n.find(asker, name); known {
		addrs := make([]netip.Addr, 0, len(record.Addrs))
		for _, addr := range record.Addrs {
			if q.Qtype == dns.TypeA && addr.Is4() || q.Qtype == dns.TypeAAAA && addr.Is6() {
				addrs = append(addrs, addr)
			}
		}
		if record.Shuffle {
			shuffle(addrs)
		}
		for _, addr := range addrs {
			header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: ttl}
			if addr.Is4() {
				reply.Answer = append(reply.Answer, &dns.A{Hdr: header, A: addr.AsSlice()})
			} else {
				reply.Answer = append(reply.Answer, &dns.AAAA{Hdr: header, AAAA: addr.AsSlice()})
			}
		}
		// A name that is known has no answer of another type, which isn't an error: some
		// resolvers would give up the whole name.
		return reply, nil
	}
	if addr, is := parseReverse(name); is {
		if named, ours := n.reverse(asker, addr); ours {
			if _, sendable := dns.IsDomainName(named); named == "" || !sendable {
				return refuse(dns.RcodeNameError)
			}
			if q.Qtype == dns.TypePTR {
				reply.Answer = []dns.RR{&dns.PTR{Hdr: dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: ttl}, Ptr: named + "."}}
			}
			return reply, nil
		}
	}
	if dns.CountLabel(q.Name) < 2 {
		return refuse(dns.RcodeNameError) // Names of one label are the cluster's, or nobody's.
	}
	ask = asker.Resolvers
	if len(ask) == 0 {
		ask = n.Resolvers
	}
	if len(ask) == 0 {
		return refuse(dns.RcodeServerFailure)
	}
	return nil, ask
}

// fit cuts a reply to what the asker takes in one packet; with truncation set it asks again by
// TCP.
func fit(question, reply *dns.Msg, tcp bool) {
	size := packet
	if opt := question.IsEdns0(); opt != nil {
		size = min(max(int(opt.UDPSize()), packet), largestPacket)
		if reply.IsEdns0() == nil {
			reply.SetEdns0(largestPacket, false)
		}
	}
	if tcp {
		size = dns.MaxMsgSize
	}
	reply.Compress = true
	reply.Truncate(size)
}
