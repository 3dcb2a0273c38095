package console

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/standing"
)

// factShown is a line of what an object is, with the pages of what it names.
type factShown struct {
	Name, Value string
	Links       []linkShown
}

// taskRow is a task in a list.
type taskRow struct {
	ID        string
	Place     string // its slot, or node
	Mark      mark
	Since     moment
	Node      linkShown
	Service   linkShown
	Revision  uint64
	Old       bool // it runs another revision than the service's
	Why       string
	Container string
	// Before are the ones that were in its place before it, the newest first.
	Before []taskRow
}

// pathService is the service that the path has by ID or name.
func (l *look) pathService() (*cluster.Service, error) {
	ref := l.path("id")
	if s := l.view.Service(ref); s != nil {
		return s, nil
	}
	if s := l.view.ServiceNamed(ref); s != nil {
		return s, nil
	}
	return nil, cluster.Errorf(cluster.ErrNotFound, "There is no service %s any more, or not yet.", ref)
}

// servicePage shows one service.
func (c *Console) servicePage(l *look) (page, error) {
	s, err := l.pathService()
	if err != nil {
		return page{}, err
	}
	filter := l.filter()
	own := topicService + s.ID
	p := page{Title: s.Spec.Name, Nav: "services", Filter: filter, CanFilter: true}
	p.Sections = append(p.Sections,
		section{ID: "service", Topics: own, Template: "service", Data: struct {
			serviceShown
			Facts []factShown
		}{l.service(s), l.serviceFacts(s)}},
		section{ID: "rollout", Title: "Last update", Topics: own, Template: "rollout", Data: l.rolloutSteps(s)},
		section{ID: "usage", Title: "CPU and memory", Topics: topicClock, Wide: true, Template: "usage", Data: c.usage(l, s)},
	)
	if l.write {
		p.Sections = append(p.Sections, section{ID: "change", Title: "Change", Topics: "", Wide: true, Template: "changeservice", Data: l.changeable(s)})
	}
	p.Sections = append(p.Sections,
		section{ID: "tasks", Title: "Tasks", Topics: own, Wide: true, Template: "tasks", Data: struct {
			listed[taskRow]
			Logs string
		}{cut(l.tasksByPlace(s, filter), filter), Root + "services/" + s.ID + "/logs"}},
		section{ID: "revisions", Title: "Revisions", Topics: own, Wide: true, Template: "revisions", Data: struct {
			Rows  []revisionShown
			ID    string
			Write bool
		}{l.revisions(s), s.ID, l.write && !s.Job()}},
		section{ID: "spec", Title: "Spec", Topics: own, Wide: true, Template: "spec", Data: specText(s.Spec)},
		section{ID: "events", Title: "Events", Topics: topicEvents, Wide: true, Template: "events", Data: l.lastEvents(50, func(e *events.Message) bool { return e.Actor.ID == s.ID })},
	)
	return p, nil
}

// changeable is what the forms of a service begin with.
type changeable struct {
	ID, Image   string
	Replicas    int
	Replicated  bool
	CanRollBack bool
}

func (l *look) changeable(s *cluster.Service) changeable {
	c := changeable{ID: s.ID, Replicas: s.Replicas(), Replicated: s.Spec.Mode.Replicated != nil, CanRollBack: s.Previous != nil && !s.Job()}
	if spec := s.Spec.TaskTemplate.ContainerSpec; spec != nil {
		c.Image, _, _ = strings.Cut(spec.Image, "@")
	}
	return c
}

