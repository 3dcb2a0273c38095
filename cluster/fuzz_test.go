package cluster

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"regexp"
	"runtime/metrics"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/docker/docker/api/types/swarm"
)

// FuzzToken reads join tokens and unlock keys: what is one prints itself again, but
// for spaces around it, and what isn't is not in the error, being a password.
func FuzzToken(f *testing.F) {
	token := NewJoinToken(strings.Repeat("0123456789", 5), rand.Reader).String()
	key := NewUnlockKey(rand.Reader).Text()
	for _, seed := range []string{token, key, " " + token + "\n", key[:len(key)-1], token[:40] + "-" + token[40:], strings.ToUpper(token),
		strings.Replace(key, "A", "B", 1), tokenPrefix, unlockKeyPrefix, unlockKeyPrefix + strings.Repeat("A", 48)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := ParseJoinToken(text)
		unlock, err2 := ParseUnlockKey(text)
		for what, got := range map[string]struct {
			err  error
			text string
		}{"join token": {err, parsed.String()}, "unlock key": {err2, unlock.Text()}} {
			switch rest := strings.TrimSpace(text); {
			case got.err == nil && got.text != rest:
				t.Errorf("%s %q prints itself as %q", what, text, got.text)
			case got.err != nil && (!errors.Is(got.err, ErrInvalid) || len(rest) > 20 && strings.Contains(got.err.Error(), rest[9:])):
				t.Errorf("%s %q: %v", what, text, got.err)
			}
		}
		if err2 != nil && !unlock.None() {
			t.Errorf("%q is refused, and half of it is there", text)
		}
	})
}

// opposites are the operators of which a node meets just one.
var opposites = map[Operator]Operator{Equal: Unequal, Like: Unlike, In: NotIn, Exists: Absent}

// FuzzConstraint reads a constraint and looks at a node by it. What can be read says
// the same when it is printed and read again, of the node as well; and whoever meets it
// doesn't meet its opposite.
func FuzzConstraint(f *testing.F) {
	for _, seed := range []string{
		"node.id==node1", "NODE.ID == Node1", "node.ip==10.1.0.0/16", "node.ip!=nonsense", "node.labels.disk==ssd|nvme", "node.unknown!=x",
		"node.labels.disk in (hdd, ssd)", "node.ip notin (10.2.0.0/16,10.1.0.0/16)", "exists node.labels.disk", "node.labels.disk !exists",
		"node.labels.slots>11.5", "node.labels.slots<1e1", "node.hostname=~Host-[0-9]+", "node.hostname !~ (?i)host-[2-9]", "engine.labels.gpu == a b",
		"node.labels.a == it exists", "node.hostname =~ a)|(?:b", "node.ip =~ 10[.].*",
	} {
		f.Add(seed, "disk", "ssd", "10.1.2.3")
		f.Add(seed, "slots", "12", "::ffff:10.1.2.3")
	}
	f.Fuzz(func(t *testing.T, text, label, value, ip string) {
		node := constrainedNode()
		node.Spec.Labels[label], node.Description.Engine.Labels[label] = value, value
		node.Status.Addr, node.Description.Hostname = ip, value
		parsed, err := ParseConstraints([]string{text})
		usable := CheckConstraints([]string{text})
		if err != nil {
			if !errors.Is(err, ErrInvalid) || usable == nil {
				t.Fatalf("%q: %v, and then %v", text, err, usable)
			}
			return
		}
		c := parsed[0]
		again, err := ParseConstraints([]string{c.String()})
		if err != nil {
			t.Fatalf("%q is printed as %q: %v", text, c, err)
		}
		if r := again[0]; r.Key != c.Key || r.Op != c.Op || !slices.Equal(r.Values, c.Values) || r.String() != c.String() {
			t.Fatalf("%q is printed as %q, which is %q", text, c, r)
		}
		if again[0].Match(node) != c.Match(node) {
			t.Fatalf("%q and %q differ about a node", text, c)
		}
		if c.form != nil {
			if _, err := regexp.Compile(c.Values[0]); err != nil {
				t.Fatalf("%q has an expression that is none: %v", text, err)
			}
		}
		opposite, ok := opposites[c.Op]
		if !ok || usable != nil {
			return
		}
		c.Op = opposite
		other, err := ParseConstraints([]string{c.String()})
		if err != nil {
			t.Fatalf("the opposite of %q: %v", text, err)
		}
		if other[0].Match(node) == again[0].Match(node) {
			t.Fatalf("a node meets both %q and %q, or neither", text, c)
		}
	})
}

