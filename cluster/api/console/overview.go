package console

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/standing"
)

const (
	// namedTasks and namedNodes are up to how many the map names services: beyond it has a
	// shape and a number for each state that a node's tasks are in.
	namedTasks, namedNodes = 600, 60
	// overviewEvents is how many events the overview has.
	overviewEvents = 20
	// healthPart is the ID of the line of health, which is in the frame of all pages.
	healthPart = "health"
)

// overview is the page that people look at first.
func overview(l *look) (page, error) {
	p := page{Title: "Overview", Nav: "overview"}
	if len(l.status.Problems) > 1 {
		p.Sections = append(p.Sections, section{ID: "problems", Title: "What isn't well", Topics: topicClock, Wide: true, Template: "problems", Data: l.status.Problems})
	} else {
		// It is there in any case, so that it can be filled when there are problems.
		p.Sections = append(p.Sections, section{ID: "problems", Topics: topicClock, Wide: true, Template: "nothing"})
	}
	p.Sections = append(p.Sections,
		section{ID: "managers", Title: "Managers", Topics: topicClock, Wide: true, Template: "managers", Data: l.managers()},
		section{ID: "map", Title: "Nodes and their tasks", Topics: topicTasks + " " + topicNodes, Wide: true, Template: "map", Data: l.nodeMap()},
		section{ID: "attention", Title: "Services to look at", Topics: topicTasks + " " + topicServices, Template: "attention", Data: l.attention()},
		section{ID: "events", Title: "Last events", Topics: topicEvents, Template: "events", Data: l.lastEvents(overviewEvents, nil)},
	)
	return p, nil
}

// managersShown are the managers and what they can do without.
type managersShown struct {
	Summary  string
	Managers []managerShown
}

type managerShown struct {
	ID, Name, Addr string
	Mark           mark
	Term           string
	// Progress is how far it is in the log.
	Progress string
	Notes    string
}

func (l *look) managers() (shown managersShown) {
	voters, answer, last := 0, 0, uint64(0)
	for _, m := range l.status.Managers {
		last = max(last, m.CommitIndex)
		if m.Voter {
			voters++
			if m.Reachable {
				answer++
			}
		}
	}
	before := l.status.ClusterID != "" && l.status.LeaderID != l.leader
	for _, m := range l.status.Managers {
		m.Leader = m.Leader && !before
		one := managerShown{ID: m.NodeID, Name: cmp.Or(m.Hostname, short(m.NodeID)), Addr: m.Addr, Mark: managerMark(m)}
		if m.Reachable {
			one.Term = count(m.Term)
			one.Progress = count(m.AppliedIndex)
			if behind := last - min(last, m.AppliedIndex); behind > 0 {
				one.Progress += ", " + count(behind) + " behind"
			}
			if !m.Leader && !before {
				one.Notes = "heard the leader " + span(m.LastContact) + " ago"
			}
		}
		one.Notes = cluster.Sentences(m.Waits, m.Trouble, one.Notes)
		shown.Managers = append(shown.Managers, one)
	}
	needed := voters/2 + 1
	switch spare := answer - needed; {
	case voters == 0:
		shown.Summary = "Nobody has told yet which managers there are."
	case spare < 0:
		shown.Summary = fmt.Sprintf("%d of %d with a vote answer, and %d are needed: nothing can be changed.", answer, voters, needed)
	case spare == 0:
		shown.Summary = fmt.Sprintf("%d of %d with a vote answer, and %d are needed: no further one may fail.", answer, voters, needed)
	default:
		shown.Summary = fmt.Sprintf("%d of %d with a vote answer: %d more may fail.", answer, voters, spare)
	}
	if before && voters > 0 {
		shown.Summary = "As it was " + span(max(l.now.Sub(l.asked), 0)) + " ago, under another leader: " + shown.Summary
	}
	return shown
}

// mapShown is the map of nodes and the tasks on them.
type mapShown struct {
	Summary string
	Named   bool
	Zones   []zoneShown
	// Waiting are tasks that have no node.
	Waiting *boxShown
	Legend  []mark
}

// zoneShown are the nodes with the same zone label.
type zoneShown struct {
	Name  string
	Boxes []boxShown
}

// boxShown is one node.
type boxShown struct {
	ID, Name string
	Mark     mark
	Role     string
	// Rows are its tasks by service, if the map names services, and Counts by state, if not.
	Rows   []rowShown
	Counts []countShown
}

