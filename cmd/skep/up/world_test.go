package up

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// simulated is machines and their cluster, as far as orders can change them. It is a Runner.
type simulated struct {
	mu       sync.Mutex // guards the fields below
	machines map[string]*simulatedMachine
	// cluster is whether there is one, and leader who leads it.
	cluster bool
	leader  string
	// orders is how many there were; at the one numbered killAt whoever orders is killed: before it
	// is carried out, or after.
	orders, killAt int
	after          bool
	killed         bool
	// history is what changed something, and wrong what must never have happened.
	history, wrong []string
	now            time.Time
}

type simulatedMachine struct {
	host                    string
	staged, binary, former  string
	running                 string
	unit, enabled, data, in bool
	role                    swarm.NodeRole
	availability            string
	labels                  map[string]string
	// unready is how many looks it takes until the node is ready.
	unready int
	// known tells that the cluster has a record of the node.
	known  bool
	change func(*Facts)
	// broken binaries end at once.
	broken string
}

var errKilled = errors.New("killed")

func newSimulated(hosts ...string) *simulated {
	s := &simulated{machines: map[string]*simulatedMachine{}, now: time.Unix(1e9, 0)}
	for _, h := range hosts {
		s.machines[h] = &simulatedMachine{host: h, labels: map[string]string{}}
	}
	return s
}

func (s *simulated) Connect(_ context.Context, host string, _ bool) (Hello, error) {
	if s.machines[host] == nil {
		return Hello{}, errors.New("no route to host")
	}
	return Hello{Arch: "amd64", Reached: s.addr(host), Root: true}, nil
}

func (s *simulated) addr(host string) string {
	return fmt.Sprintf("10.0.0.%d", 1+slices.Index(slices.Sorted(maps.Keys(s.machines)), host))
}

