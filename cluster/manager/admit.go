package manager

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/hashicorp/raft"

	"skep/cluster"
	"skep/cluster/ca"
	"skep/cluster/manager/peers"
	"skep/store"
)

// JoinRequest asks to become a node: POST /v1/join, of the leader, over a
// connection of the joiner's own, so that a certificate never passes through
// other hands. It needs no certificate but a join token.
type JoinRequest struct {
	Token string `cbor:"1,keyasint"`
	// CSR is the certificate request, PEM. Only its key is used.
	CSR      []byte `cbor:"2,keyasint"`
	Hostname string `cbor:"3,keyasint"`
	// Addr is the IP address the node advertises; empty means the one it calls from.
	Addr         string                 `cbor:"4,keyasint,omitempty"`
	Availability swarm.NodeAvailability `cbor:"5,keyasint,omitempty"`
	// Build is which skep the node runs; one that doesn't fit isn't let in.
	Build cluster.Build `cbor:"6,keyasint,omitzero"`
	// Control is host:port of the control port that the node will have if it is let in as
	// a manager. It answers there already, with the key of CSR: see ListenForLeader.
	Control string `cbor:"7,keyasint,omitempty"`
}

// Admission answers a JoinRequest, and a renewal.
type Admission struct {
	NodeID    string         `cbor:"1,keyasint"`
	ClusterID string         `cbor:"2,keyasint"`
	Role      swarm.NodeRole `cbor:"3,keyasint"`
	// Certificate is the node's chain, PEM, the root last.
	Certificate []byte        `cbor:"4,keyasint"`
	Peers       cluster.Peers `cbor:"5,keyasint"`
	// Addr is the address the node was taken in with.
	Addr string `cbor:"6,keyasint"`
	// UnlockKey is what a manager's key file is encrypted under, and UnlockVersion the
	// version of the cluster's record that says so. Workers aren't told.
	UnlockKey     cluster.UnlockKey `cbor:"7,keyasint,omitzero"`
	UnlockVersion uint64            `cbor:"8,keyasint,omitempty"`
	// Lineage is that of the database of which a manager gets a copy.
	Lineage string `cbor:"9,keyasint,omitempty"`
}

// ReadyRequest tells the leader that a manager listens and may be made a voter:
// POST /v1/manager.
type ReadyRequest struct {
	// Addr is host:port of its control port.
	Addr string `cbor:"1,keyasint"`
	// Build is which skep the node runs.
	Build cluster.Build `cbor:"2,keyasint,omitzero"`
	// Lineage is that of the database of which the manager has a copy, or will have one.
	Lineage string `cbor:"3,keyasint,omitempty"`
}

// statusMisdirected sends the caller to the leader, named in leaderHeader.
const (
	statusMisdirected = http.StatusMisdirectedRequest
	leaderHeader      = "Skep-Leader"
)

// misdirected answers with the leader's address when this manager doesn't lead.
func (m *Manager) misdirected(w http.ResponseWriter) bool {
	peer, self, ok, _ := m.leads()
	switch {
	case self:
		return false
	case ok:
		w.Header().Set(leaderHeader, peer.Addr)
		w.WriteHeader(statusMisdirected)
	default:
		refuse(w, fmt.Errorf("find the leader: %w", cluster.ErrNoLeader))
	}
	return true
}

// onLeader makes a route of what a leader does with one kind of request. Another
// manager sends the caller to the leader.
func onLeader[T, A any](m *Manager, do func(r *http.Request, request T) (*A, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.misdirected(w) {
			return
		}
		var request T
		err := readBody(w, r, &request)
		var answer *A
		if err == nil {
			answer, err = do(r, request)
		}
		if err != nil {
			m.logRefusal(r, err)
			refuse(w, err)
			return
		}
		writeBody(w, answer)
	})
}

