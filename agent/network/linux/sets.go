package linux

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"skep/agent/network"
)

var setNames = []network.Set{
	network.SetVIP, network.SetMesh, network.SetMeshAddr, network.SetPeers, network.SetNodes, network.SetHair, network.SetGateways,
	network.SetInternal, network.SetSame, network.SetEncrypted, network.SetGone,
}

// setOf is the set or map of a name in the table of a family.
func setOf(v6 bool, name network.Set) *nftables.Set {
	s := &nftables.Set{Table: tableOf(v6), Name: string(name), DataType: nftables.TypeVerdict}
	var key []nftables.SetDatatype
	switch name {
	case network.SetVIP:
		key, s.IsMap = []nftables.SetDatatype{nftables.TypeIFName, addrType(v6)}, true
	case network.SetMesh:
		key, s.IsMap = []nftables.SetDatatype{nftables.TypeInetProto, nftables.TypeInetService}, true
	case network.SetMeshAddr:
		key, s.IsMap = []nftables.SetDatatype{addrType(v6), nftables.TypeInetProto, nftables.TypeInetService}, true
	case network.SetPeers:
		// Of a map whose data is a number of another type `nft list` makes nothing.
		key, s.IsMap, s.DataType = []nftables.SetDatatype{nftables.TypeEtherAddr}, true, nftables.TypeMark
	case network.SetNodes, network.SetGone:
		key = []nftables.SetDatatype{addrType(v6)}
	case network.SetEncrypted:
		key = []nftables.SetDatatype{nftables.TypeMark}
	case network.SetHair:
		key = []nftables.SetDatatype{addrType(v6), addrType(v6)}
	case network.SetGateways:
		key = []nftables.SetDatatype{nftables.TypeIFName, addrType(v6)}
	case network.SetInternal:
		key = []nftables.SetDatatype{nftables.TypeIFName}
	case network.SetSame:
		key = []nftables.SetDatatype{nftables.TypeIFName, nftables.TypeIFName}
	}
	if s.KeyType = key[0]; len(key) > 1 {
		s.KeyType, s.Concatenation = nftables.MustConcatSetType(key...), true
	}
	return s
}

// protocols are the transports by their names.
var protocols = map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

// elements adds an element to a set, or removes it.
func (b *batch) elements(set *nftables.Set, v6 bool, e network.Element, gone bool) {
	key, err := encodeKey(v6, e)
	if err != nil {
		b.note(fmt.Errorf("write %s: %w", e, err))
		return
	}
	element := nftables.SetElement{Key: key}
	switch {
	case !set.IsMap:
	case e.Set == network.SetPeers:
		mark, err := strconv.ParseUint(e.Value, 10, 32)
		b.note(err)
		element.Val = binaryutil.NativeEndian.PutUint32(uint32(mark))
	default:
		element.VerdictData = &expr.Verdict{Kind: expr.VerdictGoto, Chain: e.Value}
	}
	if gone {
		b.note(b.SetDeleteElements(set, []nftables.SetElement{element}))
		return
	}
	b.note(b.SetAddElements(set, []nftables.SetElement{element}))
}

// encodeKey is an element's key as the kernel has it: each part padded to whole words.
func encodeKey(v6 bool, e network.Element) ([]byte, error) {
	addr := func(s string) []byte {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Is6() != v6 {
			return nil
		}
		return a.AsSlice()
	}
	var key []byte
	switch e.Set {
	case network.SetVIP, network.SetGateways:
		key = append(ifname(e.A), addr(e.B)...)
	case network.SetMesh:
		key = transport(e.A + "/" + e.B)
	case network.SetMeshAddr:
		key = append(addr(e.A), transport(e.B)...)
	case network.SetPeers:
		key, _ = net.ParseMAC(e.A)
	case network.SetNodes, network.SetGone:
		key = addr(e.A)
	case network.SetEncrypted:
		if vni, err := strconv.ParseUint(e.A, 10, 24); err == nil {
			key = binaryutil.BigEndian.PutUint32(uint32(vni) << 8) // as in the packet
		}
	case network.SetHair:
		key = append(addr(e.A), addr(e.B)...)
	case network.SetInternal:
		key = ifname(e.A)
	case network.SetSame:
		key = append(ifname(e.A), ifname(e.B)...)
	}
	if want := setOf(v6, e.Set).KeyType.Bytes; uint32(len(key)) != want {
		return nil, fmt.Errorf("its key has %d bytes, want %d", len(key), want)
	}
	return key, nil
}

func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

// transport encodes "tcp/80".
func transport(s string) []byte {
	protocol, port, _ := strings.Cut(s, "/")
	n, err := strconv.ParseUint(port, 10, 16)
	number, known := protocols[protocol]
	if err != nil || !known {
		return nil
	}
	return []byte{number, 0, 0, 0, byte(n >> 8), byte(n), 0, 0}
}