// serviceFacts are what the service is, in lines. Values of variables aren't among them.
func (l *look) serviceFacts(s *cluster.Service) (facts []factShown) {
	add := func(name string, values ...string) {
		if text := strings.Join(slices.DeleteFunc(values, func(v string) bool { return v == "" }), ", "); text != "" {
			facts = append(facts, factShown{Name: name, Value: text})
		}
	}
	add("ID", s.ID)
	add("created", l.since(s.CreatedAt).Age+" ago")
	if s.UpdatedAt.After(s.CreatedAt) {
		add("changed", l.since(s.UpdatedAt).Age+" ago")
	}
	add("revision", plain(s.Revision))
	add("publishes", portsOf(s)...)
	t := &s.Spec.TaskTemplate
	if c := t.ContainerSpec; c != nil {
		if len(c.Command)+len(c.Args) > 0 {
			add("command", plural(len(c.Command)+len(c.Args), "word")+" (docker service inspect shows them)")
		}
		var names []string
		for _, text := range c.Env {
			name, _, _ := strings.Cut(text, "=")
			names = append(names, name)
		}
		add("variables", names...)
		names = nil
		for _, r := range c.Secrets {
			names = append(names, r.SecretName)
		}
		add("secrets", names...)
		names = nil
		for _, r := range c.Configs {
			names = append(names, r.ConfigName)
		}
		add("configs", names...)
		names = nil
		for _, m := range c.Mounts {
			names = append(names, m.Target)
		}
		add("mounts", names...)
	}
	var networks []string
	for _, on := range t.Networks {
		name := on.Target
		if n := l.view.Network(on.Target); n != nil {
			name = n.Spec.Name
			if host := cluster.AddressIn(s.VirtualIPs, n.VNI); host != 0 && len(n.Subnets) > 0 {
				name += " (" + n.Addrs(host)[0].String() + ")"
			}
		}
		networks = append(networks, name)
	}
	add("networks", networks...)
	if r := t.Resources; r != nil {
		add("reserves", amounts(r.Reservations)...)
		if r.Limits != nil {
			add("at most", amounts(&swarm.Resources{NanoCPUs: r.Limits.NanoCPUs, MemoryBytes: r.Limits.MemoryBytes})...)
		}
	}
	if t.Placement != nil && len(t.Placement.Constraints) > 0 {
		facts = append(facts, l.placement(t.Placement.Constraints))
	}
	if fence, ok := cluster.LabelFence.Of(s.Spec.Labels); ok && fence {
		add("fenced", "two tasks of a slot never run at the same time")
	}
	return facts
}

// maxMatching is how many nodes are named that meet a service's constraints.
const maxMatching = 24

