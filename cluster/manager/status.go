package manager

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/hashicorp/raft"

	"skep/cluster"
	"skep/cluster/ca"
	"skep/store"
)

// Health is this manager's account of itself.
func (m *Manager) Health() cluster.ManagerHealth {
	stats := m.raft.Stats()
	snapshot, _ := strconv.ParseUint(stats["last_snapshot_index"], 10, 64)
	health := cluster.ManagerHealth{
		NodeID: m.cfg.NodeID, Addr: m.cfg.Addr, Reachable: true,
		Leader: m.raft.State() == raft.Leader, State: strings.ToLower(m.raft.State().String()), Term: m.raft.CurrentTerm(),
		Start: m.start, LastIndex: m.raft.LastIndex(), CommitIndex: m.raft.CommitIndex(), AppliedIndex: m.raft.AppliedIndex(),
		SnapshotIndex: snapshot, HeartbeatTimeout: m.cfg.HeartbeatTimeout, Build: m.cfg.Build,
	}
	_, health.Ready, _, _ = m.leads()
	health.Trouble = m.Trouble()
	health.DiskHung = m.disk.Hung()
	if m.cfg.Kept != nil {
		health.Kept = m.cfg.Kept()
	}
	if contact := m.raft.LastContact(); !health.Leader && !contact.IsZero() {
		health.LastContact = time.Since(contact) // Raft's clock, not the wall's.
	}
	return health
}

// What a manager's account may have besides: whether its disk takes a write, how much
// room it has, the digest of its database, which takes a moment, and whether the manager
// whose ID follows refuses it.
const (
	withDisk   = "disk"
	withRoom   = "room"
	withDigest = "digest"

	withRefusal = "refusal of "
)

// healthWith is Health and what is asked for besides.
func (m *Manager) healthWith(ctx context.Context, more ...string) cluster.ManagerHealth {
	health := m.Health()
	for _, asked := range more {
		if leader, ok := strings.CutPrefix(asked, withRefusal); ok {
			health.Refused = m.campaign.Refused(ctx, leader)
		}
	}
	if slices.Contains(more, withDisk) {
		health.DiskAnswers = m.diskTry(ctx)
	}
	var disk syscall.Statfs_t
	if slices.Contains(more, withRoom) && syscall.Statfs(m.cfg.Dir, &disk) == nil {
		health.DiskFree, health.DiskSize = disk.Bavail*uint64(disk.Bsize), disk.Blocks*uint64(disk.Bsize)
	}
	if slices.Contains(more, withDigest) {
		view := m.store.View()
		digest := view.Digest()
		health.CopySize, _ = Copy{view}.Size() // What can't be written has no digest either.
		health.Digest, health.DigestIndex = hex.EncodeToString(digest[:]), view.Index()
	}
	return health
}

func (m *Manager) serveHealth(w http.ResponseWriter, r *http.Request) {
	writeBody(w, m.healthWith(r.Context(), r.URL.Query()["with"]...))
}

// askHealth asks another manager for its account. The caller says how long it may take.
func (m *Manager) askHealth(ctx context.Context, addr string, more ...string) (health cluster.ManagerHealth, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+addr+"/v1/health?"+url.Values{"with": more}.Encode(), nil)
	if err != nil {
		return health, err
	}
	response, err := m.transport.Client().Do(request)
	if err != nil {
		return health, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAdmitBody))
	if err != nil {
		return health, err
	}
	if response.StatusCode != http.StatusOK {
		return health, fmt.Errorf("ask manager %s: %s", addr, response.Status)
	}
	return health, cluster.Decode(data, &health)
}

// askRefusal is askHealth with the answer whether the manager refusing, if that isn't empty,
// refuses connections to the other one.
func (m *Manager) askRefusal(ctx context.Context, addr, refusing string) (cluster.ManagerHealth, error) {
	if refusing == "" {
		return m.askHealth(ctx, addr)
	}
	return m.askHealth(ctx, addr, withRefusal+refusing)
}

