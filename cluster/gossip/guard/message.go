package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"math/bits"
	"slices"

	"github.com/hashicorp/memberlist"
)

// memberlist's types of messages, as far as members of ours send them. Compressed
// ones (9), which memberlist expands without a limit, and messages of users (8)
// aren't among them; nor are encrypted (10) or labelled (244) ones within others.
const (
	PingMsg         = 0
	indirectPingMsg = 1
	AckMsg          = 2
	SuspectMsg      = 3
	AliveMsg        = 4
	DeadMsg         = 5
	pushPullMsg     = 6
	CompoundMsg     = 7
	encryptMsg      = 10
	nackMsg         = 11
	CRCMsg          = 12
	errMsg          = 13
	LabelMsg        = 244
)

const (
	// MaxName is the longest name of a member, in bytes: memberlist passes on what it is
	// told, and what doesn't fit into a packet would stay in its queue for ever.
	MaxName = 64
	// MaxIncarnation is the highest number of a member's word about itself. It answers what
	// is said about it with the next one, and memberlist begins at 0 after the last there
	// is: whoever said that once would have the member absent for ever.
	MaxIncarnation = 1 << 31
	// maxSaid is the longest error that another member may answer with, in bytes.
	maxSaid = 1024
)

// field is one of a message's: MessagePack's scalars are all that there are.
type field struct {
	name     string
	holds    func(scalar) bool
	required bool
}

// The messages, by type. memberlist doesn't look at what it reads into these fields.
var (
	messages = [...][]field{
		PingMsg: {
			{"SeqNo", number(math.MaxUint32), false}, {"Node", nameOrNone, false},
			{"SourceAddr", addressOrNone, false}, {"SourcePort", number(math.MaxUint16), false}, {"SourceNode", nameOrNone, false},
		},
		indirectPingMsg: {
			{"SeqNo", number(math.MaxUint32), false}, {"Target", address, true}, {"Port", number(math.MaxUint16), false},
			{"Node", nameOrNone, false}, {"Nack", yesOrNo, false},
			{"SourceAddr", addressOrNone, false}, {"SourcePort", number(math.MaxUint16), false}, {"SourceNode", nameOrNone, false},
		},
		AckMsg:     {{"SeqNo", number(math.MaxUint32), false}, {"Payload", nothing, false}},
		nackMsg:    {{"SeqNo", number(math.MaxUint32), false}},
		SuspectMsg: accusation,
		DeadMsg:    accusation,
		AliveMsg: {
			{"Incarnation", number(MaxIncarnation), false}, {"Node", name, true}, {"Addr", address, true},
			{"Port", number(math.MaxUint16), false}, {"Meta", nothing, false}, {"Vsn", versions, true},
		},
		pushPullMsg: {
			{"Nodes", number(MaxStream), true}, {"UserStateLen", number(0), false}, {"Join", yesOrNo, false},
		},
		errMsg: {{"Error", func(s scalar) bool { return s.kind == text && len(s.text) <= maxSaid }, true}},
	}
	accusation = []field{
		{"Incarnation", number(MaxIncarnation), false}, {"Node", name, true}, {"From", nameOrNone, false},
	}
	// nodeState follows the head of a push/pull, once for each node.
	nodeState = []field{
		{"Name", name, true}, {"Addr", address, true}, {"Port", number(math.MaxUint16), false}, {"Meta", nothing, false},
		{"Incarnation", number(MaxIncarnation), false}, {"State", number(uint64(memberlist.StateLeft)), false}, {"Vsn", versions, true},
	}
)

func number(most uint64) func(scalar) bool {
	return func(s scalar) bool { return s.kind == whole && s.number <= most }
}

func yesOrNo(s scalar) bool    { return s.kind == boolean }
func name(s scalar) bool       { return s.kind == text && 0 < len(s.text) && len(s.text) <= MaxName }
func nameOrNone(s scalar) bool { return s.kind == text && len(s.text) <= MaxName }
func address(s scalar) bool    { return s.kind == text && (len(s.text) == 4 || len(s.text) == 16) }

func addressOrNone(s scalar) bool { return nothing(s) || address(s) }

// nothing is an empty value: our members send empty metadata and empty ack payloads.
func nothing(s scalar) bool { return s.kind == null || s.kind == text && len(s.text) == 0 }

// versions are least, most and present version of memberlist's protocol, and of what
// skep says over it: that is version 0, and a later level's node may understand more. memberlist exchanges states with nobody while one member of the cluster
// understands less than the others speak, so nobody may say that.
func versions(s scalar) bool {
	const speak = memberlist.ProtocolVersion2Compatible
	v := s.text
	return s.kind == text && len(v) == 6 && 0 < v[0] && v[0] <= speak && speak <= v[1] && v[2] == speak && v[3]|v[5] == 0
}