// decodeElement is encodeKey the other way round; false for what skep doesn't write.
func decodeElement(v6 bool, name network.Set, element nftables.SetElement) (network.Element, bool) {
	e := network.Element{IPv6: v6, Set: name}
	key := element.Key
	bad := false
	take := func(n int) []byte {
		if len(key) < n {
			bad = true
			return make([]byte, n)
		}
		part := key[:n]
		key = key[n:]
		return part
	}
	link := func() string { return strings.TrimRight(string(take(unix.IFNAMSIZ)), "\x00") }
	addr := func() string {
		a, _ := netip.AddrFromSlice(take(int(addrType(v6).Bytes)))
		return a.String()
	}
	port := func() (string, string) {
		b := take(8)
		for protocol, number := range protocols {
			if number == b[0] {
				return protocol, strconv.Itoa(int(b[4])<<8 | int(b[5]))
			}
		}
		bad = true
		return "", ""
	}
	switch name {
	case network.SetVIP, network.SetGateways:
		e.A, e.B = link(), addr()
	case network.SetMesh:
		e.A, e.B = port()
	case network.SetMeshAddr:
		e.A = addr()
		protocol, number := port()
		e.B = protocol + "/" + number
	case network.SetPeers:
		e.A = net.HardwareAddr(take(6)).String()
		if len(element.Val) != 4 {
			return e, false
		}
		e.Value = strconv.FormatUint(uint64(binaryutil.NativeEndian.Uint32(element.Val)), 10)
	case network.SetNodes, network.SetGone:
		e.A = addr()
	case network.SetEncrypted:
		e.A = strconv.FormatUint(uint64(binaryutil.BigEndian.Uint32(take(4))>>8), 10)
	case network.SetHair:
		e.A, e.B = addr(), addr()
	case network.SetInternal:
		e.A = link()
	case network.SetSame:
		e.A, e.B = link(), link()
	}
	switch name {
	case network.SetVIP, network.SetMesh, network.SetMeshAddr:
		e.Value = chainOf(element.Val)
	}
	return e, !bad
}

// chainOf is the chain that a map's verdict leads to, which the library leaves as it came.
func chainOf(verdict []byte) string {
	attrs, err := netlink.NewAttributeDecoder(verdict)
	if err != nil {
		return ""
	}
	for attrs.Next() {
		if attrs.Type() == unix.NFTA_VERDICT_CHAIN {
			return attrs.String()
		}
	}
	return ""
}

// rulesOf is how many rules a chain has.
func rulesOf(c network.Chain) int {
	if c.Port == 0 && network.Digest(c.Backends) != network.Digest("") {
		return 2 // One lets pings through.
	}
	return 1
}

// dumpRules lists what is said of each rule of a table, by chain. The library can list neither all at once
// nor one that has originalZone.
func dumpRules(table *nftables.Table) (map[string][][]byte, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetReadBuffer(socketBuffer); err != nil {
		return nil, err
	}
	of, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_RULE_TABLE, Data: append([]byte(table.Name), 0)}})
	if err != nil {
		return nil, err
	}
	list, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE, Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{byte(table.Family), unix.NFNETLINK_V0, 0, 0}, of...),
	})
	if err != nil {
		return nil, err
	}
	rules := map[string][][]byte{}
	for _, rule := range list {
		if len(rule.Data) < nfgenmsg {
			continue
		}
		attrs, err := netlink.NewAttributeDecoder(rule.Data[nfgenmsg:])
		if err != nil {
			return nil, err
		}
		var chain string
		var said []byte
		for attrs.Next() {
			switch attrs.Type() {
			case unix.NFTA_RULE_CHAIN:
				chain = attrs.String()
			case unix.NFTA_RULE_USERDATA:
				said = attrs.Bytes()
			}
		}
		rules[chain] = append(rules[chain], said)
	}
	return rules, nil
}

// dumpTable lists the table of a family, if there is one.
func dumpTable(out *network.Existing, v6 bool) error {
	conn, err := dial()
	if err != nil {
		return err
	}
	table := tableOf(v6)
	tables, err := conn.ListTablesOfFamily(table.Family)
	if err != nil {
		return err
	}
	there := false
	for _, t := range tables {
		there = there || t.Name == tableName
	}
	if !there {
		return nil
	}
	chains, err := conn.ListChainsOfTableFamily(table.Family)
	if err != nil {
		return err
	}
	rules, err := dumpRules(table)
	if err != nil {
		return err
	}
	found := network.Table{IPv6: v6}
	var services []network.Chain
	for _, chain := range chains {
		if chain.Table.Name != tableName {
			continue
		}
		list := rules[chain.Name]
		said := ""
		for _, data := range list {
			if s, is := userdata.GetString(data, userdata.TypeComment); is {
				said = s
			}
		}
		switch {
		case chain.Name == layoutChain:
			found = parseLayout(v6, said)
		case chain.Hooknum == nil:
			c := network.Chain{IPv6: v6, Name: chain.Name}
			_, err := fmt.Sscanf(said, "%d %d %s", &c.Port, &c.Seed, &c.Backends)
			if err != nil || len(list) != rulesOf(c) {
				c.Backends = "#" // Somebody else's hand was in it.
			}
			services = append(services, c)
		}
	}
	for _, base := range baseChains(found) {
		if list := rules[base.name]; len(list) != len(base.rules) {
			found.Layout = 0 // Rules were removed, or added: it isn't right.
		}
	}
	sets, err := conn.GetSets(table)
	if err != nil {
		return err
	}
	for _, name := range setNames {
		if !slices.ContainsFunc(sets, func(s *nftables.Set) bool { return s.Name == string(name) }) {
			found.Layout = 0
			continue
		}
		elements, err := conn.GetSetElements(setOf(v6, name))
		if err != nil {
			return err
		}
		for _, element := range elements {
			if e, is := decodeElement(v6, name, element); is {
				out.Objects = append(out.Objects, e)
			}
		}
	}
	out.Objects = append(out.Objects, found)
	for _, c := range services {
		out.Objects = append(out.Objects, c)
	}
	return nil
}
