package manager

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"skep/cluster"
	"skep/cluster/api"
	"skep/store"
)

// Who has a join token may add nodes, and they stay until somebody removes them. Ten
// thousand honest ones may join within a minute or two, also from behind one router. What
// tells them from made-up ones is that their agents come, and stay: so it isn't the joins
// that are counted, but those that nothing came of.
const (
	// maxAbsent of the nodes that one address let join within joinSpan may not be ready.
	// An agent is there a second or two after its node joined, and some seconds after it when
	// thousands do at once; a node that has to wait tries again.
	maxAbsent = 1000
	joinSpan  = 10 * time.Minute
	// maxJoins is how many joins are remembered.
	maxJoins = 1 << 16
	// maxNodes is how many nodes a cluster has at most: some times as many as any that is
	// known. A few kilobytes of each are in every manager's memory.
	maxNodes = 50_000

	// maxAwaited is how many nodes may have joined whose agents never came, from all
	// addresses; the oldest goes for the next one. awaitedFor is how long each may take,
	// which is long enough for a machine that is mended first.
	maxAwaited = 4096
	awaitedFor = time.Hour
	// forgetLook is how often they are looked at, and forgetAtOnce how many are removed in
	// one write.
	forgetLook   = 5 * time.Second
	forgetAtOnce = 500

	// maxWrong wrong tokens of one address are heard at once, and wrongRate in a second
	// after that: a hundred machines with a token of yesterday, which all try again every
	// few seconds, are no attack. Until then nothing from there is compared with the tokens.
	// A token has 128 bits, so this isn't what makes guessing hopeless.
	maxWrong  = 128
	wrongRate = 16
	// maxAddresses is how many addresses with wrong tokens are remembered.
	maxAddresses = 4096
)

// joins is what a leader remembers of who asked to be let in. It isn't in the store: a
// leader that comes later begins anew, and nobody who has no more than a token can make one.
type joins struct {
	mu sync.Mutex // guards the fields below
	// from has the joins of each address, and total is how many these are.
	from  map[netip.Addr]*joiners
	total int
	wrong map[netip.Addr]*guesses
}

// joiners are the joins of one address.
type joiners struct {
	joined []joined // the oldest first
	// absent is how many of them weren't ready when they were counted, and all since then.
	absent  int
	counted time.Time
}

type joined struct {
	nodeID string
	at     time.Time
}

// guesses are the wrong tokens of one address: how many too many, as of when.
type guesses struct {
	count float64
	at    time.Time
}

// take notes that a node joins from an address, unless too many did that aren't ready.
func (j *joins) take(from netip.Addr, nodeID string, now time.Time, ready func(nodeID string) bool) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.from == nil {
		j.from = map[netip.Addr]*joiners{}
	}
	all := j.from[from]
	if all == nil {
		all = &joiners{}
		j.from[from] = all
	}
	// Counting takes as long as there are nodes, so it is done when it may say something new.
	if since := now.Sub(all.counted); all.absent >= maxAbsent && (since >= time.Second || since < 0) {
		j.expireLocked(all, now)
		all.absent, all.counted = 0, now
		for _, one := range all.joined {
			if !ready(one.nodeID) {
				all.absent++
			}
		}
	}
	if all.absent >= maxAbsent {
		return cluster.Errorf(cluster.ErrUnavailable, "join: %d nodes that joined from %s within %s aren't ready: try again when some are", all.absent, from, joinSpan)
	}
	all.joined = append(all.joined, joined{nodeID, now})
	all.absent++
	if j.total++; j.total > maxJoins {
		j.trimLocked(now)
	}
	return nil
}

// back takes a join back that came to nothing.
func (j *joins) back(from netip.Addr, nodeID string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := j.from[from]
	if all == nil {
		return
	}
	if i := slices.IndexFunc(all.joined, func(one joined) bool { return one.nodeID == nodeID }); i >= 0 {
		all.joined = slices.Delete(all.joined, i, i+1)
		all.absent--
		j.total--
	}
}

// expireLocked drops joins that are long ago.
func (j *joins) expireLocked(all *joiners, now time.Time) {
	old := 0
	for old < len(all.joined) && now.Sub(all.joined[old].at) >= joinSpan {
		old++
	}
	all.joined = slices.Delete(all.joined, 0, old)
	j.total -= old
}