// admit lets a new node in.
func (m *Manager) admit(r *http.Request, request JoinRequest) (*Admission, error) {
	view := m.store.View()
	from := peers.Source(r.RemoteAddr)
	if err := m.joins.hear(from, m.cfg.Now()); err != nil {
		m.logTooMany(r, err)
		return nil, err
	}
	role, token, err := checkToken(view.Cluster(), request.Token, m.store.Now())
	if errors.Is(err, cluster.ErrDenied) {
		m.joins.guessed(from, m.cfg.Now())
	}
	if err != nil {
		m.auditJoin(from.String(), token, nil, err)
		return nil, err
	}
	if err := request.Build.Fits(view.Cluster().ClusterLevel); err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	addr := request.Addr
	if addr == "" {
		addr, _, _ = net.SplitHostPort(r.RemoteAddr)
	}
	if ip := net.ParseIP(addr); ip == nil || ip.IsUnspecified() {
		return nil, cluster.Errorf(cluster.ErrInvalid, "join: %q is no IP address others can reach", addr)
	}
	switch request.Availability {
	case "":
		request.Availability = swarm.NodeAvailabilityActive
	case swarm.NodeAvailabilityActive, swarm.NodeAvailabilityPause, swarm.NodeAvailabilityDrain:
	default:
		return nil, cluster.Errorf(cluster.ErrInvalid, "join: unknown availability %q", request.Availability)
	}
	if len(request.Hostname) > 253 {
		return nil, cluster.Errorf(cluster.ErrInvalid, "join: the host name is longer than 253 characters")
	}
	node := &cluster.Node{
		ID:          cluster.NewID(m.cfg.Random),
		Spec:        swarm.NodeSpec{Role: role, Availability: request.Availability},
		Role:        role,
		Description: swarm.NodeDescription{Hostname: request.Hostname},
		Build:       request.Build.Bounded(),
		Status:      cluster.NodeStatus{State: cluster.NodeUnknown, Message: "joined; its agent hasn't called yet", Addr: addr, Since: m.cfg.Now()},
		Awaited:     true,
	}
	if token != nil {
		node.Token, node.Spec.Labels = token.ID, maps.Clone(token.Labels)
	}
	if err := m.joins.take(from, node.ID, m.cfg.Now(), m.present); err != nil {
		m.logTooMany(r, err)
		return nil, err
	}
	joined := false
	defer func() {
		if !joined {
			m.joins.back(from, node.ID)
		}
	}()
	chain, issued, err := m.issue(view.Cluster(), request.CSR, node)
	if err != nil {
		return nil, err
	}
	node.Certificate = issued
	if role == swarm.NodeRoleManager {
		if err := m.reachJoiner(r.Context(), request); err != nil {
			return nil, err
		}
	}
	var replaced []string
	err = m.store.Update(r.Context(), func(tx *store.Tx) error {
		// The token may have been rotated meanwhile, or used up.
		if _, _, err := checkToken(tx.Cluster(), request.Token, tx.Now()); err != nil {
			return err
		}
		if token != nil {
			used, err := tx.Cluster().UseToken(request.Token, tx.Now())
			if err != nil {
				return err
			}
			if err := tx.Put(used); err != nil {
				return err
			}
		}
		// The level may have been raised, too.
		if err := request.Build.Fits(tx.Cluster().ClusterLevel); err != nil {
			return err
		}
		if err := room(tx.NodeCount()); err != nil {
			return err
		}
		if role == swarm.NodeRoleManager {
			if replaced, err = replaceAt(tx, request.Control, node.ID); err != nil {
				return err
			}
		}
		node.Index = chooseIndex(tx.View, node.ID)
		return tx.Put(node)
	})
	// Whoever doesn't know whether it was written counts it.
	joined = err == nil || errors.Is(err, cluster.ErrUnknownOutcome)
	m.auditJoin(from.String(), token, node, err)
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	m.log.Debug("admit node", "node", node.ID, "role", node.Role, "addr", addr)
	for _, old := range replaced {
		m.log.Warn("a manager joined anew at its address; its old entry is demoted", "node", old, "by", node.ID, "addr", request.Control)
	}
	return m.admission(node, chain), nil
}