// What a later level of skep adds to gossip is left out here, so that memberlist never
// sees it and the rest of a packet isn't lost with it: fields of other names, whose
// values are scalars, and parts of packets whose type is one of laterType's.

// laterType tells whether a type of message is none that memberlist has.
func laterType(kind byte) bool { return kind > errMsg && kind < LabelMsg }

// CheckPacket gives what this version understands of a packet's text, perhaps nothing,
// or says what is wrong with it.
// self is this node.
func CheckPacket(packet []byte, self string) ([]byte, error) {
	if len(packet) > 5 && packet[0] == CRCMsg {
		// memberlist does without, and it would be wrong for less than the whole.
		if crc32.ChecksumIEEE(packet[5:]) != binary.BigEndian.Uint32(packet[1:]) {
			return nil, errors.New("its checksum is wrong")
		}
		packet = packet[5:]
	}
	if len(packet) < 2 || packet[0] != CompoundMsg {
		return checkPart(packet, true, self)
	}
	count := int(packet[1])
	lengths, rest := packet[2:], packet[2:]
	if count == 0 || len(rest) < 2*count {
		return nil, fmt.Errorf("compound of %d parts in %d bytes", count, len(packet))
	}
	rest = rest[2*count:]
	known := []byte{CompoundMsg, 0}
	var parts [][]byte
	for i := range count {
		n := int(binary.BigEndian.Uint16(lengths[2*i:]))
		if n > len(rest) {
			return nil, fmt.Errorf("part %d of %d: has %d bytes of %d", i+1, count, len(rest), n)
		}
		// News ride with one message, which alone may want an answer.
		part, err := checkPart(rest[:n], i == 0, self)
		if err != nil {
			return nil, fmt.Errorf("part %d of %d: %w", i+1, count, err)
		}
		if len(part) > 0 {
			known = binary.BigEndian.AppendUint16(known, uint16(len(part)))
			parts = append(parts, part)
		}
		rest = rest[n:]
	}
	if len(parts) == 0 {
		return nil, nothingMore(rest)
	}
	known[1] = byte(len(parts))
	return slices.Concat(known, slices.Concat(parts...)), nothingMore(rest)
}

func checkPart(part []byte, first bool, self string) ([]byte, error) {
	if len(part) == 0 {
		return nil, errors.New("it is empty")
	}
	switch kind := part[0]; kind {
	case PingMsg, indirectPingMsg, AckMsg, nackMsg:
		if !first {
			return nil, fmt.Errorf("message of type %d behind another", kind)
		}
	case SuspectMsg, AliveMsg, DeadMsg:
	default:
		if laterType(kind) {
			return nil, nil
		}
		return nil, fmt.Errorf("message of type %d in a packet", kind)
	}
	return checkMessage(part, self)
}

// CheckStream gives what this version understands of a stream's text, or says what is
// wrong with it.
func CheckStream(stream []byte, self string) ([]byte, error) {
	if len(stream) == 0 {
		return nil, errors.New("it is empty")
	}
	switch kind := stream[0]; kind {
	case PingMsg, AckMsg, errMsg:
		return checkMessage(stream, self)
	case pushPullMsg:
	default:
		return nil, fmt.Errorf("message of type %d in a stream", kind)
	}
	var nodes uint64
	known := stream[:1:1]
	head, rest, err := checkFields(stream[1:], messages[pushPullMsg], func(field string, s scalar) {
		if field == "Nodes" {
			nodes = s.number
		}
	})
	if err != nil {
		return nil, fmt.Errorf("message of type %d: %w", pushPullMsg, err)
	}
	known = append(known, head...)
	for i := range nodes {
		var node []byte
		if node, rest, err = checkFields(rest, nodeState, nil); err != nil {
			return nil, fmt.Errorf("node %d of %d: %w", i+1, nodes, err)
		}
		leaveRoom(node, self)
		known = append(known, node...)
	}
	return known, nothingMore(rest)
}

func checkMessage(message []byte, self string) ([]byte, error) {
	known, rest, err := checkFields(message[1:], messages[message[0]], nil)
	if err == nil {
		err = nothingMore(rest)
	}
	if err != nil {
		return nil, fmt.Errorf("message of type %d: %w", message[0], err)
	}
	leaveRoom(known, self)
	return append(message[:1:1], known...), nil
}

// leaveRoom lowers the highest number in what is said about this node, whose answer has
// the next one. Others who were told the highest believe the answer when they have
// forgotten the node, half a minute after they gave it up.
func leaveRoom(fields []byte, self string) {
	about, number := "", []byte(nil)
	for rest := fields[1:]; len(rest) > 0; {
		key, value, err := readScalar(rest)
		if err != nil {
			return // They were read before.
		}
		s, after, err := readScalar(value)
		if err != nil {
			return
		}
		switch string(key.text) {
		case "Node", "Name":
			about = string(s.text)
		case "Incarnation":
			if s.number >= MaxIncarnation {
				number = value[1:5]
			}
		}
		rest = after
	}
	if number != nil && about == self {
		binary.BigEndian.PutUint32(number, MaxIncarnation-1)
	}
}