type rowShown struct {
	ID, Name string
	Tasks    []taskShown
}

type taskShown struct {
	Kind, Title string
}

type countShown struct {
	mark
	N int
}

// zoneLabels are the labels by which nodes say where they are.
var zoneLabels = []string{"zone", "topology.zone", "rack", "datacenter"}

func zoneOf(n *cluster.Node) string {
	for _, name := range zoneLabels {
		if zone := n.Spec.Labels[name]; zone != "" {
			return zone
		}
	}
	return ""
}

func (l *look) nodeMap() (shown mapShown) {
	tasks := map[string][]*cluster.Task{} // by node; those that are something now
	n, running := 0, 0
	for task := range l.view.TasksByService() {
		if task.Dead() {
			continue
		}
		on := task.NodeID
		if !task.Assigned() {
			on = ""
		}
		tasks[on] = append(tasks[on], task)
		n++
		if task.Live() && task.Status.State == cluster.StateRunning {
			running++
		}
	}
	shown.Named = n <= namedTasks && l.view.NodeCount() <= namedNodes
	zones := map[string][]boxShown{}
	ready := 0
	for node := range l.view.Nodes() {
		box := l.box(tasks[node.ID], shown.Named)
		box.ID, box.Name, box.Mark = node.ID, nameOf(node), nodeMark(node)
		if !shown.Named {
			box.Name = host(box.Name)
		}
		if node.Role == swarm.NodeRoleManager {
			box.Role = "manager"
		}
		if node.Status.State == cluster.NodeReady {
			ready++
		}
		zones[zoneOf(node)] = append(zones[zoneOf(node)], box)
	}
	for name, boxes := range zones {
		slices.SortFunc(boxes, func(a, b boxShown) int { return cmp.Or(compareNames(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
		shown.Zones = append(shown.Zones, zoneShown{name, boxes})
	}
	slices.SortFunc(shown.Zones, func(a, b zoneShown) int { return compareNames(a.Name, b.Name) })
	if waiting := tasks[""]; len(waiting) > 0 {
		box := l.box(waiting, shown.Named)
		box.Name, box.Mark = "No node yet", mark{"wait", plural(len(waiting), "task")}
		shown.Waiting = &box
	}
	shown.Summary = fmt.Sprintf("%s of %s ready, %s of %s running.", count(ready), plural(l.view.NodeCount(), "node"), count(running), plural(n, "task"))
	shown.Legend = []mark{{"ok", "running"}, {"busy", "starting"}, {"wait", "waiting"}, {"stop", "stopping"}}
	return shown
}

// host is a name without its domain; addresses stay whole.
func host(name string) string {
	if name == "" || name[0] >= '0' && name[0] <= '9' || strings.Contains(name, ":") {
		return name
	}
	first, _, _ := strings.Cut(name, ".")
	return first
}

// box is what of tasks, which are in the order of their services, a map shows.
func (l *look) box(tasks []*cluster.Task, named bool) (box boxShown) {
	if !named {
		counts := map[mark]int{}
		for _, task := range tasks {
			counts[mark{taskMark(task).Kind, ""}]++
		}
		for _, kind := range []mark{{"ok", "running"}, {"busy", "starting"}, {"wait", "waiting"}, {"stop", "stopping"}} {
			if n := counts[mark{kind.Kind, ""}]; n > 0 {
				box.Counts = append(box.Counts, countShown{kind, n})
			}
		}
		return box
	}
	for _, task := range tasks {
		if n := len(box.Rows); n == 0 || box.Rows[n-1].ID != task.ServiceID {
			box.Rows = append(box.Rows, rowShown{ID: task.ServiceID, Name: l.serviceName(task.ServiceID)})
		}
		row := &box.Rows[len(box.Rows)-1]
		m := taskMark(task)
		title := row.Name
		if task.Slot > 0 {
			title += fmt.Sprintf(".%d", task.Slot)
		}
		title += " " + m.Word
		if since := l.since(task.Status.Since.Std()); since.Age != "" {
			title += " for " + since.Age
		}
		if why := waits(task); why != "" {
			title += ": " + why
		}
		row.Tasks = append(row.Tasks, taskShown{m.Kind, title})
	}
	slices.SortStableFunc(box.Rows, func(a, b rowShown) int { return compareNames(a.Name, b.Name) })
	return box
}

func (l *look) serviceName(id string) string {
	if service := l.view.Service(id); service != nil {
		return service.Spec.Name
	}
	for revision := range l.view.RevisionsOf(id) {
		return revision.ServiceName
	}
	return short(id)
}

// compareNames compares as people do: n2 is before n10.
func compareNames(a, b string) int {
	for a != "" && b != "" {
		da, db := digits(a), digits(b)
		if da != "" && db != "" {
			ta, tb := strings.TrimLeft(da, "0"), strings.TrimLeft(db, "0")
			if c := cmp.Or(cmp.Compare(len(ta), len(tb)), cmp.Compare(ta, tb)); c != 0 {
				return c
			}
			a, b = a[len(da):], b[len(db):]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

// digits is what text begins with of them.
func digits(text string) string { return text[:len(text)-len(strings.TrimLeft(text, "0123456789"))] }

// attentionShown are services that aren't as they should be, or are being changed.
type attentionShown struct {
	Services []serviceShown
	All      int // services that there are
	More     int // that aren't in Services
}

// serviceShown is a service in a list.
type serviceShown struct {
	ID, Name, Stack string
	Mode            string
	Running, Wanted int
	Mark            mark
	Image           imageShown
	Reason          string
	Rollout         *rolloutShown
	Ports           []string
	Created         moment
}

// rolloutShown is how far an update is.
type rolloutShown struct {
	Mark        mark
	Message     string
	Done, Total int
	Started     moment
	Ended       moment
	Under       bool // under way
}

// attention lists services that run less than they should, and rollouts that aren't done.
func (l *look) attention() (shown attentionShown) {
	for service := range l.view.Services() {
		shown.All++
		one := l.service(service)
		if one.Mark.Kind == "ok" || one.Mark.Kind == "done" {
			continue
		}
		shown.Services = append(shown.Services, one)
	}
	slices.SortFunc(shown.Services, func(a, b serviceShown) int { return compareNames(a.Name, b.Name) })
	if n := len(shown.Services); n > maxAttention {
		shown.Services, shown.More = shown.Services[:maxAttention], n-maxAttention
	}
	return shown
}

// maxAttention is how many services the overview names.
const maxAttention = 50

// service is how a service stands.
func (l *look) service(s *cluster.Service) serviceShown {
	stands := standing.Of(l.view, s)
	shown := serviceShown{
		ID: s.ID, Name: s.Spec.Name, Stack: s.Spec.Labels[stackLabel], Mode: modeOf(s), Running: stands.Running, Wanted: stands.Wanted,
		Reason: stands.Reason(), Created: l.since(s.CreatedAt), Ports: portsOf(s), Rollout: l.rollout(s),
	}
	if c := s.Spec.TaskTemplate.ContainerSpec; c != nil {
		shown.Image = imageOf(c.Image)
	}
	switch {
	case shown.Rollout != nil && shown.Rollout.Mark.Kind == "bad":
		shown.Mark = shown.Rollout.Mark
	case shown.Reason != "":
		shown.Mark = mark{"bad", "short of tasks"}
	case shown.Rollout != nil && shown.Rollout.Under:
		shown.Mark = shown.Rollout.Mark
	case s.Job():
		shown.Mark = mark{"ok", "job"}
		if shown.Wanted > 0 && stands.Completed >= shown.Wanted {
			shown.Mark = mark{"done", "complete"}
		}
		shown.Running = stands.Completed
	case stands.Running < stands.Wanted:
		shown.Mark = mark{"busy", "starting"}
	case stands.Wanted == 0:
		shown.Mark = mark{"done", "no tasks wanted"}
	default:
		shown.Mark = mark{"ok", "running"}
	}
	return shown
}

// stackLabel names the stack of an object.
const stackLabel = cluster.LabelStack

func modeOf(s *cluster.Service) string {
	switch {
	case s.Spec.Mode.Global != nil:
		return "global"
	case s.Spec.Mode.GlobalJob != nil:
		return "global job"
	case s.Spec.Mode.ReplicatedJob != nil:
		return "job"
	}
	return "replicated"
}

// portsOf are the ports that a service publishes.
func portsOf(s *cluster.Service) (ports []string) {
	for _, p := range s.Ports {
		published := ""
		if p.PublishedPort != 0 {
			published = fmt.Sprintf("%d→", p.PublishedPort)
		}
		text := fmt.Sprintf("%s%d/%s", published, p.TargetPort, cmp.Or(string(p.Protocol), "tcp"))
		if p.PublishMode == swarm.PortConfigPublishModeHost {
			text += " on its node"
		}
		ports = append(ports, text)
	}
	return ports
}

// imageShown is an image's name in its parts.
type imageShown struct{ Name, Digest string }

func imageOf(ref string) imageShown {
	name, digest, _ := strings.Cut(ref, "@")
	_, sum, _ := strings.Cut(digest, ":")
	return imageShown{Name: name, Digest: short(sum)}
}

func (i imageShown) String() string {
	if i.Digest == "" {
		return i.Name
	}
	return i.Name + " (" + i.Digest + ")"
}

// rollout is how far the service's last update is; nil when there was none.
func (l *look) rollout(s *cluster.Service) *rolloutShown {
	r := l.view.Rollout(s.ID)
	if r == nil {
		return nil
	}
	shown := &rolloutShown{Message: r.Message, Started: l.since(r.StartedAt), Ended: l.since(r.CompletedAt)}
	what := "update"
	switch {
	case r.Rebalance:
		what = "rebalance"
	case r.RollingBack():
		what = "rollback"
	}
	switch {
	case r.Done():
		shown.Mark = mark{"done", what + " done"}
	case r.Paused() && r.Asked:
		shown.Mark = mark{"wait", what + " paused"}
	case r.Paused():
		shown.Mark = mark{"bad", what + " paused"}
	default:
		shown.Mark, shown.Under = mark{"busy", what + " under way"}, true
	}
	if !r.Rebalance {
		places := map[standing.Place]bool{} // whether the new revision runs there
		for task := range l.view.TasksOfService(s.ID) {
			if task.Live() && !task.Dead() {
				where := standing.PlaceOf(s, task)
				places[where] = places[where] || task.Revision == r.Revision && task.Status.State == cluster.StateRunning
			}
		}
		for _, done := range places {
			shown.Total++
			if done {
				shown.Done++
			}
		}
	}
	return shown
}

// eventShown is an event in a list.
type eventShown struct {
	At   moment
	Type string
	// Name is what it happened to, which Link shows; empty when there is no page of it.
	Name, Link string
	What       string
}

// lastEvents are the last n events that wanted accepts, the newest first.
func (l *look) lastEvents(n int, wanted func(*events.Message) bool) (shown []eventShown) {
	for _, e := range slices.Backward(l.events) {
		if len(shown) >= n {
			break
		}
		if wanted == nil || wanted(e) {
			shown = append(shown, l.event(e))
		}
	}
	return shown
}

func (l *look) event(e *events.Message) eventShown {
	shown := eventShown{At: l.since(unixNano(e.TimeNano)), Type: string(e.Type), Name: cmp.Or(e.Actor.Attributes["name"], short(e.Actor.ID)), What: happened(e)}
	switch e.Type {
	case events.ServiceEventType:
		if l.view.Service(e.Actor.ID) != nil {
			shown.Link = Root + "services/" + e.Actor.ID
		}
	case events.NodeEventType:
		if l.view.Node(e.Actor.ID) != nil {
			shown.Link = Root + "nodes/" + e.Actor.ID
		}
	}
	return shown
}

// updateWords says what state an update or rollback has come to.
func updateWords(state string) string {
	switch what, rest, found := strings.Cut(state, "_"); {
	case state == string(swarm.UpdateStateUpdating):
		return "update begins"
	case found:
		return what + " " + rest
	}
	return "update " + state
}

// happened says what an event is of, by what changed.
func happened(e *events.Message) string {
	attributes := e.Actor.Attributes
	var said []string
	for _, key := range sortedKeys(attributes) {
		field, ok := strings.CutSuffix(key, ".new")
		if !ok {
			continue
		}
		was, now := attributes[field+".old"], attributes[key]
		switch field {
		case "leader":
			said = append(said, map[string]string{"true": "leads now", "false": "leads no more"}[now])
		case "state":
			said = append(said, "is "+now)
		case "updatestate":
			said = append(said, updateWords(now))
		case "image":
			said = append(said, "image "+imageOf(was).Name+" → "+imageOf(now).Name)
		default:
			said = append(said, field+" "+was+" → "+now)
		}
	}
	if len(said) > 0 {
		return strings.Join(said, ", ")
	}
	return map[events.Action]string{events.ActionCreate: "created", events.ActionUpdate: "changed", events.ActionRemove: "removed"}[e.Action]
}