// replaceAt makes a worker of each other manager that is said to be at the address where
// the node by was just reached: it was installed anew, and what it was is gone. It stays
// in the list of nodes, down, until somebody removes it.
func replaceAt(tx *store.Tx, addr, by string) (replaced []string, err error) {
	var changed []*cluster.Node
	for node := range tx.Nodes() {
		if node.ManagerAddr != addr || node.ID == by {
			continue
		}
		next := *node
		next.Spec.Role = swarm.NodeRoleWorker
		next.Status.State, next.Status.Since = cluster.NodeDown, tx.Now()
		next.Status.Message = fmt.Sprintf("node %s joined at its address: this one is no manager any more; remove it with \"docker node rm\"", by)
		changed = append(changed, &next)
	}
	for _, node := range changed {
		if err := tx.Put(node); err != nil {
			return nil, err
		}
		replaced = append(replaced, node.ID)
	}
	return replaced, nil
}

// checkToken tells which role a token lets in with, and which it is, if it is none of Swarm's two: also when that
// isn't good any more.
func checkToken(c *cluster.Cluster, token string, now time.Time) (swarm.NodeRole, *cluster.LimitedToken, error) {
	if c == nil {
		return "", nil, cluster.Errorf(cluster.ErrUnavailable, "check join token: this manager has no copy of the database yet")
	}
	equal := func(secret string) bool {
		return secret != "" && subtle.ConstantTimeCompare([]byte(secret), []byte(token)) == 1
	}
	switch {
	case equal(c.ManagerToken):
		return swarm.NodeRoleManager, nil, nil
	case equal(c.WorkerToken):
		return swarm.NodeRoleWorker, nil, nil
	}
	limited := c.FindToken(token)
	if limited == nil {
		return "", nil, cluster.ErrToken
	}
	return limited.Role, limited, limited.Good(now)
}

// auditJoin tells that a node joined, by which token, or wasn't let in by one that is known.
func (m *Manager) auditJoin(from string, token *cluster.LimitedToken, node *cluster.Node, err error) {
	if m.cfg.Audit == nil || node == nil && token == nil {
		return // Who has no token at all is in the log, now and then.
	}
	if err != nil && token != nil {
		// A machine that sets itself up tries again every few seconds.
		if _, due := m.notLetIn.Due(m.cfg.Now(), token.ID+" "+from); !due {
			return
		}
	}
	record := cluster.Audited{Route: "POST /v1/join", By: "a join token, from " + from, Result: cluster.AuditDone, Status: http.StatusOK}
	if token != nil {
		record.By, record.Ref = "join token "+token.ID+", from "+from, token.ID
	}
	switch {
	case errors.Is(err, cluster.ErrUnknownOutcome):
		record.Result, record.Status = cluster.AuditUnknown, http.StatusServiceUnavailable
	case err != nil:
		record.Result, record.Status = cluster.AuditRefused, http.StatusForbidden
	default:
		object := cluster.AuditedObject{Kind: "node", ID: node.ID, Name: node.Description.Hostname}
		if stored := m.store.View().Node(node.ID); stored != nil {
			object.To = stored.Version
		}
		record.Objects = []cluster.AuditedObject{object}
	}
	m.cfg.Audit(record)
}

// issue certifies the key of csr for the node, in the role the store says.
func (m *Manager) issue(c *cluster.Cluster, csr []byte, node *cluster.Node) ([]byte, cluster.Certificate, error) {
	var none cluster.Certificate
	cert, key, cross := c.RootCert, c.RootKey, []byte(nil)
	if c.Rotation != nil {
		cert, key, cross = c.Rotation.Cert, c.Rotation.Key, c.Rotation.Cross
	}
	root, err := ca.ParseRoot(cert, key)
	if err != nil {
		return nil, none, fmt.Errorf("read root CA: %w", err)
	}
	id := cluster.Identity{NodeID: node.ID, Role: node.Role, ClusterID: c.ID}
	chain, err := root.Issue(m.cfg.Random, csr, id, m.cfg.Now(), c.Spec.CAConfig.NodeCertExpiry)
	if err != nil {
		return nil, none, err
	}
	issued, err := ca.Certificate(chain)
	return append(chain, cross...), issued, err
}

