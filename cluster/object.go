package cluster

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// Meta is what every object but a task carries.
type Meta struct {
	// Version is the log index of the object's last change. Apply stamps it.
	Version uint64 `cbor:"v,omitempty"`
	// CreatedAt and UpdatedAt are the database's time at the write.
	CreatedAt time.Time `cbor:"c,omitempty"`
	UpdatedAt time.Time `cbor:"u,omitempty"`
}

// Cluster is the one record of the cluster itself.
type Cluster struct {
	ID string
	Meta
	ClusterLevel
	Spec swarm.Spec
	// Lineage names the row of writes that this database is the outcome of. A cluster that is
	// restored from a backup, or goes on with one manager, begins another one: databases of two
	// lineages have different entries under one index, so neither can become a copy of the other.
	Lineage string `cbor:",omitempty"`
	// RootCert and RootKey are the root CA, PEM encoded. They leave the database
	// only as certificates.
	RootCert, RootKey []byte
	// WorkerToken and ManagerToken let a node join with that role.
	WorkerToken, ManagerToken string
	// GossipKeys encrypt gossip; the first one sends, all of them are understood.
	// NextGossipKey is set while the last one is new: it is given to all nodes before
	// it becomes the first. GossipKeysAt is when either changed, by the leader's clock.
	GossipKeys    [][]byte
	NextGossipKey bool
	GossipKeysAt  time.Time
	// UnlockKey encrypts the key files of all managers; none while autolock is off.
	UnlockKey UnlockKey
	// BackupAt is when the database was last backed up, by the database's time.
	BackupAt time.Time `cbor:",omitzero"`
	// ColdStart is when a leader last began that had followed nobody since its own start:
	// all managers had been off, and maybe all machines.
	ColdStart time.Time `cbor:",omitzero"`
	// Rotation is set while another root CA takes the place of RootCert.
	Rotation *RootRotation
	// Tokens are join tokens beside those two, for some nodes and for a while.
	Tokens []LimitedToken `cbor:",omitempty"`
	// Networks are the settings as given: NetworkSettings has the defaults.
	Networks NetworkSettings `cbor:",omitzero"`
}

// RootRotation is a change of the root CA: all nodes trust both roots, and get
// certificates by the new one; when all have them it becomes the only one.
type RootRotation struct {
	// Cert and Key are the new root, PEM, and Cross is Cert's key as certified by the
	// old one, for those who don't know of the new one yet.
	Cert, Key, Cross []byte
}

// Roots are the root certificates that nodes trust, PEM.
func (c *Cluster) Roots() []byte {
	if c.Rotation == nil {
		return c.RootCert
	}
	return slices.Concat(c.RootCert, c.Rotation.Cert)
}

// Issuer is the root certificate, PEM, that nodes' certificates should be by.
func (c *Cluster) Issuer() []byte {
	if c.Rotation == nil {
		return c.RootCert
	}
	return c.Rotation.Cert
}

// Node is a machine that has joined.
type Node struct {
	ID string
	Meta
	// Spec is the user's: Spec.Role is the role that is wanted.
	Spec swarm.NodeSpec
	// Role is the role the node has: what certificates are issued for.
	Role swarm.NodeRole
	// Description is the agent's account of its machine.
	Description swarm.NodeDescription
	Status      NodeStatus
	// ManagerAddr is host:port of the control port; empty on workers.
	ManagerAddr string
	// Certificate is what the leader last certified for the node.
	Certificate Certificate `cbor:",omitzero"`
	// Build is which skep the node runs, as it said last.
	Build Build `cbor:",omitzero"`
	// Awaited is set from when the node joined until its agent comes for the first time.
	Awaited bool `cbor:",omitempty"`
	// Copy is another machine with the node's identity, if there is one.
	Copy NodeCopy `cbor:",omitzero"`
	// Index is the node's number in networks, from 1; 0 when all were given out.
	Index uint16 `cbor:",omitempty"`
	// DataAddr is the IP address for packets of networks, where it isn't Status.Addr.
	DataAddr string `cbor:",omitempty"`
	// Engine is what the node's engine calls itself: nodes may share one.
	Engine string `cbor:",omitempty"`
	// WireKeys are what encrypted networks are sent to the node under.
	WireKeys WireKeys `cbor:",omitzero"`
	// Token is the ID of the limited join token by which it joined; empty for one of Swarm's two.
	Token string `cbor:",omitempty"`
	// Uses are the ranges of addresses that the node's machine has in use.
	Uses []AddressUse `cbor:",omitempty"`
}