// messages are what agents and managers send each other, filled.
func messages() []any {
	task := &Task{ID: "t1", ServiceID: "s1", Revision: 1, Slot: 1, NodeID: "n1", Desired: StateRunning, Generic: []Claim{{Kind: "gpu", Names: []string{"g1"}}}}
	description := swarm.NodeDescription{Hostname: "n1", Platform: swarm.Platform{OS: "linux"}}
	description.Resources.GenericResources = []swarm.GenericResource{{DiscreteResourceSpec: &swarm.DiscreteGenericResource{Kind: "gpu", Value: 2}}}
	description.Engine.Plugins = []swarm.PluginDescription{{Type: "Volume", Name: "local"}}
	reports := []Report{{TaskID: "t1", Status: TaskStatus{State: StateFailed, Since: 3, Err: "exit", ExitCode: 1, Ports: "80"}}}
	line := LogLine{Time: 5, Data: []byte("hello\n"), Attrs: map[string]string{"a": "b"}}
	return []any{
		FromAgent{}, FromAgent{Hello: &Hello{Format: WireFormat, Description: description, Addr: "127.0.1.1"}, EngineAway: true},
		FromAgent{Describe: &description, Reports: reports, Logs: &LogChunk{ID: 1, Lines: []LogLine{line}, Done: true, Err: "x"}, Lease: 7, Leaving: true},
		FromManager{Welcome: &Welcome{Format: WireFormat, HeartbeatMillis: 500}, Peers: &Peers{Managers: []Peer{{NodeID: "m1", Addr: "127.0.1.1:2377"}},
			GossipKeys: [][]byte{{1}}, Role: swarm.NodeRoleManager, Trust: Trust{Version: 1, Roots: []byte("r"), Within: 1}}},
		FromManager{Assignments: &Assignments{Full: true, From: 1, To: 2, Tasks: []*Task{task}, Revisions: []*Revision{{ServiceID: "s1", Number: 1}},
			Secrets: []*Secret{{ID: "x1"}}, Configs: []*Config{{ID: "y1"}}, Removed: []string{"t2"}, Gone: []string{"x2"}, Dropped: []string{"y2"}},
			Logs: &LogRequest{ID: 1, TaskID: "t1", Query: LogOptions{Stdout: true, Tail: -1, Since: 4, Window: 5}}, CancelLogs: 2, LogCredit: &LogCredit{ID: 1, Bytes: 2}, Refused: "no", Lease: 7},
		Relay{Manager: "m1", Epoch: "e", Sessions: []string{"n1"}, Nodes: []NodeNews{{NodeID: "n1", Description: description, Addr: "127.0.1.1"}},
			Reports: []NodeReport{{NodeID: "n1", Report: reports[0]}}, Stopped: []string{"n2"}, Halting: []string{"n2"}, EngineAway: []string{"n1"}, Leases: []string{"n1"}, Number: 3},
		RelayAnswer{Leases: []string{"n1"}, Missing: []string{"n2"}},
	}
}

// FuzzFrame reads a row of frames as each of the messages there are: each is refused,
// or says the same when it is written and read again, and takes memory in proportion.
// And a message with any text is refused, or can be read.
func FuzzFrame(f *testing.F) {
	for _, message := range messages() {
		var frame bytes.Buffer
		if err := WriteFrame(&frame, message); err != nil {
			f.Fatal(err)
		}
		f.Add(frame.Bytes(), "text")
		f.Add(append(bytes.Clone(frame.Bytes()), frame.Bytes()...), "\xff")
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, "")
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xa0}, strings.Repeat("x", 300))
	f.Add([]byte{0, 0, 0, 7, 0xa1, 3, 0x9a, 0, 0xff, 0xff, 0xff}, strings.Repeat("ä", 40000))
	f.Fuzz(func(t *testing.T, row []byte, text string) {
		whole := FromAgent{Reports: []Report{{TaskID: text, Status: TaskStatus{Since: Time(len(text))}}}, Logs: &LogChunk{
			Lines: []LogLine{{Data: row, Attrs: map[string]string{text: "x"}}}, Err: text,
		}}
		data, err := Encode(whole)
		if err == nil {
			err = Decode(data, new(FromAgent))
		}
		if (err == nil) != utf8.ValidString(text) || err != nil && !errors.Is(err, ErrInvalid) {
			t.Fatalf("a message with the text %q: %v", text, err)
		}
		reread[FromAgent](t, row)
		reread[FromManager](t, row)
		reread[Relay](t, row)
		reread[RelayAnswer](t, row)
		reread[LogChunk](t, row)
	})
}

