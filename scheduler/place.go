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

// place finds a node for one task of the current revision, or says why none can
// take it.
func (p *placer) place() (c placement.Choice, why string) {
	if p.noRoomReason == "" {
		c, p.noRoomReason = p.view.Ledger.PlaceOne(&p.view.requirement, p.view.Now)
	}
	p.waiting = p.waiting || p.noRoomReason != ""
	return c, p.noRoomReason
}

// newTask makes a task of the current revision, with a node if one has room; in a
// global service it is the slot's, and the task waits for it while there is no room.
func (p *placer) newTask(s *slot, desired cluster.State) *cluster.Task {
	if !p.view.global {
		c, why := p.place()
		return p.view.taskOn(c, why, s.number, desired)
	}
	c, why := p.view.Ledger.PlaceOn(&p.view.requirement, s.node)
	c.NodeID = s.node
	p.waiting = p.waiting || why != ""
	return p.view.taskOn(c, why, 0, desired)
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
func (p *placer) awaitNode(t *cluster.Task) {
	requirement := p.view.requirementOf(t)
	if requirement == nil {
		return
	}
	var c placement.Choice
	why := ""
	switch {
	case p.view.global:
		c, why = p.view.Ledger.PlaceOn(requirement, t.NodeID)
	case requirement == &p.view.requirement:
		c, why = p.place()
	default:
		c, why = p.view.Ledger.PlaceOne(requirement, p.view.Now)
	}
	switch {
	case why == "":
		p.view.intend(&assign{TaskID: t.ID, Choice: c})
		return
	case why != t.Status.Err:
		p.view.intend(&explain{TaskID: t.ID, State: t.Status.State, Message: messagePending, Err: why})
	}
	p.waiting = true
}

// requirementOf reads what the task's own revision asks of a node; nil when the
// revision is gone.
func (v *serviceView) requirementOf(t *cluster.Task) *placement.Requirement {
	if t.Revision == v.current.Number {
		return &v.requirement
	}
	r := v.revision(t)
	if r == nil {
		return nil
	}
	requirement := v.Ledger.Require(r, v.around)
	return &requirement
}
