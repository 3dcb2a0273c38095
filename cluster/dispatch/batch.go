package dispatch

import (
	"fmt"
	"slices"

	"skep/cluster"
	"skep/cluster/dispatch/liveness"
	"skep/store"
)

// maxBatchReports is at how many reports a batch takes no further relay in.
const maxBatchReports = 4096

// batch is what is written in one transaction.
type batch struct {
	reports []cluster.NodeReport
	news    []cluster.NodeNews
	states  []liveness.Change
	copies  []liveness.CopyChange
	// notOurs are those of the reports that apply refused, as of its last run.
	notOurs []cluster.NodeReport
}

// gather moves relays into the batch, in order, until it is full.
//
// After an agent reconnects elsewhere, its repeated reports there win over older ones
// still queued at the manager it came from: those are dropped. While this leader is
// settling it may not know yet where the agent went, so the relay has to wait.
func (b *batch) gather(waiting []*pendingRelay, where map[string]string, settling bool) (taken, rest []*pendingRelay) {
	for _, dl := range waiting {
		if len(b.reports) >= maxBatchReports || (settling && dl.unroutable(where)) {
			rest = append(rest, dl)
			continue
		}
		for _, r := range dl.relay.Reports {
			if dl.serves(r.NodeID) || where[r.NodeID] == "" {
				b.reports = append(b.reports, r)
			}
		}
		for _, n := range dl.relay.Nodes {
			if dl.serves(n.NodeID) || where[n.NodeID] == "" {
				b.news = append(b.news, n)
			}
		}
		taken = append(taken, dl)
	}
	return taken, rest
}

// serves tells whether the relay's sender has the session of the node.
func (dl *pendingRelay) serves(nodeID string) bool {
	_, found := slices.BinarySearch(dl.relay.Sessions, nodeID)
	return found
}

// unroutable tells whether the relay has news of a node whose session isn't known to be
// anywhere.
func (dl *pendingRelay) unroutable(where map[string]string) bool {
	lost := func(nodeID string) bool { return where[nodeID] == "" && !dl.serves(nodeID) }
	return slices.ContainsFunc(dl.relay.Reports, func(r cluster.NodeReport) bool { return lost(r.NodeID) }) ||
		slices.ContainsFunc(dl.relay.Nodes, func(n cluster.NodeNews) bool { return lost(n.NodeID) })
}

func (b *batch) size() int { return len(b.reports) + len(b.news) + len(b.states) + len(b.copies) }

func (b *batch) halve() (first, second *batch) {
	r, n, v := (len(b.reports)+1)/2, len(b.news)/2, len(b.states)/2
	if len(b.reports) == 0 {
		n = (len(b.news) + 1) / 2
	}
	return &batch{reports: b.reports[:r], news: b.news[:n], states: b.states[:v], copies: b.copies}, &batch{reports: b.reports[r:], news: b.news[n:], states: b.states[v:]}
}

// String says what is in the batch.
func (b *batch) String() string {
	text := fmt.Sprintf("%d reports, %d descriptions and %d states of nodes", len(b.reports), len(b.news), len(b.states))
	if len(b.reports) == 1 {
		text += ", of task " + b.reports[0].Report.TaskID
	}
	if len(b.news) == 1 {
		text += ", of node " + b.news[0].NodeID
	}
	return text
}

// trim leaves out what changes nothing, like all that agents repeat in a new
// session. The view is at most older than what the batch is applied to, and states
// only advance, so what changes nothing now won't then. A task that the view lacks,
// or has at no node yet, may be new: another manager, and the agent, can know of an
// entry before this manager has applied it. So those are left to apply.
func (b *batch) trim(view store.View) {
	b.reports = slices.DeleteFunc(b.reports, func(r cluster.NodeReport) bool {
		task := view.Task(r.Report.TaskID)
		return task != nil && task.NodeID == r.NodeID && task.Advance(r.Report.Status, task.UpdatedAt) == nil
	})
	news := b.news[:0]
	for _, n := range b.news {
		if node := view.Node(n.NodeID); node != nil && describe(node, n) != nil {
			news = append(news, n)
		}
	}
	b.news = news
}

