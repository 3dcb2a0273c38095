package linux

import (
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"skep/agent/network"
)

// Registers of 16 bytes. What follows a name of an interface in a concatenated key, which
// fills reg1, is in reg2.
const (
	reg1 = unix.NFT_REG_1
	reg2 = unix.NFT_REG_2
)

// word is register i of 4 bytes: reg1 is the first four of them.
func word(i uint32) uint32 { return unix.NFT_REG32_00 + i }

// The bridges that containers of this node are on: the engine's default, those of its
// networks, and skep's. Patterns are prefixes.
var containerBridges = []string{"docker0\x00", "br-", "skb"}

// baseChain is one of the chains that the kernel calls by itself.
type baseChain struct {
	name     string
	typ      nftables.ChainType
	hook     *nftables.ChainHook
	priority nftables.ChainPriority
	rules    [][]expr.Any
}

// baseChains are the rules that don't depend on services. Each of nat's stands before the
// engine's own, so that what is skep's is translated by skep.
func baseChains(t network.Table) []baseChain {
	v6 := t.IPv6
	var fromNodes, mark, pre, out, post, fwd, in, redirect, last [][]expr.Any

	if t.Ingress != "" {
		fromNodes = append(fromNodes, zone(t.Ingress))
	}

	// Of a connection through the mesh, the node that it came by is remembered by the MAC
	// of that node's bridge, and replies are marked with it.
	if t.Ingress != "" {
		mark = append(mark,
			chainRule(not(iifname(t.Ingress)), []expr.Any{leave()}),
			chainRule(direction(original), state(expr.CtStateBitNEW), []expr.Any{
				&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6},
				lookup(reg1, network.SetPeers, reg1),
				&expr.Ct{Key: expr.CtKeyMARK, Register: reg1, SourceRegister: true},
			}),
			chainRule(direction(reply), masked(&expr.Ct{Key: expr.CtKeyMARK, Register: reg1}, t.Marks.Peer, expr.CmpOpNeq), []expr.Any{
				&expr.Ct{Key: expr.CtKeyMARK, Register: reg1},
				&expr.Meta{Key: expr.MetaKeyMARK, Register: reg1, SourceRegister: true},
			}),
		)
	}

	// Names are asked of the gateway's port 53, whatever else is published or listens there.
	atGateway := []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg1}, destination(v6, reg2), member(network.SetGateways, false)}
	for _, protocol := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		pre = append(pre, chainRule(protocolIs(protocol), port(53), atGateway, []expr.Any{
			&expr.Immediate{Register: reg1, Data: binaryutil.BigEndian.PutUint16(network.NamesPort)},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(tableOf(v6).Family), RegProtoMin: reg1},
		}))
	}
	pre = append(pre,
		chainRule([]expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg1}, destination(v6, reg2), verdicts(network.SetVIP)}),
		chainRule(isLocal(destinationType), publishedOn(v6)),
		chainRule(isLocal(destinationType), published()),
	)
	for _, bridge := range containerBridges {
		pre = append(pre, chainRule(iifname(bridge), isIn(v6, destination, network.SetNodes), published()))
	}
	out = append(out,
		chainRule(isLocal(destinationType), publishedOn(v6)),
		chainRule(isLocal(destinationType), published()),
		chainRule(isIn(v6, destination, network.SetNodes), published()),
	)

	// A task that got its own packet back, by its own virtual IP, would answer itself directly.
	post = append(post, chainRule(translated(), []expr.Any{
		source(v6, reg1), destination(v6, word(addrType(v6).Bytes/4)), member(network.SetHair, false), &expr.Masq{},
	}))
	if t.Ingress != "" && t.Self.IsValid() {
		// The addresses of these clients mean something else on other nodes, or lead there by
		// another way: they get this node's. All others keep theirs.
		snat := []expr.Any{
			&expr.Immediate{Register: reg1, Data: t.Self.AsSlice()},
			&expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(tableOf(v6).Family), RegAddrMin: reg1},
		}
		for _, client := range [][]expr.Any{
			isLocal(sourceType),
			masked(&expr.Meta{Key: expr.MetaKeyMARK, Register: reg1}, t.Marks.LocalClient, expr.CmpOpNeq),
			isIn(v6, source, network.SetNodes),
		} {
			post = append(post, chainRule(oifname(t.Ingress), translated(), client, snat))
		}
	} else if t.Ingress != "" && !v6 {
		// A node that carries networks for one machine has no such address. A program's own 127.0.0.1 is
		// the container itself to a container: it gets the bridge's, whose answers come back here.
		post = append(post, chainRule(oifname(t.Ingress), translated(), []expr.Any{
			&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{127}},
			&expr.Masq{},
		}))
	}

	// What stays on its network, most packets by far, leaves here: no rule below is for it but the refusals.
	fwd = append(fwd, chainRule(bridges(), []expr.Any{member(network.SetSame, false), destination(v6, reg1), member(network.SetGone, true), leave()}))
	// What is for a machine that is dead would be waited for.
	for _, refusal := range refusals(v6) {
		fwd = append(fwd, chainRule(refusal.of, isIn(v6, destination, network.SetGone), refusal.by))
	}
	if t.Ingress != "" {
		for _, bridge := range containerBridges {
			// Where packets come in isn't known where they leave: it is marked in between.
			fwd = append(fwd, chainRule(oifname(t.Ingress), not(iifname(t.Ingress)), iifname(bridge), translated(), []expr.Any{
				&expr.Meta{Key: expr.MetaKeyMARK, Register: reg1},
				&expr.Bitwise{
					SourceRegister: reg1, DestRegister: reg1, Len: 4,
					Mask: binaryutil.NativeEndian.PutUint32(^t.Marks.LocalClient), Xor: binaryutil.NativeEndian.PutUint32(t.Marks.LocalClient),
				},
				&expr.Meta{Key: expr.MetaKeyMARK, Register: reg1, SourceRegister: true},
			}))
		}
	}
	// The engine's translation would give a container's VXLAN packets the node's address, which
	// other nodes take them from.
	for _, bridge := range containerBridges {
		fwd = append(fwd, chainRule(iifname(bridge), isIn(v6, destination, network.SetNodes), vxlan(t.DataPort), drop()))
	}
	// From one network to another there is no way but by published ports, whatever the engine's firewall says.
	fwd = append(fwd, chainRule(iifname("skb"), oifname("skb"), state(expr.CtStateBitNEW), untranslated(), drop()))
	for _, side := range []expr.MetaKey{expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME} {
		fwd = append(fwd, chainRule([]expr.Any{
			&expr.Meta{Key: side, Register: reg1}, member(network.SetInternal, false),
		}, drop()))
	}

	// Of tunnels most packets are in clear, from a node, and come in by its network: one rule knows them.
	var elsewhere []expr.Any
	for i, name := range append([]string{network.WirePrefix}, containerBridges...) {
		match := not(iifname(name))
		if i > 0 {
			match = match[1:] // The name has been loaded.
		}
		elsewhere = append(elsewhere, match...)
	}
	in = append(in, chainRule(vxlan(t.DataPort), elsewhere, isIn(v6, source, network.SetNodes), not(encrypted()), []expr.Any{leave()}))
	// Packets of encrypted networks come and go by WireGuard's devices, and nothing else does: who is
	// allowed by the cluster's keys isn't allowed more than by the node's own network.
	in = append(in,
		chainRule(iifname(network.WirePrefix), vxlan(t.DataPort), encrypted(), []expr.Any{accept()}),
		chainRule(iifname(network.WirePrefix), drop()),
		chainRule(vxlan(t.DataPort), encrypted(), drop()),
	)
	fwd = append(fwd, chainRule(iifname(network.WirePrefix), drop()), chainRule(oifname(network.WirePrefix), drop()))
	last = append(last, chainRule(vxlan(t.DataPort), not(oifname(network.WirePrefix)), encrypted(), drop()))

	// Containers reach names, pings and what answers them; of the node's addresses only the
	// gateway's. A virtual IP is one of the node's: its port 22 would be the node's.
	for _, bridge := range containerBridges {
		in = append(in, chainRule(iifname(bridge), vxlan(t.DataPort), drop())) // A container can take any address.
	}
	in = append(in,
		chainRule(vxlan(t.DataPort), notIn(v6, source, network.SetNodes), drop()),
		chainRule(iifname("skb"), state(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), []expr.Any{accept()}),
		chainRule(iifname("skb"), isICMP(v6), []expr.Any{accept()}),
		chainRule(protocolIs(unix.IPPROTO_UDP), port(network.NamesPort), atGateway, []expr.Any{accept()}),
		chainRule(protocolIs(unix.IPPROTO_TCP), port(network.NamesPort), atGateway, []expr.Any{accept()}),
	)
	for _, refusal := range refusals(v6) {
		in = append(in, chainRule(iifname("skb"), isLocal(destinationType), refusal.of, []expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg1}, destination(v6, reg2), member(network.SetGateways, true),
		}, refusal.by))
	}

	// A container's way to its gateway is the shortest there is, whatever the routes say.
	redirect = append(redirect, chainRule(isICMP(v6), oifname("skb"), []expr.Any{
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{redirectType(v6)}},
	}, drop()))

	return []baseChain{
		{"zone", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, -300, fromNodes},
		{"mark", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, -150, mark},
		{"pre", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, -110, pre},
		{"out", nftables.ChainTypeNAT, nftables.ChainHookOutput, -110, out},
		{"post", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, 90, post},
		{"fwd", nftables.ChainTypeFilter, nftables.ChainHookForward, -10, fwd},
		{"in", nftables.ChainTypeFilter, nftables.ChainHookInput, -10, in},
		{"redirect", nftables.ChainTypeFilter, nftables.ChainHookOutput, -10, redirect},
		{"last", nftables.ChainTypeFilter, nftables.ChainHookPostrouting, 300, last},
	}
}

