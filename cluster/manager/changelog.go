package manager

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/timeline"
	"skep/store"
)

// The leader tells in its log what happens to the cluster: one line for each thing that
// matters, with names, and who asked for it. It tells what was committed, so nothing that
// didn't happen, and nobody else needs to.

const (
	// wellFor is how long a service must be well again until that is said, and wellLook how
	// often it is looked at.
	wellFor, wellLook = 30 * time.Second, 10 * time.Second
	// maxCauses is how many different causes of ended tasks are said until the service is
	// well again.
	maxCauses = 8
)

// changeLog is what the telling needs to remember: services whose tasks ended badly.
type changeLog struct {
	now    func() time.Time
	ailing map[string]*serviceTrouble
}

// serviceTrouble is one service's: what was said of it, and since when it has been well again.
type serviceTrouble struct {
	name   string
	causes map[string]bool
	well   time.Time
}

// logLine is one line of the log.
type logLine struct {
	level slog.Level
	what  string
	args  []any
}

// logChanges runs while this manager leads.
func (m *Manager) logChanges(ctx context.Context, changes *store.Subscription) error {
	defer changes.Close()
	c := &changeLog{now: m.cfg.Now, ailing: map[string]*serviceTrouble{}}
	look := time.NewTicker(wellLook)
	defer look.Stop()
	for {
		var lines []logLine
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changes.Ready():
			news, view, _ := changes.Take()
			for _, change := range news {
				lines = append(lines, c.of(change, view)...)
				m.timeline.Add(nodeRecord(change, m.cfg.Now()))
			}
		case <-look.C:
			lines = c.recovered(m.store.View())
		}
		for _, l := range lines {
			m.log.Log(ctx, l.level, l.what, l.args...)
		}
	}
}

// nodeRecord is what a change says of a node's state, if it says something.
func nodeRecord(change store.Change, now time.Time) timeline.Record {
	before, after := sidesOf[*cluster.Node](change)
	record := timeline.Record{Time: now, Kind: timeline.NodeState}
	switch {
	case after != nil && (before == nil || before.Status.State != after.Status.State):
		record.Node, record.Word, record.Why = after.ID, after.Status.State.String(), after.Status.Message
		if before == nil {
			record.Why = cmp.Or(record.Why, "it joined")
		}
	case before != nil && after == nil:
		record.Node, record.Word = before.ID, timeline.Removed
	default:
		return timeline.Record{}
	}
	return record
}

// of is what to say of one change.
func (c *changeLog) of(change store.Change, view store.View) []logLine {
	object := change.After
	if object == nil {
		object = change.Before
	}
	switch object := object.(type) {
	case *cluster.Node:
		before, after := sidesOf[*cluster.Node](change)
		return c.ofNode(before, after, change.By, view)
	case *cluster.Service:
		before, after := sidesOf[*cluster.Service](change)
		return c.ofService(before, after, change.By, view)
	case *cluster.Rollout:
		before, after := sidesOf[*cluster.Rollout](change)
		return c.ofRollout(before, after, view)
	case *cluster.Task:
		before, after := sidesOf[*cluster.Task](change)
		return c.ofTask(before, after, view)
	case *cluster.Cluster:
		before, after := sidesOf[*cluster.Cluster](change)
		return c.ofCluster(before, after, change.By)
	case *cluster.Secret:
		before, after := sidesOf[*cluster.Secret](change)
		return ofData("secret", before != nil, after != nil, object.Spec.Name, object.ID, change.By)
	case *cluster.Config:
		before, after := sidesOf[*cluster.Config](change)
		return ofData("config", before != nil, after != nil, object.Spec.Name, object.ID, change.By)
	case *cluster.Network:
		before, after := sidesOf[*cluster.Network](change)
		return ofNetwork(before != nil, after != nil, object, change.By)
	case *cluster.Attachment:
		before, after := sidesOf[*cluster.Attachment](change)
		return c.ofAttachment(before, after, view)
	}
	return nil
}

// sidesOf gives the typed objects of a change; nil where there is none.
func sidesOf[T any](c store.Change) (before, after T) {
	before, _ = c.Before.(T)
	after, _ = c.After.(T)
	return before, after
}

func infoLine(what string, args ...any) logLine { return logLine{slog.LevelInfo, what, args} }
func warnLine(what string, args ...any) logLine { return logLine{slog.LevelWarn, what, args} }

// asked adds who asked, if it is known.
func asked(by string, args ...any) []any {
	if by == "" {
		return args
	}
	return append(args, "by", by)
}