// Quorum asks all voters how they are, and tells how many answer, how many must for
// there to be a leader, and how many there are.
func (m *Manager) Quorum(ctx context.Context) (answer, needed, all int) {
	var voters []cluster.ManagerHealth
	for _, server := range m.servers() {
		if server.Suffrage == raft.Voter {
			voters = append(voters, cluster.ManagerHealth{NodeID: string(server.ID), Addr: string(server.Address)})
		}
	}
	m.fillHealth(ctx, healthLimit, voters)
	for _, voter := range voters {
		if voter.Reachable {
			answer++
		}
	}
	return answer, len(voters)/2 + 1, len(voters)
}

// Status tells how the cluster is, as this manager sees it. Only the leader knows
// the sessions of all nodes; without one, this says what is missing.
func (m *Manager) Status(ctx context.Context, digests bool) (cluster.Status, error) {
	view := m.store.View()
	status := cluster.Status{ClusterID: m.cfg.ClusterID, LeaderID: m.LeaderID(), Term: m.raft.CurrentTerm()}
	if c := view.Cluster(); c != nil {
		status.ClusterLevel, status.BackupAt = c.ClusterLevel, c.BackupAt
		status.EncryptNetworks, _ = cluster.LabelEncryptNetworks.Of(c.Spec.Labels)
	}
	if status.EncryptNetworks {
		status.InClear = inClear(view)
	}
	status.LevelWaits = m.levelWaits()
	status.Managers = m.knownManagers(view)
	if digests {
		m.fillHealth(ctx, digestLimit, status.Managers, withRoom, withDigest)
	} else {
		m.fillHealth(ctx, healthLimit, status.Managers, withRoom)
	}
	// A manager that lost its database gives its vote up before it answers, and whoever asks
	// may have waited for that: who votes is looked at when all have answered.
	votes := map[string]bool{}
	for _, server := range m.servers() {
		votes[string(server.ID)] = server.Suffrage == raft.Voter
	}
	for i, manager := range status.Managers {
		status.Managers[i].Voter, status.Managers[i].Waits = votes[manager.NodeID], m.waits.of(manager.NodeID, m.cfg.Now())
	}
	gossip := map[string]string{}
	for _, member := range m.cfg.Members() {
		switch {
		case member.Left:
			gossip[member.NodeID] = "left"
		case member.Suspect:
			gossip[member.NodeID] = "suspect"
		default:
			gossip[member.NodeID] = "alive"
		}
	}
	if m.cfg.Unheard != nil {
		asking, cancel := context.WithTimeout(ctx, healthLimit)
		defer cancel()
		for _, id := range m.cfg.Unheard(asking) {
			if gossip[id] == "alive" {
				gossip[id] = byTCPOnly
			}
		}
	}
	sessions := m.dispatch.Sessions()
	for node := range view.Nodes() {
		health := cluster.NodeHealth{
			NodeID: node.ID, Hostname: node.Description.Hostname, Addr: node.Status.Addr, Role: string(node.Role),
			State: node.Status.State.String(), Availability: string(node.Spec.Availability),
			Gossip: defaulted(gossip[node.ID], "absent"), Session: sessions[node.ID], Build: node.Build,
			DrainUntil: cluster.DrainsUntil(node.Spec),
		}
		health.Reason = cluster.Sentences(node.Status.Message, node.Clashes(view.Networks()))
		status.Nodes = append(status.Nodes, health)
	}
	status.Autolock = locks(view.Cluster())
	slices.SortFunc(status.Managers, func(a, b cluster.ManagerHealth) int {
		return cmp.Or(cmp.Compare(a.Hostname, b.Hostname), cmp.Compare(a.NodeID, b.NodeID))
	})
	slices.SortFunc(status.Nodes, func(a, b cluster.NodeHealth) int {
		return cmp.Or(cmp.Compare(a.Hostname, b.Hostname), cmp.Compare(a.NodeID, b.NodeID))
	})
	status.Problems = slices.Concat(m.ownProblems(), problems(status), m.twinProblems(view), serviceProblems(view), m.cfg.ImageProblems(view), certificateProblems(view, m.cfg.Now()))
	return status, nil
}