// chainRule is the expressions of a rule, one after the other.
func chainRule(parts ...[]expr.Any) (exprs []expr.Any) {
	for _, part := range parts {
		exprs = append(exprs, part...)
	}
	return exprs
}

// refusal is one way to refuse packets, and which ones.
type refusal struct{ of, by []expr.Any }

// refusals are those of TCP, and of all others.
func refusals(v6 bool) []refusal {
	return []refusal{
		{protocolIs(unix.IPPROTO_TCP), []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}},
		{not(protocolIs(unix.IPPROTO_TCP)), []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: portUnreachable(v6)}}},
	}
}

// bridges loads what a packet comes in by and leaves by.
func bridges() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg1}, &expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg2}}
}

// leave ends a base chain: the packet goes on.
func leave() expr.Any { return &expr.Verdict{Kind: expr.VerdictReturn} }

func drop() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}} }

func accept() expr.Any { return &expr.Verdict{Kind: expr.VerdictAccept} }

// nameIs matches an interface's name, or what it begins with: a name that ends with a NUL is whole.
func nameIs(key expr.MetaKey, name string) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: reg1}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte(name)}}
}

// iifname and oifname match the interface a packet comes in or leaves by: a bridge of skep's by its
// whole name, since 15 bytes never fill the register, others by a prefix.
func iifname(name string) []expr.Any { return nameIs(expr.MetaKeyIIFNAME, whole(name)) }
func oifname(name string) []expr.Any { return nameIs(expr.MetaKeyOIFNAME, whole(name)) }

