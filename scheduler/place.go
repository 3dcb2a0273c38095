package scheduler

import (
	"skep/cluster"
	"skep/scheduler/placement"
)

const (
	messageAssigned = "scheduler assigned task to node"
	messagePending  = "pending task scheduling"
)

// placer finds nodes for the tasks of one service in one plan.
type placer struct {
	view *serviceView
	// waiting is set when a task found no node. noRoomReason caches the explanation once
	// placement of the current revision failed in this plan, until a task leaves its node.
	waiting      bool
	noRoomReason string
}

// release plans that a task leaves its node, which may make room.
func (p *placer) release(t *cluster.Task) {
	p.view.Ledger.Release(t)
	p.noRoomReason = ""
}

// place finds a node for one task of the current revision in the slot, or says why none can
// take it.
func (p *placer) place(s *slot) (c placement.Choice, why string) {
	if why = p.view.depends.unmet; why != "" {
		return c, why
	}
	g := p.view.addresses(&p.view.networking, s)
	if why = g.why; why == "" {
		if p.noRoomReason == "" {
			c, p.noRoomReason = p.view.Ledger.PlaceOne(&p.view.requirement, p.view.Now)
		}
		why = p.noRoomReason
	}
	p.note(g, why)
	return c, why
}

// note takes in what came of placing a task.
func (p *placer) note(g given, why string) {
	if why != "" {
		p.waiting = true
		return
	}
	g.take()
}

// newTask makes a task of the current revision, with a node if one has room; in a
// global service it is the slot's, and the task waits for it while there is no room.
func (p *placer) newTask(s *slot, desired cluster.State) *cluster.Task {
	if !p.view.global {
		c, why := p.place(s)
		return p.view.taskOn(c, why, s.number, desired)
	}
	c, why := p.placeOn(s, &p.view.requirement, &p.view.networking, s.node)
	c.NodeID = s.node
	return p.view.taskOn(c, why, 0, desired)
}

// placeOn places a task on the node that it is made for.
func (p *placer) placeOn(s *slot, q *placement.Requirement, n *networking, nodeID string) (c placement.Choice, why string) {
	if why = p.view.depends.unmet; why != "" && q == &p.view.requirement {
		return c, why
	}
	g := p.view.addresses(n, s)
	if why = g.why; why == "" {
		c, why = p.view.Ledger.PlaceOn(q, nodeID)
	}
	p.note(g, why)
	return c, why
}

// taskOn makes a task that is assigned to the node, unless why says that there was
// no room.
func (v *serviceView) taskOn(c placement.Choice, why string, number uint32, desired cluster.State) *cluster.Task {
	t := &cluster.Task{
		ID:        v.NewID(),
		ServiceID: v.id,
		Revision:  v.current.Number,
		Slot:      number,
		NodeID:    c.NodeID,
		Generic:   c.Generic,
		Desired:   desired,
		Status:    cluster.TaskStatus{State: cluster.StateAssigned, Since: v.now, Applied: v.now, Message: messageAssigned},
	}
	if why != "" {
		t.Status.State, t.Status.Message, t.Status.Err = cluster.StatePending, messagePending, why
	}
	return t
}

// awaitNode gives a node to a task that waits for one, or says why none has room.
func (p *placer) awaitNode(s *slot, t *cluster.Task) {
	requirement, networking := p.view.askOf(t)
	if requirement == nil {
		return
	}
	var c placement.Choice
	why := ""
	switch {
	case p.view.global:
		c, why = p.placeOn(s, requirement, networking, t.NodeID)
	case requirement == &p.view.requirement:
		c, why = p.place(s)
	default:
		g := p.view.addresses(networking, s)
		if why = g.why; why == "" {
			c, why = p.view.Ledger.PlaceOne(requirement, p.view.Now)
		}
		p.note(g, why)
	}
	switch {
	case why == "":
		p.view.intend(&assign{TaskID: t.ID, Choice: c, Networks: networking.supplies})
	case why != t.Status.Err:
		p.view.intend(&explain{TaskID: t.ID, State: t.Status.State, Message: messagePending, Err: why})
	}
}

// askOf reads what the task's own revision asks of nodes and networks; nil when the
// revision is gone.
func (v *serviceView) askOf(t *cluster.Task) (*placement.Requirement, *networking) {
	if t.Revision == v.current.Number {
		return &v.requirement, &v.networking
	}
	r := v.revision(t)
	if r == nil {
		return nil, nil
	}
	requirement, networking := v.ask(v.service, r)
	return &requirement, &networking
}
