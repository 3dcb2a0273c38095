package up

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// Verb is what a step does.
type Verb string

// What steps do. Each is done when its machine, seen again, says so.
const (
	Install Verb = "install" // the binary and the unit, and start the daemon with them
	Init    Verb = "init"    // a cluster
	Join    Verb = "join"    // it
	Promote Verb = "promote" // a worker
	Demote  Verb = "demote"  // a manager
	Set     Verb = "set"     // labels and availability
	Leave   Verb = "leave"   // the cluster
	Forget  Verb = "forget"  // a node that has left
	Wipe    Verb = "wipe"    // what was installed, and the node's data
	Wait    Verb = "wait"    // until it has come about by itself
)

// Step is one thing to do.
type Step struct {
	Verb Verb
	// Host is the machine that it is about.
	Host string
	// By is the manager that is told to, if it isn't the machine.
	By string `json:",omitempty"`
	// Node is the ID of the node that it is about, if it is one.
	Node string `json:",omitempty"`
	// Role, Addr, Labels, Unlabel and Availability are for those that need them.
	Role         swarm.NodeRole         `json:",omitempty"`
	Addr         string                 `json:",omitempty"`
	Labels       []string               `json:",omitempty"`
	Unlabel      []string               `json:",omitempty"`
	Availability swarm.NodeAvailability `json:",omitempty"`
	// Drain has it empty first.
	Drain bool `json:",omitempty"`
	// Upgrade tells that a node of the cluster gets another binary.
	Upgrade bool `json:",omitempty"`
	// Together tells that steps beside it of the same kind can go on at the same time.
	Together bool `json:",omitempty"`
	// Words say it.
	Words string
}

func (s Step) String() string { return fmt.Sprintf("%s: %s", s.Host, s.Words) }

// Todo is what a plan says.
type Todo struct {
	Problems []Problem
	// Steps are what is left to do, as far as it can be seen, in order.
	Steps []Step
	// Notes are what somebody may want to know.
	Notes []string
}

// planner goes through what is wanted.
type planner struct {
	list  List
	world World
	opts  Options
	// by is a manager that answers for the cluster; known is what it says.
	by    string
	known *Cluster
	todo  Todo
}

// Plan says what is to be done for the machines of the list to be the cluster.
func Plan(l List, w World, o Options) Todo {
	p := planner{list: l, world: w, opts: o}
	if p.todo.Problems = Check(l, w, o); len(p.todo.Problems) > 0 {
		return p.todo
	}
	p.find()
	p.install()
	p.start()
	p.join()
	p.roles()
	p.settings()
	p.upgrade()
	p.remove()
	p.settle()
	p.note()
	if len(p.todo.Problems) > 0 {
		p.todo.Steps = nil
	}
	return p.todo
}

func (p *planner) add(s Step, format string, args ...any) {
	s.Words = fmt.Sprintf(format, args...)
	p.todo.Steps = append(p.todo.Steps, s)
}

func (p *planner) refuse(host, do, format string, args ...any) {
	p.todo.Problems = append(p.todo.Problems, Problem{host, fmt.Sprintf(format, args...), do})
}

// find looks for a manager to ask; those that are to stay come first.
func (p *planner) find() {
	for _, host := range slices.Concat(p.list.Hosts(), p.opts.Remove) {
		if c := p.world[host].Cluster; c != nil && c.Error == "" && p.known == nil {
			p.by, p.known = host, c
		}
	}
}

// node is what the cluster knows of a machine's node.
func (p *planner) node(host string) *cluster.NodeHealth {
	id := p.world[host].Node.ID
	if p.known == nil || id == "" {
		return nil
	}
	for i, n := range p.known.Status.Nodes {
		if n.NodeID == id {
			return &p.known.Status.Nodes[i]
		}
	}
	return nil
}

func (p *planner) manager(id string) *cluster.ManagerHealth {
	if p.known == nil {
		return nil
	}
	for i, m := range p.known.Status.Managers {
		if m.NodeID == id {
			return &p.known.Status.Managers[i]
		}
	}
	return nil
}

// member tells whether a machine is a node, even if its daemon doesn't run.
func member(s *Sight) bool { return s.Node.in() || s.Skep.Data }