func (s *simulated) Run(_ context.Context, host string, o Order) error {
	if o.Verb == "skep" && len(o.Args) > 2 && o.Args[1] == "machine" && (o.Args[2] == "listen" || o.Args[2] == "dial") {
		return s.ports(o)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.killed {
		return errKilled
	}
	s.orders++
	if s.orders == s.killAt && !s.after {
		s.killed = true
		return errKilled
	}
	before := s.String()
	err := s.carryOut(s.machines[host], o)
	if s.String() != before {
		s.history = append(s.history, host+": "+o.Verb+" "+strings.Join(o.Args, " "))
	}
	if s.orders == s.killAt {
		s.killed = true
		return errKilled
	}
	return err
}

// ports are all open.
func (s *simulated) ports(o Order) error {
	if o.Args[2] == "listen" {
		if _, err := io.WriteString(o.Out, `{"Taken":[]}`+"\n"); err != nil {
			return err
		}
		_, err := io.Copy(io.Discard, o.In)
		return err
	}
	_, err := io.WriteString(o.Out, "[]")
	return err
}

// must notes what must never be.
func (s *simulated) must(ok bool, format string, args ...any) {
	if !ok {
		s.wrong = append(s.wrong, fmt.Sprintf(format, args...))
	}
}

// quorum notes when the managers but for one couldn't go on.
func (s *simulated) quorum(without *simulatedMachine, what string) {
	managers, up := 0, 0
	for _, m := range s.machines {
		if m.in && m.role == swarm.NodeRoleManager {
			managers++
			if m != without && m.ready() {
				up++
			}
		}
	}
	s.must(managers < 3 || up >= managers/2+1, "%s of %s leaves %d of %d managers", what, without.host, up, managers)
}

func (m *simulatedMachine) ready() bool { return m.in && m.running != "" && m.unready == 0 }

func (s *simulated) carryOut(m *simulatedMachine, o Order) error {
	switch o.Verb {
	case "digests":
		for path, sum := range map[string]string{binaryPath: m.binary, m.stagedPath(): m.staged} {
			if sum != "" {
				fmt.Fprintf(o.Out, "%s  %s\n", sum, path)
			}
		}
		return nil
	case "stage":
		m.staged = o.Args[0]
		return nil
	case "unstage":
		m.staged = ""
		return nil
	case "install":
		return s.install(m, o)
	case "wipe":
		s.must(!m.in, "%s is wiped while it is in the cluster", m.host)
		m.staged, m.binary, m.former, m.running, m.unit, m.enabled, m.data = "", "", "", "", false, false, false
		return nil
	case "left":
		return nil
	case "skep":
		tool := o.Args[0]
		if tool == binaryPath && m.binary == "" || tool == m.stagedPath() && m.staged == "" {
			return errors.New(tool + ": not found")
		}
		return s.skep(m, o, o.Args[1:])
	}
	return fmt.Errorf("nobody knows order %s", o.Verb)
}

func (m *simulatedMachine) stagedPath() string {
	return stagedPrefix + m.staged[:min(16, len(m.staged))]
}

func (s *simulated) install(m *simulatedMachine, o Order) error {
	if m.in {
		s.quorum(m, "restart")
	}
	if strings.HasPrefix(o.Args[0], stagedPrefix) {
		if m.staged == "" || o.Args[0] != m.stagedPath() {
			return errors.New(o.Args[0] + ": not found")
		}
		m.former, m.binary, m.staged = m.binary, m.staged, ""
	}
	m.unit, m.enabled = true, true
	if m.running = m.binary; m.binary == m.broken {
		m.running = ""
		return errors.New("the daemon ended")
	}
	m.data = m.data || m.in
	if m.in {
		m.unready = 2
		if s.leader == m.host {
			for _, other := range s.machines {
				if other != m && other.ready() && other.role == swarm.NodeRoleManager {
					s.leader = other.host
				}
			}
		}
	}
	return nil
}

const simulatedToken = "SWMTKN-1-secret"

func (s *simulated) skep(m *simulatedMachine, o Order, args []string) error {
	switch strings.Join(args[:2], " ") {
	case "machine facts":
		return json.NewEncoder(o.Out).Encode(s.facts(m))
	case "cluster status":
		_, err := io.WriteString(o.Out, "All is well.\n")
		return err
	case "swarm init":
		s.must(!s.cluster, "a second cluster is made on %s", m.host)
		s.cluster, s.leader = true, m.host
		m.in, m.data, m.known, m.role, m.availability = true, true, true, swarm.NodeRoleManager, "active"
		s.must(o.Secret, "the log would have the token that init tells")
		return nil
	case "swarm join-token":
		_, err := io.WriteString(o.Out, simulatedToken+"-"+args[3]+"\n")
		return err
	case "swarm join":
		token, _ := io.ReadAll(o.In)
		role := strings.TrimPrefix(strings.TrimSpace(string(token)), simulatedToken+"-")
		if m.in {
			return errors.New("it is a node already")
		}
		s.must(!strings.Contains(strings.Join(args, " "), simulatedToken), "a token is an argument")
		for _, other := range s.machines {
			s.must(role != "manager" || !other.in || other.role != swarm.NodeRoleManager || other.unready == 0, "%s joins while %s isn't ready", m.host, other.host)
		}
		m.in, m.data, m.known, m.role, m.availability, m.unready = true, true, true, swarm.NodeRole(role), "active", 2
		if i := slices.Index(args, "--availability"); i > 0 {
			m.availability = args[i+1]
		}
		return nil
	case "swarm leave":
		s.must(m.role == swarm.NodeRoleWorker || slices.Contains(args, "--force"), "%s leaves as a manager", m.host)
		m.in, m.data = false, false
		s.cluster = slices.ContainsFunc(slices.Collect(maps.Values(s.machines)), func(m *simulatedMachine) bool { return m.in })
		return nil
	}
	return s.node(args)
}

// node is what managers are told of other nodes.
func (s *simulated) node(args []string) error {
	m := s.machines[strings.TrimPrefix(args[len(args)-1], "id-")]
	switch args[1] {
	case "promote":
		m.role, m.unready = swarm.NodeRoleManager, 2
	case "demote":
		s.quorum(m, "demotion")
		m.role = swarm.NodeRoleWorker
	case "drain":
		m.availability = "drain"
	case "rm":
		m.known, m.in = false, false
		m.labels = map[string]string{}
	case "update":
		for i, a := range args {
			switch a {
			case "--label-add":
				name, value, _ := strings.Cut(args[i+1], "=")
				m.labels[name] = value
			case "--label-rm":
				if _, is := m.labels[args[i+1]]; !is {
					return fmt.Errorf("key %s doesn't exist in node's labels", args[i+1])
				}
				delete(m.labels, args[i+1])
			case "--availability":
				m.availability = args[i+1]
			}
		}
	default:
		return fmt.Errorf("nobody knows %s", strings.Join(args, " "))
	}
	return nil
}

// facts are what a machine says of itself.
func (s *simulated) facts(m *simulatedMachine) Facts {
	addr := netip.MustParseAddr(s.addr(m.host))
	f := Facts{
		Hostname: m.host, MachineID: "machine-" + m.host, Systemd: "252", Now: s.now,
		Addresses: []Address{{addr, "eth0", 1500}}, Engine: Engine{Version: "20.10.24", API: "1.41"},
		DiskFree: 10 << 30, DiskSize: 20 << 30,
		Skep: Skep{Digest: m.binary, Enabled: m.enabled, Running: m.running, Data: m.data},
	}
	if m.binary != "" {
		f.Skep.Path, f.Skep.Version = binaryPath, m.binary[:2]
	}
	if m.unit {
		f.Skep.Unit = UnitCurrent
	}
	if m.running != "" {
		f.Node.State = swarm.LocalNodeStateInactive
	}
	if m.in && m.running != "" {
		m.unready = max(0, m.unready-1)
		f.Node = Node{State: swarm.LocalNodeStateActive, ID: "id-" + m.host, Addr: addr.String(), Manager: m.role == swarm.NodeRoleManager}
		if f.Node.Manager {
			f.Cluster = s.known()
		}
	}
	if m.change != nil {
		m.change(&f)
	}
	return f
}

// known is what managers know.
func (s *simulated) known() *Cluster {
	c := &Cluster{ID: "cluster", DataPort: 4789, Labels: map[string]map[string]string{}}
	c.Status.LeaderID = "id-" + s.leader
	for _, host := range slices.Sorted(maps.Keys(s.machines)) {
		m := s.machines[host]
		if !m.known {
			continue
		}
		id, state := "id-"+host, "ready"
		if !m.ready() {
			state = "down"
		}
		c.Labels[id] = maps.Clone(m.labels)
		c.Status.Nodes = append(c.Status.Nodes, cluster.NodeHealth{NodeID: id, Hostname: host, Addr: s.addr(host), Role: string(m.role), State: state, Availability: m.availability})
		if m.role == swarm.NodeRoleManager {
			c.Status.Managers = append(c.Status.Managers, cluster.ManagerHealth{NodeID: id, Hostname: host, Addr: s.addr(host) + ":2377", Voter: m.unready == 0, Reachable: m.running != "", Leader: host == s.leader})
		}
	}
	return c
}

// String is all that there is.
func (s *simulated) String() string {
	var out strings.Builder
	for _, host := range slices.Sorted(maps.Keys(s.machines)) {
		m := s.machines[host]
		fmt.Fprintf(&out, "%s binary=%q running=%q unit=%v enabled=%v data=%v in=%v known=%v", host, m.binary, m.running, m.unit, m.enabled, m.data, m.in, m.known)
		if m.known {
			fmt.Fprintf(&out, " %s %s %v", m.role, m.availability, m.labels)
		}
		fmt.Fprintln(&out)
	}
	return out.String()
}