func whole(name string) string {
	if len(name) > len("skb") && name[len(name)-1] != 0 {
		return name + "\x00"
	}
	return name
}

// not turns the comparison that a match ends with, or its look into a set.
func not(match []expr.Any) []expr.Any {
	switch last := match[len(match)-1].(type) {
	case *expr.Cmp:
		last.Op = expr.CmpOpNeq
	case *expr.Lookup:
		last.Invert = true
	}
	return match
}

// The directions of a connection's packets.
const (
	original = 0
	reply    = 1
)

func direction(d byte) []expr.Any {
	return []expr.Any{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg1}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{d}}}
}

func state(bits uint32) []expr.Any {
	return masked(&expr.Ct{Key: expr.CtKeySTATE, Register: reg1}, bits, expr.CmpOpNeq)
}

// translated matches packets of connections whose destination was translated.
func translated() []expr.Any {
	return masked(&expr.Ct{Key: expr.CtKeySTATUS, Register: reg1}, ipsDstNAT, expr.CmpOpNeq)
}

// untranslated matches all others.
func untranslated() []expr.Any {
	return masked(&expr.Ct{Key: expr.CtKeySTATUS, Register: reg1}, ipsDstNAT, expr.CmpOpEq)
}

const ipsDstNAT = 1 << 5 // IPS_DST_NAT

