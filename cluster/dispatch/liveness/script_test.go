package liveness

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"skep/cluster"
)

// TestDecide_Scripts runs the scripts in testdata. `go test -rewrite` writes what
// came out into them: commit that only when it is understood.
//
//	managers m1 m2 m3       there are these, the first one leads; each relays every 200 ms
//	node n1 session=m2      it is ready and has a session there; "state=unknown" hasn't come yet
//	session n1 m3           it has its session there now; "none" is nowhere
//	leave n1                its agent says that it stops, and goes; "halt n1" with its machine
//	gossip m2 n1 dead       m2's gossip says so ("alive", "suspect", "left"); "all" is that of each manager
//	engine n1 away          or back
//	run n1 a.1              the name of its agent's run; "twin n1 m3 b.1" is another one, elsewhere
//	silent m2               it relays no more; "relays m2" again
//	contact m2              the leader has contact with it otherwise, though it doesn't relay
//	lead m2                 another one leads, and remembers nothing; "cold" is after all were off
//	advance 300ms           time passes; what changes is written, and printed
//	decide                  what would change now, and when to look again
//	nodes                   how they stand
func TestDecide_Scripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			s := &script{
				now: noon, sessions: map[string]string{}, twins: map[string][]string{}, gossip: map[string]map[string]string{}, left: map[string]departure{},
				away: map[string]bool{}, runs: map[string]string{}, silent: map[string]bool{}, contacts: map[string]time.Time{},
			}
			datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
				s.t = t
				return s.do(d)
			})
		})
	}
}

// script is managers, nodes and a leader that decides.
type script struct {
	t         *testing.T
	now       time.Time
	nodes     []*cluster.Node
	managers  []string
	leader    string
	tracker   *Tracker
	sequence  uint64
	coldStart time.Time
	wake      time.Time
	// sessions is where the session of each node is; twins are further ones: manager, run.
	sessions map[string]string
	twins    map[string][]string
	// gossip is what a manager's gossip says of nodes that it doesn't see as alive.
	gossip map[string]map[string]string
	// left are agents that said that they stop, until it is relayed.
	left     map[string]departure
	away     map[string]bool
	runs     map[string]string
	silent   map[string]bool
	contacts map[string]time.Time
}

// departure is which manager an agent told that it stops, and whether its machine does.
type departure struct {
	manager string
	halting bool
}

const scriptSuspectAfter = time.Second

func (s *script) do(d *datadriven.TestData) string {
	var args []string
	for _, arg := range d.CmdArgs {
		args = append(args, arg.Key)
	}
	switch d.Cmd {
	case "managers":
		s.managers, s.leader = args, args[0]
		for _, id := range args {
			s.nodes = append(s.nodes, &cluster.Node{ID: id, ManagerAddr: id + ":2377", Status: cluster.NodeStatus{State: cluster.NodeReady, Since: s.now.Add(-time.Hour)}})
			s.sessions[id] = id
		}
		s.tracker = NewTracker(s.now)
		s.pass(s.now.Add(settleMost)) // As after it has led for a while.
	case "node":
		n := &cluster.Node{ID: args[0], Status: cluster.NodeStatus{State: cluster.NodeReady, Since: s.now.Add(-time.Hour), Addr: "10.0.0.1"}}
		for _, arg := range d.CmdArgs[1:] {
			switch {
			case arg.Key == "session":
				s.sessions[n.ID] = arg.Vals[0]
			case arg.Key == "state" && arg.Vals[0] == "unknown":
				n.Status.State, n.Awaited = cluster.NodeUnknown, true
			default:
				s.t.Fatalf("what is a node's %q?", arg.Key)
			}
		}
		s.nodes = append(s.nodes, n)
		s.relay()
	case "session":
		delete(s.sessions, args[0])
		if args[1] != "none" {
			s.sessions[args[0]] = args[1]
		}
		s.relay()
	case "twin":
		s.twins[args[0]] = args[1:]
		s.relay()
	case "leave", "halt":
		s.left[args[0]] = departure{s.sessions[args[0]], d.Cmd == "halt"}
		delete(s.sessions, args[0])
		s.relay()
	case "gossip":
		of := []string{args[0]}
		if args[0] == "all" {
			of = s.managers
		}
		for _, id := range of {
			if s.gossip[id] == nil {
				s.gossip[id] = map[string]string{}
			}
			if s.gossip[id][args[1]] = args[2]; args[2] == "alive" {
				delete(s.gossip[id], args[1])
			}
		}
		s.relay()
	case "engine":
		s.away[args[0]] = args[1] == "away"
		s.relay()
	case "run":
		s.runs[args[0]] = args[1]
		s.relay()
	case "silent", "relays":
		s.silent[args[0]] = d.Cmd == "silent"
	case "contact":
		s.contacts[args[0]] = s.now
	case "cold":
		s.coldStart = s.now
		s.tracker = NewTracker(s.now)
	case "lead":
		s.leader, s.tracker = args[0], NewTracker(s.now)
	case "advance":
		span, err := time.ParseDuration(args[0])
		if err != nil {
			s.t.Fatal(err)
		}
		return s.pass(s.now.Add(span))
	case "decide":
		changes, missing := s.look()
		text := s.show(changes)
		if len(missing) > 0 {
			text += "probe " + strings.Join(missing, " ") + "\n"
		}
		if s.wake.IsZero() {
			return text + "nothing more to decide\n"
		}
		return text + fmt.Sprintf("look again after %v\n", s.wake.Sub(s.now))
	case "nodes":
		var b strings.Builder
		for _, n := range s.nodes {
			fmt.Fprintf(&b, "%s %s", n.ID, n.Status.State)
			if n.Status.Message != "" {
				fmt.Fprintf(&b, ": %s", n.Status.Message)
			}
			b.WriteByte('\n')
		}
		return b.String()
	default:
		s.t.Fatalf("what is %q?", d.Cmd)
	}
	return ""
}