// wanted is the digest of the binary that a machine shall run.
func (p *planner) wanted(s *Sight) string {
	if s.Skep.Packaged {
		return s.Skep.Digest // Of the right version, or there would be a problem.
	}
	return p.opts.Digests[s.Arch]
}

// installed tells whether all is there that the daemon runs by.
func (p *planner) installed(s *Sight) bool {
	return s.Skep.Path != "" && s.Skep.Digest == p.wanted(s) && s.Skep.Unit != "" && s.Skep.Unit != UnitOld && s.Skep.Enabled
}

// install is for machines that are no nodes yet, and for nodes whose daemon doesn't run.
func (p *planner) install() {
	for _, m := range p.list.Machines {
		s := p.world[m.Host]
		step := Step{Verb: Install, Host: m.Host, Together: true}
		switch {
		case s.Skep.Running != "" && (member(s) || p.installed(s) && s.Skep.Running == s.Skep.Digest):
		case p.installed(s):
			p.add(step, "start skep %s", p.opts.Version)
		default:
			p.add(step, "install skep %s and start it", p.opts.Version)
		}
	}
}

// start makes the cluster when no machine is in one.
func (p *planner) start() {
	for _, m := range p.list.Machines {
		if s := p.world[m.Host]; member(s) && (p.known == nil || s.Node.State == swarm.LocalNodeStatePending || s.Node.State == "") {
			// It knows soon what it is in; a second cluster would be worse than waiting.
			p.add(Step{Verb: Wait, Host: m.Host}, "wait for the node to take up its part in the cluster%s", because(s))
		}
	}
	if p.known != nil || slices.ContainsFunc(p.list.Machines, func(m Machine) bool { return member(p.world[m.Host]) }) {
		return
	}
	for _, m := range p.list.Machines {
		if m.Role == swarm.NodeRoleManager {
			addr, _ := address(m, p.world[m.Host])
			p.add(Step{Verb: Init, Host: m.Host, Addr: addr}, "make a cluster, reached at %s", addr)
			return
		}
	}
}

func because(s *Sight) string {
	switch {
	case s.Node.Error != "":
		return ": " + s.Node.Error
	case s.Cluster != nil && s.Cluster.Error != "":
		return ": " + s.Cluster.Error
	}
	return ""
}

// unsettled says why a node isn't as it should be in the end; "" when it is.
func (p *planner) unsettled(host string) string {
	n := p.node(host)
	if n == nil {
		return "the cluster doesn't know it yet"
	}
	switch m := p.manager(n.NodeID); {
	case n.State != string(swarm.NodeStateReady):
		return strings.TrimSuffix(fmt.Sprintf("it is %s: %s", n.State, n.Reason), ": ")
	case n.Role != string(swarm.NodeRoleManager):
		return ""
	case m == nil || !m.Reachable:
		return "its manager doesn't answer yet"
	case !m.Voter:
		return strings.TrimSuffix("it has no vote yet: "+m.Waits, ": ")
	case m.Waits != "":
		return "it waits: " + m.Waits
	}
	return ""
}

// join lets machines in: managers one at a time, each when the one before has a vote.
func (p *planner) join() {
	first := true
	for _, role := range []swarm.NodeRole{swarm.NodeRoleManager, swarm.NodeRoleWorker} {
		for _, m := range p.list.Machines {
			s := p.world[m.Host]
			if m.Role != role || member(s) {
				continue
			}
			if p.known == nil && first && role == swarm.NodeRoleManager && !p.anyMember() {
				first = false
				continue // It makes the cluster.
			}
			if first {
				first = false
				p.settleManagers()
			}
			addr, _ := address(m, s)
			step := Step{Verb: Join, Host: m.Host, By: p.by, Role: role, Addr: addr, Availability: m.Availability, Together: role == swarm.NodeRoleWorker}
			p.add(step, "join as a %s, reached at %s", role, addr)
		}
	}
}

func (p *planner) anyMember() bool {
	return slices.ContainsFunc(p.list.Machines, func(m Machine) bool { return member(p.world[m.Host]) })
}

