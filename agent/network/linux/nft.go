package linux

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"skep/agent/network"
)

const (
	// tableName is the name of skep's table in each family.
	tableName = "skep"
	// layoutChain has one rule without effect, whose comment tells the form of the table.
	layoutChain = "layout"
	// socketBuffer is the most that a transaction may have, and what the kernel says to it: one that is larger is
	// refused, and answers that don't fit are lost. It is a bound and takes nothing by itself: 2,000 services of 10
	// tasks are 4 MB, and their 18,000 answers 20 MB.
	socketBuffer = 512 << 20
	// answerLimit is how long the kernel may take: the library waits for an answer to each message, and to some
	// transactions there is only one. 2,000 services take seconds.
	answerLimit = time.Minute
)

// dial opens a socket for a transaction or a listing.
func dial(options ...nftables.SockOption) (*nftables.Conn, error) {
	return nftables.New(nftables.WithSockOptions(append(options, func(c *netlink.Conn) error {
		if err := c.SetReadBuffer(socketBuffer); err != nil {
			return err
		}
		if err := c.SetWriteBuffer(socketBuffer); err != nil {
			return err
		}
		return c.SetReadDeadline(time.Now().Add(answerLimit))
	})...))
}

// batch is a transaction of one or both tables.
type batch struct {
	*nftables.Conn
	sets uint32 // anonymous sets have numbers that are the transaction's own
	err  error
}

// applyTable carries out steps of nftables' in one transaction.
func (p *Plane) applyTable(steps []network.Step) error {
	conn, err := dial(p.mine)
	if err != nil {
		return err
	}
	b := &batch{Conn: conn}
	for _, step := range steps {
		gone := step.Do == network.Remove
		switch o := step.Object.(type) {
		case network.Table:
			b.table(o, step.Do)
		case network.Chain:
			b.chain(o, step.Do)
		case network.Element:
			set := setOf(o.IPv6, o.Set)
			if step.Do == network.Replace {
				b.elements(set, o.IPv6, step.Was.(network.Element), true)
			}
			b.elements(set, o.IPv6, o, gone)
		}
	}
	if b.err != nil {
		return b.err
	}
	if err := conn.Flush(); err != nil {
		p.own.forget() // It may have no news.
		return err
	}
	return nil
}

func tableOf(v6 bool) *nftables.Table {
	family := nftables.TableFamilyIPv4
	if v6 {
		family = nftables.TableFamilyIPv6
	}
	return &nftables.Table{Name: tableName, Family: family}
}

func (b *batch) note(err error) {
	if b.err == nil {
		b.err = err
	}
}

// table makes or removes the table. One that is in the place of another, or of what is left
// of one, is made anew within the transaction.
func (b *batch) table(t network.Table, do network.Verb) {
	table := tableOf(t.IPv6)
	b.AddTable(table) // or it couldn't be removed
	b.DelTable(table)
	if do == network.Remove {
		return
	}
	b.AddTable(table)
	for _, name := range setNames {
		b.note(b.AddSet(setOf(t.IPv6, name), nil))
	}
	chain := b.AddChain(&nftables.Chain{Name: layoutChain, Table: table})
	b.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}, UserData: comment(layoutOf(t))})
	for _, base := range baseChains(t) {
		policy := nftables.ChainPolicyAccept
		chain := b.AddChain(&nftables.Chain{
			Name: base.name, Table: table, Type: base.typ, Hooknum: base.hook, Priority: nftables.ChainPriorityRef(base.priority), Policy: &policy,
		})
		for _, exprs := range base.rules {
			b.rule(&nftables.Rule{Table: table, Chain: chain, Exprs: exprs})
		}
	}
}

// layoutOf is a table's form as the comment of a rule.
func layoutOf(t network.Table) string {
	ingress, self := "-", "-"
	if t.Ingress != "" {
		ingress = t.Ingress
	}
	if t.Self.IsValid() {
		self = t.Self.String()
	}
	return fmt.Sprintf("%d %d %x %x %s %s", t.Layout, t.DataPort, t.Marks.Peer, t.Marks.LocalClient, ingress, self)
}