// NodeCopy is a machine that was cloned with a node's disk, and isn't that node.
type NodeCopy struct {
	// Run is the run of its agent (see Hello), or the machine that begins it.
	Run string `cbor:",omitzero"`
	// Addr is the address that it gives itself.
	Addr string `cbor:",omitzero"`
}

// Is tells whether an agent's run is the copy's.
func (c NodeCopy) Is(run string) bool {
	return c.Run != "" && (run == c.Run || strings.HasPrefix(run, c.Run+"."))
}

// Certificate is what the cluster keeps of a node's certificate: enough to know its key
// when the certificate has ended, and to warn before that.
type Certificate struct {
	// Key is the digest of its key. OldKey is the key that asked for it: until the node
	// asks the next time, nobody knows that the answer arrived.
	Key    KeyDigest `cbor:",omitzero"`
	OldKey KeyDigest `cbor:",omitzero"`
	// Ends is when it ends, by the issuer's clock.
	Ends time.Time `cbor:",omitzero"`
}

// Has tells whether key is one of the node's.
func (c Certificate) Has(key KeyDigest) bool {
	return key != KeyDigest{} && (key == c.Key || key == c.OldKey)
}

// KeyDigest is the SHA-256 of a public key, as in a certificate (SubjectPublicKeyInfo).
type KeyDigest [32]byte

// NodeStatus is what managers believe of a node.
type NodeStatus struct {
	State NodeState
	// Message says why, when the node isn't ready.
	Message string
	// Addr is the IP address of the node.
	Addr string
	// Since is when State last changed, by the database's time.
	Since time.Time
}

// Schedulable tells whether new tasks may be placed on the node.
func (n *Node) Schedulable() bool {
	return n.Status.State == NodeReady && n.Spec.Availability == swarm.NodeAvailabilityActive
}

// Lost tells whether tasks on the node must be replaced elsewhere: it is down
// or drained.
func (n *Node) Lost() bool {
	return n.Status.State == NodeDown || n.Spec.Availability == swarm.NodeAvailabilityDrain
}

// Service is what the user wants kept running.
type Service struct {
	ID string
	Meta
	// Spec is the user's, exactly as sent but for the defaults that clients need
	// (a name, a number of replicas).
	Spec swarm.ServiceSpec
	// Revision is the number of the Revision that Spec's TaskTemplate and
	// EndpointSpec are. A change of anything else keeps it, so no task restarts.
	Revision uint64
	// LastRevision is the highest number ever given out.
	LastRevision uint64
	// Previous is the spec that a rollback goes back to, and PreviousRevision its
	// revision; nil and 0 when there is none. Scaling is applied to both specs and
	// so makes no new rollback target.
	Previous         *swarm.ServiceSpec
	PreviousRevision uint64
	// VirtualIPs are its places in its networks, none with endpoint mode dnsrr.
	VirtualIPs []Address `cbor:",omitempty"`
	// Ports are those of Spec, with numbers for those published on all nodes without one.
	Ports []swarm.PortConfig `cbor:",omitempty"`
	// SchedulePaused is set while a scheduled job doesn't run by itself, and ScheduledSince is when
	// that ended last: what was due before is over.
	SchedulePaused bool      `cbor:",omitempty"`
	ScheduledSince time.Time `cbor:",omitzero"`
	// LeftImages are the digests of the tag of Spec's image that somebody, or a failed update, took the
	// service back from, the last one last. A watched tag that names one of them is no reason for
	// an update, until the service runs what its tag names.
	LeftImages []string `cbor:",omitempty"`
}

// Global tells whether the service has one task on each node that is fit for it,
// rather than tasks in numbered slots.
func (s *Service) Global() bool { return s.Spec.Mode.Global != nil || s.Spec.Mode.GlobalJob != nil }

