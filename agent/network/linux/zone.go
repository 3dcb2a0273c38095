package linux

import (
	"encoding/binary"
	"errors"
	"reflect"
	"unsafe"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"skep/agent/network"
)

// originalZone is the end of a rule that puts what clients send, and not what they are answered, into the
// zone of connections whose number is in reg1.
var originalZone = &expr.Ct{Key: expr.CtKeyZONE, Register: reg1, SourceRegister: true, Direction: original}

// zone is the rule that tells connections apart by the node that they come to the ingress bridge by. A client may
// ask several nodes from one port at once: to its backend's node these are one connection, by addresses and ports.
// Each node's are in a zone of their own, its index. Answers are in none, so netfilter gives what clashes there
// another port towards the backend.
func zone(ingress string) []expr.Any {
	bridges := network.BridgeMAC(0, 0)
	return chainRule(iifname(ingress), []expr.Any{
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: bridges[:2]},
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseLLHeader, Offset: 10, Len: 2},
		&expr.Byteorder{SourceRegister: reg1, DestRegister: reg1, Op: expr.ByteorderNtoh, Len: 2, Size: 2},
		originalZone,
	})
}

// nfgenmsg is the size of what messages of netfilter's begin with.
const nfgenmsg = 4

// rule adds one. What the nftables library writes of originalZone has no direction: it is written here.
func (b *batch) rule(r *nftables.Rule) {
	b.AddRule(r)
	last := len(r.Exprs) - 1
	if r.Exprs[last] != originalZone {
		return
	}
	encoder := netlink.NewAttributeEncoder()
	encoder.ByteOrder = binary.BigEndian
	encoder.String(unix.NFTA_RULE_TABLE, r.Table.Name)
	encoder.String(unix.NFTA_RULE_CHAIN, r.Chain.Name)
	encoder.Nested(unix.NFTA_RULE_EXPRESSIONS, func(list *netlink.AttributeEncoder) error {
		for _, e := range r.Exprs[:last] {
			list.Do(unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, func() ([]byte, error) { return expr.Marshal(byte(r.Table.Family), e) })
		}
		list.Nested(unix.NFTA_LIST_ELEM, func(e *netlink.AttributeEncoder) error {
			e.String(unix.NFTA_EXPR_NAME, "ct")
			e.Nested(unix.NFTA_EXPR_DATA, func(data *netlink.AttributeEncoder) error {
				data.Uint32(unix.NFTA_CT_KEY, unix.NFT_CT_ZONE)
				data.Uint32(unix.NFTA_CT_SREG, originalZone.Register)
				data.Uint8(unix.NFTA_CT_DIRECTION, original)
				return nil
			})
			return nil
		})
		return nil
	})
	attributes, err := encoder.Encode()
	b.note(err)
	b.note(b.replaceLast(attributes))
}

// replaceLast puts other attributes into the last message of the transaction. They must be of the same one:
// a connection whose packets had no zone for a moment would be taken for another. The library lets nobody
// write a message, hence the look into its insides.
func (b *batch) replaceLast(attributes []byte) error {
	field := reflect.ValueOf(b.Conn).Elem().FieldByName("messages")
	if !field.IsValid() || field.Type() != reflect.TypeFor[[]netlink.Message]() {
		return errors.New("write a rule: the nftables library isn't the one that is known")
	}
	messages := *(*[]netlink.Message)(unsafe.Pointer(field.UnsafeAddr()))
	last := &messages[len(messages)-1]
	last.Data = append(last.Data[:nfgenmsg:nfgenmsg], attributes...)
	return nil
}