func (m *Manager) admission(node *cluster.Node, chain []byte) *Admission {
	view := m.store.View()
	admission := &Admission{
		NodeID: node.ID, ClusterID: m.cfg.ClusterID, Role: node.Role, Certificate: chain, Addr: node.Status.Addr,
		Peers: cluster.Peers{
			GossipKeys: view.Cluster().GossipKeys, Role: node.Role, Trust: cluster.TrustOf(view.Cluster(), view.NodeCount()),
			Cluster: view.Cluster().ClusterLevel,
		},
	}
	if node.Role == swarm.NodeRoleManager {
		admission.Lineage = view.Cluster().Lineage
		admission.UnlockKey, admission.UnlockVersion = view.Cluster().UnlockKey, view.Cluster().Version
	}
	for peer := range view.Nodes() {
		if peer.ManagerAddr != "" {
			admission.Peers.Managers = append(admission.Peers.Managers, cluster.PeerOf(peer))
		}
	}
	return admission
}

// ready takes a manager's control address in, if it is reached there; followRoles does the rest.
func (m *Manager) ready(r *http.Request, request ReadyRequest) (*Admission, error) {
	request.Build = request.Build.Bounded()
	return m.take(r.Context(), callerOf(r), request)
}

func (m *Manager) take(ctx context.Context, id cluster.Identity, request ReadyRequest) (*Admission, error) {
	addr, build := request.Addr, request.Build
	if err := checkAddr(addr); err != nil {
		return nil, err
	}
	denied := cluster.Errorf(cluster.ErrDenied, "add manager: node %s is not to be a manager", id.NodeID)
	isToBe := func(node *cluster.Node) bool {
		return node != nil && node.Role == swarm.NodeRoleManager && node.Spec.Role == swarm.NodeRoleManager
	}
	view := m.store.View()
	if node := view.Node(id.NodeID); !isToBe(node) {
		return nil, denied
	} else if request.Lineage != view.Cluster().Lineage && id.NodeID != m.cfg.NodeID {
		return nil, fmt.Errorf("add manager %s: %w", id.NodeID, cluster.ErrLineage)
	} else if node.ManagerAddr != addr {
		if err := m.reachManager(ctx, id.NodeID, addr); err != nil {
			m.waits.say(id.NodeID, err.Error())
			return nil, err
		}
		err := m.believe(ctx, id.NodeID, m.transport.Addr(id.NodeID, node.ManagerAddr), addr)
		if errors.Is(err, errVoteFirst) {
			err = m.suspend(ctx, id.NodeID)
		}
		if err != nil {
			return nil, err
		}
	}
	err := m.store.Update(ctx, func(tx *store.Tx) error {
		node := tx.Node(id.NodeID)
		if !isToBe(node) {
			return denied
		}
		if err := build.Fits(tx.Cluster().ClusterLevel); err != nil {
			return err
		}
		if node.ManagerAddr == addr && node.Build == build {
			return nil
		}
		changed := *node
		changed.ManagerAddr, changed.Build = addr, build
		return tx.Put(&changed)
	})
	if err != nil {
		return nil, err
	}
	m.waits.say(id.NodeID, "")
	return m.admission(m.store.View().Node(id.NodeID), nil), nil
}

// checkAddr refuses what is no address of a control port.
func checkAddr(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err != nil || ip == nil || ip.IsUnspecified() || ip.IsMulticast() {
		return cluster.Errorf(cluster.ErrInvalid, "add manager: %q is no IP address and port", addr)
	}
	return nil
}

// lost takes the vote of a manager away that lost its database, or some of it: voters
// does it when it sees that the manager has no address. The answer comes when that is
// committed. The manager can get its vote back by being ready. It stays in raft's group:
// were it removed and added, raft would for a while send it the log twice, by two
// goroutines, and a snapshot that comes late makes raft remove what came after it.
func (m *Manager) lost(r *http.Request, _ struct{}) (*Admission, error) {
	id := callerOf(r)
	if id.NodeID == m.cfg.NodeID {
		return nil, cluster.Errorf(cluster.ErrPrecondition, "take vote away: node %s leads, so it has a database", id.NodeID)
	}
	if err := m.suspend(r.Context(), id.NodeID); err != nil {
		return nil, err
	}
	node := m.store.View().Node(id.NodeID)
	if node == nil {
		return nil, cluster.Errorf(cluster.ErrUnavailable, "take vote of node %s away: it was removed meanwhile", id.NodeID)
	}
	m.log.Warn("a manager lost its database; it has no vote until it has another", "node", id.NodeID)
	return m.admission(node, nil), nil
}