func (c *changeLog) ofNode(before, after *cluster.Node, by string, view store.View) []logLine {
	if after == nil {
		return []logLine{infoLine("node removed", asked(by, "name", before.Description.Hostname, "node", before.ID)...)}
	}
	who := []any{"name", after.Description.Hostname, "node", after.ID}
	if before == nil {
		who = append(who, "role", after.Role, "addr", after.Status.Addr)
		if after.Token != "" {
			who = append(who, "token", after.Token)
		}
		return []logLine{infoLine("node joined", who...)}
	}
	var lines []logLine
	if before.Status.State != after.Status.State {
		switch after.Status.State {
		case cluster.NodeReady:
			lines = append(lines, infoLine("node is ready", who...))
		case cluster.NodeDown:
			who := append(who, "reason", after.Status.Message)
			if after.Role == swarm.NodeRoleManager && locks(view.Cluster()) {
				who = append(who, "hint", "managers are locked here: if its daemon was restarted, it waits for \"swarm unlock\" there")
			}
			lines = append(lines, warnLine("node is down", who...))
		case cluster.NodeDisconnected:
			lines = append(lines, warnLine("node is of no use at the moment", append(who, "reason", after.Status.Message)...))
		default:
			lines = append(lines, infoLine("node is "+after.Status.State.String(), append(who, "reason", after.Status.Message)...))
		}
	}
	switch {
	case before.Spec.Availability != after.Spec.Availability:
		lines = append(lines, infoLine("node has another availability", asked(by, append(who, "availability", after.Spec.Availability)...)...))
	case before.Spec.Role != after.Spec.Role:
		lines = append(lines, infoLine("node is to have another role", asked(by, append(who, "role", after.Spec.Role)...)...))
	case !reflect.DeepEqual(before.Spec.Annotations, after.Spec.Annotations):
		lines = append(lines, infoLine("node has other labels", asked(by, who...)...))
	}
	if before.Role != after.Role {
		lines = append(lines, infoLine("node has another role", append(who, "role", after.Role)...))
	}
	return lines
}

// locks tells whether managers' key files are locked.
func locks(c *cluster.Cluster) bool { return c != nil && !c.UnlockKey.None() }

func (c *changeLog) ofService(before, after *cluster.Service, by string, view store.View) []logLine {
	switch {
	case after == nil:
		delete(c.ailing, before.ID)
		return []logLine{infoLine("service removed", asked(by, "name", before.Spec.Name, "service", before.ID)...)}
	case before == nil:
		args := []any{"name", after.Spec.Name, "service", after.ID, "image", imageOf(after)}
		if after.Spec.Mode.Replicated != nil {
			args = append(args, "replicas", after.Replicas())
		}
		return []logLine{infoLine("service created", asked(by, args...)...)}
	case reflect.DeepEqual(before.Spec, after.Spec):
		return nil
	}
	args := []any{"name", after.Spec.Name, "service", after.ID}
	scaled := before.Replicas() != after.Replicas()
	if scaled {
		args = append(args, "replicas", after.Replicas(), "before", before.Replicas())
	}
	same := *before
	same.Spec.Mode = after.Spec.Mode
	if scaled && reflect.DeepEqual(same.Spec, after.Spec) {
		return []logLine{infoLine("service scaled", asked(by, args...)...)}
	}
	if was, is := imageOf(before), imageOf(after); was != is {
		args = append(args, "image", is, "was", was)
	}
	if rollout := view.Rollout(after.ID); rollout != nil && rollout.RollingBack() {
		return []logLine{infoLine("service goes back to an earlier spec", asked(by, args...)...)}
	}
	return []logLine{infoLine("service updated", asked(by, args...)...)}
}

func imageOf(s *cluster.Service) string {
	if s.Spec.TaskTemplate.ContainerSpec == nil {
		return ""
	}
	return s.Spec.TaskTemplate.ContainerSpec.Image
}

func (c *changeLog) ofRollout(before, after *cluster.Rollout, view store.View) []logLine {
	if after == nil || before != nil && before.State == after.State {
		return nil
	}
	service := view.Service(after.ServiceID)
	if service == nil {
		return nil
	}
	args := []any{"name", service.Spec.Name, "service", service.ID, "reason", after.Message}
	switch {
	case after.Paused() && after.Asked:
		return []logLine{infoLine("service update paused", args...)}
	case after.Paused():
		return []logLine{warnLine("service update paused", args...)}
	case after.State == swarm.UpdateStateRollbackStarted && before != nil && before.State == swarm.UpdateStateUpdating:
		return []logLine{warnLine("service update failed and is rolled back", args...)}
	case after.Done() && before != nil:
		return []logLine{infoLine("service "+after.Message, args[:4]...)}
	}
	return nil
}