// relay has all managers that aren't silent tell the leader what they know.
func (s *script) relay() {
	for _, id := range s.managers {
		if s.silent[id] {
			continue
		}
		s.sequence++
		r := cluster.Relay{Manager: id, Epoch: "e", Number: s.sequence}
		for _, nodeID := range slices.Sorted(maps.Keys(s.sessions)) {
			if s.sessions[nodeID] == id {
				r.Sessions, r.Runs = append(r.Sessions, nodeID), append(r.Runs, s.runs[nodeID])
				if s.away[nodeID] {
					r.EngineAway = append(r.EngineAway, nodeID)
				}
			}
		}
		for _, nodeID := range slices.Sorted(maps.Keys(s.twins)) {
			if s.twins[nodeID][0] == id {
				r.Sessions, r.Runs = append(r.Sessions, nodeID), append(r.Runs, s.twins[nodeID][1])
			}
		}
		for nodeID, d := range s.left {
			if d.manager == id {
				r.Stopped = append(r.Stopped, nodeID)
				if d.halting {
					r.Halting = append(r.Halting, nodeID)
				}
				delete(s.left, nodeID)
			}
		}
		for _, nodeID := range slices.Sorted(maps.Keys(s.gossip[id])) {
			if s.gossip[id][nodeID] != "left" {
				r.Unseen = append(r.Unseen, nodeID)
			}
		}
		s.tracker.Relay(r, s.now)
	}
}

// look decides, and notes when to do so again.
func (s *script) look() (changes []Change, missing []string) {
	s.tracker.Contacts(func(id string) time.Time { return s.contacts[id] }, StaleAfter)
	members := map[string]cluster.Member{}
	for _, n := range s.nodes {
		switch s.gossip[s.leader][n.ID] {
		case "":
			members[n.ID] = cluster.Member{NodeID: n.ID}
		case "suspect":
			members[n.ID] = cluster.Member{NodeID: n.ID, Suspect: true}
		case "left":
			members[n.ID] = cluster.Member{NodeID: n.ID, Left: true}
		}
	}
	in := s.tracker.Observe(Cluster{Nodes: s.nodes, ColdStart: s.coldStart, Members: members, SuspectAfter: scriptSuspectAfter}, s.now)
	changes, s.wake = Decide(in)
	missing, at := Missing(in)
	if s.wake.IsZero() || !at.IsZero() && at.Before(s.wake) {
		s.wake = at
	}
	return changes, missing
}

// pass lets time pass, as the leader sees it: a relay of each manager at times, and a look
// after those and when it is due. What changes is written.
func (s *script) pass(end time.Time) string {
	var b strings.Builder
	for {
		for range 2 { // What is written may change what is decided.
			changes, _ := s.look()
			b.WriteString(s.show(changes))
			s.write(changes)
		}
		for _, c := range s.tracker.Copies(s.nodes, s.now) {
			fmt.Fprintf(&b, "%s %s copy %q\n", s.at(), c.NodeID, c.Copy.Run)
			s.edit(c.NodeID, func(n *cluster.Node) { n.Copy = c.Copy })
		}
		if !s.now.Before(end) {
			return b.String()
		}
		next := s.now.Truncate(RelayEvery).Add(RelayEvery)
		if s.wake.After(s.now) && s.wake.Before(next) {
			next = s.wake
		}
		if s.now = next; end.Before(next) {
			s.now = end
		}
		if s.now.Equal(s.now.Truncate(RelayEvery)) {
			s.relay()
		}
	}
}

func (s *script) write(changes []Change) {
	for _, c := range changes {
		s.edit(c.NodeID, func(n *cluster.Node) {
			if n.Status.State != c.State {
				n.Status.Since = s.now
			}
			n.Status.State, n.Status.Message, n.Awaited = c.State, c.Message, n.Awaited && !c.Came
		})
	}
}

func (s *script) edit(nodeID string, change func(*cluster.Node)) {
	at := slices.IndexFunc(s.nodes, func(n *cluster.Node) bool { return n.ID == nodeID })
	next := *s.nodes[at]
	change(&next)
	s.nodes[at] = &next
}

func (s *script) at() string { return s.now.Format("04:05.000") }

func (s *script) show(changes []Change) string {
	var b strings.Builder
	for _, c := range changes {
		fmt.Fprintf(&b, "%s %s %s", s.at(), c.NodeID, c.State)
		if c.Message != "" {
			fmt.Fprintf(&b, ": %s", c.Message)
		}
		if c.Came {
			b.WriteString(" (its first session)")
		}
		b.WriteByte('\n')
	}
	return b.String()
}