func reread[T any](t *testing.T, row []byte) {
	in := bytes.NewReader(row)
	for {
		var first, second T
		size := in.Len()
		before := allocated()
		err := ReadFrame(in, &first)
		if made := allocated() - before; made > MaxFrame+2<<20+1024*uint64(size) {
			t.Fatalf("a frame within %d bytes took %d bytes as %T", size, made, first)
		}
		if err != nil {
			return
		}
		var once, twice bytes.Buffer
		if err := WriteFrame(&once, first); err != nil {
			t.Fatalf("%T %+v was read, and can't be written: %v", first, first, err)
		}
		if err := ReadFrame(bytes.NewReader(once.Bytes()), &second); err != nil {
			t.Fatalf("%T %+v can't be read again: %v", first, first, err)
		}
		if err := WriteFrame(&twice, second); err != nil || !bytes.Equal(twice.Bytes(), once.Bytes()) {
			t.Fatalf("%T %+v was read again as %+v, %v", first, first, second, err)
		}
	}
}

// allocated is how many bytes this process has taken so far, freed ones too.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// An agent is anybody's machine: a frame of it that says nothing millions of times
// mustn't fill a manager up.
func TestReadFrame_TakesNoMoreMemoryThanAFew(t *testing.T) {
	for what, head := range map[string][]byte{
		"reports": {0xa1, 3, 0x9a},
		"lines":   {0xa1, 4, 0xa1, 2, 0x9a},
		"plugins": {0xa1, 2, 0xa1, 0x66, 'E', 'n', 'g', 'i', 'n', 'e', 0xa1, 0x67, 'P', 'l', 'u', 'g', 'i', 'n', 's', 0x9a},
	} {
		count := uint32(MaxAgentFrame - len(head) - 4)
		body := append(binary.BigEndian.AppendUint32(head, count), bytes.Repeat([]byte{0xf6}, int(count))...)
		frame := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
		before := allocated()
		err := ReadAgentFrame(io.MultiReader(bytes.NewReader(frame), bytes.NewReader(body)), new(FromAgent))
		if made := allocated() - before; made > 4*MaxAgentFrame {
			t.Errorf("%d %s took %d KiB: %v", count, what, made>>10, err)
		}
	}
	// As many as there may be, and one byte of the largest frame.
	few := append([]byte{0xa1, 3, 0x99, maxAgentElements >> 8, maxAgentElements & 255}, bytes.Repeat([]byte{0xa0}, maxAgentElements)...)
	for what, frame := range map[string][]byte{
		"reports": append(binary.BigEndian.AppendUint32(nil, uint32(len(few))), few...),
		"promise": append(binary.BigEndian.AppendUint32(nil, MaxAgentFrame), 0xa1),
	} {
		before := allocated()
		err := ReadAgentFrame(bytes.NewReader(frame), new(FromAgent))
		if made := allocated() - before; made > 4*MaxAgentFrame || what == "promise" && (made > 64<<10 || err == nil) || what == "reports" && err != nil {
			t.Errorf("%s took %d KiB: %v", what, made>>10, err)
		}
	}
}

// Were it written to the log, no manager could read it.
func TestEncode_RefusesWhatCannotBeRead(t *testing.T) {
	long := make([]string, maxElements+1)
	for what, v := range map[string]any{
		"text":   &Revision{ServiceID: "s1", Auth: "caf\xe9"},
		"key":    LogLine{Attrs: map[string]string{"\xff": ""}},
		"list":   Relay{Sessions: long},
		"nested": FromAgent{Logs: &LogChunk{Lines: make([]LogLine, maxElements+1)}},
	} {
		if data, err := Encode(v); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %d bytes, %v", what, len(data), err)
		}
	}
	if data, err := Encode(Relay{Sessions: long[1:]}); err != nil || Decode(data, new(Relay)) != nil {
		t.Errorf("as many as there may be: %v", err)
	}
}
