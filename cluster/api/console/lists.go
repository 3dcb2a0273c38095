package console

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// listed is a list of which maxRows are shown.
type listed[T any] struct {
	Rows []T
	// All is how many there are with the filter, and Hidden how many of these aren't shown.
	All, Hidden int
	Filtered    bool
}

func cut[T any](rows []T, filter string) listed[T] {
	shown := rows[:min(len(rows), maxRows)]
	return listed[T]{Rows: shown, All: len(rows), Hidden: len(rows) - len(shown), Filtered: filter != ""}
}

// fits tells whether each word of the filter is in one of the texts, without regard to case.
func fits(filter string, texts ...string) bool {
	all := strings.ToLower(strings.Join(texts, "\x00"))
	for word := range strings.FieldsSeq(strings.ToLower(filter)) {
		if !strings.Contains(all, word) {
			return false
		}
	}
	return true
}

// filter is the text that lists are filtered by.
func (l *look) filter() string {
	text := l.query.Get("q")
	return text[:min(len(text), 200)]
}

// servicesPage lists the services, stack by stack.
func servicesPage(l *look) (page, error) {
	filter := l.filter()
	var rows []serviceShown
	for service := range l.view.Services() {
		one := l.service(service)
		if fits(filter, one.Name, one.ID, one.Stack, one.Mode, one.Image.Name, one.Mark.Word, one.Reason, strings.Join(one.Ports, " ")) {
			rows = append(rows, one)
		}
	}
	slices.SortFunc(rows, func(a, b serviceShown) int {
		return cmp.Or(compareNames(a.Stack, b.Stack), compareNames(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return page{
		Title: "Services", Nav: "services", Filter: filter, CanFilter: true,
		Sections: []section{{ID: "services", Topics: topicTasks + " " + topicServices, Wide: true, Template: "services", Data: cut(rows, filter)}},
	}, nil
}

// nodeShown is a node in a list.
type nodeShown struct {
	ID, Name, Addr string
	Mark           mark
	Role           string
	Leader         bool
	Since          moment
	Reason         string
	Gossip         string
	Session        string
	Version        string
	Engine         string
	Tasks, Running int
	Use            useShown
	Zone           string
}

// useShown is what of a node's resources its tasks reserve.
type useShown struct {
	CPUs, MemoryPart     string
	CPUShare, MemoryPerc int
	HasCPU, HasMemory    bool
}

// nodesPage lists the nodes.
func nodesPage(l *look) (page, error) {
	filter := l.filter()
	health := l.nodeHealth()
	var rows []nodeShown
	for node := range l.view.Nodes() {
		one := l.node(node, health)
		if fits(filter, one.Name, one.ID, one.Addr, one.Role, one.Mark.Word, one.Reason, one.Version, one.Zone, labelText(node.Spec.Labels)) {
			rows = append(rows, one)
		}
	}
	slices.SortFunc(rows, func(a, b nodeShown) int { return cmp.Or(compareNames(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return page{
		Title: "Nodes", Nav: "nodes", Filter: filter, CanFilter: true,
		Sections: []section{{ID: "nodes", Topics: topicTasks + " " + topicNodes, Wide: true, Template: "nodes", Data: cut(rows, filter)}},
	}, nil
}

func labelText(labels map[string]string) string {
	var said []string
	for _, name := range sortedKeys(labels) {
		said = append(said, name+"="+labels[name])
	}
	return strings.Join(said, " ")
}

// nodeHealth is what the leader last said of nodes, by ID.
func (l *look) nodeHealth() map[string]cluster.NodeHealth {
	all := map[string]cluster.NodeHealth{}
	for _, n := range l.status.Nodes {
		all[n.NodeID] = n
	}
	return all
}

func (l *look) node(n *cluster.Node, health map[string]cluster.NodeHealth) nodeShown {
	h := health[n.ID]
	shown := nodeShown{
		ID: n.ID, Name: nameOf(n), Addr: n.Status.Addr, Mark: nodeMark(n), Role: string(n.Role), Leader: n.ID == l.leader, Since: l.since(n.Status.Since),
		Reason: cmp.Or(h.Reason, n.Status.Message), Gossip: h.Gossip, Version: n.Build.Version, Engine: n.Description.Engine.EngineVersion, Zone: zoneOf(n),
	}
	if h.Session != "" {
		shown.Session = l.nodeName(h.Session)
	}
	var cpus, memory int64
	for task := range l.view.TasksOfNode(n.ID) {
		if task.Dead() || !task.Assigned() {
			continue
		}
		shown.Tasks++
		if task.Status.State == cluster.StateRunning {
			shown.Running++
		}
		if r := l.view.Revision(task.ServiceID, task.Revision); r != nil && r.Spec.Resources != nil && r.Spec.Resources.Reservations != nil {
			cpus += r.Spec.Resources.Reservations.NanoCPUs
			memory += r.Spec.Resources.Reservations.MemoryBytes
		}
	}
	shown.Use = use(cpus, memory, n)
	return shown
}

func use(cpus, memory int64, n *cluster.Node) (u useShown) {
	hasCPUs, hasMemory := n.Capacity()
	if hasCPUs > 0 {
		u.HasCPU, u.CPUShare = true, int(100*cpus/hasCPUs)
		u.CPUs = cores(cpus) + " of " + cores(hasCPUs) + " CPUs"
	}
	if hasMemory > 0 {
		u.HasMemory, u.MemoryPerc = true, int(100*memory/hasMemory)
		u.MemoryPart = size(memory) + " of " + size(hasMemory)
	}
	return u
}

// eventsShown are events, and by what else they can be chosen.
type eventsShown struct {
	Choices [][]choiceShown
	Why     string
	Events  []eventShown
	// Filtered tells whether some of those that are kept were left out.
	Filtered bool
}

// choiceShown is a link to the same page with another choice.
type choiceShown struct {
	Name, Link string
	Current    bool
}

// choices are links for each value of a part of the query; names has value and name in turn.
func (l *look) choices(key string, names ...string) (shown []choiceShown) {
	for i := 0; i+1 < len(names); i += 2 {
		query := maps.Clone(l.query)
		query.Del(key)
		if names[i] != "" {
			query.Set(key, names[i])
		}
		shown = append(shown, choiceShown{names[i+1], "?" + query.Encode(), l.query.Get(key) == names[i]})
	}
	return shown
}

// eventsPage lists what happened, the newest first.
func eventsPage(l *look) (page, error) {
	filter, kind, since := l.filter(), l.query.Get("type"), l.query.Get("since")
	shown := eventsShown{Choices: [][]choiceShown{
		l.choices("type", "", "all", "service", "services", "node", "nodes", "network", "networks", "secret", "secrets", "config", "configs"),
		l.choices("since", "", "all that are kept", "10m", "last 10 min", "1h", "last hour", "24h", "last day"),
	}}
	from := time.Time{}
	if since != "" {
		var err error
		if from, err = l.moment(since); err != nil {
			shown.Why = sentence(err.Error())
		}
	}
	shown.Events = l.lastEvents(maxRows, func(e *events.Message) bool {
		return (kind == "" || kind == string(e.Type)) && !unixNano(e.TimeNano).Before(from) &&
			fits(filter, e.Actor.Attributes["name"], e.Actor.ID, string(e.Type), string(e.Action), happened(e))
	})
	shown.Filtered = filter+kind+since != ""
	p := page{
		Title: "Events", Nav: "events", Filter: filter, CanFilter: true,
		Sections: []section{{ID: "events", Topics: topicEvents, Wide: true, Template: "eventlist", Data: shown}},
	}
	for _, part := range []factShown{{Name: "type", Value: kind}, {Name: "since", Value: since}} {
		if part.Value != "" {
			p.Keep = append(p.Keep, part)
		}
	}
	return p, nil
}

// moment reads a time: for how long ago it was, or when.
func (l *look) moment(text string) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return l.now.Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, cluster.Errorf(cluster.ErrInvalid, "“%s” is no time: want 10m or 2h, or as 2006-01-02T15:04:05Z", cutText(text, 40))
	}
	return at, nil
}

// stackShown is a stack: what has its label.
type stackShown struct {
	Name     string
	Mark     mark
	Services []serviceShown
	Networks []string
	Secrets  []string
	Configs  []string
}

// stacksPage lists the stacks with what is in them.
func stacksPage(l *look) (page, error) {
	filter := l.filter()
	stacks := map[string]*stackShown{}
	of := func(labels map[string]string) *stackShown {
		name := labels[stackLabel]
		if name == "" {
			return &stackShown{} // It is of none: what is added is lost.
		}
		if stacks[name] == nil {
			stacks[name] = &stackShown{Name: name, Mark: mark{"ok", "runs"}}
		}
		return stacks[name]
	}
	for service := range l.view.Services() {
		s := of(service.Spec.Labels)
		one := l.service(service)
		s.Services = append(s.Services, one)
		if worse := one.Mark.Kind; worse == "bad" || worse == "busy" && s.Mark.Kind != "bad" {
			s.Mark = one.Mark
		}
	}
	for network := range l.view.Networks() {
		s := of(network.Spec.Labels)
		s.Networks = append(s.Networks, network.Spec.Name)
	}
	for secret := range l.view.Secrets() {
		s := of(secret.Spec.Labels)
		s.Secrets = append(s.Secrets, secret.Spec.Name)
	}
	for config := range l.view.Configs() {
		s := of(config.Spec.Labels)
		s.Configs = append(s.Configs, config.Spec.Name)
	}
	var rows []stackShown
	for _, name := range sortedKeys(stacks) {
		s := stacks[name]
		slices.SortFunc(s.Services, func(a, b serviceShown) int { return compareNames(a.Name, b.Name) })
		for _, names := range [][]string{s.Networks, s.Secrets, s.Configs} {
			slices.SortFunc(names, compareNames)
		}
		if fits(filter, name, s.Mark.Word) {
			rows = append(rows, *s)
		}
	}
	return page{
		Title: "Stacks", Nav: "stacks", Filter: filter, CanFilter: true,
		Sections: []section{{ID: "stacks", Topics: topicTasks + " " + topicServices + " " + topicNetworks + " " + topicData, Wide: true, Template: "stacks", Data: cut(rows, filter)}},
	}, nil
}

// datumShown is a secret or a config: never its data.
type datumShown struct {
	ID, Name, Stack string
	Created         moment
	UsedBy          []linkShown
}

type linkShown struct{ ID, Name string }

// dataPage lists secrets and configs.
func dataPage(l *look) (page, error) {
	filter := l.filter()
	users := map[string][]linkShown{} // by the ID of what is used
	for s := range l.view.Services() {
		c := s.Spec.TaskTemplate.ContainerSpec
		if c == nil {
			continue
		}
		for _, r := range c.Secrets {
			users[r.SecretID] = append(users[r.SecretID], linkShown{s.ID, s.Spec.Name})
		}
		for _, r := range c.Configs {
			users[r.ConfigID] = append(users[r.ConfigID], linkShown{s.ID, s.Spec.Name})
		}
	}
	list := func(add func(func(id string, spec swarm.Annotations, meta cluster.Meta))) listed[datumShown] {
		var rows []datumShown
		add(func(id string, spec swarm.Annotations, meta cluster.Meta) {
			one := datumShown{ID: id, Name: spec.Name, Stack: spec.Labels[stackLabel], Created: l.since(meta.CreatedAt), UsedBy: users[id]}
			if fits(filter, one.Name, one.ID, one.Stack) {
				rows = append(rows, one)
			}
		})
		slices.SortFunc(rows, func(a, b datumShown) int { return compareNames(a.Name, b.Name) })
		return cut(rows, filter)
	}
	secrets := list(func(add func(string, swarm.Annotations, cluster.Meta)) {
		for s := range l.view.Secrets() {
			add(s.ID, s.Spec.Annotations, s.Meta)
		}
	})
	configs := list(func(add func(string, swarm.Annotations, cluster.Meta)) {
		for c := range l.view.Configs() {
			add(c.ID, c.Spec.Annotations, c.Meta)
		}
	})
	topics := topicData + " " + topicServices
	return page{
		Title: "Secrets and configs", Nav: "data", Filter: filter, CanFilter: true,
		Sections: []section{
			{ID: "secrets", Title: "Secrets", Topics: topics, Template: "data", Data: secrets},
			{ID: "configs", Title: "Configs", Topics: topics, Template: "data", Data: configs},
		},
	}, nil
}