// inClear are the names of the networks whose packets between nodes aren't encrypted, sorted.
func inClear(view store.View) (names []string) {
	for n := range view.Networks() {
		if n.Spans() && !n.Encrypted() {
			names = append(names, n.Spec.Name)
		}
	}
	slices.Sort(names)
	return names
}

// knownManagers are all managers, and where they are.
func (m *Manager) knownManagers(view store.View) (all []cluster.ManagerHealth) {
	for node := range view.Nodes() {
		if node.Role == swarm.NodeRoleManager {
			all = append(all, cluster.ManagerHealth{
				NodeID: node.ID, Hostname: node.Description.Hostname, Addr: m.transport.Addr(node.ID, node.ManagerAddr), Build: node.Build,
			})
		}
	}
	// A manager that was just started knows the others by its log before it knows them by the
	// database.
	for _, server := range m.servers() {
		if id := string(server.ID); view.Node(id) == nil {
			all = append(all, cluster.ManagerHealth{NodeID: id, Addr: string(server.Address)})
		}
	}
	return all
}

// How long managers may take to answer.
const (
	healthLimit = time.Second
	digestLimit = 10 * time.Second
)

// fillHealth asks all managers at once, and waits no longer than limit for their answers.
func (m *Manager) fillHealth(ctx context.Context, limit time.Duration, managers []cluster.ManagerHealth, more ...string) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var asked sync.WaitGroup
	for i := range managers {
		asked.Go(func() {
			known := &managers[i]
			var health cluster.ManagerHealth
			if known.NodeID == m.cfg.NodeID {
				health = m.healthWith(ctx, more...)
			} else {
				var err error
				if health, err = m.askHealth(ctx, known.Addr, more...); err != nil {
					return
				}
			}
			health.NodeID, health.Hostname, health.Addr = known.NodeID, known.Hostname, known.Addr
			*known = health
		})
	}
	asked.Wait()
}

// byTCPOnly is what gossip says of a node to which UDP doesn't get through.
const byTCPOnly = "tcp only"

// lagging is how many entries a manager may be behind before it is called a problem.
const lagging = 1000

// problems says what is unhealthy, and why.
func problems(status cluster.Status) []string {
	var found []string
	say := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	var commit uint64
	voters, answer := 0, 0
	for _, manager := range status.Managers {
		commit = max(commit, manager.CommitIndex)
		if manager.Voter {
			voters++
			if manager.Reachable {
				answer++
			}
		}
	}
	if status.LeaderID == "" {
		say("there is no leader: %d of %d managers answer, and %d are needed; nothing can be changed, and what follows is from memory. "+
			"Start managers again; if too many are lost for good, use swarm init --force-new-cluster on one that is left", answer, voters, voters/2+1)
	}
	for _, manager := range status.Managers {
		switch {
		case manager.Waits != "":
			say("manager %s (%s) waits: %s", manager.Hostname, manager.NodeID, manager.Waits)
		case manager.Addr == "":
			say("manager %s (%s) has no copy of the database: it is new, or its own was damaged and it waits for another", manager.Hostname, manager.NodeID)
		case !manager.Reachable:
			hint := ""
			if status.Autolock {
				hint = "; managers are locked here: if its daemon was restarted, it waits for \"swarm unlock\" there"
			}
			say("manager %s (%s) doesn't answer at %s%s", manager.Hostname, manager.NodeID, manager.Addr, hint)
		case diskTrouble(manager) != "":
			say("manager %s (%s): %s", manager.Hostname, manager.NodeID, diskTrouble(manager))
		case manager.Trouble != "":
			say("manager %s (%s): %s", manager.Hostname, manager.NodeID, manager.Trouble)
		case !manager.Voter:
			say("manager %s (%s) has no vote yet", manager.Hostname, manager.NodeID)
		case manager.AppliedIndex+lagging < commit:
			say("manager %s (%s) is %d entries behind", manager.Hostname, manager.NodeID, commit-manager.AppliedIndex)
		}
	}
	beats := map[time.Duration]bool{}
	for _, manager := range status.Managers {
		if manager.Reachable {
			beats[manager.HeartbeatTimeout] = true
		}
	}
	if len(beats) > 1 {
		say("managers differ in how long they let a leader be silent: give all daemons the same --latency")
	}
	if voters == 2 {
		say("two managers tolerate no failure: add a third")
	}
	if answer == voters/2+1 && voters > 2 {
		say("no further manager may fail: %d of %d answer", answer, voters)
	}
	for _, node := range status.Nodes {
		switch {
		case node.State != cluster.NodeReady.String():
			say("node %s (%s) is %s: %s", node.Hostname, node.NodeID, node.State, node.Reason)
		case node.Session == "":
			say("node %s (%s) has no session with any manager, and is %s in gossip", node.Hostname, node.NodeID, node.Gossip)
		case node.Gossip == byTCPOnly:
			say("node %s (%s) doesn't answer at 7946/udp, only over TCP: look at the firewalls between it and this manager, or it is taken for lost at the least trouble", node.Hostname, node.NodeID)
		case node.Gossip != "alive":
			say("node %s (%s) is %s in gossip, though its agent has a session", node.Hostname, node.NodeID, node.Gossip)
		}
		if warning := node.Warning(); warning != "" {
			say("%s", warning)
		}
	}
	return found
}