// settleManagers waits for managers that are there, before anything happens to another one.
func (p *planner) settleManagers() {
	if p.known == nil {
		return
	}
	for _, m := range p.list.Machines {
		if s := p.world[m.Host]; s.Node.Manager {
			p.waitFor(m.Host)
		}
	}
}

// waitFor has a step while a node isn't as it should be.
func (p *planner) waitFor(host string) {
	if why := p.unsettled(host); why != "" && !slices.ContainsFunc(p.todo.Steps, func(s Step) bool { return s.Verb == Wait && s.Host == host }) {
		p.add(Step{Verb: Wait, Host: host}, "wait until the node is ready (%s)", why)
	}
}

// roles has workers that shall manage promoted, and managers that shall work demoted.
func (p *planner) roles() {
	for _, m := range p.list.Machines {
		n := p.node(m.Host)
		if n == nil || n.Role == string(m.Role) {
			continue
		}
		p.settleManagers()
		if m.Role == swarm.NodeRoleManager {
			p.add(Step{Verb: Promote, Host: m.Host, By: p.by, Node: n.NodeID}, "promote to a manager")
			continue
		}
		p.demote(m.Host, n.NodeID, false)
	}
}

// demote has a manager demoted, unless the others couldn't go on.
func (p *planner) demote(host, id string, drain bool) {
	voters, answer := 0, 0
	for _, m := range p.known.Status.Managers {
		if m.Voter && m.NodeID != id {
			voters++
			if m.Reachable {
				answer++
			}
		}
	}
	// What comes before it may change that.
	if first := len(p.todo.Steps) == 0; first && (voters == 0 || answer < voters/2+1) {
		p.refuse(host, "bring managers back, or let others join first", "without it %d of %d managers would answer, and %d are needed", answer, voters, max(1, voters/2+1))
		return
	}
	words := "demote to a worker"
	if drain {
		words = "drain, and demote to a worker"
	}
	p.add(Step{Verb: Demote, Host: host, By: p.other(host), Node: id, Drain: drain}, "%s", words)
}

// other is a manager that isn't this machine.
func (p *planner) other(host string) string {
	for _, h := range slices.Concat(p.list.Hosts(), p.opts.Remove) {
		if c := p.world[h].Cluster; h != host && c != nil && c.Error == "" {
			return h
		}
	}
	return p.by
}

// settings has labels and availability as the list says.
func (p *planner) settings() {
	for _, m := range p.list.Machines {
		n := p.node(m.Host)
		var has map[string]string
		if n != nil {
			has = p.known.Labels[n.NodeID]
		}
		missing, surplus := m.labels(has)
		availability := m.Availability
		switch {
		case n == nil:
			availability = "" // It joins with that.
		case string(availability) == n.Availability:
			availability = ""
		}
		if len(missing)+len(surplus) == 0 && availability == "" {
			continue
		}
		step := Step{Verb: Set, Host: m.Host, By: p.by, Labels: missing, Unlabel: surplus, Availability: availability, Together: true}
		if n != nil {
			step.Node = n.NodeID
		}
		var words []string
		if len(missing) > 0 {
			words = append(words, "label "+strings.Join(missing, ", "))
		}
		if availability != "" {
			words = append(words, "availability "+string(availability))
		}
		says := "set " + strings.Join(words, " and ")
		switch {
		case len(words) == 0:
			says = "remove label " + strings.Join(surplus, ", ")
		case len(surplus) > 0:
			says += ", and remove label " + strings.Join(surplus, ", ")
		}
		p.add(step, "%s", says)
	}
}