// trimLocked makes room: what is long ago goes, then the addresses with the oldest joins.
func (j *joins) trimLocked(now time.Time) {
	for addr, all := range j.from {
		if j.expireLocked(all, now); len(all.joined) == 0 {
			delete(j.from, addr)
		}
	}
	for j.total > maxJoins/2 {
		var oldest netip.Addr
		for addr, all := range j.from {
			if first := j.from[oldest]; first == nil || all.joined[0].at.Before(first.joined[0].at) {
				oldest = addr
			}
		}
		j.total -= len(j.from[oldest].joined)
		delete(j.from, oldest)
	}
}

// hear tells whether a token from an address is to be compared with the right ones.
func (j *joins) hear(from netip.Addr, now time.Time) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if g := j.wrong[from]; g != nil && g.left(now) > maxWrong-1 {
		return cluster.Errorf(cluster.ErrUnavailable, "check join token: too many wrong ones came from %s: try again in a moment", from)
	}
	return nil
}

// guessed notes a wrong token.
func (j *joins) guessed(from netip.Addr, now time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	g := j.wrong[from]
	if g == nil {
		if len(j.wrong) >= maxAddresses {
			for addr := range j.wrong { // Any of them makes room.
				delete(j.wrong, addr)
				break
			}
		}
		if j.wrong == nil {
			j.wrong = map[netip.Addr]*guesses{}
		}
		g = &guesses{}
		j.wrong[from] = g
	}
	g.count, g.at = g.left(now)+1, now
}

// left is how many of them count now.
func (g *guesses) left(now time.Time) float64 {
	return max(0, g.count-wrongRate*max(0, now.Sub(g.at).Seconds()))
}

// room refuses one more node than a cluster may have.
func room(nodes int) error {
	if nodes < maxNodes {
		return nil
	}
	return cluster.Errorf(cluster.ErrPrecondition, "the cluster has %d nodes, and takes no more: remove those that are gone, with \"skep node prune\"", nodes)
}

// present tells whether a node that joined is there.
func (m *Manager) present(nodeID string) bool {
	node := m.store.View().Node(nodeID)
	return node != nil && node.Status.State == cluster.NodeReady
}

// strays are the nodes that joined and won't come any more, as far as the store tells: those
// that had an hour to, and the oldest of too many.
func strays(view store.View, now time.Time) []*cluster.Node {
	var awaited []*cluster.Node
	for node := range view.Nodes() {
		// A manager that said where it listens is in raft's group, or about to be.
		if node.Awaited && node.ManagerAddr == "" {
			awaited = append(awaited, node)
		}
	}
	slices.SortStableFunc(awaited, func(a, b *cluster.Node) int { return a.CreatedAt.Compare(b.CreatedAt) })
	gone := max(0, len(awaited)-maxAwaited)
	for gone < len(awaited) && now.Sub(awaited[gone].CreatedAt) >= awaitedFor {
		gone++
	}
	return awaited[:gone]
}

// forget removes nodes that joined and never came.
func (m *Manager) forget(ctx context.Context) error {
	for {
		if !cluster.Sleep(ctx, forgetLook) {
			return ctx.Err()
		}
		gone := strays(m.store.View(), m.store.Now())
		removed := 0
		for some := range slices.Chunk(gone, forgetAtOnce) {
			count, err := m.forgetSome(ctx, some)
			if removed += count; err != nil {
				m.log.Warn("remove nodes that joined and never came; trying again", "err", err)
				break
			}
		}
		if removed > 0 {
			m.log.Warn("nodes that joined and never came are removed", "count", removed)
		}
	}
}

func (m *Manager) forgetSome(ctx context.Context, nodes []*cluster.Node) (removed int, err error) {
	ctx, cancel := context.WithTimeout(ctx, leadTimeout)
	defer cancel()
	err = m.store.Update(ctx, func(tx *store.Tx) error {
		removed = 0
		for _, old := range nodes {
			node := tx.Node(old.ID)
			if node == nil || !node.Awaited || node.ManagerAddr != "" {
				continue
			}
			if err := api.RemoveNode(tx, node); err != nil {
				return err
			}
			removed++
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return removed, nil
}