// parseLayout reads what layoutOf wrote. Of what isn't that, nothing is right.
func parseLayout(v6 bool, s string) network.Table {
	t := network.Table{IPv6: v6}
	var ingress, self string
	if _, err := fmt.Sscanf(s, "%d %d %x %x %s %s", &t.Layout, &t.DataPort, &t.Marks.Peer, &t.Marks.LocalClient, &ingress, &self); err != nil {
		return network.Table{IPv6: v6}
	}
	if ingress != "-" {
		t.Ingress = ingress
	}
	if self != "-" {
		t.Self, _ = netip.ParseAddr(self)
	}
	return t
}

// comment is what `nft list` shows beside a rule.
func comment(s string) []byte { return userdata.AppendString(nil, userdata.TypeComment, s) }

// chain makes a service's chain, or makes it anew, or removes it.
func (b *batch) chain(c network.Chain, do network.Verb) {
	table := tableOf(c.IPv6)
	chain := &nftables.Chain{Name: c.Name, Table: table}
	if do == network.Remove {
		b.FlushChain(chain)
		b.DelChain(chain)
		return
	}
	b.AddChain(chain)
	b.FlushChain(chain)
	said := comment(fmt.Sprintf("%d %d %s", c.Port, c.Seed, network.Digest(c.Backends)))
	addrs, err := parseAddrs(c.Backends)
	if err != nil {
		b.note(err)
		return
	}
	if c.Port == 0 {
		// The virtual IP itself answers pings: they say that the service is known, not more.
		b.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(isICMP(c.IPv6), accept()), UserData: said})
		said = nil
	}
	if len(addrs) == 0 {
		if said != nil {
			b.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}, UserData: said})
		}
		return
	}
	b.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: b.translate(table, c, addrs), UserData: said})
}

// translate chooses one of addrs and sends the packet there.
func (b *batch) translate(table *nftables.Table, c network.Chain, addrs []netip.Addr) []expr.Any {
	var exprs []expr.Any
	if len(addrs) == 1 {
		exprs = append(exprs, &expr.Immediate{Register: reg1, Data: addrs[0].AsSlice()})
	} else {
		b.sets++
		set := &nftables.Set{
			Table: table, ID: b.sets, Name: "__map%d", Anonymous: true, Constant: true, IsMap: true,
			KeyType: nftables.TypeInteger, DataType: addrType(c.IPv6), KeyByteOrder: binaryutil.NativeEndian,
		}
		elements := make([]nftables.SetElement, len(addrs))
		for i, addr := range addrs {
			elements[i] = nftables.SetElement{Key: binaryutil.NativeEndian.PutUint32(uint32(i)), Val: addr.AsSlice()}
		}
		b.note(b.AddSet(set, elements))
		n := uint32(len(addrs))
		if c.Seed == 0 {
			exprs = append(exprs, &expr.Numgen{Register: reg1, Modulus: n, Type: unix.NFT_NG_RANDOM})
		} else {
			exprs = append(exprs, source(c.IPv6, reg1),
				&expr.Hash{SourceRegister: reg1, DestRegister: reg1, Length: addrType(c.IPv6).Bytes, Modulus: n, Seed: c.Seed, Type: expr.HashTypeJenkins})
		}
		exprs = append(exprs, &expr.Lookup{SourceRegister: reg1, DestRegister: reg1, IsDestRegSet: true, SetName: set.Name, SetID: set.ID})
	}
	nat := &expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(table.Family), RegAddrMin: reg1}
	if c.Port != 0 {
		exprs = append(exprs, &expr.Immediate{Register: reg2, Data: binaryutil.BigEndian.PutUint16(c.Port)})
		nat.RegProtoMin = reg2
	}
	return append(exprs, nat)
}

func parseAddrs(list string) (addrs []netip.Addr, err error) {
	for _, word := range strings.Fields(list) {
		addr, err := netip.ParseAddr(word)
		if err != nil {
			return nil, fmt.Errorf("parse backends: %w", err)
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}