// Job tells whether the service's tasks are to complete, rather than to go on. A
// job's revision is its iteration: each update makes a new one, which runs anew.
func (s *Service) Job() bool { return isJob(s.Spec.Mode) }

func isJob(m swarm.ServiceMode) bool { return m.ReplicatedJob != nil || m.GlobalJob != nil }

// Completions is how many slots of a replicated job are to complete, and how many
// of them may run at the same time; 0 for all other services.
func (s *Service) Completions() (total, concurrent int) {
	job := s.Spec.Mode.ReplicatedJob
	if job == nil || job.TotalCompletions == nil || job.MaxConcurrent == nil {
		return 0, 0
	}
	return int(*job.TotalCompletions), int(min(*job.MaxConcurrent, 1<<30))
}

// Replicas is how many slots the service keeps filled; 0 unless it is replicated.
func (s *Service) Replicas() int {
	if s.Spec.Mode.Replicated == nil || s.Spec.Mode.Replicated.Replicas == nil {
		return 0
	}
	return int(*s.Spec.Mode.Replicated.Replicas)
}

// Revision is one version of what a service's tasks run. Tasks refer to it by
// number; it is reaped when no task and no service refers to it any more, so it
// may outlive its service.
type Revision struct {
	ServiceID string
	Number    uint64
	Meta
	// ServiceName and ServiceLabels are the service's when the revision was made:
	// for names and labels of containers, and for tasks whose service is gone.
	ServiceName   string
	ServiceLabels map[string]string
	Spec          swarm.TaskSpec
	Endpoint      *swarm.EndpointSpec
	// Job is set when the service is a job; its slots are then shown from 0, as Swarm
	// does.
	Job bool
	// LocalNetworks are those of Spec that each engine makes by itself. They are no part of what the
	// database has: managers put them in for agents.
	LocalNetworks []*Network `cbor:",omitempty"`
	// Auth is the X-Registry-Auth value to pull the image with. It goes to the
	// agents that run the revision and is never shown.
	Auth string
	// By is who made it, as far as that is known, and Message what they said of it. They are
	// for those who look at the history, and agents don't get them.
	By      string `cbor:",omitempty"`
	Message string `cbor:",omitempty"`
	// DependsMet is when the services that it depends on were first seen to be as it asks for, by
	// the database's time: from then on its tasks get nodes. Agents don't get it.
	DependsMet time.Time `cbor:",omitzero"`
	// Idle is set when nothing is to run of it: it is what a scheduled job was created or updated to, and each
	// run is a revision of its own. Due is the time of the schedule that a run is for, zero for one that
	// somebody asked for. Ended is when a run of a scheduled job was over, and Outcome how it went.
	Idle    bool      `cbor:",omitempty"`
	Due     time.Time `cbor:",omitzero"`
	Ended   time.Time `cbor:",omitzero"`
	Outcome string    `cbor:",omitempty"`
}

// TaskName is Swarm's name for a task and its container: service.slot.task, with
// the node's ID for the slot where that is 0: in global services, and in the first
// slot of a job.
func (r *Revision) TaskName(t *Task) string {
	place := strconv.Itoa(r.ShownSlot(t))
	if place == "0" && t.NodeID != "" {
		place = t.NodeID
	}
	return r.ServiceName + "." + place + "." + t.ID
}

// ShownSlot is the number of a task's slot as users see it: in names, in templates
// and in the API. It is 0, and means nothing, in a global service.
func (r *Revision) ShownSlot(t *Task) int {
	if r.Job && t.Slot > 0 {
		return int(t.Slot) - 1
	}
	return int(t.Slot)
}

// RevisionID names a revision: the store's key for it.
func RevisionID(serviceID string, number uint64) string {
	return serviceID + "." + strconv.FormatUint(number, 10)
}

// DefaultMonitor is for how long a task of an update is watched that doesn't say.
const DefaultMonitor = 5 * time.Second