func nothingMore(rest []byte) error {
	if len(rest) > 0 {
		return fmt.Errorf("%d bytes too many", len(rest))
	}
	return nil
}

// checkFields reads a map of MessagePack's and returns it without the fields that aren't
// known, and what comes after it. Each known value is shown to see, if that isn't nil.
func checkFields(from []byte, fields []field, see func(field string, s scalar)) (known, rest []byte, err error) {
	if len(from) == 0 || from[0]&0xf0 != 0x80 {
		return nil, nil, errors.New("it has no fields")
	}
	n := from[0] & 0x0f
	rest = from[1:]
	known = make([]byte, 1, 64)
	seen := 0 // a bit for each field
	for range n {
		begin := rest
		var key, value scalar
		if key, rest, err = readScalar(rest); err != nil {
			return nil, nil, err
		}
		if key.kind != text {
			return nil, nil, errors.New("it has a field without a name")
		}
		at := slices.IndexFunc(fields, func(f field) bool { return f.name == string(key.text) })
		if at >= 0 && seen&(1<<at) != 0 {
			return nil, nil, fmt.Errorf("field %.20q is there twice", key.text)
		}
		if value, rest, err = readScalar(rest); err != nil {
			return nil, nil, fmt.Errorf("field %.20q: %w", key.text, err)
		}
		if at < 0 {
			continue
		}
		seen |= 1 << at
		if !fields[at].holds(value) {
			return nil, nil, fmt.Errorf("field %s can't be %v", fields[at].name, value)
		}
		if see != nil {
			see(fields[at].name, value)
		}
		known = append(known, begin[:len(begin)-len(rest)]...)
	}
	for i := range fields {
		if fields[i].required && seen&(1<<i) == 0 {
			return nil, nil, fmt.Errorf("field %s is missing", fields[i].name)
		}
	}
	known[0] = 0x80 | byte(bits.OnesCount(uint(seen)))
	return known, rest, nil
}

// The kinds of scalars.
const (
	null = iota
	boolean
	whole
	text
)

// scalar is a value of MessagePack's, in one of the forms that memberlist gives it.
type scalar struct {
	kind   int
	number uint64
	text   []byte // within what was read
}

func (s scalar) String() string {
	switch s.kind {
	case null:
		return "nil"
	case boolean:
		return "a bool"
	case whole:
		return fmt.Sprint(s.number)
	}
	return fmt.Sprintf("%.20q (%d bytes)", s.text, len(s.text))
}

func readScalar(from []byte) (s scalar, rest []byte, err error) {
	if len(from) == 0 {
		return scalar{}, nil, errEnds
	}
	form, rest := from[0], from[1:]
	if form <= 0x7f {
		return scalar{kind: whole, number: uint64(form)}, rest, nil
	}
	if form&0xe0 == 0xa0 {
		return readText(rest, int(form&0x1f))
	}
	size := 0
	switch form {
	case nilForm:
		return scalar{kind: null}, rest, nil
	case falseForm, trueForm:
		return scalar{kind: boolean}, rest, nil
	case uint8Form:
		size = 1
	case uint16Form, int16Form, text16Form:
		size = 2
	case uint32Form, int32Form:
		size = 4
	default:
		return scalar{}, nil, fmt.Errorf("value of form %#x", form)
	}
	if len(rest) < size {
		return scalar{}, nil, errEnds
	}
	var n uint64
	for _, b := range rest[:size] {
		n = n<<8 | uint64(b)
	}
	rest = rest[size:]
	if form == text16Form {
		return readText(rest, int(n))
	}
	if (form == int16Form || form == int32Form) && n>>(8*size-1) != 0 {
		return scalar{}, nil, errors.New("value below zero")
	}
	return scalar{kind: whole, number: n}, rest, nil
}

func readText(from []byte, n int) (scalar, []byte, error) {
	if n > len(from) {
		return scalar{}, nil, errEnds
	}
	return scalar{kind: text, text: from[:n]}, from[n:], nil
}

var errEnds = errors.New("it ends early")

// The forms of scalars, besides small numbers and short texts, that memberlist writes.
const (
	nilForm    = 0xc0
	falseForm  = 0xc2
	trueForm   = 0xc3
	uint8Form  = 0xcc
	uint16Form = 0xcd
	uint32Form = 0xce
	int16Form  = 0xd1
	int32Form  = 0xd2
	text16Form = 0xda
)