// upgrade has nodes run the wanted binary: managers that follow, the leader, workers, one after
// the other, each when all others are ready.
func (p *planner) upgrade() {
	if p.known == nil {
		return
	}
	var due []Machine
	begun := false
	for _, m := range p.list.Machines {
		s := p.world[m.Host]
		switch {
		case !s.Node.in() || s.Skep.Running == "":
		case p.installed(s) && s.Skep.Running == s.Skep.Digest:
			begun = true
		default:
			due = append(due, m)
		}
	}
	if len(due) == 0 {
		return
	}
	rank := func(m Machine) int {
		id := p.world[m.Host].Node.ID
		switch {
		case id == p.known.Status.LeaderID:
			return 1
		case p.manager(id) != nil:
			return 0
		}
		return 2
	}
	slices.SortStableFunc(due, func(a, b Machine) int { return cmp.Compare(rank(a), rank(b)) })
	for _, m := range p.list.Machines {
		if p.node(m.Host) != nil {
			p.waitFor(m.Host)
		}
	}
	if p.known.Status.Autolock && !p.opts.Force && slices.ContainsFunc(due, func(m Machine) bool { return rank(m) < 2 }) {
		p.refuse("", "turn that off (skep swarm update --autolock=false), or upgrade managers by hand; if all have an --unlock-key-file: --force",
			"managers are to be upgraded, and they are locked when they restart, until somebody unlocks each")
		return
	}
	if !p.opts.Force && !begun && len(p.todo.Steps) == 0 {
		for _, what := range p.known.InTheWay {
			p.refuse("", "", "in the way of an upgrade to skep %s: %s", p.opts.Version, what)
		}
		if len(p.todo.Problems) > 0 {
			p.todo.Problems[len(p.todo.Problems)-1].Do = "--force upgrades in spite of that"
			return
		}
	}
	for _, m := range due {
		s := p.world[m.Host]
		what := [...]string{"a follower", "the leader, which hands over", "a worker"}[rank(m)]
		switch {
		case s.Skep.Digest == p.wanted(s) && s.Skep.Running != s.Skep.Digest:
			p.add(Step{Verb: Install, Host: m.Host, Upgrade: true, Node: s.Node.ID}, "restart with skep %s (%s)", p.opts.Version, what)
		case s.Skep.Digest == p.wanted(s):
			p.add(Step{Verb: Install, Host: m.Host, Upgrade: true, Node: s.Node.ID}, "renew the unit and restart (%s)", what)
		default:
			p.add(Step{Verb: Install, Host: m.Host, Upgrade: true, Node: s.Node.ID}, "upgrade from skep %s to %s (%s)", s.Skep.Version, p.opts.Version, what)
		}
	}
}

// remove takes machines out of the cluster.
func (p *planner) remove() {
	for _, host := range p.opts.Remove {
		s, n := p.world[host], p.node(host)
		switch {
		case n != nil && n.Role == string(swarm.NodeRoleManager):
			p.settleManagers()
			p.demote(host, n.NodeID, true)
			fallthrough
		case n != nil:
			p.add(Step{Verb: Leave, Host: host, By: p.other(host), Node: n.NodeID, Drain: true}, "drain, and leave the cluster")
		case s.Node.in():
			p.add(Step{Verb: Leave, Host: host}, "leave the cluster")
		}
		if n != nil || p.gone(host) != "" {
			p.add(Step{Verb: Forget, Host: host, By: p.other(host), Node: cmp.Or(s.Node.ID, p.gone(host))}, "remove the node from the cluster")
		}
		p.wipe(host, s)
	}
}

// gone is the ID of the node that a machine was, which has left.
func (p *planner) gone(host string) string {
	if p.known == nil || p.world[host].Node.in() {
		return ""
	}
	for _, n := range p.known.Status.Nodes {
		if n.Hostname == p.world[host].Hostname && n.State == string(swarm.NodeStateDown) && n.Role == string(swarm.NodeRoleWorker) {
			return n.NodeID
		}
	}
	return ""
}

// wipe removes what was installed.
func (p *planner) wipe(host string, s *Sight) {
	switch {
	case s.Skep.Packaged && (s.Skep.Enabled || s.Skep.Running != "" || s.Skep.Data):
		p.add(Step{Verb: Wipe, Host: host, Together: true}, "stop skep and remove its data; the package stays")
	case !s.Skep.Packaged && (s.Skep.Path != "" || s.Skep.Unit != "" || s.Skep.Data):
		p.add(Step{Verb: Wipe, Host: host, Together: true}, "remove skep, its unit and its data")
	}
}

// settle waits until all are ready.
func (p *planner) settle() {
	if p.known == nil {
		return
	}
	for _, m := range p.list.Machines {
		if p.node(m.Host) != nil {
			p.waitFor(m.Host)
		}
	}
}