// Rollout is the progress of the service's last update or rollback. It is its
// own record, so that progress never makes a user's update "out of sequence".
// A user's update deletes it; a rollback replaces it.
type Rollout struct {
	ServiceID string
	Meta
	State swarm.UpdateState
	// Revision is the one that is being rolled out.
	Revision uint64
	// Total is how many slots had to be replaced when it began: the denominator
	// of the failure ratio.
	Total       uint32
	StartedAt   time.Time
	CompletedAt time.Time
	Message     string
	// Rebalance is set when nothing changes but where tasks are.
	Rebalance bool
	// Return is set beside Rebalance when the scheduler began it: it moves only what was
	// displaced when all machines had been off.
	Return bool `cbor:",omitempty"`
	// AtOnce is set when the service's parallelism and delay don't hold: all tasks are replaced
	// at the same time, because the user said so.
	AtOnce bool `cbor:",omitempty"`
	// Resumed is set when it doesn't pause after the first tasks any more (LabelPauseAfter).
	Resumed bool `cbor:",omitempty"`
	// Asked is set when it is paused because somebody wanted that, and not after failures.
	Asked bool `cbor:",omitempty"`
}

// RollingBack tells whether the rollout is a rollback, in whatever state.
func (r *Rollout) RollingBack() bool {
	switch r.State {
	case swarm.UpdateStateRollbackStarted, swarm.UpdateStateRollbackPaused, swarm.UpdateStateRollbackCompleted:
		return true
	}
	return false
}

// Paused tells whether the rollout waits for the user: after failures, or because somebody wanted that.
func (r *Rollout) Paused() bool {
	return r.State == swarm.UpdateStatePaused || r.State == swarm.UpdateStateRollbackPaused
}

// Done tells whether the rollout has come to its end.
func (r *Rollout) Done() bool {
	return r.State == swarm.UpdateStateCompleted || r.State == swarm.UpdateStateRollbackCompleted
}

// Secret is data that only containers whose service refers to it get to see. It
// never changes but for its labels, and leaves the managers only for agents that
// have a task that uses it, which never write it down.
type Secret struct {
	ID string
	Meta
	Spec swarm.SecretSpec
}

// Config is a Secret that everybody may read.
type Config struct {
	ID string
	Meta
	Spec swarm.ConfigSpec
}

// Task is one attempt to run one container. It is never moved and never
// restarted, only replaced. There may be hundreds of thousands, so it holds
// references and small numbers only; what it runs is its Revision.
type Task struct {
	ID      string `cbor:"1,keyasint"`
	Version uint64 `cbor:"2,keyasint,omitempty"`
	// ServiceID, and Revision within it, say what to run.
	ServiceID string `cbor:"3,keyasint"`
	Revision  uint64 `cbor:"4,keyasint"`
	// Slot is the numbered place in a replicated service, from 1; 0 in a global one,
	// where the node is the place.
	Slot uint32 `cbor:"5,keyasint,omitempty"`
	// NodeID is where the task runs, or is to run. In a replicated service it is empty
	// until the task is assigned; in a global one the task is made for the node, and
	// waits for it when there is no room yet. It never changes once it is set.
	NodeID string `cbor:"6,keyasint,omitempty"`
	// Desired is where managers want the task; it never goes back.
	Desired State `cbor:"7,keyasint,omitempty"`
	// CreatedAt, UpdatedAt and RunningAt (first seen running; zero if never) are
	// the database's time.
	CreatedAt Time `cbor:"8,keyasint,omitempty"`
	UpdatedAt Time `cbor:"9,keyasint,omitempty"`
	RunningAt Time `cbor:"10,keyasint,omitempty"`
	// NotBefore is when a replacement that waits out its restart delay (Desired is
	// Ready) may start; zero when it needn't wait for a time.
	NotBefore Time       `cbor:"11,keyasint,omitempty"`
	Status    TaskStatus `cbor:"12,keyasint,omitempty"`
	// Generic are the node's generic resources that the task has, from its assignment
	// until it has ended.
	Generic []Claim `cbor:"13,keyasint,omitempty"`
	// Addresses are the task's places in its networks, from its assignment until 30 s after
	// it ended, or until its record is gone.
	Addresses []Address `cbor:"14,keyasint,omitempty"`
}