// twinProblems names the nodes that gossip finds on two machines.
func (m *Manager) twinProblems(view store.View) []string {
	if m.cfg.Twins == nil {
		return nil
	}
	var found []string
	for _, twin := range m.cfg.Twins() {
		if view.Node(twin.NodeID) == nil {
			continue
		}
		found = append(found, fmt.Sprintf("two machines gossip as node %s: at %s and at %s; one is a copy of the other's disk, or both have been given one address: "+
			"stop the daemon of the one that isn't wanted, remove its data directory, and join it anew", named(view, twin.NodeID), twin.Addr, twin.Other))
	}
	return found
}

// ownProblems says why this manager can't speak to others, if so.
func (m *Manager) ownProblems() []string {
	if trouble := m.cfg.Credentials.Trouble(); trouble != nil {
		return []string{trouble.Error()}
	}
	return nil
}

const (
	// warnBefore is how long before its end a node's certificate is a problem, and
	// warnPart the part of its life, when that is less: it should have been renewed.
	warnBefore, warnPart = 7 * 24 * time.Hour, 8
	// warnRoot is how long before its end the root CA is a problem.
	warnRoot = 180 * 24 * time.Hour
)

// certificateProblems says which certificates end soon, or have ended.
func certificateProblems(view store.View, now time.Time) []string {
	c := view.Cluster()
	if c == nil {
		return nil
	}
	var found []string
	if root, err := ca.ParseRoot(c.RootCert, nil); err != nil {
		found = append(found, err.Error())
	} else if ends := root.Cert().NotAfter; now.Add(warnRoot).After(ends) {
		found = append(found, fmt.Sprintf("the root CA ends at %v, and nothing goes on after that: change it with \"swarm ca --rotate\"", ends))
	}
	before := min(warnBefore, defaulted(c.Spec.CAConfig.NodeCertExpiry, ca.DefaultValidity)/warnPart)
	for node := range view.Nodes() {
		ends := node.Certificate.Ends
		switch {
		case ends.IsZero() || now.Add(before).Before(ends):
		case now.Before(ends):
			found = append(found, fmt.Sprintf("the certificate of node %s (%s) ends at %v, and wasn't renewed: \"docker info\" there may say why", node.Description.Hostname, node.ID, ends))
		default:
			found = append(found, fmt.Sprintf("the certificate of node %s (%s) ended at %v: it is renewed when the node is back", node.Description.Hostname, node.ID, ends))
		}
	}
	return found
}