// placement says which nodes meet constraints.
func (l *look) placement(texts []string) factShown {
	var meet []linkShown
	constraints, err := cluster.ParseConstraints(texts)
	for node := range l.view.Nodes() {
		if err != nil || slices.ContainsFunc(constraints, func(c cluster.Constraint) bool { return !c.Match(node) }) {
			continue
		}
		one := linkShown{ID: node.ID, Name: nameOf(node)}
		if is := nodeMark(node); is.Kind != "ok" {
			one.Name += " (" + is.Word + ")"
		}
		meet = append(meet, one)
	}
	slices.SortFunc(meet, func(a, b linkShown) int {
		return cmp.Or(compareNames(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	fact := factShown{Name: "only where", Value: fmt.Sprintf("%s: %s of %s", strings.Join(texts, " and "), count(len(meet)), plural(l.view.NodeCount(), "node"))}
	if n := len(meet) - maxMatching; n > 0 {
		fact.Value += fmt.Sprintf(", of which %s aren't named", count(n))
	}
	fact.Links = meet[:min(len(meet), maxMatching)]
	return fact
}

func amounts(r *swarm.Resources) (said []string) {
	if r == nil {
		return nil
	}
	if r.NanoCPUs > 0 {
		said = append(said, cores(r.NanoCPUs)+" CPUs")
	}
	if r.MemoryBytes > 0 {
		said = append(said, size(r.MemoryBytes))
	}
	return said
}

// rolloutSteps are what an update has replaced so far.
type rolloutSteps struct {
	rolloutShown
	Steps []stepShown
	More  int
	// How says how tasks are replaced; empty for jobs.
	How string
}

type stepShown struct {
	At    moment
	Mark  mark
	Place string
	Node  linkShown
	Why   string
}

// maxSteps is how many steps of an update are shown.
const maxSteps = 40

func (l *look) rolloutSteps(s *cluster.Service) (shown rolloutSteps) {
	r, known := l.view.Rollout(s.ID), l.rollout(s)
	if !s.Job() {
		shown.How = howReplaced(s, r)
	}
	if known == nil {
		return shown
	}
	shown.rolloutShown = *known
	var tasks []*cluster.Task
	for task := range l.view.TasksOfService(s.ID) {
		if task.Revision == r.Revision && !task.CreatedAt.Std().Before(r.StartedAt) {
			tasks = append(tasks, task)
		}
	}
	slices.SortFunc(tasks, func(a, b *cluster.Task) int { return -cmp.Compare(a.CreatedAt, b.CreatedAt) })
	if n := len(tasks); n > maxSteps {
		tasks, shown.More = tasks[:maxSteps], n-maxSteps
	}
	for _, task := range tasks {
		shown.Steps = append(shown.Steps, stepShown{At: l.since(task.Status.Since.Std()), Mark: taskMark(task), Place: l.placeName(s, task), Node: l.nodeLink(task.NodeID), Why: waits(task)})
	}
	return shown
}

// howReplaced says how an update, or the rollback that is under way, replaces tasks.
func howReplaced(s *cluster.Service, r *cluster.Rollout) string {
	config := s.Spec.UpdateConfig
	if r != nil && r.RollingBack() {
		config = s.Spec.RollbackConfig
	}
	if config == nil {
		config = &swarm.UpdateConfig{Parallelism: 1}
	}
	said := []string{"All at the same time", "the old one is stopped first"}
	if n := config.Parallelism; n > 0 && (r == nil || !r.AtOnce || r.Done()) {
		said[0] = count(n) + " at a time"
		if config.Delay > 0 {
			said[0] += ", the next after " + span(config.Delay)
		}
	}
	if config.Order == swarm.UpdateOrderStartFirst {
		said[1] = "the new one is started first"
	}
	said = append(said, "each is watched for "+span(cmp.Or(config.Monitor, cluster.DefaultMonitor)))
	failure := map[string]string{swarm.UpdateFailureActionContinue: "goes on", swarm.UpdateFailureActionRollback: "rolls back"}[config.FailureAction]
	said = append(said, "when one fails it "+cmp.Or(failure, "pauses"))
	if config.MaxFailureRatio > 0 {
		said[3] = fmt.Sprintf("when more than %.0f %% fail it %s", 100*config.MaxFailureRatio, cmp.Or(failure, "pauses"))
	}
	return strings.Join(said, "; ") + "."
}

func (l *look) nodeLink(id string) linkShown {
	if id == "" {
		return linkShown{}
	}
	if l.view.Node(id) == nil {
		return linkShown{Name: short(id)}
	}
	return linkShown{id, l.nodeName(id)}
}

// placeName is how people call the place that a task is for.
func (l *look) placeName(s *cluster.Service, t *cluster.Task) string {
	if s.Global() {
		return l.nodeName(t.NodeID)
	}
	if s.Job() && t.Slot > 0 {
		return plain(t.Slot - 1)
	}
	return plain(t.Slot)
}

// maxBefore is how many earlier tasks of a place are shown.
const maxBefore = 5

// tasksByPlace are the tasks that are in the service's places now, with those before them.
func (l *look) tasksByPlace(s *cluster.Service, filter string) (rows []taskRow) {
	places := map[standing.Place][]*cluster.Task{}
	for task := range l.view.TasksOfService(s.ID) {
		where := standing.PlaceOf(s, task)
		places[where] = append(places[where], task)
	}
	for _, tasks := range places {
		slices.SortFunc(tasks, func(a, b *cluster.Task) int {
			return cmp.Or(boolOrder(!a.Dead(), !b.Dead()), -cmp.Compare(a.CreatedAt, b.CreatedAt), cmp.Compare(a.ID, b.ID))
		})
		now := 1
		for now < len(tasks) && !tasks[now].Dead() {
			now++
		}
		for i, task := range tasks[:now] {
			row := l.task(task)
			row.Place, row.Old = l.placeName(s, task), task.Revision != s.Revision
			if i == now-1 {
				for _, before := range tasks[now:min(len(tasks), now+maxBefore)] {
					row.Before = append(row.Before, l.task(before))
				}
			}
			if fits(filter, row.Place, row.ID, row.Node.Name, row.Mark.Word, row.Why) {
				rows = append(rows, row)
			}
		}
	}
	slices.SortFunc(rows, func(a, b taskRow) int { return cmp.Or(compareNames(a.Place, b.Place), cmp.Compare(a.ID, b.ID)) })
	return rows
}

// boolOrder puts what is true first.
func boolOrder(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func (l *look) task(t *cluster.Task) taskRow {
	return taskRow{
		ID: t.ID, Mark: taskMark(t), Since: l.since(t.Status.Since.Std()), Node: l.nodeLink(t.NodeID), Revision: t.Revision, Why: waits(t),
		Container: short(t.Status.ContainerID),
		Service:   linkShown{t.ServiceID, l.serviceName(t.ServiceID)},
	}
}

// revisionShown is a revision with what it changed.
type revisionShown struct {
	Number      uint64
	Created     moment
	Image       imageShown
	Current     bool
	Previous    bool
	By, Message string
	Changes     []cluster.Difference
	First       bool
}

// revisions are the kept ones of a service, the newest first.
func (l *look) revisions(s *cluster.Service) (shown []revisionShown) {
	var before *cluster.Revision
	for r := range l.view.RevisionsOf(s.ID) {
		one := revisionShown{Number: r.Number, Created: l.since(r.CreatedAt), Current: r.Number == s.Revision, Previous: s.Previous != nil && r.Number == s.PreviousRevision, By: r.By, Message: r.Message, First: before == nil}
		if r.Spec.ContainerSpec != nil {
			one.Image = imageOf(r.Spec.ContainerSpec.Image)
		}
		if before != nil {
			one.Changes = differences(before, r)
		}
		before = r
		shown = append(shown, one)
	}
	slices.Reverse(shown)
	return shown
}

// differences are in words what r changed; of what may be secret, only that it did.
func differences(before, r *cluster.Revision) []cluster.Difference {
	kept := func(r *cluster.Revision) cluster.KeptRevision {
		return cluster.KeptRevision{TaskTemplate: r.Spec, EndpointSpec: r.Endpoint, Labels: r.ServiceLabels}
	}
	all := cluster.DiffRevisions(kept(before), kept(r))
	for i, d := range all {
		switch {
		case secretField(d):
			all[i].From, all[i].To = hidden(d.From), hidden(d.To)
		case d.Field == "image":
			all[i].From, all[i].To = imageOf(d.From).String(), imageOf(d.To).String()
		}
	}
	return all
}

// secretField tells whether values of a field may be secret: those of variables; those of commands, which people write
// passwords into; and options of drivers, which have the tokens of log servers and the passwords of file servers.
func secretField(d cluster.Difference) bool {
	first, _, _ := strings.Cut(d.Field, " ")
	return slices.Contains([]string{"environment", "env", "command", "args", "healthcheck", "test"}, first) || strings.Contains(d.Field, "option ") ||
		slices.Contains([]string{"mount", "network", "log"}, first) && strings.Contains(d.From+d.To, "option ")
}

func hidden(value string) string {
	if value == "" {
		return ""
	}
	return secretMark
}

// secretMark stands for what isn't shown.
const secretMark = "•••"

// specText is a service's spec in JSON, as the API has it, without what may be secret: see secretField.
func specText(spec swarm.ServiceSpec) string {
	data, err := json.Marshal(spec)
	if err != nil {
		return "" // It came as JSON.
	}
	var all any
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if decoder.Decode(&all) != nil {
		return ""
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false) // The template escapes it.
	encoder.SetIndent("", "  ")
	if encoder.Encode(withoutSecrets("", all)) != nil {
		return ""
	}
	return strings.TrimSpace(text.String())
}

// withoutSecrets is a part of a spec, which is the value of the field of that name, with marks for what may be secret.
func withoutSecrets(field string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			if field == "Options" || field == "DriverOpts" {
				v[name] = secretMark
				continue
			}
			v[name] = withoutSecrets(name, value)
		}
	case []any:
		for i, value := range v {
			switch text, _ := value.(string); field {
			case "Command", "Args", "Test":
				v[i] = secretMark
			case "Env":
				if name, _, set := strings.Cut(text, "="); set {
					v[i] = name + "=" + secretMark
				}
			default:
				v[i] = withoutSecrets("", value)
			}
		}
	}
	return v
}

// nodePage shows one node.
func nodePage(l *look) (page, error) {
	n := l.view.Node(l.path("id"))
	if n == nil {
		return page{}, cluster.Errorf(cluster.ErrNotFound, "There is no node %s any more, or not yet.", l.path("id"))
	}
	filter := l.filter()
	own := topicNode + n.ID
	shown := l.node(n, l.nodeHealth())
	p := page{Title: shown.Name, Nav: "nodes", Filter: filter, CanFilter: true}
	p.Sections = append(p.Sections,
		section{ID: "node", Topics: own + " " + topicClock, Template: "node", Data: struct {
			nodeShown
			Facts []factShown
		}{shown, l.nodeFacts(n)}},
		section{ID: "use", Title: "Reserved", Topics: own, Template: "use", Data: struct {
			useShown
			Drain string
		}{shown.Use, l.drain(n)}},
	)
	if l.write {
		p.Sections = append(p.Sections, section{ID: "change", Title: "Change", Wide: true, Topics: own, Template: "changenode", Data: struct {
			ID, Availability string
			Labels           []string
		}{n.ID, string(n.Spec.Availability), sortedKeys(n.Spec.Labels)}})
	}
	var rows []taskRow
	for task := range l.view.TasksOfNode(n.ID) {
		if task.Dead() {
			continue
		}
		row := l.task(task)
		if s := l.view.Service(task.ServiceID); s != nil {
			row.Place, row.Old = l.placeName(s, task), task.Revision != s.Revision
		}
		if fits(filter, row.Service.Name, row.Mark.Word, row.Why, row.ID) {
			rows = append(rows, row)
		}
	}
	slices.SortFunc(rows, func(a, b taskRow) int {
		return cmp.Or(compareNames(a.Service.Name, b.Service.Name), compareNames(a.Place, b.Place), cmp.Compare(a.ID, b.ID))
	})
	p.Sections = append(p.Sections,
		section{ID: "tasks", Title: "Tasks", Topics: own, Wide: true, Template: "nodetasks", Data: cut(rows, filter)},
		section{ID: "events", Title: "Events", Topics: topicEvents, Wide: true, Template: "events", Data: l.lastEvents(50, func(e *events.Message) bool { return e.Actor.ID == n.ID })},
	)
	return p, nil
}

// drain says how far a node is that is being drained; empty for one that isn't.
func (l *look) drain(n *cluster.Node) string {
	if n.Spec.Availability != swarm.NodeAvailabilityDrain {
		return ""
	}
	left := 0
	for task := range l.view.TasksOfNode(n.ID) {
		if task.Assigned() && !task.Dead() {
			left++
		}
	}
	if left == 0 {
		return "Nothing runs there any more: it may be taken away."
	}
	return plural(left, "task") + " still to stop."
}

func (l *look) nodeFacts(n *cluster.Node) (facts []factShown) {
	add := func(name, value string) {
		if value != "" {
			facts = append(facts, factShown{Name: name, Value: value})
		}
	}
	h := l.nodeHealth()[n.ID]
	add("ID", n.ID)
	add("availability", string(n.Spec.Availability))
	if until := cluster.DrainsUntil(n.Spec); !until.IsZero() {
		add("active again at", until.UTC().Format(time.RFC3339))
	}
	add("address", n.Status.Addr)
	if n.DataAddr != "" {
		add("address for networks", n.DataAddr)
	}
	add("managers are reached at", n.ManagerAddr)
	add("joined", l.since(n.CreatedAt).Age+" ago")
	add("gossip", h.Gossip)
	if h.Session != "" {
		add("session with", l.nodeName(h.Session))
	}
	add("skep", n.Build.Version)
	add("engine", n.Description.Engine.EngineVersion)
	add("system", strings.Trim(n.Description.Platform.OS+"/"+n.Description.Platform.Architecture, "/"))
	if ends := n.Certificate.Ends; !ends.IsZero() {
		if ends.After(l.now) {
			add("certificate", "good for "+span(ends.Sub(l.now).Truncate(time.Second))+", renewed before")
		} else {
			add("certificate", "ended "+l.since(ends).Age+" ago")
		}
	}
	for _, name := range sortedKeys(n.Spec.Labels) {
		add("label "+name, cmp.Or(n.Spec.Labels[name], "(empty)"))
	}
	for _, name := range sortedKeys(n.Description.Engine.Labels) {
		add("engine label "+name, cmp.Or(n.Description.Engine.Labels[name], "(empty)"))
	}
	return facts
}