// Claim is what a task has of one kind of generic resource: some by name, or a
// number where the node doesn't name them.
type Claim struct {
	Kind  string   `cbor:"1,keyasint"`
	Names []string `cbor:"2,keyasint,omitempty"`
	Count int64    `cbor:"3,keyasint,omitempty"`
}

// GenericEnv is how a container is told what its task has: DOCKER_RESOURCE_KIND,
// with the names or the number, as in Swarm.
func (t *Task) GenericEnv() []string {
	var env []string
	for _, c := range t.Generic {
		value := strings.Join(c.Names, ",")
		if len(c.Names) == 0 {
			value = strconv.FormatInt(c.Count, 10)
		}
		env = append(env, "DOCKER_RESOURCE_"+strings.ToUpper(c.Kind)+"="+value)
	}
	return env
}

// TaskStatus is what is known of a task. The agent writes it from Accepted on.
type TaskStatus struct {
	State State `cbor:"1,keyasint,omitempty"`
	// Since is the writer's clock when State was reached: the agent's, mostly.
	Since Time `cbor:"2,keyasint,omitempty"`
	// Applied is the leader's clock when it took the status in. Delays and windows
	// are counted from it, since agents' clocks are not trusted.
	Applied Time `cbor:"3,keyasint,omitempty"`
	// Message says what happened last, or what the task waits for; Err why it failed
	// or can't go on.
	Message string `cbor:"4,keyasint,omitempty"`
	Err     string `cbor:"5,keyasint,omitempty"`
	// ContainerID is empty until there is a container.
	ContainerID string `cbor:"6,keyasint,omitempty"`
	PID         int32  `cbor:"7,keyasint,omitempty"`
	ExitCode    int32  `cbor:"8,keyasint,omitempty"`
	// Ports are those published on the node while the container runs, also those that
	// the engine chose, as FormatPorts writes them.
	Ports string `cbor:"9,keyasint,omitempty"`
}

// Assigned tells whether the task was given to its node: agents hear of it, and it
// holds resources, from then on and not before.
func (t *Task) Assigned() bool { return t.NodeID != "" && t.Status.State >= StateAssigned }

// Dead tells whether the task has ended, or was never given to an agent and
// won't be: nothing of it runs, and it holds no resources.
func (t *Task) Dead() bool {
	return t.Status.State.Terminal() || !t.Live() && !t.Assigned()
}

// Gone tells whether the task has ended and is to be removed: nothing of it is left but its
// record, which stays while its addresses rest.
func (t *Task) Gone() bool { return t.Desired >= StateRemove && t.Status.State.Terminal() }

// Live tells whether the task is wanted: it fills its slot. A job's task is wanted
// to complete, and stays so when it has.
func (t *Task) Live() bool { return t.Desired <= StateComplete }

// Why managers stop a task that runs well, as its Status.Err says: its node
// changed, so that it no longer meets the service's constraints, or no longer has
// the resources that its tasks reserved.
const (
	ReasonMisplaced = "assigned node no longer meets constraints"
	ReasonNoRoom    = "assigned node no longer has the resources that its tasks reserve"
	// ReasonClash is why one is that can't start.
	ReasonClash = "assigned node uses addresses of the task's networks for something else"
)

// Advance returns the task with status taken in at now, or nil when status would
// take it back: observed states only increase. A status of the same state
// replaces message, error and container.
func (t *Task) Advance(status TaskStatus, now Time) *Task {
	if status.State < t.Status.State || t.Status.State == StateOrphaned {
		return nil
	}
	status.Applied = now
	if status.Err == "" && !t.Live() &&
		(t.Status.Err == ReasonMisplaced || t.Status.Err == ReasonNoRoom || status.State == StateShutdown && t.RunningAt.IsZero()) {
		// Its node was found unfit, or it was stopped before it ever ran: what keeps it
		// from running is the reason.
		status.Err = t.Status.Err
	}
	if status.State == t.Status.State {
		status.Applied = t.Status.Applied
		if status == t.Status {
			return nil
		}
	}
	next := *t
	next.Status = status
	next.UpdatedAt = now
	if status.State == StateRunning && t.RunningAt.IsZero() {
		next.RunningAt = now
	}
	return &next
}
