package dns

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// patience is how long a resolver is waited for, before the next one is asked.
const patience = 2 * time.Second

// failure says that there is no answer now: the asker tries again.
func failure(question *dns.Msg) *dns.Msg {
	reply := new(dns.Msg).SetRcode(question, dns.RcodeServerFailure)
	reply.RecursionAvailable = true
	return reply
}

// forward asks resolvers, one after the other, until one answers.
func (s *Server) forward(question *dns.Msg, resolvers []netip.AddrPort, tcp bool) *dns.Msg {
	network := "udp"
	if tcp {
		network = "tcp"
	}
	reply := failure(question)
	for _, resolver := range resolvers {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		answer, err := s.cfg.Exchange(ctx, network, question, resolver)
		cancel()
		if err != nil || answer == nil {
			s.cfg.Log.Debug("ask a resolver", "addr", resolver.String(), "err", err)
			continue
		}
		reply = answer
		if reply.Rcode != dns.RcodeServerFailure && reply.Rcode != dns.RcodeRefused {
			break // Else another one may know better.
		}
	}
	reply.Id, reply.Question = question.Id, question.Question
	if question.IsEdns0() == nil {
		reply.Extra = withoutOPT(reply.Extra)
	}
	return reply
}

func withoutOPT(records []dns.RR) (kept []dns.RR) {
	for _, rr := range records {
		if rr.Header().Rrtype != dns.TypeOPT {
			kept = append(kept, rr)
		}
	}
	return kept
}

// exchange asks a resolver, from a port and with an ID of chance, and waits for what answers that
// question: whatever else comes in could be anybody's.
func exchange(ctx context.Context, network string, question *dns.Msg, resolver netip.AddrPort) (*dns.Msg, error) {
	ask := new(dns.Msg)
	ask.Id = dns.Id()
	ask.RecursionDesired, ask.CheckingDisabled, ask.AuthenticatedData = question.RecursionDesired, question.CheckingDisabled, question.AuthenticatedData
	ask.Question = question.Question
	if opt := question.IsEdns0(); opt != nil {
		ask.SetEdns0(largestPacket, opt.Do())
	}
	// A socket of UDP that is connected takes packets of that address only.
	conn, err := new(net.Dialer).DialContext(ctx, network, resolver.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if deadline, is := ctx.Deadline(); is {
		_ = conn.SetDeadline(deadline)
	}
	c := dns.Conn{Conn: conn, UDPSize: largestQuestion}
	if err := c.WriteMsg(ask); err != nil {
		return nil, err
	}
	for {
		packed, err := c.ReadMsgHeader(nil)
		if err != nil {
			if network == "udp" && ctx.Err() == nil && err == dns.ErrShortRead {
				continue
			}
			return nil, err
		}
		reply := new(dns.Msg)
		if reply.Unpack(packed) == nil && answers(reply, ask) {
			return reply, nil
		}
	}
}

// answers tells whether a reply is one to a question.
func answers(reply, ask *dns.Msg) bool {
	if !reply.Response || reply.Id != ask.Id || reply.Opcode != dns.OpcodeQuery || len(reply.Question) != 1 {
		return false
	}
	got, want := reply.Question[0], ask.Question[0]
	return got.Qtype == want.Qtype && got.Qclass == want.Qclass && strings.EqualFold(got.Name, want.Name)
}
