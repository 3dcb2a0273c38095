package api

import (
	"crypto/x509"
	"encoding/pem"
	"maps"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// Rendering turns our objects into Docker's. What is rendered is encoded at once
// and never changed, so that parts may be shared with the store.

func renderMeta(meta cluster.Meta) swarm.Meta {
	return swarm.Meta{Version: swarm.Version{Index: meta.Version}, CreatedAt: meta.CreatedAt.UTC(), UpdatedAt: meta.UpdatedAt.UTC()}
}

// renderCluster shows the cluster without anything secret: no signing key, no
// token.
func renderCluster(record *cluster.Cluster) swarm.ClusterInfo {
	settings := record.NetworkSettings()
	info := swarm.ClusterInfo{
		ID: record.ID, Meta: renderMeta(record.Meta), Spec: record.Spec,
		DefaultAddrPool: []string{}, SubnetSize: uint32(settings.SubnetBits), DataPathPort: uint32(settings.DataPort),
		TLSInfo: renderTrust(record.Issuer()), RootRotationInProgress: record.Rotation != nil,
	}
	for _, pool := range settings.Pools {
		info.DefaultAddrPool = append(info.DefaultAddrPool, pool.String())
	}
	info.Spec.Labels = orEmpty(record.Spec.Labels)
	info.Spec.CAConfig.SigningCAKey, info.Spec.CAConfig.SigningCACert = "", ""
	return info
}

// renderTrust tells who issues the nodes' certificates.
func renderTrust(root []byte) swarm.TLSInfo {
	info := swarm.TLSInfo{TrustRoot: string(root)}
	block, _ := pem.Decode(root)
	if block == nil {
		return info
	}
	if certificate, err := x509.ParseCertificate(block.Bytes); err == nil {
		info.CertIssuerSubject = certificate.RawSubject
		info.CertIssuerPublicKey = certificate.RawSubjectPublicKeyInfo
	}
	return info
}

func renderNode(node *cluster.Node, manager Manager) swarm.Node {
	shown := swarm.Node{
		ID: node.ID, Meta: renderMeta(node.Meta), Spec: node.Spec, Description: node.Description,
		Status: swarm.NodeStatus{State: swarm.NodeState(node.Status.State.String()), Message: node.Status.Message, Addr: node.Status.Addr},
	}
	shown.Spec.Labels = orEmpty(node.Spec.Labels)
	if node.Role != swarm.NodeRoleManager {
		return shown
	}
	shown.ManagerStatus = &swarm.ManagerStatus{
		Leader: node.ID == manager.LeaderID(), Addr: node.ManagerAddr, Reachability: swarm.ReachabilityUnknown,
	}
	// Who has no vote yet, or none any more, doesn't count as reachable.
	if reachable, votes := manager.Reachable()[node.ID]; reachable {
		shown.ManagerStatus.Reachability = swarm.ReachabilityReachable
	} else if votes {
		shown.ManagerStatus.Reachability = swarm.ReachabilityUnreachable
	}
	return shown
}

func renderService(view store.View, service *cluster.Service, defaults bool) swarm.Service {
	shown := swarm.Service{ID: service.ID, Meta: renderMeta(service.Meta), Spec: service.Spec, PreviousSpec: service.Previous}
	shown.Endpoint = renderEndpoint(view, service)
	if rollout := view.Rollout(service.ID); rollout != nil {
		shown.UpdateStatus = &swarm.UpdateStatus{
			State: rollout.State, Message: rollout.Message,
			StartedAt: orNil(rollout.StartedAt), CompletedAt: orNil(rollout.CompletedAt),
		}
	}
	if service.Job() { // clients take one with a JobStatus for a job, and the others not
		shown.JobStatus = &swarm.JobStatus{JobIteration: swarm.Version{Index: service.Revision}, LastExecution: service.CreatedAt.UTC()}
		if revision := view.Revision(service.ID, service.Revision); revision != nil {
			shown.JobStatus.LastExecution = revision.CreatedAt.UTC()
		}
	}
	if defaults {
		shown.Spec = withDefaults(shown.Spec)
	}
	return shown
}

// renderStatus counts a service's tasks; those of a job in its present iteration
// only. A task on a node that is down isn't counted as running, whatever was last
// heard of it. A global service has as many as are wanted, a global job as many as
// aren't complete.
func renderStatus(view store.View, service *cluster.Service) *swarm.ServiceStatus {
	_, concurrent := service.Completions()
	status := &swarm.ServiceStatus{DesiredTasks: uint64(service.Replicas() + concurrent)}
	if service.Job() {
		if current := view.Revision(service.ID, service.Revision); current != nil && (current.Idle || !current.Ended.IsZero()) {
			status.DesiredTasks = 0 // A scheduled job waits for its time.
		}
	}
	type place struct {
		slot uint32
		node string
	}
	complete := map[place]bool{} // a slot may be so twice, where a node was lost for a while
	for task := range view.TasksOfService(service.ID) {
		if service.Job() && task.Revision != service.Revision {
			continue
		}
		if service.Job() && task.Status.State == cluster.StateComplete {
			at := place{slot: task.Slot}
			if task.Slot == 0 {
				at.node = task.NodeID
			}
			complete[at] = true
			continue
		}
		if service.Global() && task.Live() && task.Desired >= cluster.StateRunning {
			status.DesiredTasks++
		}
		if task.Status.State != cluster.StateRunning {
			continue
		}
		if node := view.Node(task.NodeID); node != nil && node.Status.State != cluster.NodeDown {
			status.RunningTasks++
		}
	}
	status.CompletedTasks = uint64(len(complete))
	return status
}

func renderTask(view store.View, task *cluster.Task) swarm.Task {
	return renderTaskWith(view, task, renderSwarmNetwork)
}

// renderTaskWith is renderTask where network shows a network, as renderSwarmNetwork does.
func renderTaskWith(view store.View, task *cluster.Task, network func(*cluster.Network) swarm.Network) swarm.Task {
	shown := swarm.Task{
		ID:          task.ID,
		Meta:        swarm.Meta{Version: swarm.Version{Index: task.Version}, CreatedAt: task.CreatedAt.Std(), UpdatedAt: task.UpdatedAt.Std()},
		Annotations: swarm.Annotations{Labels: map[string]string{}},
		ServiceID:   task.ServiceID, Slot: int(task.Slot), NodeID: task.NodeID,
		DesiredState: swarm.TaskState(task.Desired.String()),
		Status: swarm.TaskStatus{
			Timestamp: task.Status.Since.Std(), State: swarm.TaskState(task.Status.State.String()),
			Message: task.Status.Message, Err: task.Status.Err,
		},
		GenericResources: renderClaims(task.Generic),
		Volumes:          []swarm.VolumeAttachment{},
	}
	if shown.Status.Timestamp.IsZero() {
		shown.Status.Timestamp = shown.UpdatedAt
	}
	if revision := view.Revision(task.ServiceID, task.Revision); revision != nil {
		shown.Spec, shown.Slot = revision.Spec, revision.ShownSlot(task)
		shown.NetworksAttachments = renderAttachments(view, task, &revision.Spec, network)
		if revision.Job {
			shown.JobIteration = &swarm.Version{Index: task.Revision}
		}
	}
	if shown.Spec.ContainerSpec == nil { // clients don't expect a task without one
		shown.Spec.ContainerSpec = &swarm.ContainerSpec{}
	}
	if task.Status.Ports != "" && !task.Status.State.Terminal() {
		shown.Status.PortStatus.Ports = cluster.ParsePorts(task.Status.Ports)
	}
	if task.Status.ContainerID != "" {
		shown.Status.ContainerStatus = &swarm.ContainerStatus{
			ContainerID: task.Status.ContainerID, PID: int(task.Status.PID), ExitCode: int(task.Status.ExitCode),
		}
	}
	return shown
}

// renderClaims shows what a task has of its node: each name, or a number.
func renderClaims(claims []cluster.Claim) []swarm.GenericResource {
	var shown []swarm.GenericResource
	for _, c := range claims {
		for _, name := range c.Names {
			shown = append(shown, swarm.GenericResource{NamedResourceSpec: &swarm.NamedGenericResource{Kind: c.Kind, Value: name}})
		}
		if len(c.Names) == 0 {
			shown = append(shown, swarm.GenericResource{DiscreteResourceSpec: &swarm.DiscreteGenericResource{Kind: c.Kind, Value: c.Count}})
		}
	}
	return shown
}

func orNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func orEmpty(labels map[string]string) map[string]string {
	if labels == nil {
		return map[string]string{}
	}
	return maps.Clone(labels)
}