// suspend takes a manager's vote away, by removing its address, and returns when that is
// committed.
func (m *Manager) suspend(ctx context.Context, nodeID string) error {
	ctx, cancel := context.WithTimeout(ctx, lostLimit)
	defer cancel()
	err := m.store.Update(ctx, func(tx *store.Tx) error {
		node := tx.Node(nodeID)
		if node == nil || node.ManagerAddr == "" {
			return nil
		}
		changed := *node
		changed.ManagerAddr = ""
		return tx.Put(&changed)
	})
	if err != nil {
		return fmt.Errorf("take vote away: %w", err)
	}
	votes := func() bool {
		return slices.ContainsFunc(m.servers(), func(s raft.Server) bool {
			return string(s.ID) == nodeID && s.Suffrage == raft.Voter
		})
	}
	for votes() {
		if !cluster.Sleep(ctx, 20*time.Millisecond) {
			return cluster.Errorf(cluster.ErrUnavailable, "take vote of node %s away: the other managers haven't agreed yet", nodeID)
		}
	}
	// What comes after the change is committed, so it is, too.
	if err := m.raft.Barrier(lostLimit).Error(); err != nil {
		return fmt.Errorf("take vote away: %w: %w", cluster.ErrUnavailable, err)
	}
	if m.servers() == nil || votes() {
		return cluster.Errorf(cluster.ErrUnavailable, "take vote of node %s away: it was given back meanwhile", nodeID)
	}
	return nil
}

// lostLimit is how long a manager that lost its database waits for one answer.
const lostLimit = 5 * time.Second

// leave takes a node's word that it leaves the cluster for good: its tasks are
// replaced at once, not after a grace.
func (m *Manager) leave(r *http.Request, _ struct{}) (*Admission, error) {
	id := callerOf(r)
	err := m.store.Update(r.Context(), func(tx *store.Tx) error {
		node := tx.Node(id.NodeID)
		if node == nil || node.Status.State == cluster.NodeDown {
			return nil
		}
		changed := *node
		changed.Status.State, changed.Status.Message, changed.Status.Since = cluster.NodeDown, cluster.MessageLeft, tx.Now()
		return tx.Put(&changed)
	})
	if err != nil {
		return nil, err
	}
	m.log.Info("node left", "node", id.NodeID)
	return &Admission{NodeID: id.NodeID}, nil
}

// readBody reads one small CBOR message.
func readBody(w http.ResponseWriter, r *http.Request, into any) error {
	if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(readTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("read request: %w", err)
	}
	return cluster.ReadBody(http.MaxBytesReader(w, r.Body, maxAdmitBody), into)
}

func writeBody(w http.ResponseWriter, v any) {
	data, err := cluster.Encode(v)
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/cbor")
	w.Write(data)
}

// refusals pairs what a manager refuses with, and the status that tells it to
// the other side.
var refusals = []struct {
	err    error
	status int
}{
	{cluster.ErrVersion, http.StatusUpgradeRequired},
	{cluster.ErrDenied, http.StatusForbidden},
	{cluster.ErrRemoved, http.StatusGone},
	{cluster.ErrLineage, http.StatusPreconditionFailed},
	{cluster.ErrInvalid, http.StatusBadRequest},
	{cluster.ErrPrecondition, http.StatusConflict},
	{cluster.ErrNoLeader, http.StatusServiceUnavailable},
	{cluster.ErrNotLeader, http.StatusServiceUnavailable},
	{cluster.ErrUnknownOutcome, http.StatusServiceUnavailable},
	{cluster.ErrUnavailable, http.StatusServiceUnavailable},
}

// refuse answers with an error.
func refuse(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	for _, refusal := range refusals {
		if errors.Is(err, refusal.err) {
			status = refusal.status
			break
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"message": err.Error()})
}