func (c *changeLog) ofTask(before, after *cluster.Task, view store.View) []logLine {
	if after == nil || before == nil || before.Status.State >= after.Status.State || !before.Live() {
		return nil
	}
	what := "task failed"
	switch after.Status.State {
	case cluster.StateRejected:
		what = "task rejected"
	case cluster.StateFailed:
	default:
		return nil
	}
	service := view.Service(after.ServiceID)
	if service == nil {
		return nil
	}
	cause := after.Status.Err
	if cause == "" {
		cause = fmt.Sprintf("exit code %d", after.Status.ExitCode)
	}
	ailment := c.ailing[service.ID]
	if ailment == nil {
		ailment = newServiceTrouble(service.Spec.Name)
		c.ailing[service.ID] = ailment
	}
	ailment.well = time.Time{}
	key := what + cause
	if ailment.causes[key] || len(ailment.causes) >= maxCauses {
		return nil
	}
	ailment.causes[key] = true
	name, host := service.Spec.Name, after.NodeID
	if revision := view.Revision(after.ServiceID, after.Revision); revision != nil {
		name = revision.TaskName(after)
	}
	if node := view.Node(after.NodeID); node != nil {
		host = node.Description.Hostname
	}
	return []logLine{warnLine(what+"; more of the same cause aren't said until the service is well again",
		"name", name, "service", service.ID, "host", host, "node", after.NodeID, "cause", cause)}
}

func newServiceTrouble(name string) *serviceTrouble {
	return &serviceTrouble{name: name, causes: map[string]bool{}}
}

// recovered says which services have been well again for a while.
func (c *changeLog) recovered(view store.View) []logLine {
	var lines []logLine
	for id, ailment := range c.ailing {
		service := view.Service(id)
		switch now := c.now(); {
		case service == nil:
			delete(c.ailing, id)
		case !isWell(service, view):
			ailment.well = time.Time{}
		case ailment.well.IsZero():
			ailment.well = now
		case now.Sub(ailment.well) >= wellFor:
			delete(c.ailing, id)
			lines = append(lines, infoLine("service is well again", "name", ailment.name, "service", id))
		}
	}
	return lines
}

// isWell tells whether all that is wanted of a service runs, or has completed.
func isWell(service *cluster.Service, view store.View) bool {
	running := 0
	for task := range view.TasksOfService(service.ID) {
		switch {
		case !task.Live():
		case task.Status.State == cluster.StateRunning || task.Status.State == cluster.StateComplete:
			running++
		default:
			return false
		}
	}
	return running >= service.Replicas()
}

func (c *changeLog) ofCluster(before, after *cluster.Cluster, by string) []logLine {
	if before == nil || after == nil {
		return nil
	}
	var lines []logLine
	if !reflect.DeepEqual(before.Spec, after.Spec) {
		lines = append(lines, infoLine("swarm settings changed", asked(by)...))
	}
	if before.Rotation == nil && after.Rotation != nil {
		lines = append(lines, infoLine("the root CA is changed", asked(by)...))
	}
	if before.Rotation == nil || after.Rotation != nil {
		if before.WorkerToken != after.WorkerToken {
			lines = append(lines, infoLine("join token changed", asked(by, "role", swarm.NodeRoleWorker)...))
		}
		if before.ManagerToken != after.ManagerToken {
			lines = append(lines, infoLine("join token changed", asked(by, "role", swarm.NodeRoleManager)...))
		}
	}
	if before.UnlockKey != after.UnlockKey {
		lines = append(lines, infoLine("unlock key changed", asked(by, "autolock", locks(after))...))
	}
	return lines
}

// ofData is about a secret, a config or a network: never what is in it.
func ofData(kind string, was, is bool, name, id, by string) []logLine {
	what := " updated"
	switch {
	case !was:
		what = " created"
	case !is:
		what = " removed"
	}
	return []logLine{infoLine(kind+what, asked(by, "name", name, kind, id)...)}
}

func ofNetwork(was, is bool, n *cluster.Network, by string) []logLine {
	lines := ofData("network", was, is, n.Spec.Name, n.ID, by)
	for _, s := range n.Subnets {
		lines[0].args = append(lines[0].args, "subnet", s.Prefix)
	}
	return lines
}

// ofAttachment says when a container comes on a network, and when it has left it: what becomes of the
// record afterwards is nobody's matter.
func (c *changeLog) ofAttachment(before, after *cluster.Attachment, view store.View) []logLine {
	what := "container attached to a network"
	switch {
	case after == nil, before != nil && !before.Ended.IsZero():
		return nil
	case !after.Ended.IsZero():
		what = "container left a network"
	case before != nil:
		return nil
	}
	name := after.NetworkID
	if n := view.Network(after.NetworkID); n != nil {
		name = n.Spec.Name
	}
	return []logLine{infoLine(what, "container", after.Name, "network", name, "node", after.NodeID, "attachment", after.ID)}
}