// masked compares some bits of what load puts into reg1 with 0.
func masked(load expr.Any, bits uint32, op expr.CmpOp) []expr.Any {
	return []expr.Any{
		load,
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: reg1, Data: make([]byte, 4)},
	}
}

func addrType(v6 bool) nftables.SetDatatype {
	if v6 {
		return nftables.TypeIP6Addr
	}
	return nftables.TypeIPAddr
}

// source and destination load a packet's address.
func source(v6 bool, reg uint32) expr.Any {
	if v6 {
		return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: 8, Len: 16}
	}
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}
}

func destination(v6 bool, reg uint32) expr.Any {
	if v6 {
		return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: 24, Len: 16}
	}
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}
}

// Which address isLocal looks at.
const (
	sourceType = iota
	destinationType
)

// isLocal matches packets one of whose addresses is the node's.
func isLocal(which int) []expr.Any {
	const rtnLocal = unix.RTN_LOCAL
	return []expr.Any{
		&expr.Fib{Register: reg1, ResultADDRTYPE: true, FlagSADDR: which == sourceType, FlagDADDR: which == destinationType},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: binaryutil.NativeEndian.PutUint32(rtnLocal)},
	}
}

func lookup(reg uint32, set network.Set, to uint32) expr.Any {
	return &expr.Lookup{SourceRegister: reg, SetName: string(set), DestRegister: to, IsDestRegSet: true}
}

// verdicts goes on as the map says for what is in reg1 and what follows it.
func verdicts(set network.Set) expr.Any { return lookup(reg1, set, unix.NFT_REG_VERDICT) }

// member matches when what is in reg1 and what follows it is in the set.
func member(set network.Set, invert bool) expr.Any {
	return &expr.Lookup{SourceRegister: reg1, SetName: string(set), Invert: invert}
}

func isIn(v6 bool, load func(bool, uint32) expr.Any, set network.Set) []expr.Any {
	return []expr.Any{load(v6, reg1), member(set, false)}
}

func notIn(v6 bool, load func(bool, uint32) expr.Any, set network.Set) []expr.Any {
	return []expr.Any{load(v6, reg1), member(set, true)}
}

// published goes on with the published port that a packet is for, if there is one.
func published() []expr.Any { return append(protocolAndPort(0), verdicts(network.SetMesh)) }

// publishedOn is the same for a port that is published on one address.
func publishedOn(v6 bool) []expr.Any {
	words := addrType(v6).Bytes / 4
	return append(append([]expr.Any{destination(v6, reg1)}, protocolAndPort(words)...), verdicts(network.SetMeshAddr))
}

// protocolAndPort loads both into the words at that place.
func protocolAndPort(at uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: word(at)},
		&expr.Payload{DestRegister: word(at + 1), Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}
}

func protocolIs(number byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{number}}}
}

func isICMP(v6 bool) []expr.Any {
	if v6 {
		return protocolIs(unix.IPPROTO_ICMPV6)
	}
	return protocolIs(unix.IPPROTO_ICMP)
}

// portUnreachable is the code of the family's unreachable messages.
func portUnreachable(v6 bool) byte {
	if v6 {
		return 4
	}
	return 3
}

// redirectType is the type of the family's redirect messages.
func redirectType(v6 bool) byte {
	if v6 {
		return 137
	}
	return 5
}

// vxlan matches the outer packets of tunnels.
func vxlan(dataPort uint16) []expr.Any {
	return append(protocolIs(unix.IPPROTO_UDP), port(dataPort)...)
}

// encrypted matches those of networks that are.
func encrypted() []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: 12, Len: 4},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: []byte{0xff, 0xff, 0xff, 0}, Xor: make([]byte, 4)},
		member(network.SetEncrypted, false),
	}
}

func port(number uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: binaryutil.BigEndian.PutUint16(number)},
	}
}