// apply writes the batch. Whether an item still fits is decided by the objects in the
// transaction; reports of tasks that are another node's are refused.
func (b *batch) apply(tx *store.Tx) error {
	now := cluster.At(tx.Now())
	b.notOurs = nil
	for _, r := range b.reports {
		task := tx.Task(r.Report.TaskID)
		switch {
		case task == nil:
			continue // Its record was removed meanwhile.
		case task.NodeID != r.NodeID || !task.Assigned() || !agents(r.Report.Status.State):
			b.notOurs = append(b.notOurs, r)
			continue
		}
		if next := task.Advance(r.Report.Status, now); next != nil {
			if err := tx.Put(next); err != nil {
				return err
			}
		}
	}
	for _, n := range b.news {
		if node := tx.Node(n.NodeID); node != nil {
			if next := describe(node, n); next != nil {
				if next.WireKeys != node.WireKeys {
					next.WireKeys = ownKeys(tx.View, next)
				}
				if err := tx.Put(next); err != nil {
					return err
				}
			}
		}
	}
	for _, c := range b.copies {
		if node := tx.Node(c.NodeID); node != nil && node.Copy != c.Copy {
			next := *node
			next.Copy = c.Copy
			if err := tx.Put(&next); err != nil {
				return err
			}
		}
	}
	for _, v := range b.states {
		node := tx.Node(v.NodeID)
		if node == nil || (node.Status.State == v.State && node.Status.Message == v.Message && !(node.Awaited && v.Came)) {
			continue
		}
		next := *node
		next.Awaited = node.Awaited && !v.Came
		next.Status.Message = v.Message
		if node.Status.State != v.State {
			next.Status.State, next.Status.Since = v.State, tx.Now()
		}
		if err := tx.Put(&next); err != nil {
			return err
		}
	}
	return nil
}

// ownKeys are a node's keys without those that another node has: it would be sent what is that one's.
func ownKeys(view store.View, node *cluster.Node) cluster.WireKeys {
	keys := node.WireKeys
	for other := range view.Nodes() {
		for i, key := range keys {
			if other.ID != node.ID && key.Generation != 0 && slices.ContainsFunc(other.WireKeys[:], func(k cluster.WireKey) bool { return k.Public == key.Public }) {
				keys[i] = cluster.WireKey{}
			}
		}
	}
	return keys
}

// describe gives the node with the news in it, or nil when there is none.
func describe(node *cluster.Node, n cluster.NodeNews) *cluster.Node {
	if n.Addr == "" {
		n.Addr = node.Status.Addr
	}
	if n.Build == (cluster.Build{}) {
		n.Build = node.Build
	}
	if n.Engine == "" {
		n.Engine = node.Engine // It can't be asked now.
	}
	if n.WireKeys == (cluster.WireKeys{}) {
		n.WireKeys = node.WireKeys // The agent has just started, and its devices go on. Or it needs none: nobody sends there.
	}
	if node.Status.Addr == n.Addr && node.Build == n.Build && node.DataAddr == n.DataAddr && node.Engine == n.Engine && node.WireKeys == n.WireKeys && slices.Equal(node.Uses, n.Uses) && equalEncoding(node.Description, n.Description) {
		return nil
	}
	next := *node
	next.Status.Addr, next.Description, next.Build = n.Addr, n.Description, n.Build
	next.DataAddr, next.Engine, next.WireKeys, next.Uses = n.DataAddr, n.Engine, n.WireKeys, n.Uses
	return &next
}

// equalEncoding tells whether two values are the same to the database, which
// doesn't know nil from empty.
func equalEncoding(a, b any) bool {
	x, errX := cluster.Encode(a)
	y, errY := cluster.Encode(b)
	return errX == nil && errY == nil && string(x) == string(y)
}