// note tells of nodes that aren't in the list.
func (p *planner) note() {
	for _, n := range p.strangers() {
		p.todo.Notes = append(p.todo.Notes, fmt.Sprintf("node %s (%s) is in the cluster and not in the list: \"skep up --remove HOST\" takes it out, if ssh reaches it", n.Hostname, n.Addr))
	}
	p.noteEncryption()
	p.noteLabels()
	for _, m := range p.list.Machines {
		switch s := p.world[m.Host]; {
		case s.Skep.Unit == UnitByHand:
			p.todo.Notes = append(p.todo.Notes, fmt.Sprintf("%s: its unit was written by hand and stays as it is", m.Host))
		case s.Skep.Packaged:
			p.todo.Notes = append(p.todo.Notes, fmt.Sprintf("%s: skep is from a package there, and stays that", m.Host))
		}
	}
}

// noteLabels tells of labels that the list doesn't have, so that nobody waits for one to go that was taken
// off the list: who has set it isn't known.
func (p *planner) noteLabels() {
	var all []string
	for _, m := range p.list.Machines {
		if n := p.node(m.Host); n != nil {
			has := p.known.Labels[n.NodeID]
			var more []string
			for _, name := range slices.Sorted(maps.Keys(has)) {
				if _, listed := m.Labels[name]; !listed && name != cluster.LabelDrainUntil.Name {
					more = append(more, name+"="+has[name])
				}
			}
			if len(more) > 0 {
				all = append(all, m.Host+" "+strings.Join(more, ", "))
			}
		}
	}
	if len(all) > 0 {
		p.todo.Notes = append(p.todo.Notes, "labels that aren't in the list stay: "+strings.Join(all, "; ")+"; \"NAME: null\" in the list removes one")
	}
}

// noteEncryption tells what is the matter with encrypted networks, which not everybody has.
func (p *planner) noteEncryption() {
	by := map[string][]string{}
	for _, m := range p.list.Machines {
		if said := p.world[m.Host].Encryption; said != "" {
			by[said] = append(by[said], m.Host)
		}
	}
	for _, said := range slices.Sorted(maps.Keys(by)) {
		p.todo.Notes = append(p.todo.Notes, strings.Join(by[said], ", ")+": "+said)
	}
}

// strangers are the cluster's nodes that are none of the machines.
func (p *planner) strangers() (all []cluster.NodeHealth) {
	if p.known == nil {
		return nil
	}
	ours, names := map[string]bool{}, map[string]bool{}
	for _, host := range slices.Concat(p.list.Hosts(), p.opts.Remove) {
		s := p.world[host]
		ours[s.Node.ID], ours[p.gone(host)] = true, true
		names[s.Hostname] = names[s.Hostname] || s.Skep.Data && s.Node.ID == "" // Its daemon doesn't run.
	}
	for _, n := range p.known.Status.Nodes {
		if !ours[n.NodeID] && !names[n.Hostname] {
			all = append(all, n)
		}
	}
	return all
}

// PlanDown says what is to be done for nothing to be left of the cluster on the machines of the list.
func PlanDown(l List, w World) Todo {
	p := planner{list: l, world: w}
	for _, m := range l.Machines {
		if s := w[m.Host]; s.Err != "" {
			p.refuse(m.Host, cmp.Or(s.Do, "if it is gone for good, take it off the list"), "%s", s.Err)
		}
	}
	p.find()
	for _, n := range p.strangers() {
		if n.State == string(swarm.NodeStateReady) {
			p.refuse("", "add it to the list, or take it out of the cluster first", "node %s (%s) is in the cluster and not in the list: it would be left behind", n.Hostname, n.Addr)
		}
	}
	if len(p.todo.Problems) > 0 {
		return p.todo
	}
	for _, role := range []bool{false, true} {
		for _, m := range l.Machines {
			if s := w[m.Host]; s.Node.in() && s.Node.State != swarm.LocalNodeStateLocked && s.Node.Manager == role {
				p.add(Step{Verb: Leave, Host: m.Host, Together: !role}, "leave the cluster, with its tasks, networks and secrets")
			}
		}
	}
	for _, m := range l.Machines {
		p.wipe(m.Host, w[m.Host])
	}
	return p.todo
}
